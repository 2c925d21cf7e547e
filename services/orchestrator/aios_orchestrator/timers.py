"""What happens by itself: waits, retries and expiries that are due in the store, and leases that ended in memory."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aios.run.v1.state_pb2 import RunHead
from aios_core.errors import RetryableError
from aios_orchestrator.core.decide import Redispatch, Tick
from aios_orchestrator.delivery import TaskKey
from aios_orchestrator.engine import Engine, Item
from aios_orchestrator.model import OPEN_STEP
from aios_orchestrator.publisher import Publisher, lease_ms
from aios_runtime.store.port import Store

BATCH: Final = 200  # runs that are ticked in one go
LONGEST_MS: Final = 30_000  # between two looks, so that a stepped clock is noticed
PAUSE_S: Final = 1.0  # after the store could not commit
ACTOR: Final = "service:orchestrator"

_ALWAYS: Final = 1 << 62  # later than anything

log = logging.getLogger(__name__)


class Timers:
    """Sleeps until the next thing is due. `wake` makes it look again: something may be due earlier now."""

    def __init__(
        self, store: Store, engine: Engine, publisher: Publisher, workspace: str, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._engine = engine
        self._publisher = publisher
        self._workspace = workspace
        self._now_ms = now_ms
        self._wake = asyncio.Event()
        self._until = 0  # when it looks again by itself, ms
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
        if due_ms < self._until:
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
            if busy:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _wait_s(self) -> float:
        now, due = self._now_ms(), await self._store.next_due()
        lease = self._publisher.delivery.next_lease_end()
        waits = [LONGEST_MS]
        waits += [due - now] if due is not None else []
        waits += [lease - lease_ms()] if lease is not None else []
        wait = max(0, min(waits))
        self._until = now + wait
        return wait / 1000

    async def _due(self) -> bool:
        now = self._now_ms()
        due = [RunHead.FromString(item.head) for item in await self._store.due(now, BATCH)]
        items = [Item(head.workspace, head.run_id, Tick(), ACTOR) for head in due]
        delivery = self._publisher.delivery
        expired = delivery.expired(lease_ms())
        items += redispatch(self._workspace, expired, "its lease ended")
        if not items:
            return False
        try:
            await self._engine.submit(items)
        except RetryableError:
            delivery.expire_again(expired, lease_ms())
            raise
        return True


def redispatch(workspace: str, keys: list[TaskKey], why: str) -> list[Item]:
    """One input a run for the tasks that were lost."""
    runs: dict[str, list[str]] = {}
    for key in keys:
        runs.setdefault(key.run_id, []).append(key.step)
    return [Item(workspace, run, Redispatch(tuple(steps), why), ACTOR) for run, steps in runs.items()]


async def tasks_out(store: Store, workspace: str) -> list[TaskKey]:
    """Every task that committed state says is handed out, of all active runs: what a restart hands out again.

    A worker that has done one already answers with the same outcome, and one that is settled is ignored.
    """
    keys: list[TaskKey] = []
    token = ""
    while True:
        page = await store.query("active", workspace, token=token, limit=1000, newest_first=False)
        for item in page.items:
            head = RunHead.FromString(item.head)
            keys += [
                TaskKey(head.run_id, step.step)
                for step in head.steps
                if step.state in OPEN_STEP and not step.due_ms
            ]
        token = page.next_token
        if not token:
            return keys
