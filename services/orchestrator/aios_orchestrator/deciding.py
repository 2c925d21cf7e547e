"""Deciding on a batch of inputs: what is stored of their runs, what the pure core says to each, whether there is money.

Nothing is committed here but holds: money is held before a run is committed that spends it.
"""

import asyncio
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from aios.run.v1.budget_pb2 import Hold
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_orchestrator.accounts import AccountBook, receipt
from aios_orchestrator.core.decide import Cancel, Input, decide
from aios_orchestrator.core.migrate import Migrate
from aios_orchestrator.core.money import Purse
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.entry import Entry, in_line, under_way
from aios_orchestrator.items import Answer, Item, StartItem
from aios_orchestrator.repository import Repository, run_key
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.starting import check_room, check_same, new_run
from aios_runtime.crashpoints import crash, point

MAX_OPENED: Final = 20  # times that a batch is decided while others change the runs or the accounts

HELD = point("orchestrator.held", "money is held; no run is committed that spends it")


@dataclass(slots=True)
class Asked:
    """Inputs that were submitted together, and who waits for what becomes of them. `tries` counts lost commits."""

    items: Sequence[Item | StartItem]
    future: "asyncio.Future[list[Answer]]"
    tries: int = 0
    started: dict[int, Answer] = field(default_factory=dict)
    """By place, the runs that an earlier try has started: in a later one they would be taken for duplicates."""


class Decider:
    """Decides on one batch after the other."""

    def __init__(
        self,
        repository: Repository,
        resources: ResourceBook,
        accounts: AccountBook,
        now_ms: Callable[[], int],
    ) -> None:
        self._repository, self._resources, self._accounts = repository, resources, accounts
        self._now_ms = now_ms
        self._purse: Purse | None = None  # of the batch that is decided on, once a run in it may spend
        self.owns: Callable[[str], bool] = lambda run_id: True
        """Whether this process decides for a run, or another one does."""

    async def answers(self, batch: Sequence[Asked]) -> tuple[dict[str, Entry], list[list[Answer]]]:
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

    def made_for(self, runs: Set[str]) -> list[Hold]:
        """What was held anew for some of the runs that were decided on last."""
        return self._purse.made_for(runs) if self._purse is not None else []

    async def _hold(self) -> bool:
        """Hold what the batch may spend; False when the accounts were changed by somebody else meanwhile."""
        if self._purse is None or not self._purse.dirty:
            return True
        held = await self._accounts.write(self._purse)
        crash(HELD)
        return held

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
