"""Answers of steps that may be given again for a while: kept in the orchestrator's store, bounded in number, size and
age. What is here may be lost at any time, and costs no more then than doing the work again."""

import logging
from collections.abc import Iterable
from typing import Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import KeptAnswer
from aios.task.v1.task_pb2 import MODE_EXECUTE, CachedAnswer, CacheOrigin
from aios_core.errors import AiosError
from aios_orchestrator.model import Run
from aios_orchestrator.workflow import Workflow
from aios_runtime.store.port import Committed, Store, Write

MAX_ENTRIES: Final = 5_000
MAX_ANSWER_BYTES: Final = 64 * 1024  # it travels with the task
EVICTED_AT_ONCE: Final = 64
INDEX: Final = "answers"

log = logging.getLogger(__name__)


class KeptAnswers:
    """The answers of one workspace, by the key that the core has computed. Of several processes each keeps to the bound
    by what it has counted at its start and since."""

    def __init__(self, store: Store, workspace: str, max_entries: int = MAX_ENTRIES) -> None:
        self._store, self._workspace, self._max = store, workspace, max_entries
        self._entries = -1  # not counted yet

    async def find(self, key: bytes, now_ms: int) -> CachedAnswer | None:
        """What an earlier task of the same question was answered with, if that may still be given."""
        found = await self._store.read(self._key(key))
        if found is None:
            return None
        kept = KeptAnswer.FromString(found.head)
        return kept.answer if kept.expire_time_ms > now_ms else None

    async def keep(self, run: Run, workflow: Workflow, names: Iterable[str]) -> None:
        """Keep what these steps of a run have given, where their document says so."""
        if run.mode != MODE_EXECUTE:
            return
        for name in names:
            step, cache = run.at(name), workflow.at(name).cache
            if cache is None or step.state != st.STEP_STATE_SUCCEEDED or not step.target_version:
                continue
            if step.cached is not None or not step.cache_key or len(step.output) > MAX_ANSWER_BYTES:
                continue
            origin = CacheOrigin(run_id=run.run_id, step=name, time_ms=step.end)
            answer = CachedAnswer(output=step.output, target_version=step.target_version, origin=origin)
            try:
                await self._put(step.cache_key, answer, step.end + cache.ttl_ms)
            except AiosError as error:
                log.warning("an answer is not kept: %s", error.message)

    async def _put(self, key: bytes, answer: CachedAnswer, end_ms: int) -> None:
        name = self._key(key)
        old = await self._store.read(name)
        head = KeptAnswer(answer=answer, expire_time_ms=end_ms).SerializeToString()
        writes = [Write(name, old.revision if old is not None else 0, head, index={INDEX: self._workspace})]
        if old is None:
            writes += await self._evicted()
        results = await self._store.commit(writes)
        done = [isinstance(result, Committed) for result in results]
        self._entries += (old is None and done[0]) - sum(done[1:])

    async def _evicted(self) -> list[Write]:
        """The oldest, while there are too many."""
        if self._entries < 0:
            self._entries = await self._count()
        over = min(self._entries + 1 - self._max, EVICTED_AT_ONCE)
        if over <= 0:
            return []
        page = await self._store.query(INDEX, self._workspace, limit=over, newest_first=False)
        return [Write(item.key, item.revision, None) for item in page.items]

    async def _count(self) -> int:
        count, token = 0, ""
        while True:
            page = await self._store.query(INDEX, self._workspace, token=token, limit=500)
            count += len(page.items)
            token = page.next_token
            if not token:
                return count

    def _key(self, key: bytes) -> str:
        return f"{self._workspace}/answer/{key.hex()}"
