"""Which partitions this replica decides for.

On a store of its own it decides for all. On one that replicas share it keeps its place in the table of leases, takes
over from those that fall silent, and lets go when it is cut off itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Set
from contextlib import suppress
from typing import Any, Final, TypeVar

from aios.run.v1.leases_pb2 import Leases
from aios_core.errors import AiosError, RetryableError
from aios_core.ids import PARTITIONS, partition_of_run
from aios_orchestrator import leases
from aios_orchestrator.leases import BEAT_MS, LEASE_MS, Sightings
from aios_runtime.bus.port import Bus
from aios_runtime.store.port import Committed, Store, Write

PING_S: Final = 1.0  # for the bus to answer, before the place is renewed
LOOK_S: Final = 0.25  # between two looks whether a replica still decides
RACES: Final = 20  # tries of one renewal, each lost to another replica's
ALL: Final = frozenset(range(PARTITIONS))

T = TypeVar("T")
Taken = Mapping[int, bool]
"""Partitions that were taken over, and whether their last owner let go of them by itself."""

log = logging.getLogger(__name__)


def lease_key(workspace: str) -> str:
    """The aggregate of the table of leases."""
    return f"{workspace}/lease/orchestrator"


async def _nothing(taken: Taken) -> None:
    pass


class Ownership:
    """The one replica that owns everything: its store has no other writer."""

    def __init__(self, me: str = "") -> None:
        self.me = me
        self.taken: Callable[[Taken], Awaitable[None]] = _nothing
        """Called with partitions that are this replica's from now on; what raises RetryableError is called again."""
        self.lost: Callable[[frozenset[int]], None] = lambda partitions: None
        """Called with partitions that are not this replica's any more."""
        self.behind: Callable[[], frozenset[int]] = frozenset
        """Gives the partitions in which not all may be handed out that is committed."""

    def owns(self, partition: int) -> bool:
        """Whether this replica decides for a partition."""
        return True

    def owned(self) -> Set[int]:
        """The partitions that this replica decides for."""
        return ALL

    def others(self) -> list[str]:
        """The replicas besides this one that decide for something."""
        return []

    def share(self) -> float:
        """How much of all partitions this replica decides for, from 0 to 1."""
        return len(self.owned()) / PARTITIONS

    def owns_run(self, run_id: str) -> bool:
        """Whether this replica decides for a run."""
        return True

    def present(self) -> bool:
        """Whether this replica has reached the store and the bus of late."""
        return True

    async def while_owner(self, replica: str, partitions: Collection[int], work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that only the owner of the partitions can do, as long as `replica` is that. Raises UNAVAILABLE
        once it is not: then another one is asked, whether or not this one comes to an end."""
        return await work

    def owner(self, partition: int) -> str:
        """The replica that decides for a partition. Raises UNAVAILABLE while there is none."""
        return self.me

    def bus_wiped(self) -> None:
        """What was handed out is lost with the bus, whoever has done it."""

    def facts(self) -> dict[str, str]:
        """For the health of the service."""
        return {}

    async def start(self) -> None:
        """Take everything."""
        await self.taken(dict.fromkeys(ALL, False))

    async def stop(self) -> None:
        """Nobody waits for it."""


class SharedOwnership(Ownership):
    """One of several replicas on one store."""

    def __init__(self, store: Store, bus: Bus, workspace: str, me: str, instance: str) -> None:
        super().__init__(me)
        self._store, self._bus, self._instance = store, bus, instance
        self._key = lease_key(workspace)
        self._sightings = Sightings()
        self._beats = 0  # of its renewals so far
        self._table = Leases()
        self._mine: dict[int, int] = {}  # partitions and their epochs
        self._last: dict[int, int] = {}  # the epochs in which this replica had a partition last
        self._on = ""  # the incarnation of the bus that what was handed out is on
        # As `_last`, where not all that was handed out in them is at work.
        self._distrusted: dict[int, int] = {}
        self._until = 0  # when the leases end, if they are not renewed
        self._untold: dict[int, bool] = {}
        self._telling: dict[int, bool] = {}  # what `taken` is at
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def owns(self, partition: int) -> bool:
        return partition in self._mine and _clock() < self._until

    def owned(self) -> Set[int]:
        return self._mine.keys() if _clock() < self._until else frozenset()

    def owns_run(self, run_id: str) -> bool:
        return self.owns(partition_of_run(run_id))

    def present(self) -> bool:
        return _clock() < self._until

    async def while_owner(self, replica: str, partitions: Collection[int], work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=LOOK_S)
                if done:
                    return task.result()
                if any(self.owner(partition) != replica for partition in partitions):
                    raise moved()
        finally:
            task.cancel()

    def owner(self, partition: int) -> str:
        if self.owns(partition):
            return self.me
        owner = self._table.leases[partition].owner if self._table.leases else ""
        if owner in ("", self.me) or owner not in self._table.replicas:
            raise RetryableError(
                "UNAVAILABLE", "No replica decides for this run now; one is taking over.", retry_after=0.25
            )
        return owner

    def others(self) -> list[str]:
        owners = {lease.owner for lease in self._table.leases}
        return sorted(owner for owner in owners & set(self._table.replicas) if owner not in ("", self.me))

    def bus_wiped(self) -> None:
        self._on = self._bus.incarnation
        self._distrusted = dict(self._last)
        if _clock() >= self._until:  # nobody hands out now; once they are taken again, all is
            self._set({})
        # A take-over that is under way found at work a moment ago what is lost now: it sees so, and comes once more.
        stale = [at for at, orderly in self._telling.items() if orderly]
        self._telling.update(dict.fromkeys(stale, False))
        self._untold = dict.fromkeys([*stale, *self._untold], False)
        if stale:
            self._news.set()

    def facts(self) -> dict[str, str]:
        return {
            "partitions": f"{len(self.owned())} of {PARTITIONS}",
            "replicas": str(len(self._table.replicas)),
        }

    async def start(self) -> None:
        """Take a place among the replicas, now if it can be, and go on renewing it."""
        self._on = self._bus.incarnation
        with suppress(RetryableError):
            await self._beat()
        self._tasks = [
            asyncio.create_task(self._renew(), name="orchestrator-leases"),
            asyncio.create_task(self._tell(), name="orchestrator-takeover"),
        ]

    async def stop(self) -> None:
        """Let go of everything, so that others need not wait for the leases to end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._tasks:
            return
        self._set({})
        with suppress(AiosError, TimeoutError):
            async with asyncio.timeout(PING_S):
                await self._write(lambda table: leases.left(table, self.me, self._behind(table), self._on))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(BEAT_MS / 1000)
            try:
                async with asyncio.timeout(LEASE_MS / 1000):
                    await self._beat()
            except (RetryableError, TimeoutError) as error:
                if _clock() >= self._until and self._mine:
                    log.warning("the leases ended: %s", error or "the store does not answer")
                    self._set({})
            except Exception:
                log.exception("the leases could not be renewed")

    async def _tell(self) -> None:
        """Tell of what was taken over, apart from the renewing, which must not wait for it."""
        while True:
            await self._news.wait()
            self._news.clear()
            untold = self._telling = self._untold
            self._untold = {}
            try:
                await self.taken(untold)
            except RetryableError as error:
                log.warning("a take-over is tried again: %s", error.message)
                await self._later(untold, BEAT_MS)
            except Exception:
                log.exception("a take-over failed by a defect, and is tried again")
                await self._later(untold, LEASE_MS)
            self._telling = {}

    async def _later(self, untold: Mapping[int, bool], wait_ms: int) -> None:
        """Tell of it again."""
        self._untold = {at: orderly for at, orderly in untold.items() if at in self._mine} | self._untold
        await asyncio.sleep(wait_ms / 1000)
        self._news.set()

    def _behind(self, table: Leases) -> frozenset[int]:
        """The partitions that may not be let go of in good order: of those that are this replica's by the table some
        may not be in its hands, since it was silent for too long."""
        if self._on != self._bus.incarnation:
            return ALL  # what was on it is lost, and `bus_wiped` will be told
        untaken = {
            at for told in (self._telling, self._untold) for at, orderly in told.items() if not orderly
        }
        distrusted = {
            at
            for at, epoch in leases.owned(table, self.me).items()
            if self._last.get(at) != epoch or self._distrusted.get(at) == epoch
        }
        return self.behind() | untaken | distrusted

    async def _beat(self) -> None:
        """Renew; whoever can't be reached over the bus is of no use to the others, and does not."""
        started = _clock()
        await self._bus.ping(PING_S)

        def renew(table: Leases) -> Leases:
            alive = self._sightings.alive(table, _clock())
            after = leases.renewed(
                table, self.me, self._instance, alive, self._beats, lambda: self._behind(table), self._on
            )
            self._beats = after.replicas[self.me].beat
            # What it lets go of is another's as soon as that is written, whether or not this replica hears of it.
            keeps = leases.owned(after, self.me)
            self._set({at: epoch for at, epoch in self._mine.items() if keeps.get(at) == epoch})
            return after

        self._table = await self._write(renew)
        self._until = started + LEASE_MS
        self._set(leases.owned(self._table, self.me))

    async def _write(self, change: Callable[[Leases], Leases]) -> Leases:
        for _ in range(RACES):
            stored = await self._store.read(self._key)
            table = Leases.FromString(stored.head) if stored is not None else Leases()
            after = change(table)
            write = Write(
                key=self._key,
                expect=stored.revision if stored is not None else 0,
                head=after.SerializeToString(deterministic=True),
            )
            (result,) = await self._store.commit([write])
            if isinstance(result, Committed):
                return after
        raise RetryableError("CONFLICT", "Too many replicas renew their places at once.")

    def _set(self, mine: dict[int, int]) -> None:
        lost = frozenset(at for at, epoch in self._mine.items() if mine.get(at) != epoch)
        before, self._mine = self._mine, mine
        if lost:
            # Whatever becomes of them, what waits here is forgotten now.
            self._distrusted.update((at, before[at]) for at in self._behind(self._table) & lost)
            self.lost(lost)
        self._untold = {at: orderly for at, orderly in self._untold.items() if at in mine}
        for at, epoch in mine.items():
            if before.get(at) != epoch:
                # What this replica itself has handed out is at work, as is what its last owner had when it left.
                at_work = leases.at_work(self._table.leases[at], self._on) or self._last.get(at) == epoch
                self._untold[at] = at_work and self._distrusted.get(at) != epoch
                self._last[at] = epoch
        if self._untold:
            self._news.set()


def moved() -> RetryableError:
    """What is raised where a run's owner has changed meanwhile."""
    return RetryableError("UNAVAILABLE", "Another replica decides for this run now.", retry_after=LOOK_S)


def _clock() -> int:
    """The clock of leases, in ms: one that nobody sets."""
    return int(asyncio.get_running_loop().time() * 1000)
