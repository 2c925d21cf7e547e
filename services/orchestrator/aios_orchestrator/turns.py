"""Whose turn it is, where only so many runs of one workflow and key may be under way at once.

Such a run is committed as queued. Who is let in is written into one aggregate of the workflow and key by
compare-and-set, and only then is the run told: so whoever looks, after whatever was killed, at most as many are let in
as may be, in the order in which they were committed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from aios.run.v1.commands_pb2 import AdmitRunRequest
from aios.run.v1.state_pb2 import RUN_STATE_QUEUED, QueueState, RunHead
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import derive
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.repository import in_line, sharing, stored_run
from aios_runtime.run_states import ENDED
from aios_runtime.store.port import Aggregate, Committed, Store, Write

PAGE: Final = 200  # queued runs that are looked at in one go
RECONCILE_MS: Final = 10_000  # between two looks at everything that waits
PAUSE_S: Final = 0.5  # before what could not be done is tried again
RACES: Final = 20  # tries of one look, each lost to another replica's

Admit = Callable[[AdmitRunRequest], Awaitable[None]]
"""Tells a queued run that its turn has come, wherever it belongs; again is safe."""

log = logging.getLogger(__name__)


class Line(NamedTuple):
    """The runs of one workflow that share a key."""

    workflow: str
    key: str


class Turns:
    """Lets queued runs in."""

    def __init__(self, store: Store, admit: Admit, ownership: Ownership, workspace: str) -> None:
        self._store = store
        self._admit = admit
        self._ownership = ownership
        self._workspace = workspace
        self._lines: dict[Line, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._looked: float | None = None
        self._token = ""

    def changed(self, run: Run) -> None:
        """A run was committed that waits for its turn, or has ended."""
        if run.queued or run.closed:
            self._look_at([Line(run.workflow, run.concurrency_key)])

    async def stop(self) -> None:
        """Stop; who waits is found again in the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def taken(self) -> None:
        """Others looked after some of the lines until now."""
        self._looked = None

    async def look(self) -> None:
        """From time to time look at all lines of this replica in which somebody waits: whoever committed a run, or saw
        one end, may not have come to it. A page at each call."""
        clock = asyncio.get_running_loop().time() * 1000
        if not self._token and self._looked is not None and clock - self._looked < RECONCILE_MS:
            return
        self._looked = clock
        page = await self._store.query(
            "queued", self._workspace, token=self._token, limit=PAGE, newest_first=False
        )
        self._token = page.next_token
        heads = [RunHead.FromString(item.head) for item in page.items]
        lines = dict.fromkeys(Line(head.workflow, head.concurrency_key) for head in heads)
        self._look_at(line for line in lines if self._ownership.owns_run(self._name(line)))

    def _name(self, line: Line) -> str:
        return derive("que", self._workspace, line.workflow, line.key)

    def _key(self, line: Line) -> str:
        return f"{self._workspace}/queue/{self._name(line)}"

    def _look_at(self, lines: Iterable[Line]) -> None:
        self._lines.update(dict.fromkeys(lines))
        if self._lines and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work(), name="orchestrator-turns")

    async def _work(self) -> None:
        while self._lines:
            line = next(iter(self._lines))
            del self._lines[line]
            try:
                await self._turn(line)
            except RetryableError as error:
                log.warning("queued runs of %s wait: %s", line.workflow, error.message)
                self._lines[line] = None
                await asyncio.sleep(PAUSE_S)
            except Exception:
                log.exception("whose turn it is could not be said by a defect")

    async def _turn(self, line: Line) -> None:
        """Let in who may come in, and tell those that were let in and do not know it yet."""
        for _ in range(RACES):
            stored = await self._store.read(self._key(line))
            before = QueueState.FromString(stored.head) if stored is not None else QueueState()
            let_in = await self._still_here(before.admitted)
            page = await self._store.query(
                "waiting", in_line(self._workspace, *line), limit=PAGE, newest_first=False
            )
            waiting = [RunHead.FromString(item.head) for item in page.items]
            others = await self._others(line, let_in)
            left: list[RunHead] = []
            for head in waiting:
                if head.run_id in let_in:
                    continue
                if len(let_in) + others < max(head.concurrency.limit, 1) and not left:
                    let_in[head.run_id] = head
                else:
                    left.append(head)
            skipped = [head for head in left if head.concurrency.skip]
            after = QueueState(workflow=line.workflow, concurrency_key=line.key, admitted=let_in)
            if not await self._written(line, stored, after):
                continue
            await self._tell(let_in.values(), skipped)
            return
        raise RetryableError("CONFLICT", "Whose turn it is is being changed by somebody else.")

    async def _still_here(self, admitted: Iterable[str]) -> dict[str, RunHead]:
        """Those that were let in and have not ended."""
        found = {}
        for run in admitted:
            stored = await stored_run(self._store, self._workspace, run)
            head = RunHead.FromString(stored.head) if stored is not None else None
            if head is not None and head.state not in ENDED:
                found[run] = head
        return found

    async def _others(self, line: Line, let_in: Iterable[str]) -> int:
        """How many are under way that nobody let in: without a limit then, or reopened by a person."""
        known = set(let_in)
        under_way = await sharing(self._store, self._workspace, *line)
        return sum(head.run_id not in known for head in under_way)

    async def _written(self, line: Line, stored: Aggregate | None, after: QueueState) -> bool:
        """Whether it stands."""
        head = after.SerializeToString()
        if stored is not None and stored.head == head:
            return True
        revision = stored.revision if stored is not None else 0
        (result,) = await self._store.commit([Write(self._key(line), revision, head)])
        return isinstance(result, Committed)

    async def _tell(self, let_in: Iterable[RunHead], skipped: Iterable[RunHead]) -> None:
        failed: AiosError | None = None
        for why, heads in (("", let_in), ("as many were under way as may be", skipped)):
            for head in heads:
                if head.state != RUN_STATE_QUEUED:
                    continue
                request = AdmitRunRequest(workspace=self._workspace, run_id=head.run_id, skip_why=why)
                try:
                    await self._admit(request)
                except TerminalError as error:
                    log.warning("run %s was not let in: %s", head.run_id, error.message)
                except RetryableError as error:
                    failed = error
        if failed is not None:
            raise failed
