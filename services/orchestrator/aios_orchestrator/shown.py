"""What waits on the lanes and what is out, as several replicas tell of it, put together. Pure."""

from collections.abc import Iterable

from aios.run.v1.queries_pb2 import BacklogView, LaneView, LimitView, ShowQueuesResponse


def together(shown: Iterable[ShowQueuesResponse]) -> ShowQueuesResponse:
    """Counts added up, ages at their highest."""
    lanes: dict[str, LaneView] = {}
    limits: dict[str, LimitView] = {}
    for part in shown:
        for lane in part.lanes:
            known = lanes.setdefault(lane.lane, LaneView(lane=lane.lane))
            known.in_flight += lane.in_flight
            known.window += lane.window
            known.waiting += lane.waiting
            known.oldest_ms = max(known.oldest_ms, lane.oldest_ms)
            for backlog in lane.backlog:
                _add(known, backlog)
        for limit in part.limits:
            first = limits.get(limit.name)
            if first is None:
                limits[limit.name] = limit
            else:
                first.in_flight += limit.in_flight
    return ShowQueuesResponse(
        lanes=[lanes[name] for name in sorted(lanes)], limits=[limits[name] for name in sorted(limits)]
    )


def _add(lane: LaneView, backlog: BacklogView) -> None:
    for known in lane.backlog:
        if (known.priority, known.customer, known.workflow) == (
            backlog.priority,
            backlog.customer,
            backlog.workflow,
        ):
            known.waiting += backlog.waiting
            known.oldest_ms = max(known.oldest_ms, backlog.oldest_ms)
            return
    lane.backlog.append(backlog)
