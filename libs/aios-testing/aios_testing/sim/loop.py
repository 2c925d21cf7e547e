"""An event loop in virtual time for several simulated processes: ordinary asyncio code runs on it, and repeats exactly.

Time stands still while anything can run, and then jumps to the next timer. Callbacks of one process keep their order,
as asyncio promises it; which process runs next is drawn from the seed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

BURST: Final = 6  # callbacks of one process in a row, at most
STANDSTILL: Final = 200_000  # callbacks at one instant: something runs in circles
PRUNE: Final = 256  # tasks that a process remembers before it forgets those that are done
EPOCH_MS: Final = 1_790_000_000_000  # the wall clock at virtual time 0

_node: ContextVar["Node | None"] = ContextVar("aios_sim_node", default=None)


class Call:
    """A callback that waits for its turn or its time."""

    __slots__ = ("args", "callback", "context", "gone", "node", "when")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
        node: "Node",
        when: float,
    ) -> None:
        self.callback, self.args, self.context, self.node, self.when = callback, args, context, node, when
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone


class Node:
    """One simulated process in one life; a process that starts again is another node of the same name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.leaving = False
        self.skew_ms = 0
        self.crash_in = 0  # callbacks until it dies; 0: not now
        self.ready: deque[Call] = deque()
        self.queued = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = copy_context()
        self.context.run(_node.set, self)

    def remember(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task: the garbage collector must not close it in the middle of another process's work."""
        self.tasks.append(task)
        if len(self.tasks) % PRUNE == 0:
            self.tasks = [task for task in self.tasks if not task.done()]


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one simulation. `crashed` is called when a node's planned death has come."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._time = 0.0
        self._timers: list[tuple[float, int, Call]] = []
        self._sequence = 0
        self._runnable: list[Node] = []
        self.root = Node("root")  # the simulator itself: bus, disks and the outside world
        self.steps = 0
        self.stopped = False
        self.crashed: Callable[[Node], None] = lambda node: None
        self.defect: Callable[[Node, str, BaseException | None], None] = lambda node, what, error: None

    def time(self) -> float:
        return self._time

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=str(name) if name else None, context=context)
        node = (context.get(_node) if context is not None else _node.get()) or self.root
        node.remember(task)
        return task

    def spawn(self, node: Node, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of a node."""
        return self.create_task(coro, context=node.context.copy())

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Call:
        context = context or copy_context()
        node = context.get(_node) or self.root
        call = Call(callback, args, context, node, self._time)
        self._queue(call)
        return call

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Call:
        context = context or copy_context()
        node = context.get(_node) or self.root
        call = Call(callback, args, context, node, when)
        self._sequence += 1
        heappush(self._timers, (when, self._sequence, call))
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Call:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def after(self, delay: float, node: Node, callback: Callable[..., object], *args: Any) -> Call:
        """Call in a node's own context; nothing happens when it is dead by then."""
        return self.call_at(self._time + delay, callback, *args, context=node.context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        task = context.get("task") or context.get("future")
        self.defect(self.root, f"{context['message']}: {task!r}"[:300], context.get("exception"))

    def _queue(self, call: Call) -> None:
        node = call.node
        if not node.alive:
            return
        node.ready.append(call)
        if not node.queued and not node.paused:
            node.queued = True
            self._runnable.append(node)

    def kill(self, node: Node) -> None:
        """Nothing of the node runs any more."""
        node.alive = False
        node.ready.clear()

    def pause(self, node: Node) -> None:
        """Nothing of the node runs until `resume`; its time passes all the same."""
        node.paused = True

    def resume(self, node: Node) -> None:
        """It goes on where it stood."""
        node.paused = False
        if node.ready and not node.queued:
            node.queued = True
            self._runnable.append(node)

    def run(self, done: Callable[[], bool], until: float) -> bool:
        """Run until `done`, `until` or `stopped`; whether it is done. Only one loop runs at a time in a thread."""
        asyncio._set_running_loop(self)
        try:
            return self._run(done, until)
        finally:
            asyncio._set_running_loop(None)

    def _run(self, done: Callable[[], bool], until: float) -> bool:
        draw, runnable, began = self._rng.random, self._runnable, self.steps
        while not self.stopped:
            if runnable:
                at = int(draw() * len(runnable))
                node = runnable[at]
                self._burst(node, 1 + int(draw() * BURST))
                if self.steps - began > STANDSTILL:
                    began = self.steps
                    self.defect(node, "it runs in circles at one instant", None)
                if not node.ready or not node.alive or node.paused:
                    node.queued = False
                    runnable[at] = runnable[-1]
                    runnable.pop()
                continue
            if done():
                return True
            if not self._advance(until):
                return False
            began = self.steps if self._moved else began
        return False

    def _burst(self, node: Node, count: int) -> None:
        ready = node.ready
        while count and ready and not node.paused:
            call = ready.popleft()
            if call.gone:
                continue
            if node.crash_in:
                node.crash_in -= 1
                if not node.crash_in:
                    self.crashed(node)
                    return
            count -= 1
            self.steps += 1
            try:
                call.context.run(call.callback, *call.args)
            except Exception as error:
                self.defect(node, "a callback failed", error)

    _moved = False

    def _advance(self, until: float) -> bool:
        """Let time jump to the next timer; False when there is none before `until`."""
        timers = self._timers
        while timers and (timers[0][2].gone or not timers[0][2].node.alive):
            heappop(timers)
        if not timers or timers[0][0] > until:
            self._time = max(self._time, until)
            return False
        now = timers[0][0]
        self._moved = now > self._time
        now = self._time = max(self._time, now)
        while timers and timers[0][0] <= now:
            call = heappop(timers)[2]
            if not call.gone:
                self._queue(call)
        return True
