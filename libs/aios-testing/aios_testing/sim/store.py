"""A simulated disk and the store on it: what a flush has reached survives a crash, and nothing else does.

Commits that come while a flush is under way share the next one, as with the real stores.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import wraps
from random import Random
from typing import Any, Final

from aios_core.errors import RetryableError
from aios_runtime.store.checks import check
from aios_runtime.store.port import Aggregate, Committed, Conflict, Pending, Result, Write
from aios_testing.sim.loop import Node, SimLoop
from aios_testing.sim.record import Record
from aios_testing.store_memory import Reads, Tables

FLUSH: Final = 0.001  # seconds, at most twice that
SLOW: Final = 3.0  # seconds of a slow flush
LATE: Final = 1.0  # seconds after its way is there again in which a process does what it was about
RUN: Final = "/run/"
TOO_LATE: Final = 100  # commits of one thing in a row: who came too late has not looked at what is there

_HELD: Final = ("_created", "_aggregates", "_marks", "_events", "_outbox", "_sent", "_meta", "_due")

Committing = Callable[[Write, Committed], None]


class Disk(Tables):
    """What is durable of one store. `committed` is called for each write that has become so."""

    def __init__(self, name: str, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.name = name
        self.full = False
        self.committed: Committing = lambda write, result: None
        self.by: object = None  # the process, in its present life, whose writes are applied
        self._due: dict[str, int] = {}
        self.too_late: Counter[str] = Counter()  # by key, commits since the last one that was not

    def apply_all(self, writes: Sequence[Write]) -> list[Result]:
        """Make writes durable."""
        results: list[Result] = []
        for write in writes:
            result = self.apply(write)
            results.append(result)
            if isinstance(result, Conflict) and write.expect:  # else it is a beginning that came again
                self.too_late[write.key] += 1
            if isinstance(result, Committed):
                self.too_late.pop(write.key, None)
                if write.head is None or write.due_ms is None:
                    self._due.pop(write.key, None)
                else:
                    self._due[write.key] = write.due_ms
                self.committed(write, result)
        return results

    def copy_from(self, other: "Disk") -> None:
        """Begin with what another disk holds; what is changed here does not change it."""
        self._created = other._created
        for key, stored in other._aggregates.items():
            self._aggregates[key] = replace(
                stored, records=dict(stored.records), index=dict(stored.index), events=list(stored.events)
            )

    def snapshot(self) -> dict[str, Any]:
        """All that it holds now."""
        return {name: deepcopy(getattr(self, name)) for name in _HELD}

    def become(self, snapshot: Mapping[str, Any]) -> None:
        """Hold what it held then."""
        self.too_late.clear()
        for name, held in snapshot.items():
            setattr(self, name, deepcopy(held))

    def due(self, before_ms: int, limit: int) -> list[Aggregate]:
        found = sorted((due, key) for key, due in self._due.items() if due <= before_ms)
        return [item for _, key in found[:limit] if (item := self.read(key))]

    def next_due(self) -> int | None:
        return min(self._due.values(), default=None)


class SimStore(Reads):
    """A store in one life of its process; reads go straight to the disk, as they see all that was flushed."""

    def __init__(
        self, disk: Disk, node: Node, loop: SimLoop, rng: Random, record: Record, draw: Callable[[str], bool]
    ) -> None:
        super().__init__(disk)
        self._disk, self._node, self._loop, self._rng = disk, node, loop, rng
        self._record, self._draw = record, draw
        self._waiting: list[tuple[Sequence[Write], asyncio.Future[list[Result]]]] = []
        self._sent: list[int] = []
        self._flushing = False
        self._away: asyncio.Future[None] | None = None
        self._silent = False
        self._late_until = 0.0
        self.broken = False  # whether what was written last is durable is not known until the next start

    def leave(self, silent: bool) -> None:
        """From now on the process can't reach its store: calls fail at once, or are silent until it comes back. What
        was asked for in silence gets there then."""
        self._silent = silent
        self._away = self._away or self._loop.create_future()

    def come_back(self) -> None:
        """The process reaches its store again."""
        away, self._away = self._away, None
        if away is not None:
            self._late_until = self._loop.time() + LATE
            away.set_result(None)

    async def reach(self) -> None:
        """Wait for the way to the store. Raises UNAVAILABLE."""
        while self._away is not None:
            self._record.count("a replica was cut off from its database")
            if not self._silent:
                raise RetryableError("UNAVAILABLE", "The store can't be reached; nothing was applied.")
            await asyncio.shield(self._away)
            self._record.count("what was asked of a database got there late")

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        check(writes)
        await self.reach()
        late = self._loop.time() < self._late_until
        results = await self._committed(writes)
        if self._away is not None and self._silent:
            await self.reach()  # it is done, and the answer comes late
        for write, result in zip(writes, results, strict=True):
            if late and isinstance(result, Conflict) and RUN in write.key:
                self._record.count("a commit that came late was refused")
        return results

    async def _committed(self, writes: Sequence[Write]) -> list[Result]:
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        self._waiting.append((writes, future))
        self._start()
        return await future

    def _start(self) -> None:
        if not self._flushing:
            self._flushing = True
            delay = FLUSH * (1.0 + self._rng.random())
            if self._draw("store_slow"):
                delay = SLOW * self._rng.random()
            self._loop.after(delay, self._node, self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        error = self._trouble()
        if error is None:
            sent, self._sent = self._sent, []
            self._disk.by = self._node
            outcomes = [(future, self._disk.apply_all(writes)) for writes, future in waiting]
            self._disk.forget(sent)
            for _, results in outcomes:
                self._record.transitions += len(results)
                for result in results:
                    if isinstance(result, Conflict):
                        self._record.count("somebody else was quicker")
            for key, times in self._disk.too_late.items():
                if times >= TOO_LATE:
                    self._record.violate("who comes too late looks again", f"{key}: {times} times in a row")
            if self._draw("store_after"):
                self.broken = True
                error = self._unclear()
            else:
                self._loop.call_soon(self._deliver, outcomes)
        if error is not None:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
        self._flushing = False
        if self._waiting:
            self._start()

    def _trouble(self) -> RetryableError | None:
        if self.broken:
            return self._unclear()
        if self._disk.full:
            self._record.count("disk full")
            return RetryableError("DISK_FULL", "The disk is full; nothing was applied.")
        if self._draw("store_before"):
            return RetryableError("UNAVAILABLE", "The store failed; nothing was applied.")
        return None

    def _unclear(self) -> RetryableError:
        return RetryableError(
            "UNAVAILABLE", "Whether the last changes are there is known after a restart.", outcome="unknown"
        )

    def _deliver(self, outcomes: Sequence[tuple["asyncio.Future[list[Result]]", list[Result]]]) -> None:
        for future, results in outcomes:
            if not future.done():
                future.set_result(results)

    async def pending(self, limit: int) -> list[Pending]:
        await self.reach()
        marked = set(self._sent)
        found = self._disk.pending(limit + len(marked))
        return [message for message in found if message.outbox_id not in marked][:limit]

    async def mark_sent(self, outbox_ids: Sequence[int]) -> None:
        await self.reach()
        self._sent.extend(outbox_ids)
        self._start()

    async def set_meta(self, name: str, value: bytes) -> None:
        await self.reach()
        await asyncio.sleep(FLUSH)
        self._disk.put_meta(name, value)

    async def prune_inbox(self, before_ms: int) -> int:
        await self.reach()
        await asyncio.sleep(FLUSH)
        return self._disk.prune(before_ms)

    async def close(self) -> None:
        """What was flushed stays."""


def _over_the_way(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(read)
    async def asked(self: SimStore, *arguments: Any, **named: Any) -> Any:
        if self._away is not None:
            await self.reach()
        return await read(self, *arguments, **named)

    return asked


_READS: Final = (
    "read",
    "record",
    "records",
    "query",
    "scan",
    "due",
    "next_due",
    "handled",
    "events",
    "events_of",
)
for _name in (*_READS, "event_head", "meta"):
    setattr(SimStore, _name, _over_the_way(getattr(Reads, _name)))
