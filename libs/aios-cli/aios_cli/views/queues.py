"""What `aios queue show` prints with --json."""

from typing import Any

from aios.api.v1 import api_pb2


def shape(message: api_pb2.ShowQueuesResponse) -> dict[str, Any]:
    """What waits on the lanes, what is out, and which limits hold."""
    return {
        "lanes": [
            {
                "lane": lane.lane,
                "in_flight": lane.in_flight,
                "window": lane.window,
                "waiting": lane.waiting,
                "oldest_seconds": lane.oldest_ms / 1000,
                "backlog": [
                    {
                        "priority": part.priority,
                        "customer": part.customer or None,
                        "workflow": part.workflow,
                        "waiting": part.waiting,
                        "oldest_seconds": part.oldest_ms / 1000,
                    }
                    for part in lane.backlog
                ],
            }
            for lane in message.lanes
        ],
        "limits": [
            {
                "name": limit.name,
                "scope": limit.scope,
                "of": limit.of,
                "in_flight": limit.in_flight,
                "limit": limit.limit or None,
                "rate": limit.rate or None,
                "rate_seconds": limit.per_ms / 1000 if limit.rate else None,
                "weight": limit.weight,
            }
            for limit in message.limits
        ],
    }
