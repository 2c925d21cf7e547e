"""Plain words for states, times, money and sizes. Pure: the present time is passed in."""

from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Final

from aios.run.v1.state_pb2 import Approval, ApprovalKind, ApprovalState, FailureClass, RunState

SHORT_ID_CHARS: Final = 6

RUN_WORDS: Final = {
    RunState.RUN_STATE_QUEUED: "waits for its turn",
    RunState.RUN_STATE_SKIPPED: "skipped",
    RunState.RUN_STATE_RUNNING: "working",
    RunState.RUN_STATE_SUCCEEDED: "done",
    RunState.RUN_STATE_FAILED: "failed",
    RunState.RUN_STATE_CANCELLING: "stopping",
    RunState.RUN_STATE_CANCELLED: "stopped",
    RunState.RUN_STATE_UNDOING: "undoing",
    RunState.RUN_STATE_UNDONE: "undone",
    RunState.RUN_STATE_UNDO_INCOMPLETE: "partly undone, please look",
    RunState.RUN_STATE_PARTLY_UNDONE: "partly undone",
    RunState.RUN_STATE_REDOING: "putting back",
}
NEEDS: Final = {
    ApprovalKind.APPROVAL_KIND_GATE: "needs your approval",
    ApprovalKind.APPROVAL_KIND_QUESTION: "needs your answer",
    ApprovalKind.APPROVAL_KIND_UNKNOWN: "could not confirm, please check",
    ApprovalKind.APPROVAL_KIND_BUDGET: "waits for money",
    ApprovalKind.APPROVAL_KIND_SPIKE: "costs more than usual",
}
FAILURES: Final = {
    FailureClass.FAILURE_CLASS_TRANSIENT: "may pass by itself",
    FailureClass.FAILURE_CLASS_BUG: "something is built wrong",
    FailureClass.FAILURE_CLASS_DATA: "the data is not as it should be",
    FailureClass.FAILURE_CLASS_PERSON: "needs a person",
}
DECIDED: Final = {
    ApprovalState.APPROVAL_STATE_OPEN: "open",
    ApprovalState.APPROVAL_STATE_APPROVED: "approved",
    ApprovalState.APPROVAL_STATE_REJECTED: "rejected",
    ApprovalState.APPROVAL_STATE_ANSWERED: "answered",
    ApprovalState.APPROVAL_STATE_EXPIRED: "not decided in time",
    ApprovalState.APPROVAL_STATE_REPLACED: "not asked any more",
}
_BY_ITSELF: Final = {
    "policy:confidence": "by itself, as it was sure enough",
    "policy:expiry": "by itself, as nobody decided in time",
    "policy:budget": "by itself, as there was money again",
}


def approval_words(item: Approval) -> str:
    """What an approval needs, or how it was decided."""
    if item.state == ApprovalState.APPROVAL_STATE_OPEN:
        return NEEDS.get(item.kind, "needs you")
    return DECIDED.get(item.state, "decided")


def by(actor: str) -> str:
    """Who decided: a person, the gate by what its document says, or whatever program did."""
    kind, _, name = actor.partition(":")
    if kind == "person":
        return f"by {'you' if name == 'owner' else clean(name)}"
    return _BY_ITSELF.get(actor, f"by {clean(actor)}")


def run_words(state: RunState.ValueType, waits: bool, simulated: bool = False) -> str:
    """The state of a run for a person; `waits`: something of it is open for them."""
    if waits:
        return "needs you"
    word = RUN_WORDS.get(state, "unknown")
    return "simulated" if simulated and state == RunState.RUN_STATE_SUCCEEDED else word


def short(identifier: str) -> str:
    """The end of an id, which is enough to name it."""
    return identifier[-SHORT_ID_CHARS:]


def duration(ms: int) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `4 days`; empty for nothing."""
    if ms <= 0:
        return ""
    seconds = ms / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{round(minutes / 1440)} days"


def ago(then_ms: int, now_ms: int) -> str:
    """`just now`, `3 min ago`."""
    passed = now_ms - then_ms
    return "just now" if passed < 5000 else f"{duration(passed)} ago"


def until(then_ms: int, now_ms: int) -> str:
    """`in 3 days`, or `over`."""
    return f"in {duration(then_ms - now_ms)}" if then_ms > now_ms else "over"


def clock(ms: int, zone: tzinfo | None) -> str:
    """`14:03:22` in the person's time zone (None: this machine's)."""
    return datetime.fromtimestamp(ms / 1000, zone).strftime("%H:%M:%S")


def day(ms: int, zone: tzinfo | None) -> str:
    """`20 November 2026`."""
    time = datetime.fromtimestamp(ms / 1000, zone)
    return f"{time.day} {time:%B %Y}"


def size(count: int) -> str:
    """`812 B`, `4.2 kB`, `3.1 MB`."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"


def dollars(micros: int) -> str:
    """A decimal number of US dollars, at least two digits behind the point: `0.00`, `0.0123`."""
    text = format(Decimal(micros) / 1_000_000, "f")
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def clean(text: str) -> str:
    """Text from outside without what could steer a terminal: control characters, and marks that reverse the reading."""
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


_STEERING: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
)


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    if character == "\r":
        return ""
    code = ord(character)
    if code < 0x20 or 0x7F <= code < 0xA0 or character in _STEERING:
        return "\N{REPLACEMENT CHARACTER}"
    return character
