"""What happens by itself: waits, retries and expiries that are due in the store, and leases that ended in memory."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from aios.run.v1.state_pb2 import RunHead
from aios_core.errors import RetryableError
from aios_core.ids import partition_of
from aios_orchestrator.core.decide import Tick
from aios_orchestrator.engine import Engine
from aios_orchestrator.funding import Funding
from aios_orchestrator.items import Item
from aios_orchestrator.limits import Limits
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.publisher import Publisher, lease_ms
from aios_orchestrator.schedules import Schedules, is_schedule
from aios_orchestrator.takeover import ACTOR, no_longer_out, redispatch
from aios_orchestrator.turns import Turns
from aios_runtime.store.port import Aggregate, Store

BATCH: Final = 200  # runs that are ticked in one go
LONGEST_MS: Final = 5_000  # between two looks, so that a stepped clock is noticed
OTHERS_MS: Final = 250  # between two looks at what is due and is another replica's
MAX_LOOKED: Final = 20_000  # runs that are due, at which one replica looks for its own
PAUSE_S: Final = 1.0  # after the store could not commit

_ALWAYS: Final = 1 << 62  # later than anything

log = logging.getLogger(__name__)


class Timers:
    """Sleeps until the next thing is due. `wake` makes it look again: something may be due earlier now."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        publisher: Publisher,
        ownership: Ownership,
        schedules: Schedules,
        turns: Turns,
        funding: Funding,
        limits: Callable[[], Awaitable[Limits]],
        workspace: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._schedules, self._turns, self._funding = schedules, turns, funding
        self._limits = limits
        self._store = store
        self._engine = engine
        self._publisher = publisher
        self._ownership = ownership
        self._workspace = workspace
        self._now_ms = now_ms
        self._wake = asyncio.Event()
        self._until = 0  # when it looks again by itself, by the clock that nobody sets, ms
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the clock."""
        self._task = asyncio.create_task(self._run(), name="orchestrator-timers")

    async def stop(self) -> None:
        """Stop; what is due stays in the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self, due_ms: int) -> None:
        """Something is due at that time; look at the store again if that is earlier than the next look."""
        self.look_at(lease_ms() + due_ms - self._now_ms())

    def look_at(self, at_ms: int) -> None:
        """The same, by the clock of leases."""
        if at_ms < self._until:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._until = _ALWAYS
            try:
                busy = await self._due()
                wait_s = await self._wait_s()
            except RetryableError as error:
                log.warning("timers wait: %s", error.message)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:
                log.exception("what is due could not be looked at")
                await asyncio.sleep(PAUSE_S)
                continue
            if busy:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _wait_s(self) -> float:
        now, due = self._now_ms(), await self._store.next_due()
        if due is not None and due <= now and self._store.shared:
            due = now + OTHERS_MS  # it is another replica's, or has just become this one's
        lease = self._publisher.delivery.next_lease_end()
        room = self._publisher.delivery.next_room(lease_ms())
        waits = [LONGEST_MS, self._funding.wait_ms()]
        waits += [room - lease_ms()] if room is not None else []
        waits += [due - now] if due is not None else []
        waits += [lease - lease_ms()] if lease is not None else []
        wait = max(0, min(waits))
        self._until = lease_ms() + wait
        return wait / 1000

    async def _due(self) -> bool:
        found = await self._found_due()
        started = await self._schedules.look([item for item in found if is_schedule(item.key)])
        await self._turns.look()
        self._funding.look()
        self._publisher.delivery.limits = await self._limits()
        runs = self._own(found)
        items = [Item(head.workspace, head.run_id, Tick(), ACTOR) for head in runs]
        delivery = self._publisher.delivery
        ended = delivery.expired(lease_ms())
        expired = [key for key in ended if self._ownership.owns_run(key.run_id)]
        items += redispatch(self._workspace, expired, "its lease ended")
        if len(expired) < len(ended):
            delivery.let_go(self._ownership.owns_run)
        await self._publisher.refill()
        if not items:
            return started
        try:
            answers = await self._engine.submit(items)
        except RetryableError:
            delivery.expire_again(expired, lease_ms())
            raise
        unsaid = {item.run_id for item, answer in zip(items, answers, strict=True) if answer.undecided}
        for key in no_longer_out(expired, answers):
            if key.run_id not in unsaid:
                delivery.settled(*key)
        if unsaid:  # these are due still
            delivery.expire_again([key for key in expired if key.run_id in unsaid], lease_ms())
            await asyncio.sleep(PAUSE_S)
        return True

    async def _found_due(self) -> list[Aggregate]:
        """What is due, the earliest first; what other replicas look after lies among it."""
        now, limit = self._now_ms(), BATCH
        while True:
            found = await self._store.due(now, limit)
            if len(found) < limit or limit >= MAX_LOOKED or self._own(found):
                return found
            limit *= 4

    def _own(self, found: Iterable[Aggregate]) -> list[RunHead]:
        """The runs of this replica."""
        heads = [RunHead.FromString(item.head) for item in found if not is_schedule(item.key)]
        return [head for head in heads if self._ownership.owns(partition_of(head.slot))][:BATCH]
