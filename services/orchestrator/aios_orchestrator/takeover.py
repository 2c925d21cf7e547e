"""What a process that begins to decide for a partition does first: see what is at work there, and watch over it.

After a restart, or the death of another replica, what was handed out may be lost with it, and is handed out again: a
worker that has done it already answers with the same outcome, and one that is settled is ignored. What a replica has
handed out that left in good order is still at work: its leases go on here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from aios.run.v1.state_pb2 import RunHead
from aios_core.errors import RetryableError
from aios_core.ids import partition_of, partition_of_run
from aios_orchestrator.announcer import Announcer
from aios_orchestrator.core.decide import Redispatch
from aios_orchestrator.delivery import TaskKey
from aios_orchestrator.engine import Engine
from aios_orchestrator.items import Answer, Item
from aios_orchestrator.mailbox import Mailbox
from aios_orchestrator.ownership import ALL, Ownership, Taken
from aios_orchestrator.progress import OPEN_STEP
from aios_orchestrator.publisher import Publisher
from aios_orchestrator.repository import Repository, hands_out, run_key
from aios_orchestrator.resources import ResourceBook
from aios_runtime.store.port import Store, Write

AT_ONCE: Final = 500  # runs in one go
SWEEP_S: Final = 20.0  # between two looks for what nobody watches over
ACTOR: Final = "service:orchestrator"

log = logging.getLogger(__name__)


class Takeover:
    """Takes over partitions."""

    def __init__(
        self,
        repository: Repository,
        resources: ResourceBook,
        engine: Engine,
        publisher: Publisher,
        announcer: Announcer,
        ownership: Ownership,
        mailbox: Mailbox,
        workspace: str,
    ) -> None:
        self._mailbox = mailbox
        self._announcer = announcer
        self._repository = repository
        self._store: Store = repository.store
        self._resources = resources
        self._engine = engine
        self._publisher = publisher
        self._ownership = ownership
        self._workspace = workspace
        self._unwatched: set[tuple[TaskKey, int]] = set()
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look after what nobody watches over, from time to time: what a replica has committed that was paused, or
        never heard that it was committed."""
        if self._store.shared:
            self._sweeping = asyncio.create_task(self._sweep(), name="orchestrator-sweep")

    async def stop(self) -> None:
        """Stop looking."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def taken(self, taken: Taken) -> None:
        """Take over partitions. Again is safe; what is taken for at work may turn out not to be meanwhile."""
        await self._store.settle()
        if self._store.shared:
            await self._announcer.announce_heads(self._store, taken)
        await self._refile()
        watches = self._publisher.delivery.watches
        again = "another replica takes over" if self._store.shared else "the orchestrator was started again"
        for partition in taken:
            async for heads in handed_out(self._store, self._workspace, partition):
                if taken[partition]:
                    await self._adopt(heads, partial(taken.__getitem__, partition))
                    continue
                keys = [key for key, dispatch in tasks_of(heads) if not watches(key, dispatch)]
                items = redispatch(self._workspace, keys, again)
                if items:
                    await self._engine.submit(items)
        await self._mailbox.taken(taken)

    def lost(self, partitions: frozenset[int]) -> None:
        """Others decide there from now on."""
        self._repository.forget_all(lambda run: partition_of_run(run) in partitions)
        self._publisher.delivery.let_go(lambda run: partition_of_run(run) not in partitions)
        self._publisher.unsent.forget(partitions)

    async def _adopt(self, heads: Iterable[RunHead], at_work: Callable[[], bool] = lambda: True) -> None:
        for head in heads:
            try:
                await self._adopt_one(head, at_work)
            except RetryableError:
                raise
            except Exception:  # such a run keeps no other from being watched over
                log.exception("run %s: its tasks can't be watched over", head.run_id)

    async def _adopt_one(self, head: RunHead, at_work: Callable[[], bool]) -> None:
        # What this replica kept of the run may be from before another one decided for it.
        stored = await self._repository.view(head.workspace, head.run_id)
        if stored is None:
            return
        run = stored.run
        workflow = await self._resources.followed(run)
        for key, _ in tasks_of([head]):
            step = run.at(key.step)
            watched = self._publisher.delivery.watches(key, step.dispatch)
            if step.state in OPEN_STEP and not step.due and not watched and at_work():
                self._publisher.adopt(run, workflow, key.step)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except RetryableError as error:
                log.warning("the look for tasks that nobody watches is put off: %s", error.message)
            except Exception:
                log.exception("the look for tasks that nobody watches failed")

    async def sweep(self) -> None:
        """Watch over tasks that were unwatched the last time as well, and tell again of the last events: some may have
        been committed by whoever never heard of it."""
        await self._announcer.announce_heads(self._store, filter(self._ownership.owns, ALL))
        await self._mailbox.sweep()
        unwatched: set[tuple[TaskKey, int]] = set()
        for partition in filter(self._ownership.owns, ALL):
            async for heads in handed_out(self._store, self._workspace, partition):
                lone = [
                    (head, task)
                    for head in heads
                    for task in tasks_of([head])
                    if not self._publisher.delivery.watches(*task)
                ]
                unwatched |= {task for _, task in lone}
                await self._adopt([head for head, task in lone if task in self._unwatched])
        self._unwatched = unwatched

    async def _refile(self) -> None:
        """Runs that were written when `out` had another name, and not by partition, are put in their place."""
        while True:
            page = await self._store.query("active", self._workspace, limit=AT_ONCE)
            if not page.items:
                return
            writes = []
            for item in page.items:
                head = RunHead.FromString(item.head)
                stored = await self._repository.load(head.workspace, head.run_id)
                if stored is not None and stored.revision == item.revision:
                    place = f"{self._workspace}/{partition_of(head.slot)}" if hands_out(stored.run) else ""
                    index = {"active": "", "out": place}
                    key = run_key(head.workspace, head.run_id)
                    writes.append(Write(key, item.revision, item.head, due_ms=item.due_ms, index=index))
                self._repository.forget(head.workspace, head.run_id)
            await self._store.commit(writes)


async def handed_out(store: Store, workspace: str, partition: int) -> AsyncIterator[Sequence[RunHead]]:
    """The runs of a partition that have tasks handed out, as committed state says, some at a time."""
    token = ""
    while True:
        page = await store.query(
            "out", f"{workspace}/{partition}", token=token, limit=AT_ONCE, newest_first=False
        )
        yield [RunHead.FromString(item.head) for item in page.items]
        token = page.next_token
        if not token:
            return


def tasks_of(heads: Iterable[RunHead]) -> Iterable[tuple[TaskKey, int]]:
    """Every task that committed state says is handed out, with its dispatch number."""
    for head in heads:
        for step in head.steps:
            if step.state in OPEN_STEP and not step.due_ms:
                yield TaskKey(head.run_id, step.step), step.dispatch


def redispatch(workspace: str, keys: Iterable[TaskKey], why: str) -> list[Item]:
    """One input a run for the tasks that were lost."""
    runs: dict[str, list[str]] = {}
    for key in keys:
        runs.setdefault(key.run_id, []).append(key.step)
    return [Item(workspace, run, Redispatch(tuple(steps), why), ACTOR) for run, steps in runs.items()]


def no_longer_out(keys: Iterable[TaskKey], answers: Iterable[Answer]) -> list[TaskKey]:
    """Of tasks whose lease ended those that are not handed out any more: another replica, which took itself for the
    owner still, has settled them. `answers` are of the runs, after it was asked to hand them out again."""
    runs = {answer.run.run_id: answer.run for answer in answers if answer.run is not None}
    ended = []
    for key in keys:
        step = runs[key.run_id].at(key.step) if key.run_id in runs else None
        if step is None or step.state not in OPEN_STEP or step.due:
            ended.append(key)
    return ended
