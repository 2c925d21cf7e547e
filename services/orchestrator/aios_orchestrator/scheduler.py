"""Which of the tasks that wait for a place on a lane goes out next: plain data, no clock and no I/O.

The most urgent ones first; of one priority, customers by turns and each customer's workflows by turns, as their weights
say (start-time fair queueing); of one workflow and customer, the one that has waited longest. A task that waits counts
as more urgent by one with every `AGE_MS`, so that none is passed over for ever.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

from aios_orchestrator.workflow import HIGHEST, PRIORITY

AGE_MS: Final = 30_000  # that a task waits until it counts as more urgent by one
SCALE: Final = 1_000_000  # what one task of weight 1 moves its share on; a multiple of most weights

Weight = Callable[[str], int]


@dataclass(eq=False, slots=True)
class Waiting:
    """A task that may be handed out: no more than what says when. The task itself is made when it goes."""

    run_id: str
    step: str
    dispatch: int = 1
    timeout_ms: int = 0
    priority: int = PRIORITY
    customer: str = ""
    workflow: str = ""
    since: int = 0
    """When it began to wait, ms of a clock that nobody sets."""
    level: int = -1
    """As how urgent it counts now; -1: it does not wait."""


May = Callable[[Waiting], bool]
"""Whether no limit of its workflow and customer stands against a task now."""


class _Line:
    """Tasks of one workflow and customer, in the order in which they came."""

    __slots__ = ("_level", "_tasks")

    def __init__(self, level: int) -> None:
        self._level = level
        self._tasks: deque[Waiting] = deque()

    def put(self, task: Waiting) -> None:
        self._tasks.append(task)

    @property
    def empty(self) -> bool:
        while self._tasks and self._tasks[0].level != self._level:
            self._tasks.popleft()
        return not self._tasks

    def take(self, may: May) -> Waiting | None:
        return self._tasks.popleft() if not self.empty and may(self._tasks[0]) else None

    def unpark(self) -> None:
        pass


Child = TypeVar("Child", "_Line", "_Shares[_Line]")


class _Shares(Generic[Child]):
    """Children that are served by turns. `_virtual` is how far the share that was served last has come; who comes anew
    begins there, and who comes back not before where it was."""

    __slots__ = ("_children", "_heap", "_left", "_make", "_order", "_parked", "_virtual", "_weight")

    def __init__(self, weight: Weight, make: Callable[[], Child]) -> None:
        self._weight: Weight = weight
        self._make: Callable[[], Child] = make
        self._children: dict[str, Child] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._parked: list[tuple[int, int, str]] = []
        self._left: dict[str, int] = {}
        self._virtual = self._order = 0

    def child(self, name: str) -> Child:
        found = self._children.get(name)
        if found is None:
            found = self._children[name] = self._make()
            self._order += 1
            heappush(self._heap, (max(self._virtual, self._left.pop(name, 0)), self._order, name))
        return found

    @property
    def empty(self) -> bool:
        return all(child.empty for child in self._children.values())

    def take(self, may: May) -> Waiting | None:
        """The next task that may go. What may not is parked until `unpark`: limits only fill up meanwhile."""
        while self._heap:
            tag, order, name = self._heap[0]
            child = self._children[name]
            task = child.take(may)
            if task is None:
                heappop(self._heap)
                if child.empty:
                    self._leaves(name, tag)
                else:
                    self._parked.append((tag, order, name))
                continue
            self._virtual = tag
            after = tag + SCALE // self._weight(name)
            if child.empty:
                heappop(self._heap)
                self._leaves(name, after)
            else:
                heapreplace(self._heap, (after, order, name))
            return task
        return None

    def _leaves(self, name: str, tag: int) -> None:
        del self._children[name]
        self._left = {other: at for other, at in self._left.items() if at > self._virtual}
        if tag > self._virtual:
            self._left[name] = tag

    def unpark(self) -> None:
        """What may not go now may later."""
        for entry in self._parked:
            heappush(self._heap, entry)
        self._parked.clear()
        for child in self._children.values():
            child.unpark()


class _Level:
    """Tasks that count as equally urgent, and when each came to this level, in that order."""

    __slots__ = ("arrived", "number", "shares")

    def __init__(self, number: int, customers: Weight, workflows: Weight) -> None:
        self.number = number
        self.shares: _Shares[_Shares[_Line]] = _Shares(
            customers, lambda: _Shares[_Line](workflows, lambda: _Line(number))
        )
        self.arrived: deque[tuple[int, Waiting]] = deque()

    def put(self, task: Waiting, now: int) -> None:
        task.level = self.number
        self.shares.child(task.customer).child(task.workflow).put(task)
        self.arrived.append((now, task))

    def grown_old(self, now: int) -> Iterator[tuple[int, Waiting]]:
        """Those that have waited here long enough to count for more, and since when they do."""
        while self.arrived:
            came, task = self.arrived[0]
            here = task.level == self.number
            if here and (self.number == HIGHEST or came + AGE_MS > now):
                return
            self.arrived.popleft()
            if here:
                yield came + AGE_MS, task


class Backlog:
    """The tasks that wait for a place on one lane. `customers` and `workflows` give the weight of each by its name."""

    def __init__(self, customers: Weight = lambda name: 1, workflows: Weight = lambda name: 1) -> None:
        self._levels = [_Level(number, customers, workflows) for number in range(HIGHEST + 1)]
        self.waiting = 0

    def put(self, task: Waiting, now: int) -> None:
        """A task waits from now on."""
        task.since = now
        self.waiting += 1
        self._levels[task.priority].put(task, now)

    def drop(self, task: Waiting) -> None:
        """A task is not wanted any more."""
        if task.level >= 0:
            task.level = -1
            self.waiting -= 1

    def take(self, room: int, now: int, may: May) -> Iterator[Waiting]:
        """At most `room` tasks that may go, the next one first. `may` is asked after each that was taken before it."""
        if not self.waiting or room <= 0:
            return
        for level in self._levels:
            for came, task in level.grown_old(now):
                self._levels[level.number + 1].put(task, came)
        refused = False

        def asked(task: Waiting) -> bool:
            nonlocal refused
            allowed = may(task)
            refused = refused or not allowed
            return allowed

        for level in reversed(self._levels):
            while room and (taken := level.shares.take(asked)) is not None:
                room -= 1
                self.drop(taken)
                yield taken
        if refused:
            for level in self._levels:
                level.shares.unpark()

    def __iter__(self) -> Iterator[Waiting]:
        """All that wait, in no order."""
        for level in self._levels:
            yield from (task for _, task in level.arrived if task.level == level.number)
