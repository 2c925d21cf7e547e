"""From what a document says of a wait for an event to what the core waits for."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_core.values import plain
from aios_orchestrator.correlation import equation
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Constant, Expression, Mapped, Path, compile_expression, time_of
from aios_orchestrator.workflow import Hears

MAX_EVENT_TYPE: Final = 300  # characters


class Place(Protocol):
    """Where in a document the step stands, and how its fields are read."""

    document: Document
    path: str

    def condition(self, data: Any, name: str) -> Path | Expression: ...

    def duration(self, data: Any, name: str) -> int: ...

    def mapping(self, data: Any, name: str) -> Mapped: ...


def compile_hears(place: Place, data: Mapping[str, Any]) -> Hears:
    """Compile `wait: {event, match, timeout, on_timeout}`. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION."""
    spec = place.document.known(f"{place.path}.wait", data, ("event", "match", "timeout", "on_timeout"))

    def wrong(name: str, message: str) -> TerminalError:
        return place.document.error("BAD_RESOURCE", f"{place.path}.wait.{name}", message)

    kind = spec["event"]
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_EVENT_TYPE or not kind.isprintable():
        raise wrong("event", f"must be the type of an event, of 1 to {MAX_EVENT_TYPE} characters.")
    if spec.get("on_timeout", "fail") not in ("fail", "go-on"):
        raise wrong("on_timeout", "must be 'fail' or 'go-on'.")
    if "on_timeout" in spec and "timeout" not in spec:
        raise wrong("timeout", "is missing: after how long `on_timeout` applies.")
    match, side, key = None, "", None
    if "match" in spec:
        match = place.condition(spec["match"], "wait.match")
        found = equation(match.text)
        if found is None:
            raise wrong(
                "match",
                "needs an equation that every event it waits for meets, with the event alone on one side, such as"
                " event.data.thread == inputs.thread: it is found by that. Join further conditions with &&.",
            )
        side, key = found[0], compile_expression(found[1], f"{place.path}.wait.match")
    return Hears(
        event_type=kind,
        match=match,
        side=side,
        key=key,
        timeout_ms=place.duration(spec["timeout"], "wait.timeout") if "timeout" in spec else 0,
        lenient=spec.get("on_timeout") == "go-on",
    )


def compile_until(place: Place, data: Mapping[str, Any]) -> Mapped:
    """Compile `wait: {until}`. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION."""

    def wrong(message: str) -> TerminalError:
        return place.document.error("BAD_RESOURCE", f"{place.path}.wait.until", message)

    spec = place.document.known(f"{place.path}.wait", data, ("until", "event"))
    if "until" not in spec:
        raise wrong("is missing: the time until which it waits; or `event`.")
    until = place.mapping(spec["until"], "wait.until")
    if isinstance(until, Constant):
        try:
            time_of(plain(until.value))
        except ValueError as error:
            raise wrong(f"{error}.") from None
    return until
