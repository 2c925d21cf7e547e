"""Schedules: at which times a workflow is started, and what follows when a time has come. Pure.

A cron expression is read as Debian's cron reads it, in the schedule's own time zone; `every` counts from `start`, or
from 1970. What `decide` says is to be started is committed before it is: and since a run's id is derived from schedule
and time, a time has one run at most, whoever starts it and however often.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from aios.resource.v1.resource_pb2 import ScheduleState
from aios_core.errors import TerminalError
from aios_core.labels import RESOURCE
from aios_core.values import Value, labeled
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Mapped, compile_mapping, references, time_of
from aios_orchestrator.queueing import WORDS

MISSED_MS: Final = 60_000  # a time to which the schedule comes later than this was missed
MAX_MADE_UP: Final = 100  # missed times that are made up for, the latest
MAX_QUEUED: Final = 100  # times that wait for the run before them
MIN_EVERY_MS: Final = 10_000
MAX_CRON_CHARS: Final = 200

_FIELDS: Final = (
    "cron", "every", "timezone", "missed", "workflow", "input", "concurrency", "paused", "start", "end", "description",
)  # fmt: skip
_MISSED: Final = ("skip", "run-once", "run-all")
_UNITS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A compiled Schedule document; it has a cron expression or a number of ms, and times from `start` to `end`."""

    name: str
    version: str
    title: str
    workflow: str
    input: Mapped
    zone: ZoneInfo
    cron: str = ""
    every_ms: int = 0
    missed: str = "run-once"
    concurrency: str = "allow"
    paused: bool = False
    start_ms: int = 0
    end_ms: int = 1 << 62

    @property
    def when(self) -> str:
        """How often, as the document says it."""
        unit = max((unit for unit, ms in _UNITS.items() if self.every_ms % ms == 0), key=_UNITS.__getitem__)
        return self.cron or f"every {self.every_ms // _UNITS[unit]}{unit}"

    def after(self, time_ms: int) -> int:
        """The first time after it; 0 when none comes any more."""
        begin = max(time_ms, self.start_ms - 1)
        if self.every_ms:
            found = self.start_ms + ((begin - self.start_ms) // self.every_ms + 1) * self.every_ms
        else:
            found = next(self._cron(begin), 0)
        return found if found <= self.end_ms else 0

    def latest(self, first_ms: int, last_ms: int, limit: int) -> list[int]:
        """The latest times from `first_ms` to `last_ms`, in their order."""
        first, last = max(first_ms, self.start_ms), min(last_ms, self.end_ms)
        found: list[int] = []
        if self.every_ms:
            at = self.start_ms + (last - self.start_ms) // self.every_ms * self.every_ms
            while at >= first and len(found) < limit:
                found.append(at)
                at -= self.every_ms
            return found[::-1]
        span = _UNITS["d"]
        while True:
            # Forwards, from ever earlier: one direction only, so that changes of the clocks are read in one way.
            begin = max(first, last - span)
            found = []
            for at in self._cron(begin - 1):
                if at > last:
                    break
                found = [*found[-limit + 1 :], at] if limit > 1 else [at]
            if begin == first or len(found) >= limit:
                return found
            span *= 4

    def _cron(self, after_ms: int) -> Iterator[int]:
        """Times after one, each once and each later than the one before it."""
        last = after_ms
        local = datetime.fromtimestamp(after_ms // 1000, self.zone)
        for moment in CronSim(self.cron, local):
            at = int(moment.timestamp()) * 1000
            if at > last:
                yield at
                last = at

    def event(self, time_ms: int) -> Value:
        """What the input's expressions see under `event` for a time."""
        local = datetime.fromtimestamp(time_ms / 1000, self.zone)
        before = local.replace(day=1) - timedelta(days=1)
        seen = {
            "schedule": self.name,
            "time": local.isoformat(timespec="seconds"),
            "date": f"{local:%Y-%m-%d}",
            "month": f"{local:%Y-%m}",
            "previous_month": f"{before:%Y-%m}",
        }
        return labeled(seen, RESOURCE)


def compile_schedule(document: Document) -> Schedule:
    """Compile and check a Schedule document. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION with the place."""
    spec = document.known("spec", document.spec, _FIELDS)

    def wrong(name: str, message: str) -> TerminalError:
        return document.error("BAD_RESOURCE", f"spec.{name}", message)

    if not isinstance(spec.get("workflow"), str):
        raise wrong("workflow", "is missing: the name of the workflow that is started.")
    if ("cron" in spec) == ("every" in spec):
        raise wrong("cron", "a schedule has either `cron` or `every`.")
    for name, words in (("missed", _MISSED), ("concurrency", WORDS)):
        if spec.get(name, words[0]) not in words:
            raise wrong(name, f"must be one of {', '.join(words)}.")
    if not isinstance(spec.get("paused", False), bool):
        raise wrong("paused", "must be true or false.")
    zone = str(spec.get("timezone", "UTC"))
    try:
        found = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise wrong("timezone", f"there is no time zone {zone[:60]!r}; one is Europe/Berlin.") from None
    schedule = Schedule(
        name=document.name,
        version=document.version(),
        title=str(document.data["metadata"].get("title", document.name)),
        workflow=spec["workflow"],
        input=_input(document, spec.get("input", {})),
        zone=found,
        cron=_cron(spec["cron"], wrong) if "cron" in spec else "",
        every_ms=_every(spec["every"], wrong) if "every" in spec else 0,
        missed=spec.get("missed", "run-once"),
        concurrency=spec.get("concurrency", "allow"),
        paused=spec.get("paused", False),
        **{f"{name}_ms": _time(spec[name], name, wrong) for name in ("start", "end") if name in spec},
    )
    if not schedule.after(max(schedule.start_ms - 1, 0)):
        raise wrong(
            "cron" if schedule.cron else "every", "no time ever comes, within 50 years and before `end`."
        )
    return schedule


def _input(document: Document, data: Any) -> Mapped:
    if not isinstance(data, dict):
        raise document.error("BAD_RESOURCE", "spec.input", "must be a map of the workflow's inputs.")
    try:
        mapped = compile_mapping(data, "spec.input")
    except TerminalError as error:
        raise document.error(error.code, "spec.input", error.message) from None
    for root in references(mapped):
        if root != "event":
            message = f"there is no {root!r} here; a schedule's input knows event.time, date, month, previous_month."
            raise document.error("BAD_EXPRESSION", "spec.input", message)
    return mapped


def _cron(data: Any, wrong: Any) -> str:
    text = " ".join(str(data).split())
    if len(text) > MAX_CRON_CHARS or len(text.split()) != 5:
        raise wrong("cron", "must have five fields: minute, hour, day, month, weekday; such as 0 9 * * MON.")
    try:
        CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise wrong("cron", f"{text!r} is not a cron expression: {error}.") from None
    return text


def _every(data: Any, wrong: Any) -> int:
    text = str(data).strip()
    number, unit = text[:-1].strip(), text[-1:]
    ms = int(number) * _UNITS[unit] if number.isascii() and number.isdigit() and unit in _UNITS else 0
    if len(number) > 9 or not MIN_EVERY_MS <= ms <= 3650 * _UNITS["d"]:
        raise wrong("every", f"{text[:40]!r} is not a duration from 10s on, such as 30s, 15m, 6h or 1d.")
    return ms


def _time(data: Any, name: str, wrong: Any) -> int:
    try:
        return time_of(data)
    except ValueError as error:
        raise wrong(name, f"{error}.") from None


def request_of(time_ms: int) -> str:
    """The request id of the run of a time."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def decide(schedule: Schedule, state: ScheduleState, now: int, busy: bool) -> ScheduleState:
    """The state after a look at the time. `busy`: the last run that was started has not ended.

    `starting` has the times for which a run is to be started once this is committed; they are taken out afterwards.
    """
    after = ScheduleState()
    after.CopyFrom(state)
    if state.version != schedule.version:
        after.version = schedule.version
        after.next_time_ms = schedule.after(max(now, state.last_time_ms))
    if schedule.paused or state.paused:
        after.next_time_ms = schedule.after(now)  # what comes meanwhile is not made up for
        return after
    wanted = _come(schedule, after, now)
    if schedule.concurrency == "allow":
        after.starting.extend(wanted)
    elif schedule.concurrency == "replace":
        _replace(after, wanted, busy)
    elif schedule.concurrency == "skip":
        _skip(after, wanted, busy)
    else:
        _queue(after, wanted, busy)
    return after


def _come(schedule: Schedule, state: ScheduleState, now: int) -> list[int]:
    """The times that have come and count; the state then waits for the next one."""
    due = state.next_time_ms
    state.next_time_ms = schedule.after(now)
    if not due or due > now:  # a clock that was wrong is set right: the time that it led to is not waited for
        return []
    missed = schedule.latest(due, now - MISSED_MS - 1, MAX_MADE_UP)
    wanted = schedule.latest(max(due, now - MISSED_MS), now, MAX_MADE_UP)
    if schedule.missed == "run-all":
        wanted = [*missed, *wanted][-MAX_MADE_UP:]
        missed = []
    elif schedule.missed == "run-once" and missed and not wanted:
        wanted, missed = missed[-1:], missed[:-1]
    if missed:
        _skipped(state, missed, "the time was missed")
    state.last_time_ms = max([state.last_time_ms, *missed, *wanted])
    return wanted


def _replace(state: ScheduleState, wanted: list[int], busy: bool) -> None:
    if not wanted:
        return
    older = [*state.starting, *wanted[:-1]]
    del state.starting[:]
    state.starting.append(wanted[-1])
    if older:
        _skipped(state, older, "a later time took its place")
    if busy:
        state.replaces = state.last_run_id


def _skip(state: ScheduleState, wanted: list[int], busy: bool) -> None:
    free = not busy and not state.starting
    state.starting.extend(wanted[:1] if free else [])
    left = wanted[1:] if free else wanted
    if left:
        _skipped(state, left, "the run before it had not ended")


def _queue(state: ScheduleState, wanted: list[int], busy: bool) -> None:
    waiting = [*state.queued, *wanted]
    if waiting and not busy and not state.starting:
        state.starting.append(waiting.pop(0))
    if len(waiting) > MAX_QUEUED:
        _skipped(state, waiting[MAX_QUEUED:], f"{MAX_QUEUED} others were waiting")
    del state.queued[:]
    state.queued.extend(waiting[:MAX_QUEUED])


def _skipped(state: ScheduleState, times: list[int], why: str) -> None:
    state.skipped += len(times)
    state.last_skipped_ms, state.last_skipped_why = times[-1], why


def upcoming(schedule: Schedule, state: ScheduleState, limit: int) -> list[int]:
    """The next times of a schedule, none while it is paused."""
    if schedule.paused or state.paused or not state.next_time_ms:
        return []
    times = [state.next_time_ms]
    while len(times) < limit and (more := schedule.after(times[-1])):
        times.append(more)
    return times[:limit]


def parameters(schedule: Schedule, time_ms: int) -> Value:
    """The input of the run of a time. Raises EXPRESSION_FAILED."""
    look: Mapping[str, Value] = {"event": schedule.event(time_ms)}
    return schedule.input.evaluate(look.get)
