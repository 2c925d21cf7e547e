"""What happens to an approval before it is decided, in plain words. Pure."""

from typing import Any, Final

from aios.api.v1.api_pb2 import TimelineEntry
from aios.run.v1 import events_pb2
from aios.run.v1.events_pb2 import RunEvent

WAITING: Final = "waiting"
INFO: Final = "info"
_PERSON: Final = "person:"


def _reminded(_: Any, __: RunEvent, body: events_pb2.ApprovalReminded) -> TimelineEntry:
    what = f"reminds you of {body.step}: nobody has decided yet"
    return TimelineEntry(who="AIOS", what=what, step=body.step, tone=WAITING)


def _escalated(_: Any, __: RunEvent, body: events_pb2.ApprovalEscalated) -> TimelineEntry:
    to = body.to.removeprefix(_PERSON)
    what = f"asks {to} as well about {body.step}: nobody has decided yet"
    return TimelineEntry(who="AIOS", what=what, step=body.step, tone=WAITING)


def _assented(_: Any, __: RunEvent, body: events_pb2.ApprovalAssented) -> TimelineEntry:
    return TimelineEntry(
        what=f"approved {body.step} as one of several", why=body.note, step=body.step, tone=INFO
    )


def _edited(_: Any, __: RunEvent, body: events_pb2.ApprovalEdited) -> TimelineEntry:
    what = f"changed what {body.edited} would do; it needs an approval of its own"
    return TimelineEntry(what=what, why=body.note, step=body.step, tone=WAITING)


TELLERS: Final = {
    "approval_reminded": _reminded,
    "approval_escalated": _escalated,
    "approval_assented": _assented,
    "approval_edited": _edited,
}
