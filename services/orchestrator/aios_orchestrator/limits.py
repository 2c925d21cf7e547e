"""Limits that a person sets: how much of a connector, a workflow or a customer may be out at once, how often a
connector is called, and who gets how large a share. Pure."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document
from aios_orchestrator.shapes import UNITS
from aios_runtime.bus import subjects

SCOPES: Final = ("connector", "workflow", "customer")
EACH: Final = "*"  # each customer, or each workflow, that has no limit of its own
MAX_IN_FLIGHT: Final = 1024
MAX_RATE: Final = 10_000
MAX_WEIGHT: Final = 1_000
PERIODS: Final = {f"{unit}": UNITS[unit] for unit in ("s", "m", "h")}


@dataclass(frozen=True, slots=True)
class Limit:
    """A compiled Limit document. 0: no such limit."""

    name: str
    scope: str
    of: str
    in_flight: int = 0
    rate: int = 0
    per_ms: int = 0
    weight: int = 1


def compile_limit(document: Document) -> Limit:
    """Compile and check a Limit document. Raises UNKNOWN_FIELD, BAD_RESOURCE with the place."""
    names = (*SCOPES, "in_flight", "rate", "weight", "description")
    spec = document.known("spec", document.spec, names)

    def wrong(name: str, message: str) -> TerminalError:
        return document.error("BAD_RESOURCE", f"spec.{name}", message)

    scopes = [scope for scope in SCOPES if scope in spec]
    if len(scopes) != 1:
        raise wrong("connector", f"a limit is of exactly one of {', '.join(SCOPES)}; it has {len(scopes)}.")
    (scope,) = scopes
    if scope == "connector" and spec[scope] == EACH:
        raise wrong(scope, "name one connector; only workflows and customers are limited each by itself.")
    if not {"in_flight", "rate", "weight"} & set(spec):
        raise wrong("in_flight", "is missing: a limit has in_flight, rate or weight.")
    if scope == "connector" and "weight" in spec:
        raise wrong("weight", "a connector has no share; workflows and customers have.")
    if scope != "connector" and "rate" in spec:
        raise wrong("rate", "only a connector has a rate.")
    counts = {"in_flight": MAX_IN_FLIGHT, "weight": MAX_WEIGHT}
    for name, most in counts.items():
        data = spec.get(name, 1)
        if isinstance(data, bool) or not isinstance(data, int) or not 1 <= data <= most:
            raise wrong(name, f"must be a whole number from 1 to {most}.")
    rate, per_ms = _rate(spec["rate"], wrong) if "rate" in spec else (0, 0)
    return Limit(
        document.name, scope, str(spec[scope]), spec.get("in_flight", 0), rate, per_ms, spec.get("weight", 1)
    )


def _rate(data: object, wrong: Callable[[str, str], TerminalError]) -> tuple[int, int]:
    number, _, unit = str(data).partition("/")
    if not (number.isascii() and number.isdigit() and unit in PERIODS and 1 <= int(number) <= MAX_RATE):
        raise wrong("rate", f"{str(data)[:40]!r} is not a rate such as 5/s, 100/m or 1000/h.")
    return int(number), PERIODS[unit]


class Limits:
    """All limits of a workspace, as they hold for the `share` of the work that is this replica's."""

    def __init__(self, limits: Iterable[Limit] = (), share: Callable[[], float] = lambda: 1.0) -> None:
        self.all = tuple(limits)
        self._by = {(limit.scope, limit.of): limit for limit in self.all}
        self._share = share
        self.of_flows = any(limit.scope != "connector" and limit.in_flight for limit in self.all)

    def of(self, scope: str, name: str) -> Limit | None:
        """The limit of a workflow or customer: its own, or that of each."""
        own = self._by.get((scope, name))
        return own if own is not None or not name else self._by.get((scope, EACH))

    def of_lane(self, lane: str) -> Limit | None:
        """The limit of the connector whose lane it is."""
        connector = lane.removeprefix(subjects.connector_lane(""))
        return self._by.get(("connector", connector)) if connector != lane else None

    def weight(self, scope: str, name: str) -> int:
        """How large a share it has beside others, which have 1."""
        limit = self.of(scope, name)
        return limit.weight if limit is not None else 1

    def part(self, count: int) -> int:
        """This replica's part of a number that all of them share; at least 1, so that nothing stands still."""
        return max(1, int(count * self._share()))


class Rate:
    """When something was done of late: never more often than so many times in any span of `per_ms`."""

    def __init__(self) -> None:
        self._times: deque[int] = deque()

    def room(self, most: int, per_ms: int, now: int) -> int:
        """How often it may be done now."""
        while self._times and self._times[0] + per_ms <= now:
            self._times.popleft()
        return max(0, most - len(self._times))

    def done(self, now: int) -> None:
        """It is done once."""
        self._times.append(now)

    def next(self, per_ms: int) -> int:
        """When the first of those times is over."""
        return self._times[0] + per_ms if self._times else 0
