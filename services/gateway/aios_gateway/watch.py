"""Watching runs: one subscription for all watchers, each with a bounded queue; one that overflows reads again.

What is filed in the log is the truth; the notifications only say that there is more. A watcher starts with what the
log has, then takes what is announced, and goes back to the log whenever a sequence is missing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from aios.bus.v1.bus_pb2 import EventsFiled
from aios.run.v1.events_pb2 import RunEvent
from aios_core.errors import RetryableError
from aios_core.ids import partition_of_run

ENDINGS: Final = frozenset({"run_succeeded", "run_failed", "run_cancelled", "run_undone", "run_redone"})

Read = Callable[[int], Awaitable[list[RunEvent]]]
"""Events of the run after a sequence, a page of them; none when there are no more."""


@dataclass(eq=False, slots=True)
class _Watcher:
    run: tuple[str, str]
    limit: int
    waiting: list[RunEvent] = field(default_factory=list)
    behind: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, event: RunEvent) -> None:
        if len(self.waiting) >= self.limit:
            self.lose()
        elif not self.behind:
            self.waiting.append(event)
        self.wake.set()

    def lose(self) -> None:
        """Forget what waits: the log is read instead."""
        self.waiting.clear()
        self.behind = True
        self.wake.set()


class Watches:
    """All watchers of this gateway."""

    def __init__(self, max_watches: int, queue_events: int) -> None:
        self._max = max_watches
        self._queue = queue_events
        self._watchers: dict[tuple[str, str], list[_Watcher]] = {}
        self._count = 0
        self._positions: dict[int, int] = {}

    async def filed(self, data: bytes) -> None:
        """What the subscription delivers: bytes of an EventsFiled.

        While nobody watches they are not read. Who begins to watch then reads the log again at the first that comes,
        since what stood before it may have been missed."""
        if not self._watchers:
            return
        filed = EventsFiled.FromString(data)
        for part in (filed, *filed.more):
            self._take(part)

    def _take(self, filed: EventsFiled) -> None:
        last = filed.first_position + len(filed.events) - 1
        before = self._positions.get(filed.partition)
        self._positions[filed.partition] = max(last, before or 0)
        if before is None or filed.first_position > before + 1:
            self.lost(filed.partition)
        for stored in filed.events:
            event = RunEvent.FromString(stored)
            for watcher in self._watchers.get((event.workspace, event.run_id), ()):
                watcher.offer(event)

    def lost(self, partition: int | None = None) -> None:
        """Announcements (of one partition) may have been missed: who watches a run there reads the log again."""
        for (_, run_id), watchers in self._watchers.items():
            if partition is None or partition_of_run(run_id) == partition:
                for watcher in watchers:
                    watcher.lose()

    async def watch(
        self, workspace: str, run_id: str, after: int, follow: bool, read: Read
    ) -> AsyncIterator[RunEvent]:
        """Events of a run after a sequence, gapless and in order; ends with the run unless `follow`.

        Raises UNAVAILABLE when this gateway has as many watchers as it takes.
        """
        watcher = self._enter((workspace, run_id))
        try:
            ended = False
            while True:
                watcher.wake.clear()
                watcher.behind = False
                watcher.waiting.clear()
                while page := await read(after):
                    for event in page:
                        after = event.sequence
                        ended = _ends(event, ended)
                        yield event
                if ended and not follow:
                    return
                while not watcher.behind:
                    await watcher.wake.wait()
                    watcher.wake.clear()
                    while watcher.waiting and not watcher.behind:
                        event = watcher.waiting.pop(0)
                        if event.sequence <= after:
                            continue
                        if event.sequence > after + 1:
                            watcher.lose()
                            break
                        after = event.sequence
                        ended = _ends(event, ended)
                        yield event
                    if ended and not follow and not watcher.waiting:
                        watcher.lose()  # the log says whether it went on since, by an undo
        finally:
            self._leave(watcher)

    def _enter(self, run: tuple[str, str]) -> _Watcher:
        if self._count >= self._max:
            raise RetryableError(
                "UNAVAILABLE",
                f"This gateway has {self._max} watches open, its limit; try again.",
                retry_after=5.0,
            )
        watcher = _Watcher(run, self._queue)
        self._watchers.setdefault(run, []).append(watcher)
        self._count += 1
        return watcher

    def _leave(self, watcher: _Watcher) -> None:
        self._count -= 1
        others = self._watchers[watcher.run]
        others.remove(watcher)
        if not others:
            del self._watchers[watcher.run]


def _ends(event: RunEvent, ended: bool) -> bool:
    kind = event.WhichOneof("body")
    if kind in ENDINGS:
        return True
    return ended and kind not in ("undo_requested", "redo_requested", "run_reopened")
