"""Runs that have not ended are found among all, also those that a version wrote that did not mark them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from aios.run.v1 import state_pb2 as st
from aios_orchestrator import live_runs
from aios_orchestrator.live_runs import LIVE, MARGIN_MS, LiveRuns
from aios_runtime.store.port import Page, Result, Write
from tests.orchestrator.deciding import Deciding, SlowStore
from tests.orchestrator.test_lost_decisions import end

pytestmark = pytest.mark.feature("L3", "B1")

RUNNING = [st.RUN_STATE_RUNNING, st.RUN_STATE_QUEUED]


class Earlier(SlowStore):
    """As an earlier version wrote while `earlier`; `meanwhile` is done before the next commit."""

    earlier = True
    ends = ""
    looked_at = 0

    async def query(self, index: str, *arguments: Any, **named: Any) -> Page:
        self.looked_at += index == "runs"
        return await super().query(index, *arguments, **named)

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


async def filed(here: Deciding, now: int = 0) -> None:
    runs = LiveRuns(here.repository, "main", lambda: now)
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
    runs = LiveRuns(here.repository, "main", lambda: 0)
    while not await runs.filed(RUNNING):
        await asyncio.sleep(0)
    assert not await runs.filed(states)
    await runs.stop()


async def test_what_an_earlier_version_begins_beside_a_later_one_is_put_there_by_the_next_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_runs, "AT_ONCE", 1)
    here = await begun()
    here.store.earlier = False  # type: ignore[attr-defined]
    await filed(here, now=MARGIN_MS)
    here.store.earlier = True  # type: ignore[attr-defined]
    await here.run("run_four")
    assert await live(here) == ["run_three", "run_two"]
    here.store.earlier = False  # type: ignore[attr-defined]
    await filed(here, now=2 * MARGIN_MS)
    assert await live(here) == ["run_four", "run_three", "run_two"]
    looked_at = here.store.looked_at  # type: ignore[attr-defined]
    await filed(here, now=3 * MARGIN_MS)  # all began long before the last time
    assert here.store.looked_at == looked_at + 1  # type: ignore[attr-defined]
