"""Which tasks are on the bus, which wait for a place, and whose lease ended: plain data, no clock and no I/O.

At most `WINDOW` tasks a lane are out at once; the rest wait here in the order of priority and time, derived from the
store at start. So overload stays in the store, and a broker that loses everything loses little.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from aios.task.v1.task_pb2 import Task

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


class Delivery:
    """The window of every lane. Whoever uses it publishes what `hand_out` and `fill` return."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._out: dict[TaskKey, _Out] = {}
        self._count: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, int, Task]]] = {}
        self._leases: list[tuple[int, TaskKey, int]] = []
        self._order = 0

    def hand_out(self, lane: str, tasks: Iterable[Task], now: int) -> list[Task]:
        """Take tasks in; returns those that may go on the bus now."""
        waiting = self._waiting.setdefault(lane, [])
        for task in tasks:
            self._order += 1
            heapq.heappush(waiting, (task.priority, self._order, task))
        return self._fill(lane, now)

    def settled(self, run_id: str, step: str) -> str | None:
        """The task of a step is done with; returns its lane, which may have a place now."""
        out = self._out.pop(TaskKey(run_id, step), None)
        if out is None:
            return None
        self._count[out.lane] -= 1
        return out.lane

    def adopt(self, key: TaskKey, dispatch: int, lane: str, lease_end: int) -> None:
        """A task that somebody else put on the bus is counted and watched here from now on."""
        self._waiting.setdefault(lane, [])
        self._place(key, lane)
        self._out[key] = _Out(dispatch, lane, lease_end)
        heapq.heappush(self._leases, (lease_end, key, dispatch))

    def _place(self, key: TaskKey, lane: str) -> None:
        """A task takes a place on a lane, unless it has it. What makes good what a step did may go on another lane."""
        out = self._out.get(key)
        if out is not None and out.lane != lane:
            self._count[out.lane] -= 1
        if out is None or out.lane != lane:
            self._count[lane] = self._count.get(lane, 0) + 1

    def let_go(self, own: Callable[[str], bool]) -> None:
        """Forget the tasks of the runs that are not one's `own` any more: somebody else watches them."""
        for key in [key for key in self._out if not own(key.run_id)]:
            self.settled(*key)
        for waiting in self._waiting.values():
            waiting[:] = [entry for entry in waiting if own(entry[2].run_id)]
            heapq.heapify(waiting)

    def watches(self, key: TaskKey) -> bool:
        """Whether a task is on the bus, as far as is known here."""
        return key in self._out

    def fill(self, lane: str, now: int) -> list[Task]:
        """Tasks that waited and may go on the bus now."""
        return self._fill(lane, now)

    def _fill(self, lane: str, now: int) -> list[Task]:
        waiting, ready = self._waiting.get(lane, []), []
        while waiting and self._count.get(lane, 0) < self._window:
            task = heapq.heappop(waiting)[2]
            key = TaskKey(task.run_id, task.step)
            self._place(key, lane)
            end = now + task.timeout_ms + GRACE_MS
            self._out[key] = _Out(task.dispatch, lane, end)
            heapq.heappush(self._leases, (end, key, task.dispatch))
            ready.append(task)
        return ready

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
        return {lane: (self._count.get(lane, 0), len(waiting)) for lane, waiting in self._waiting.items()}
