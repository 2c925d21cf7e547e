"""From what a document says of a gate to what the core asks of a person."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_core.ids import check_name
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Mapped
from aios_orchestrator.workflow import Asked, Gate

FIELDS: Final = (
    "title", "why", "risk", "approves", "expires", "fails", "confidence", "remind", "escalate", "approvers",
)  # fmt: skip
MAX_REMINDERS: Final = 10
MAX_APPROVERS: Final = 20


class Place(Protocol):
    """Where in a document the step stands, and how its fields are read."""

    document: Document
    path: str

    def mapping(self, data: Any, name: str) -> Mapped: ...

    def duration(self, data: Any, name: str) -> int: ...


def compile_gate(place: Place, data: Mapping[str, Any]) -> Gate:
    """Compile `gate: {…}`. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION with the place."""
    gate = place.document.known(f"{place.path}.gate", data, FIELDS)
    approves = gate.get("approves", [])
    if not isinstance(approves, list):
        raise _wrong(place, "approves", "must be a list of step names.")
    if gate.get("fails", "closed") not in ("closed", "open"):
        raise _wrong(place, "fails", "must be 'closed' or 'open'.")
    expires = place.duration(gate.get("expires", "30d"), "gate.expires")
    escalate_ms, escalate_to = _escalation(place, gate, expires)
    approvers, need = _approvers(place, gate)
    return Gate(
        title=place.mapping(gate.get("title", "Approve"), "gate.title"),
        why=place.mapping(gate.get("why", ""), "gate.why"),
        risk=place.mapping(gate.get("risk", ""), "gate.risk"),
        approves=tuple(map(str, approves)),
        expires_ms=expires,
        fails_open=gate.get("fails") == "open",
        confidence=_confidence(place, gate),
        remind=_reminders(place, gate, expires),
        escalate_ms=escalate_ms,
        escalate_to=escalate_to,
        approvers=approvers,
        need=need,
    )


def _confidence(place: Place, gate: Mapping[str, Any]) -> Asked | None:
    if "confidence" not in gate:
        return None
    asked = place.document.known(
        f"{place.path}.gate.confidence", gate["confidence"] or {}, ("of", "at_least")
    )
    for name in ("of", "at_least"):
        if name not in asked:
            raise _wrong(place, f"confidence.{name}", "is missing.")
    try:
        least = Decimal(str(asked["at_least"]))
    except InvalidOperation:
        least = Decimal(-1)
    if isinstance(asked["at_least"], bool) or not least.is_finite() or not 0 < least <= 1:
        raise _wrong(place, "confidence.at_least", "must be a number above 0, and at most 1, such as 0.8.")
    return Asked(place.mapping(asked["of"], "gate.confidence.of"), least)


def _reminders(place: Place, gate: Mapping[str, Any], expires: int) -> tuple[int, ...]:
    said = gate.get("remind", [])
    if not isinstance(said, list) or len(said) > MAX_REMINDERS:
        raise _wrong(place, "remind", f"must be a list of at most {MAX_REMINDERS} durations.")
    times = tuple(place.duration(item, f"gate.remind[{at}]") for at, item in enumerate(said))
    for at, time in enumerate(times):
        if time <= (times[at - 1] if at else 0):
            raise _wrong(place, f"remind[{at}]", "must be later than the one before it.")
        if time >= expires:
            raise _wrong(place, f"remind[{at}]", "is not before the gate expires (30d without `expires`).")
    return times


def _escalation(place: Place, gate: Mapping[str, Any], expires: int) -> tuple[int, str]:
    if "escalate" not in gate:
        return 0, ""
    said = place.document.known(f"{place.path}.gate.escalate", gate["escalate"] or {}, ("after", "to"))
    for name in ("after", "to"):
        if name not in said:
            raise _wrong(place, f"escalate.{name}", "is missing.")
    after = place.duration(said["after"], "gate.escalate.after")
    if not 0 < after < expires:
        raise _wrong(place, "escalate.after", "is not before the gate expires (30d without `expires`).")
    return after, _user(place, said["to"], "escalate.to")


def _approvers(place: Place, gate: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    if "approvers" not in gate:
        return (), 1
    said = place.document.known(f"{place.path}.gate.approvers", gate["approvers"] or {}, ("of", "need"))
    names = said.get("of")
    if not isinstance(names, list) or not 0 < len(names) <= MAX_APPROVERS:
        raise _wrong(place, "approvers.of", f"must be a list of 1 to {MAX_APPROVERS} users.")
    users = tuple(_user(place, name, f"approvers.of[{at}]") for at, name in enumerate(names))
    for at, user in enumerate(users):
        if user in users[:at]:
            raise _wrong(place, f"approvers.of[{at}]", f"{user!r} stands twice.")
    need = said.get("need", 1)
    if isinstance(need, bool) or not isinstance(need, int) or not 1 <= need <= len(users):
        raise _wrong(
            place, "approvers.need", f"must be a whole number from 1 to {len(users)}, the users in `of`."
        )
    return users, need


def _user(place: Place, data: Any, name: str) -> str:
    try:
        return check_name(str(data), f"{place.path}.gate.{name}")
    except TerminalError as error:
        raise _wrong(place, name, error.message) from None


def _wrong(place: Place, name: str, message: str) -> TerminalError:
    return place.document.error("BAD_RESOURCE", f"{place.path}.gate.{name}", message)
