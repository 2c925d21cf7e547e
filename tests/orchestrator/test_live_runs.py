"""Runs that have not ended are found among all, also those that a version wrote that did not mark them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from aios.run.v1 import state_pb2 as st
from aios_orchestrator.live_runs import LIVE, LiveRuns
from aios_runtime.store.port import Result, Write
from tests.orchestrator.deciding import Deciding, SlowStore
from tests.orchestrator.test_lost_decisions import end

pytestmark = pytest.mark.feature("L3", "B1")

RUNNING = [st.RUN_STATE_RUNNING, st.RUN_STATE_QUEUED]


class Earlier(SlowStore):
    """As an earlier version wrote while `earlier`; `meanwhile` is done before the next commit."""

    earlier = True
    ends = ""

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        if self.earlier:
            kept = [{name: to for name, to in write.index.items() if name != LIVE} for write in writes]
            writes = [replace(write, index=index) for write, index in zip(writes, kept, strict=True)]
        if LIVE in writes[0].index and self.ends:
            run, self.ends = self.ends, ""
            await end(self.here, run)
        return await super().commit(writes)

    here: Deciding


async def live(here: Deciding) -> list[str]:
    page = await here.store.query(LIVE, "main", limit=50)
    return sorted(item.key.rsplit("/", 1)[1] for item in page.items)


async def begun() -> Deciding:
    """One run has ended, and two have not."""
    store = Earlier()
    here = store.here = Deciding(store)
    await here.start()
    for run in ("run_one", "run_two", "run_three"):
        await here.run(run)
    await end(here, "run_one")
    return here


async def filed(here: Deciding) -> None:
    runs = LiveRuns(here.repository, "main")
    assert not await runs.filed(RUNNING)  # they are looked for among all
    while not await runs.filed(RUNNING):
        await asyncio.sleep(0)
    await runs.stop()


async def test_a_run_is_there_from_its_start_to_its_end() -> None:
    here = await begun()
    here.store.earlier = False  # type: ignore[attr-defined]
    await here.run("run_four")
    assert await live(here) == ["run_four"]
    await end(here, "run_four")
    assert await live(here) == []


async def test_those_of_an_earlier_version_are_put_there_when_they_are_asked_for() -> None:
    here = await begun()
    assert await live(here) == []
    here.store.earlier = False  # type: ignore[attr-defined]
    await filed(here)
    assert await live(here) == ["run_three", "run_two"]
    assert await LiveRuns(here.repository, "main").filed(RUNNING)  # from now on
    await end(here, "run_two")
    assert await live(here) == ["run_three"]


async def test_one_that_ends_meanwhile_is_not_put_there() -> None:
    here = await begun()
    here.store.earlier, here.store.ends = False, "run_two"  # type: ignore[attr-defined]
    await filed(here)
    assert await live(here) == ["run_three"]
    await end(here, "run_three")
    assert await live(here) == []


@pytest.mark.parametrize("states", [[], [st.RUN_STATE_FAILED], [*RUNNING, st.RUN_STATE_SUCCEEDED]])
async def test_runs_that_have_ended_are_looked_for_among_all(states: list[st.RunState]) -> None:
    here = await begun()
    here.store.earlier = False  # type: ignore[attr-defined]
    await filed(here)
    assert not await LiveRuns(here.repository, "main").filed(states)
