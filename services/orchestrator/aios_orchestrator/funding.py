"""Runs that wait for money, and go on once there is enough: the oldest first, and never past a cap. They asked a person
for it, or others hold it.

Nobody tells of it that a cap was raised, that a month has turned over or that others need less than they held: who
waits is found in the store, by an index, and looked at from time to time, so that no crash in between leaves anybody
waiting. One replica looks, for all of them; whether there is enough is decided by each run itself, on the accounts as
they are then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aios.run.v1.commands_pb2 import FundRunRequest
from aios.run.v1.state_pb2 import RUN_STATE_RUNNING, STEP_STATE_GATED, RunHead, StepHead
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import derive
from aios_orchestrator.accounts import AccountBook
from aios_orchestrator.core.money import Attempt, Purse
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.publisher import lease_ms
from aios_orchestrator.repository import Repository
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.workflow import Workflow

PAGE: Final = 200  # runs that are read in one go
LOOK_MS: Final = 5_000  # between two looks, unless documents were applied
SOON_S: Final = 1.0  # as long as somebody waits for what others hold
PERIOD_MS: Final = (
    60_000  # after which it is looked although nothing was spent or set free: a day may have begun
)

Fund = Callable[[FundRunRequest], Awaitable[None]]
"""Tells a run that waits for money that there may be enough, wherever it belongs; again is safe."""

log = logging.getLogger(__name__)


class Funding:
    """Has runs go on that wait for money."""

    def __init__(
        self,
        repository: Repository,
        accounts: AccountBook,
        resources: ResourceBook,
        fund: Fund,
        ownership: Ownership,
        workspace: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._repository, self._store = repository, repository.store
        self._accounts, self._resources = accounts, resources
        self._fund = fund
        self._ownership = ownership
        self._workspace = workspace
        self._now_ms = now_ms
        self._task: asyncio.Task[None] | None = None
        self._next = 0  # when it is time to look, by the clock that nobody sets, ms
        self._applied = -1
        self._seen: tuple[int, int, int] | None = None
        self._soon = False

    def look(self) -> None:
        """From time to time, and when documents were applied, look at who waits for money."""
        clock, applied = lease_ms(), self._resources.applied
        early = clock < self._next and applied == self._applied
        if early or self._busy() or not self._here():
            return
        self._next, self._applied = clock + LOOK_MS, applied
        self._task = asyncio.create_task(self._work(), name="orchestrator-funding")

    def wait_ms(self) -> int:
        """How long until it is time to look again."""
        if self._busy() or not self._here():
            return LOOK_MS
        return max(0, self._next - lease_ms())

    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _here(self) -> bool:
        return self._ownership.owns_run(derive("fnd", self._workspace))

    async def stop(self) -> None:
        """Stop; who waits is found again in the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def taken(self) -> None:
        """Another replica looked until now."""
        self._next, self._seen = 0, None

    async def _work(self) -> None:
        try:
            while await self._turn():
                await asyncio.sleep(SOON_S)
                if not self._here():
                    return
        except AiosError as error:
            self._seen = None
            log.warning("runs that wait for money wait on: %s", error.message)
        except Exception:
            self._seen = None
            log.exception("who may go on that waits for money could not be said by a defect")

    async def _turn(self) -> bool:
        """Tell each run for which there is enough. What is not there yet and may come back is kept for who is first;
        whether there is such a one."""
        page = await self._store.query("unfunded", self._workspace, limit=PAGE, newest_first=False)
        if not page.items:
            return False
        purse = await self._accounts.open()
        now = self._now_ms()
        seen = (purse.revision, self._resources.applied, now // PERIOD_MS)
        if seen == self._seen:
            return self._soon
        soon = False
        while True:
            for item in page.items:
                head = RunHead.FromString(item.head)
                try:
                    soon |= await self._one(purse, head, now)
                except TerminalError as error:  # what can be tried again holds up those that come after it
                    log.warning("run %s does not go on: %s", head.run_id, error.message)
            if not page.next_token:
                break
            page = await self._store.query(
                "unfunded", self._workspace, token=page.next_token, limit=PAGE, newest_first=False
            )
        self._seen, self._soon = seen, soon
        return soon

    async def _one(self, purse: Purse, head: RunHead, now: int) -> bool:
        """Tell a run if there is enough for a step of it; whether it waits for what others hold."""
        if not _takes(head):  # nothing is kept for it either
            return False
        workflow = await self._followed(head)
        await self._accounts.charge(purse, head, workflow, now)
        enough = soon = False
        for attempt, micros in _waits(head, workflow):
            lacking = purse.short(micros)
            enough |= lacking is None or purse.holds_for(attempt)
            soon |= lacking is not None and not lacking.for_good(micros)
            if lacking is None or not lacking.for_good(micros):
                purse.hold(attempt, micros, now)  # in this copy alone, which is not written
        if enough:
            await self._fund(FundRunRequest(workspace=self._workspace, run_id=head.run_id))
        return soon

    async def _followed(self, head: RunHead) -> Workflow:
        stored = await self._repository.view(self._workspace, head.run_id) if head.planned else None
        if stored is not None:
            return await self._resources.followed(stored.run)
        return await self._resources.workflow(self._workspace, head.workflow, head.workflow_version)


def _takes(head: RunHead) -> bool:
    """Whether a run would take money: one that is being cancelled, or failed, awaits what is under way alone."""
    stops = head.state != RUN_STATE_RUNNING or head.HasField("error")
    return not stops and any(map(_may_wait, head.steps))


def _may_wait(step: StepHead) -> bool:
    """Whether a step waits for money, or for a person, who may have been asked about it."""
    return step.unfunded or step.state == STEP_STATE_GATED


def _waits(head: RunHead, workflow: Workflow) -> Iterator[tuple[Attempt, int]]:
    """The attempts of a run that wait for money, or for a person's word about it."""
    for step in filter(_may_wait, head.steps):
        micros = workflow.at(step.step).hold
        if micros:
            yield Attempt(head.run_id, step.step, step.attempt_group, step.attempt + 1), micros
