"""Who hears of an event and looks at the run finds it there, also at the instant between a commit and its answer."""

from pathlib import Path
from typing import Any

import pytest

from aios.run.v1 import queries_pb2 as pb
from aios_core.errors import TerminalError
from aios_orchestrator.queries import Queries
from aios_orchestrator.repository import Repository, keep_from, run_key
from aios_runtime.store.port import Committed, Conflict
from aios_runtime.store.sqlite import open_store
from tests.orchestrator.runs import Driver, workflow

OF = workflow(
    "- {name: words, agent: x, input: {n: 1}}\n"
    "- {name: ok, gate: {title: Go on, approves: [put]}}\n"
    "- {name: put, connector: files.write, effect: write, input: {n: 1}}\n"
)


@pytest.mark.feature("K1")
async def test_no_event_is_read_of_which_the_run_that_is_shown_knows_nothing(tmp_path: Path) -> None:
    run = Driver(OF)
    store = await open_store(tmp_path / "orchestrator.db", service="orchestrator", now_ms=lambda: 1)
    repository: Any = Repository(store)
    queries: Any = Queries.__new__(Queries)
    queries._repository, queries._store = repository, store

    async def commit(before: Any) -> int:
        writes = repository.writes(before, run.run, run.run.own, list(run.last.events), {}, OF)
        result = (await store.commit(writes))[0]
        assert isinstance(result, Committed)
        return result.revision

    async def seen() -> tuple[int, int]:
        """The last event that is read, and that of the run that is shown."""
        request = pb.ReadRunEventsRequest(workspace="main", run_id="run_test")
        read = await queries.read_run_events(request.SerializeToString())
        shown = await repository.view("main", "run_test")
        return len(read.events), shown.run.sequence

    try:
        repository.keep(run.run, await commit(None))
        assert await seen() == (2, 2)
        before = await repository.view("main", "run_test")
        run.settle("words")
        revision = await commit(before)  # it stands, and whoever made it has not heard so yet
        assert await seen() == (2, 2)
        repository.keep(run.run, revision)
        assert await seen() == (4, 4)
        repository.forget("main", "run_test")
        assert await seen() == (4, 4)
        assert repository.sequence_in_view(run_key("main", "run_test")) is None
    finally:
        await store.close()


@pytest.mark.feature("F5")
async def test_a_run_whose_place_was_kept_from_a_late_start_is_not_there_and_can_be_started(
    tmp_path: Path,
) -> None:
    run = Driver(OF)
    store = await open_store(tmp_path / "orchestrator.db", service="orchestrator", now_ms=lambda: 1)
    repository: Any = Repository(store)
    queries: Any = Queries.__new__(Queries)
    queries._repository, queries._store = repository, store

    async def commit() -> object:
        writes = repository.writes(None, run.run, run.run.own, list(run.last.events), {}, OF)
        return (await store.commit(writes))[0]

    try:
        assert await keep_from(store, "main", "run_test")
        assert not await keep_from(store, "main", "run_test")
        assert isinstance(await commit(), Conflict)  # it was decided before
        assert await repository.load("main", "run_test") is None
        request = pb.ReadRunEventsRequest(workspace="main", run_id="run_test").SerializeToString()
        with pytest.raises(TerminalError, match="There is no run"):
            await queries.read_run_events(request)
        assert isinstance(await commit(), Committed)
        assert len((await queries.read_run_events(request)).events) == 2
        assert not await keep_from(store, "main", "run_test")
    finally:
        await store.close()
