"""The loop that turns what arrives into decisions, commits many of them at once, and hands out what follows.

Receive → dedupe → decide → commit → publish → acknowledge: an item's future resolves when its effects are published,
and only then does whoever submitted it answer and acknowledge.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_orchestrator.accounts import AccountBook
from aios_orchestrator.announcer import Announcer
from aios_orchestrator.deciding import Asked, Decider
from aios_orchestrator.entry import Entry, follows, give_heads, spent
from aios_orchestrator.items import Answer, Item, StartItem
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import moved
from aios_orchestrator.publisher import Changed, Publisher
from aios_orchestrator.repository import Repository, run_key
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.unfit import in_place_of, one_by_one
from aios_orchestrator.unsent import Note
from aios_runtime.crashpoints import crash, point
from aios_runtime.store.port import Committed, Conflict, Result, Write

MAX_QUEUE: Final = 20_000  # items that wait to be decided; whoever submits more waits
MAX_BATCH: Final = 500  # items in one commit
MAX_TRIES: Final = 5  # of an item that loses its compare-and-set
PUBLISHING: Final = 4  # commits whose messages are on their way at once
STOP_S: Final = 3.0  # to finish at the end; what isn't by then is found in the store by whoever decides next

RECEIVED = point("orchestrator.received", "a batch was taken in; nothing is decided")
DECIDED = point("orchestrator.decided", "decided; nothing is committed")
COMMITTED = point("orchestrator.committed", "committed; nothing is published")
PUBLISHED = point("orchestrator.published", "published; nothing is acknowledged")

log = logging.getLogger(__name__)


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
        self._repository = repository
        self._publisher = publisher
        self._announcer = announcer
        self.decider = Decider(repository, resources, accounts, now_ms)
        self._queue: asyncio.Queue[Asked] = asyncio.Queue(MAX_QUEUE)
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
        await self._queue.put(Asked(items, future))
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
            except RetryableError as error:
                _fail(batch, error)
            except TerminalError:
                await self._apart(batch)
            except Exception:
                log.exception("a batch could not be decided on; each of its inputs is by itself")
                await self._apart(batch)

    async def _apart(self, batch: list[Asked]) -> None:
        """Something among these can't be decided on, or kept: decide on each by itself, so that it fails alone. Inputs
        are idempotent."""
        await self._let_go(item for asked in batch for item in asked.items)
        for asked in batch:
            if asked.future.done():
                continue
            try:
                answers = [
                    asked.started.get(at) or await self._alone(item) for at, item in enumerate(asked.items)
                ]
            except AiosError as error:
                _fail([asked], error)
            except Exception as error:
                log.exception("inputs could not be decided on by themselves")
                _fail([asked], _defect(error))
            else:
                if not asked.future.done():  # whoever asked may have gone meanwhile
                    asked.future.set_result(answers)

    async def _alone(self, item: Item | StartItem) -> Answer:
        if isinstance(item, StartItem):
            return await self._by_itself(item)
        answer = Answer()
        for one in one_by_one(item):
            told = await self._by_itself(one)
            instead = in_place_of(one, told.refusal) if told.undecided and told.refusal is not None else None
            if instead is not None:
                told = await self._by_itself(instead)
            answer = answer if answer.undecided else told
        return answer

    async def _by_itself(self, item: Item | StartItem) -> Answer:
        asked = Asked([item], asyncio.get_running_loop().create_future())
        try:
            await self._decide([asked])
        except RetryableError:
            raise
        except TerminalError as error:
            refusal = error
        except Exception as error:
            log.exception("run %s: this could not be decided on", item.run_id)
            refusal = _defect(error)
        else:
            return (await asked.future)[0]
        await self._let_go([item])
        return Answer(refusal=refusal, undecided=True)

    async def _let_go(self, items: Iterable[Item | StartItem]) -> None:
        """Of what was held for decisions that did not come to stand."""
        held = self.decider.made_for({item.run_id for item in items})
        try:
            await self._accounts.settle([], lost=held)
        except Exception:
            log.exception("what is held for nothing is let go of later, when it is looked for")

    async def _decide(self, batch: list[Asked]) -> None:
        entries, answers = await self.decider.answers(batch)
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
        # No await stands between this and the note: what is let go of later counts the note as not handed out, and what
        # was let go of before is not committed on any more, so that none of it is taken for handed out.
        if not all(self.decider.owns(entry.run.run_id) for entry in entries.values()):
            raise moved()
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
        batch: list[Asked],
        answers: list[list[Answer]],
        entries: dict[str, Entry],
        writes: list[Write],
        owners: list[str],
        note: Note,
    ) -> None:
        try:
            results = await self._repository.store.commit(writes) if writes else []
        except Exception:
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
        unused = self.decider.made_for({entries[key].run.run_id for key in lost}) if lost else []
        costs, finished = spent(entry for key, entry in entries.items() if key not in lost)
        if costs or finished or unused:
            await self._accounts.settle(costs, finished, unused)
        for write, key, result in zip(writes, owners, results, strict=True):
            if write.key != key and key not in lost and isinstance(result, Conflict):
                with suppress(
                    RetryableError
                ):  # what is shown is the run's own, whatever stands in the listing
                    await self._repository.relist(entries[key].run, write.key)
        await self._publishing.acquire()
        for key in lost:
            del entries[key]
        try:
            changed, filed = follows(entries.values(), writes, results)
            for change in changed:
                if change.run.concurrency is not None:
                    self.turns(change.run)
            self._announcer.announce(filed, urgent=any(not change.out for change in changed))
            if not lost:
                told = (
                    zip(asked.items, all_of, strict=True)
                    for asked, all_of in zip(batch, answers, strict=True)
                )
                give_heads(chain.from_iterable(told), entries, writes)
        except BaseException:
            self._publishing.release()
            raise
        if lost:
            await self._publish([], [], changed, note)
            await self._again(batch, answers, lost)
            return
        task = asyncio.create_task(self._publish(batch, answers, changed, note))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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

    async def _again(self, batch: list[Asked], answers: list[list[Answer]], lost: set[str]) -> None:
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

    async def _publish(
        self,
        batch: list[Asked],
        answers: list[list[Answer]],
        changed: list[Changed],
        note: Note,
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


def _defect(error: Exception) -> TerminalError:
    return TerminalError("INTERNAL", f"The decision failed: {type(error).__name__}.")


def _fail(batch: Sequence[Asked], error: AiosError) -> None:
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
