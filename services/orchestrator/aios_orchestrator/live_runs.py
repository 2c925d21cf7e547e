"""The runs that have not ended, found among any number of those that have: the index `live`.

A run is put there and taken out by whoever commits it. What a version began that did not know of the index is put
there when such runs are asked for first in a process; until that is done they are looked for among all. Only runs that
began since the last time are looked at, so that those are found too that an earlier version began in the middle of a
rolling upgrade: the process that takes the place of the last such one looks after all of theirs."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from aios.run.v1.state_pb2 import RunHead, RunState
from aios_core.errors import AiosError
from aios_orchestrator.repository import Repository
from aios_runtime.run_states import ENDED
from aios_runtime.store.port import Aggregate, Conflict, Write

LIVE: Final = "live"
AT_ONCE: Final = 500  # runs that are looked at together
MARGIN_MS: Final = 3_600_000  # by which clocks may differ

log = logging.getLogger(__name__)


class LiveRuns:
    """Whether the index holds all runs of a workspace that have not ended."""

    def __init__(self, repository: Repository, workspace: str, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._repository = repository
        self._store = repository.store
        self._workspace = workspace
        self._mark = f"{workspace}/filed/{LIVE}"
        self._filed = False
        self._filing: asyncio.Task[None] | None = None

    async def filed(self, states: Iterable[RunState.ValueType]) -> bool:
        """Whether runs in these states are found in the index. Begins to put them there if they are not yet."""
        wanted = set(states)
        if not wanted or wanted & ENDED:
            return False
        if not self._filed and (self._filing is None or self._filing.done()):
            self._filing = asyncio.create_task(self._file(), name="orchestrator-filing")
        return self._filed

    async def stop(self) -> None:
        """Leave it to the next time."""
        if self._filing is not None:
            self._filing.cancel()
            await asyncio.gather(self._filing, return_exceptions=True)

    async def _file(self) -> None:
        try:
            mark, began = await self._store.read(self._mark), self._now_ms()
            since = int(mark.head) - MARGIN_MS if mark is not None else 0
            token, older = "", False
            while not older:
                page = await self._store.query("runs", self._workspace, token=token, limit=AT_ONCE)
                await self._put(page.items)
                token = page.next_token
                older = not token or RunHead.FromString(page.items[-1].head).create_time_ms < since
            # Of two that do so at once the earlier mark is as good.
            await self._store.commit(
                [Write(self._mark, mark.revision if mark is not None else 0, b"%d" % began)]
            )
            self._filed = True
        except AiosError as error:
            log.warning("runs that have not ended are put in their index later: %s", error.message)

    async def _put(self, items: Iterable[Aggregate]) -> None:
        while items := [item for item in items if _live(item)]:
            writes = [
                Write(item.key, item.revision, item.head, due_ms=item.due_ms, index={LIVE: self._workspace})
                for item in items
            ]
            results = await self._store.commit(writes)
            for item in items:
                head = RunHead.FromString(item.head)
                self._repository.forget(head.workspace, head.run_id)
            changed = [
                item.key for item, result in zip(items, results, strict=True) if isinstance(result, Conflict)
            ]
            items = [stored for key in changed if (stored := await self._store.read(key)) is not None]


def _live(item: Aggregate) -> bool:
    return RunHead.FromString(item.head).state not in ENDED
