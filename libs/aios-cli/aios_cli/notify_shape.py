"""A webhook as --json prints it."""

from typing import Any

from aios.api.v1 import api_pb2
from aios_cli.shapes import time_json


def webhook(message: api_pb2.Webhook) -> dict[str, Any]:
    return {
        "url": message.url,
        "allow_private": message.allow_private,
        "set_by": message.set_by,
        "set_time": time_json(message.set_time_ms),
        "delivered": message.delivered,
        "untold": [
            {
                "id": item.id,
                "kind": item.kind,
                "title": item.title,
                "run_id": item.run_id,
                "begin_time": time_json(item.begin_time_ms),
                "attempts": item.attempts,
                "last_error": item.last_error or None,
                "given_up": item.given_up,
            }
            for item in message.untold
        ],
    }
