"""From what a document says of attempts and of time to what the core goes by: `retry`, `timeout`, `deadline`,
`on_deadline`, `service_level`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_core.values import plain
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Constant, Mapped, time_of
from aios_orchestrator.shapes import DURATION
from aios_orchestrator.workflow import DEFAULT_TIMEOUT_MS, Bounds, Retry, Step

TIMES: Final = ("deadline", "on_deadline", "service_level")
"""The fields of a step or a workflow that say by when it is to be done."""
ON_DEADLINE: Final = ("fail", "note")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")


class Place(Protocol):
    """Where in a document something stands, and how its fields are read."""

    document: Document
    path: str

    def duration(self, data: Any, name: str) -> int: ...

    def mapping(self, data: Any, name: str) -> Mapped: ...


def wrong(place: Place, name: str, message: str) -> TerminalError:
    """The error that a field of the place is wrong."""
    return place.document.error("BAD_RESOURCE", f"{place.path}.{name}", message)


def compile_bounds(place: Place, fields: Mapping[str, Any]) -> tuple[int, Bounds | None]:
    """(the time of one attempt in ms, all else that is said of time, None where nothing is). Raises UNKNOWN_FIELD,
    BAD_RESOURCE, BAD_EXPRESSION."""
    timeout = fields.get("timeout", {})
    if isinstance(timeout, dict):
        long = place.document.known(f"{place.path}.timeout", timeout, ("queued", "running", "total"))
        times = {name: place.duration(data, f"timeout.{name}") for name, data in long.items()}
    else:
        times = {"running": place.duration(timeout, "timeout")}
    if "queued" in times and fields.get("memory") == "write":
        raise wrong(place, "timeout.queued", "does not apply to what is written into memory; `total` does.")
    if "on_deadline" in fields and "deadline" not in fields:
        raise wrong(place, "deadline", "is missing: what `on_deadline` is about.")
    if fields.get("on_deadline", "fail") not in ON_DEADLINE:
        raise wrong(place, "on_deadline", "must be 'fail' or 'note'.")
    deadline_ms, deadline = _deadline(place, fields["deadline"]) if "deadline" in fields else (0, None)
    level = place.duration(fields["service_level"], "service_level") if "service_level" in fields else 0
    bounds = Bounds(
        queued_ms=times.get("queued", 0),
        total_ms=times.get("total", 0),
        deadline_ms=deadline_ms,
        deadline=deadline,
        note=fields.get("on_deadline") == "note",
        service_level_ms=level,
    )
    return times.get("running", DEFAULT_TIMEOUT_MS), bounds if bounds != Bounds() else None


def _deadline(place: Place, data: Any) -> tuple[int, Mapped | None]:
    """(ms from the beginning, None), or (0, what gives the time)."""
    if isinstance(data, str) and re.fullmatch(DURATION, data):
        return place.duration(data, "deadline"), None
    deadline = place.mapping(data, "deadline")
    if isinstance(deadline, Constant):
        try:
            time_of(plain(deadline.value))
        except ValueError as error:
            raise wrong(place, "deadline", f"{error}, nor a duration such as 2h.") from None
    return 0, deadline


def never_met(step: Step) -> Iterator[tuple[str, str]]:
    """(field, why what it says can never be), of what a step says of time."""
    bounds = step.bounds
    if bounds is None:
        return
    if 0 < bounds.total_ms < step.timeout_ms and step.timeout_ms != DEFAULT_TIMEOUT_MS:
        yield "timeout.total", "is shorter than timeout.running, the time of one attempt."
    if 0 < bounds.deadline_ms <= bounds.service_level_ms and not bounds.note:
        yield "service_level", "is not shorter than the deadline, so that the step fails before it is late."


def compile_retry(place: Place, data: Any) -> Retry:
    """Compile `retry: {limit, backoff, max_backoff, jitter, never}`. Raises UNKNOWN_FIELD, BAD_RESOURCE."""
    names = ("limit", "backoff", "max_backoff", "jitter", "never")
    fields = place.document.known(f"{place.path}.retry", data, names)
    limit = fields.get("limit", Retry().limit)
    if not isinstance(limit, int) or not 1 <= limit <= 100:
        raise wrong(place, "retry.limit", "must be a whole number from 1 to 100.")
    never = fields.get("never", [])
    if not isinstance(never, list) or not all(_CODE.fullmatch(str(code)) for code in never):
        raise wrong(place, "retry.never", "must be a list of reason codes such as MAIL_REFUSED.")
    jitter = fields.get("jitter", 20)
    if isinstance(jitter, bool) or not isinstance(jitter, int) or not 0 <= jitter <= 100:
        raise wrong(place, "retry.jitter", "must be a whole number of percent from 0 to 100.")
    return Retry(
        limit=limit,
        backoff_ms=place.duration(fields.get("backoff", "1s"), "retry.backoff"),
        cap_ms=place.duration(fields.get("max_backoff", "1m"), "retry.max_backoff"),
        jitter=jitter,
        never=tuple(map(str, never)),
    )
