"""Which tasks are on the bus, which wait for a place, and whose lease ended: plain data, no clock and no I/O.

At most `WINDOW` tasks a lane are out at once, fewer where a limit says so; of the rest no more is kept here than what
says when each goes: the task itself is in the store, from which all of this is derived at start. So a lane that is slow
fills neither memory nor broker, and a broker that loses everything loses little.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from aios.run.v1.queries_pb2 import BacklogView, LaneView, LimitView
from aios_orchestrator.limits import Limits, Rate
from aios_orchestrator.scheduler import Backlog, Waiting

WINDOW: Final = 1024  # tasks of one lane on the bus at once
GRACE_MS: Final = 60_000  # added to a task's own time limit: the wait in the lane, and the way there and back


class TaskKey(NamedTuple):
    """One step of one run; at most one task of it is out at a time."""

    run_id: str
    step: str


@dataclass(slots=True)
class _Out:
    dispatch: int
    lane: str
    lease_end: int
    workflow: str = ""
    customer: str = ""


class Delivery:
    """The window of every lane. Whoever uses it publishes what `hand_out` and `fill` return."""

    def __init__(self, window: int = WINDOW, limits: Limits | None = None) -> None:
        self._window = window
        self.limits = limits if limits is not None else Limits()
        self._out: dict[TaskKey, _Out] = {}
        self._count: dict[str, int] = {}
        self._used: dict[tuple[str, str], int] = {}
        self._lanes: dict[str, Backlog] = {}
        self._waiting: dict[TaskKey, tuple[str, Waiting]] = {}
        self._rates: dict[str, Rate] = {}
        self._leases: list[tuple[int, TaskKey, int]] = []

    def hand_out(self, lane: str, tasks: Iterable[Waiting], now: int) -> list[Waiting]:
        """Take tasks in; returns those that may go on the bus now."""
        backlog, tasks = self._lane(lane), list(tasks)
        ready: list[Waiting] = []
        free = not backlog.waiting and not self.limits.of_flows and len(tasks) <= self._room(lane, now)
        for task in tasks:
            key = TaskKey(task.run_id, task.step)
            known = self._waiting.pop(key, None) if self._waiting else None
            if known is not None:
                self._lanes[known[0]].drop(known[1])
            if free or key in self._out:
                self._goes(lane, task, now)  # one that is out has its place already
                ready.append(task)
            else:
                self._waiting[key] = (lane, task)
                backlog.put(task, now)
        return ready + self.fill(lane, now) if backlog.waiting else ready

    def _lane(self, lane: str) -> Backlog:
        backlog = self._lanes.get(lane)
        if backlog is None:
            backlog = self._lanes[lane] = Backlog(
                lambda name: self.limits.weight("customer", name),
                lambda name: self.limits.weight("workflow", name),
            )
        return backlog

    def settled(self, run_id: str, step: str) -> str | None:
        """The task of a step is done with; returns its lane, which may have a place now."""
        key = TaskKey(run_id, step)
        known = self._waiting.pop(key, None) if self._waiting else None
        if known is not None:
            self._lanes[known[0]].drop(known[1])
        out = self._out.pop(key, None)
        if out is None:
            return None
        self._count[out.lane] -= 1
        self._use("workflow", out.workflow, -1)
        if out.customer:
            self._use("customer", out.customer, -1)
        return out.lane

    def _use(self, scope: str, name: str, by: int) -> None:
        used = self._used.get((scope, name), 0) + by
        if used:
            self._used[scope, name] = used
        else:
            del self._used[scope, name]

    def adopt(self, task: Waiting, lane: str, lease_end: int) -> None:
        """A task that somebody else put on the bus is counted and watched here from now on."""
        self._lane(lane)
        self._keep(lane, task, lease_end)

    def _keep(self, lane: str, task: Waiting, lease_end: int) -> None:
        key = TaskKey(task.run_id, task.step)
        out = self._out.get(key)
        if out is None or out.lane != lane:
            self._count[lane] = self._count.get(lane, 0) + 1
        if out is None:
            self._use("workflow", task.workflow, 1)
            if task.customer:
                self._use("customer", task.customer, 1)
        elif out.lane != lane:  # what makes good what a step did may go on another lane
            self._count[out.lane] -= 1
        self._out[key] = _Out(task.dispatch, lane, lease_end, task.workflow, task.customer)
        heapq.heappush(self._leases, (lease_end, key, task.dispatch))

    def _place(self, key: TaskKey, lane: str) -> None:
        """A task takes a place on a lane, unless it has it. What makes good what a step did may go on another lane."""
        out = self._out.get(key)
        if out is not None and out.lane != lane:
            self._count[out.lane] -= 1
        if out is None or out.lane != lane:
            self._count[lane] = self._count.get(lane, 0) + 1

    def let_go(self, own: Callable[[str], bool]) -> None:
        """Forget the tasks of the runs that are not one's `own` any more: somebody else watches them."""
        for key in [key for key in (*self._out, *self._waiting) if not own(key.run_id)]:
            self.settled(*key)

    def waiting_runs(self) -> set[str]:
        """The runs with a task that waits for its place."""
        return {key.run_id for key in self._waiting}

    def watches(self, key: TaskKey, dispatch: int) -> bool:
        """Whether that dispatch of a task was put on the bus from here, or waits for its place. Of an earlier
        one, from before others handed it out again, no outcome counts."""
        out, waiting = self._out.get(key), self._waiting.get(key)
        known = (out.dispatch if out is not None else 0, waiting[1].dispatch if waiting is not None else 0)
        return dispatch in known

    def fill(self, lane: str, now: int) -> list[Waiting]:
        """Tasks that waited and may go on the bus now."""
        backlog = self._lanes.get(lane)
        if backlog is None or not backlog.waiting:
            return []
        ready = []
        for task in backlog.take(self._room(lane, now), now, self._may):
            del self._waiting[TaskKey(task.run_id, task.step)]
            self._goes(lane, task, now)
            ready.append(task)
        return ready

    def _goes(self, lane: str, task: Waiting, now: int) -> None:
        self._keep(lane, task, now + task.timeout_ms + GRACE_MS)
        if self._rates and (rate := self._rates.get(lane)) is not None:
            rate.done(now)

    def window(self, lane: str) -> int:
        """How many tasks of a lane may be out."""
        limit = self.limits.of_lane(lane) if self.limits.all else None
        if limit is None or not limit.in_flight:
            return self._window
        return min(self._window, self.limits.part(limit.in_flight))

    def _room(self, lane: str, now: int) -> int:
        room = self.window(lane) - self._count.get(lane, 0)
        limit = self.limits.of_lane(lane) if self.limits.all else None
        if limit is None or not limit.rate:
            self._rates.pop(lane, None)
            return room
        rate = self._rates.setdefault(lane, Rate())
        return min(room, rate.room(self.limits.part(limit.rate), limit.per_ms, now))

    def _may(self, task: Waiting) -> bool:
        if not self.limits.of_flows:
            return True
        for scope, name in (("workflow", task.workflow), ("customer", task.customer)):
            limit = self.limits.of(scope, name)
            most = self.limits.part(limit.in_flight) if limit is not None and limit.in_flight else 0
            if most and self._used.get((scope, name), 0) >= most:
                return False
        return True

    def held_back(self) -> list[str]:
        """The lanes in which something waits that an outcome on another lane may let go."""
        return [lane for lane, backlog in self._lanes.items() if backlog.waiting] if self._waiting else []

    def next_room(self, now: int) -> int | None:
        """When a rate lets the next waiting task go."""
        ends = []
        for lane in self.held_back() if self._rates else ():
            limit, rate = self.limits.of_lane(lane), self._rates.get(lane)
            if limit is None or rate is None or not limit.rate:
                continue
            if not rate.room(self.limits.part(limit.rate), limit.per_ms, now):
                ends.append(rate.next(limit.per_ms))
        return min(ends) if ends else None

    def expired(self, now: int, limit: int = 1000) -> list[TaskKey]:
        """Tasks whose lease has ended, each once; they count as out until they are settled or handed out again."""
        keys: list[TaskKey] = []
        while self._leases and self._leases[0][0] <= now and len(keys) < limit:
            _, key, dispatch = heapq.heappop(self._leases)
            out = self._out.get(key)
            if out is not None and out.dispatch == dispatch:
                keys.append(key)
        return keys

    def expire_again(self, keys: Iterable[TaskKey], at: int) -> None:
        """What `expired` told could not be dealt with: it will be told again at that time."""
        for key in keys:
            out = self._out.get(key)
            if out is not None:
                heapq.heappush(self._leases, (at, key, out.dispatch))

    def next_lease_end(self) -> int | None:
        """When the next lease ends, settled or not."""
        return self._leases[0][0] if self._leases else None

    def all_out(self) -> list[TaskKey]:
        """Every task that is on the bus: what a wiped broker has lost."""
        return list(self._out)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(on the bus, waiting) by lane."""
        return {lane: (self._count.get(lane, 0), backlog.waiting) for lane, backlog in self._lanes.items()}

    def view(self, now: int) -> tuple[list[LaneView], list[LimitView]]:
        """What a person is shown of it."""
        lanes = []
        for name, backlog in sorted(self._lanes.items()):
            parts: dict[tuple[int, str, str], list[int]] = {}
            for task in backlog:
                parts.setdefault((task.priority, task.customer, task.workflow), []).append(now - task.since)
            views = [
                BacklogView(priority=p, customer=c, workflow=w, waiting=len(ages), oldest_ms=max(ages))
                for (p, c, w), ages in sorted(parts.items(), key=lambda item: (-item[0][0], item[0][1:]))
            ]
            lanes.append(
                LaneView(
                    lane=name,
                    in_flight=self._count.get(name, 0),
                    window=self.window(name),
                    waiting=backlog.waiting,
                    oldest_ms=max((view.oldest_ms for view in views), default=0),
                    backlog=views,
                )
            )
        return lanes, [
            LimitView(
                name=limit.name,
                scope=limit.scope,
                of=limit.of,
                in_flight=self._in_flight(limit.scope, limit.of),
                limit=limit.in_flight,
                rate=limit.rate,
                per_ms=limit.per_ms,
                weight=limit.weight,
            )
            for limit in self.limits.all
        ]

    def _in_flight(self, scope: str, of: str) -> int:
        if scope == "connector":
            return sum(count for lane, count in self._count.items() if lane == f"connector-{of}")
        return self._used.get((scope, of), 0)
