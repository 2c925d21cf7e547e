"""The loop that turns what arrives into decisions, commits many of them at once, and hands out what follows.

Receive → dedupe → decide → commit → publish → acknowledge: an item's future resolves when its effects are published,
and only then does whoever submitted it answer and acknowledge.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_orchestrator.accounts import AccountBook, receipt
from aios_orchestrator.announcer import Announcer
from aios_orchestrator.core.decide import Cancel, Input, decide
from aios_orchestrator.core.migrate import Migrate
from aios_orchestrator.core.money import Purse
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.entry import Entry, follows, give_heads, in_line, spent, under_way
from aios_orchestrator.items import Answer, Item, StartItem
from aios_orchestrator.model import Run
from aios_orchestrator.publisher import Changed, Publisher
from aios_orchestrator.repository import Repository, run_key
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.starting import check_room, check_same, new_run
from aios_runtime.crashpoints import crash, point
from aios_runtime.store.port import Committed, Conflict, Result, Write

MAX_QUEUE: Final = 20_000  # items that wait to be decided; whoever submits more waits
MAX_BATCH: Final = 500  # items in one commit
MAX_TRIES: Final = 5  # of an item that loses its compare-and-set
MAX_OPENED: Final = 20  # times that a batch is decided while others change the runs or the accounts
PUBLISHING: Final = 4  # commits whose messages are on their way at once
STOP_S: Final = 3.0  # to finish at the end; what isn't by then is found in the store by whoever decides next

RECEIVED = point("orchestrator.received", "a batch was taken in; nothing is decided")
DECIDED = point("orchestrator.decided", "decided; nothing is committed")
HELD = point("orchestrator.held", "money is held; no run is committed that spends it")
COMMITTED = point("orchestrator.committed", "committed; nothing is published")
PUBLISHED = point("orchestrator.published", "published; nothing is acknowledged")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    items: Sequence[Item | StartItem]
    future: "asyncio.Future[list[Answer]]"
    tries: int = 0
    started: dict[int, Answer] = field(default_factory=dict)
    """By place, the runs that an earlier try has started: in a later one they would be taken for duplicates."""


class Engine:
    """Decides for all runs of this service's store."""

    def __init__(
        self,
        repository: Repository,
        resources: ResourceBook,
        publisher: Publisher,
        announcer: Announcer,
        accounts: AccountBook,
        now_ms: Callable[[], int],
    ) -> None:
        self._accounts = accounts
        self._purse: Purse | None = None  # of the batch that is decided on, once a run in it may spend
        self._repository = repository
        self._resources = resources
        self._publisher = publisher
        self._announcer = announcer
        self._now_ms = now_ms
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_QUEUE)
        self._publishing = asyncio.Semaphore(PUBLISHING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._deciding = self._stopping = False
        self.due: Callable[[int], None] = lambda due_ms: None
        """Called after a commit with the earliest time at which something in it is due by itself."""
        self.waiting: Callable[[Run, Sequence[str]], None] = lambda run, correlations: None
        """Called when a run may have been committed that waits for events from now on, with their correlations."""
        self.turns: Callable[[Run], None] = lambda run: None
        """Called with each run that was committed and has to do with who else of its workflow is under way."""
        self.owns: Callable[[str], bool] = lambda run_id: True
        """Whether this process decides for a run, or another one does."""

    def start(self) -> None:
        """Begin to decide."""
        self._loop = asyncio.create_task(self._run(), name="orchestrator-engine")

    async def stop(self) -> None:
        """Finish what is being decided and published, within `STOP_S` each; what still waits comes again."""
        self._stopping = True
        if self._loop is not None:
            if not self._deciding:
                self._loop.cancel()
            await _finished([self._loop])
        await _finished(self._tasks)

    async def submit(self, items: Sequence[Item | StartItem]) -> list[Answer]:
        """Decide on items, commit, and publish what follows.

        Returns what became of each. Raises a RetryableError when the store could not commit; nothing is applied then.
        """
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Waiting(items, future))
        return await future

    async def _run(self) -> None:
        while not self._stopping:
            self._deciding = False
            batch = [await self._queue.get()]
            self._deciding = True
            count = len(batch[0].items)
            while count < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
                count += len(batch[-1].items)
            crash(RECEIVED)
            try:
                await self._decide(batch)
            except AiosError as error:
                _fail(batch, error)
            except Exception as error:
                log.exception("a batch could not be decided")
                _fail(batch, TerminalError("INTERNAL", f"The decision failed: {type(error).__name__}."))

    async def _decide(self, batch: list[_Waiting]) -> None:
        entries, answers = await self._answers(batch)
        writes: list[Write] = []
        owners: list[str] = []
        for key, entry in entries.items():
            if entry.events or entry.extra:
                own = self._repository.writes(
                    entry.before, entry.run, entry.changed, entry.events, entry.extra, entry.workflow
                )
                writes += own
                owners += [key] * len(own)
        crash(DECIDED)
        unsent = self._publisher.unsent
        note = unsent.begin(
            entry.run.run_id for entry in entries.values() if entry.dispatched or entry.undoing
        )
        try:
            await self._commit(batch, answers, entries, writes, owners, note)
        except BaseException:
            unsent.give_up(note)
            raise

    async def _commit(
        self,
        batch: list[_Waiting],
        answers: list[list[Answer]],
        entries: dict[str, Entry],
        writes: list[Write],
        owners: list[str],
        note: list[str],
    ) -> None:
        try:
            results = await self._repository.store.commit(writes) if writes else []
        except AiosError:
            # Whether it stands may not be known: what is decided next must be decided on what the store has.
            for entry in entries.values():
                self._repository.forget(entry.run.workspace, entry.run.run_id)
            raise
        finally:
            for entry in entries.values():
                if entry.waiting:
                    self.waiting(entry.run, entry.waiting)
        crash(COMMITTED)
        dues = [write.due_ms for write in writes if write.due_ms is not None]
        if dues:
            self.due(min(dues))
        lost = self._keep(entries, writes, owners, results)
        costs, finished = spent(entry for key, entry in entries.items() if key not in lost)
        if costs or finished:
            await self._accounts.settle(costs, finished)
        for write, key, result in zip(writes, owners, results, strict=True):
            if write.key != key and key not in lost and isinstance(result, Conflict):
                with suppress(
                    RetryableError
                ):  # what is shown is the run's own, whatever stands in the listing
                    await self._repository.relist(entries[key].run, write.key)
        await self._publishing.acquire()
        for key in lost:
            del entries[key]
        changed, filed = follows(entries.values(), writes, results)
        for change in changed:
            if change.run.concurrency is not None:
                self.turns(change.run)
        self._announcer.announce(filed, urgent=any(not change.out for change in changed))
        if lost:
            await self._publish([], [], changed, note)
            await self._again(batch, answers, lost)
            return
        pairs = (zip(asked.items, told, strict=True) for asked, told in zip(batch, answers, strict=True))
        give_heads(chain.from_iterable(pairs), entries, writes)
        task = asyncio.create_task(self._publish(batch, answers, changed, note))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answers(self, batch: list[_Waiting]) -> tuple[dict[str, Entry], list[list[Answer]]]:
        """Decide, on what stands: an input that changes nothing is not checked by any compare-and-set."""
        if any(isinstance(item, StartItem) for waiting in batch for item in waiting.items):
            await self._resources.refresh()
        for _ in range(MAX_OPENED):
            self._purse = None
            entries: dict[str, Entry] = {}
            answers = [
                [
                    waiting.started.get(at) or await self._one(item, entries, waiting.tries)
                    for at, item in enumerate(waiting.items)
                ]
                for waiting in batch
            ]
            stale = [
                entry
                for entry in entries.values()
                if entry.before is not None
                and not (entry.events or entry.extra)
                and not await self._repository.stands(entry.before)
            ]
            if not stale and await self._hold():
                return entries, answers
            for entry in stale:
                self._repository.forget(entry.run.workspace, entry.run.run_id)
        raise RetryableError("CONFLICT", "The run is being changed by somebody else. Try again.")

    async def _hold(self) -> bool:
        """Hold what the batch may spend; False when the accounts were changed by somebody else meanwhile."""
        if self._purse is None or not self._purse.dirty:
            return True
        held = await self._accounts.write(self._purse)
        crash(HELD)
        return held

    def _keep(
        self, entries: dict[str, Entry], writes: list[Write], owners: list[str], results: Sequence[Result]
    ) -> set[str]:
        """Remember what was committed; returns the keys of the runs whose compare-and-set was lost."""
        lost: set[str] = set()
        for write, key, result in zip(writes, owners, results, strict=True):
            if write.key != key:
                continue
            entry = entries[key]
            if isinstance(result, Committed):
                self._repository.keep(entry.run, result.revision)
            else:
                lost.add(key)
                self._repository.forget(entry.run.workspace, entry.run.run_id)
        return lost

    async def _again(self, batch: list[_Waiting], answers: list[list[Answer]], lost: set[str]) -> None:
        """Some runs were written by somebody else meanwhile. Inputs are idempotent: decide the batch on what stands."""
        for waiting, answered in zip(batch, answers, strict=True):
            waiting.tries += 1
            for at, (item, answer) in enumerate(zip(waiting.items, answered, strict=True)):
                run = answer.run if isinstance(item, StartItem) and not answer.duplicate else None
                if run is not None and run_key(run.workspace, run.run_id) not in lost:
                    waiting.started[at] = answer
            if waiting.tries >= MAX_TRIES:
                error = RetryableError("CONFLICT", "The run is being changed by somebody else. Try again.")
                _fail([waiting], error)
        await self._decide([waiting for waiting in batch if not waiting.future.done()])

    async def _one(self, item: Item | StartItem, entries: dict[str, Entry], tries: int) -> Answer:
        try:
            if isinstance(item, StartItem):
                return await self._start(item, entries, tries)
            return await self._input(item, entries)
        except TerminalError as error:
            return Answer(refusal=error)

    async def _entry(self, workspace: str, run: str, entries: dict[str, Entry]) -> Entry | None:
        key = run_key(workspace, run)
        entry = entries.get(key)
        if entry is None:
            stored = await self._repository.load(workspace, run)
            if stored is None:
                return None
            workflow = await self._resources.followed(stored.run)
            entry = entries[key] = Entry(stored, stored.run, workflow)
        return entry

    async def _start(self, item: StartItem, entries: dict[str, Entry], tries: int) -> Answer:
        # Nearly every run that is to be started is new: the store is not asked whether it is. Where it is not, its
        # creation conflicts, and it is read in the next try; and before anything is refused, or done to others, it is.
        known = await self._known(item, entries, look=tries > 0)
        if known is not None:
            return known
        request = item.request
        try:
            run, workflow, first = await new_run(item, self._resources, self._repository)
        except TerminalError:
            if (known := await self._known(item, entries, look=True)) is not None:
                return known
            raise
        if first.concurrency_key:
            if (known := await self._known(item, entries, look=True)) is not None:
                return known
            key = first.concurrency_key
            if first.concurrency is None:
                await self._replace(request.workspace, workflow.name, key, item.run_id, entries)
            else:
                here = in_line(entries.values(), workflow.name, key)
                await check_room(self._repository, request.workspace, workflow.name, first, here)
        entry = entries[run_key(request.workspace, item.run_id)] = Entry(None, run, workflow)
        await self._apply(entry, first, request.actor)
        return Answer(entry.run)

    async def _known(self, item: StartItem, entries: dict[str, Entry], *, look: bool) -> Answer | None:
        """The run that was started for the request already, if it is at hand, or if the store is to be asked."""
        workspace = item.request.workspace
        key = run_key(workspace, item.run_id)
        look = look or key in entries or self._repository.at_hand(key)
        entry = await self._entry(workspace, item.run_id, entries) if look else None
        if entry is None:
            return None
        check_same(entry.run, item.request_sha256)
        return Answer(entry.run, duplicate=True)

    async def _replace(
        self, workspace: str, workflow: str, key: str, by: str, entries: dict[str, Entry]
    ) -> None:
        """The new run takes the place of those under way for the same thing that this process decides for."""
        others = await self._others(workspace, workflow, key, by, entries)
        for other in filter(self.owns, others):
            entry = await self._entry(workspace, other, entries)
            if entry is not None:
                await self._apply(entry, Cancel("a later change takes its place", by), "service:orchestrator")

    async def _others(
        self, workspace: str, workflow: str, key: str, but: str, entries: dict[str, Entry]
    ) -> list[str]:
        """The runs but one that are under way for the same thing."""
        active = await self._repository.active_with_key(workspace, workflow, key)
        others = {run.run_id for run in active}
        others |= set(under_way(entries.values(), workflow, key))
        return sorted(others - {but})

    async def _input(self, item: Item, entries: dict[str, Entry]) -> Answer:
        entry = await self._entry(item.workspace, item.run_id, entries)
        if entry is None:
            raise TerminalError("NOT_FOUND", f"There is no run {item.run_id}.", field="run_id")
        if item.request_id:
            name = f"request/{item.request_id}"
            known = entry.extra.get(name) or await self._record(entry, name)
            if known is not None:
                if known != item.request_sha256:
                    raise TerminalError(
                        "REQUEST_ID_REUSED",
                        f"Request id {item.request_id!r} was used for another content.",
                        field="request_id",
                    )
                return Answer(entry.run, duplicate=True)
        once = f"once/{item.once}"
        if item.once and (once in entry.extra or await self._record(entry, once) is not None):
            return Answer(entry.run, duplicate=True)
        before = len(entry.events)
        key = entry.run.concurrency_key if isinstance(item.input, Recover) else ""
        limit = entry.run.concurrency.limit if entry.run.concurrency is not None else 1
        if key and (
            len(others := await self._others(item.workspace, entry.run.workflow, key, item.run_id, entries))
            >= limit
        ):
            raise TerminalError("RUN_CLOSED", f"Run {others[0]} is under way for the same thing.")
        refusal = await self._apply(entry, item.input, item.actor)
        if item.once and len(entry.events) > before:
            entry.extra[once] = b"1"
        if item.request_id and refusal is None:
            entry.extra[f"request/{item.request_id}"] = item.request_sha256
        return Answer(entry.run, refusal=refusal)

    async def _record(self, entry: Entry, name: str) -> bytes | None:
        return await self._repository.store.record(run_key(entry.run.workspace, entry.run.run_id), name)

    async def _apply(self, entry: Entry, what: Input, actor: str) -> AiosError | None:
        now, purse = self._now_ms(), None
        workflow = what.workflow if isinstance(what, Migrate) else entry.workflow
        if workflow.spends:
            purse = self._purse = self._purse or await self._accounts.open()
            await self._accounts.charge(purse, entry.run, workflow, now)
        decision = decide(entry.run, entry.workflow, what, now, actor, purse)
        entry.run, entry.workflow = decision.run, decision.workflow or entry.workflow
        entry.events += decision.events
        entry.changed.update(dict.fromkeys(entry.run.own))
        entry.ended += decision.ended
        entry.settled += decision.settled
        entry.extra.update({receipt(serial): str(cost).encode() for serial, cost in decision.settled})
        entry.waiting += decision.waiting
        entry.dispatched.update(dict.fromkeys(decision.dispatched))
        entry.undoing.update(dict.fromkeys(decision.undoing))
        return decision.refusal

    async def _publish(
        self,
        batch: list[_Waiting],
        answers: list[list[Answer]],
        changed: list[Changed],
        note: list[str],
    ) -> None:
        """Publish, then let those who submitted answer and acknowledge. Frees a place in `_publishing`."""
        try:
            await self._publisher.publish(changed, note)
            self._publisher.unsent.end(note)
            crash(PUBLISHED)
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(answer)
        except Exception as error:
            log.exception("what was committed could not be published")
            self._publisher.unsent.give_up(note)
            _fail(
                batch,
                TerminalError(
                    "INTERNAL", f"The decision is committed; publishing failed: {type(error).__name__}."
                ),
            )
        finally:
            self._publishing.release()


def _fail(batch: Sequence[_Waiting], error: AiosError) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)


async def _finished(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Wait for their end, and no longer than `STOP_S`."""
    if tasks := list(tasks):
        _, late = await asyncio.wait(tasks, timeout=STOP_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
