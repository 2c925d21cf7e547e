"""The JSON of what happened to an approval besides its decision."""

from collections.abc import Callable
from typing import Any

from aios.run.v1.state_pb2 import Approval


def of(message: Approval, time_json: Callable[[int], str | None]) -> dict[str, Any]:
    """Who may decide and did, what was refused, what nobody vouches for, and what it depends on."""
    sure = message.confidence if message.HasField("confidence") else None
    return {
        "approvers": list(message.approvers),
        "need": message.need or 1,
        "assents": [
            {"approver": item.approver, "time": time_json(item.time_ms), "note": item.note}
            for item in message.assents
        ],
        "refusals": [
            {
                "time": time_json(item.time_ms),
                "decided_by": item.decided_by,
                "code": item.error.code,
                "message": item.error.message,
            }
            for item in message.refusals
        ],
        "unverified": {item.field: list(item.origins) for item in message.wordings},
        "confidence": {
            "value": sure.value or None,
            "at_least": sure.at_least,
            "passed": sure.passed,
            "why": sure.why or None,
        }
        if sure is not None
        else None,
        "reminders": message.reminders,
        "escalated_to": message.escalated_to or None,
        "edited_from": message.edited_from or None,
        "fails": "open" if message.fails_open else "closed",
        "plan": {
            "version": message.plan.version,
            "parent": message.plan.parent or None,
            "text": message.plan.text,
            "diff": message.plan.diff or None,
        }
        if message.HasField("plan")
        else None,
    }
