"""What happens to plans, in plain words. Pure."""

from typing import Any, Final

from aios.api.v1.api_pb2 import TimelineEntry
from aios.run.v1 import events_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios_gateway.story_words import INFO, PROBLEM

SHOWN: Final = 8  # characters of a version


def _adopted(story: Any, _: RunEvent, body: events_pb2.PlanAdopted) -> TimelineEntry:
    story.forget(body.dropped)
    owner = body.step.rpartition(".")[0]
    instead = f", in the place of {body.parent[:SHOWN]}" if body.parent else ""
    what = f"follows plan {body.version[:SHOWN]} for {owner}{instead}"
    why = f"left out: {', '.join(body.dropped)}" if body.dropped else ""
    return TimelineEntry(who="AIOS", what=what, why=why, step=body.step, tone=INFO)


def _refused(_: Any, __: RunEvent, body: events_pb2.PlanRefused) -> TimelineEntry:
    return TimelineEntry(
        who="AIOS",
        what=f"asks {body.step} again: what it gave is no plan",
        why=body.error.message,
        step=body.step,
        tone=PROBLEM,
        cost_micros=body.cost_micros,
    )


def _revision_requested(_: Any, __: RunEvent, body: events_pb2.PlanRevisionRequested) -> TimelineEntry:
    what = f"asked for another plan of {body.step}; nothing more of this one begins until it is decided"
    return TimelineEntry(what=what, why=body.note, step=body.step, tone=INFO)


def _revision_dropped(_: Any, __: RunEvent, body: events_pb2.PlanRevisionDropped) -> TimelineEntry:
    what = f"goes on by the plan that {body.step} has"
    return TimelineEntry(who="AIOS", what=what, why=body.error.message, step=body.step, tone=INFO)


TELLERS: Final = {
    "plan_adopted": _adopted,
    "plan_refused": _refused,
    "plan_revision_requested": _revision_requested,
    "plan_revision_dropped": _revision_dropped,
}
