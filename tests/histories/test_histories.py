"""What earlier versions left behind is read as it was meant: their events, their states, their stores, their runs."""

import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aios.run.v1.state_pb2 import RunHead
from aios_core.ids import PARTITIONS
from aios_memory.narration import episode_of
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core.fold import fold
from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store
from tests.drill.served import Served
from tests.histories.record import HERE, STORES

VERSIONS = sorted(place.name for place in HERE.iterdir() if (place / "runs.json").exists())
RUNS = 200  # more than a recorded company has

pytestmark = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
async def orchestrator(version: str, tmp_path: Path) -> AsyncIterator[Store]:
    shutil.copy(HERE / version / "orchestrator.db", tmp_path)
    store = await open_store(
        tmp_path / "orchestrator.db", service="orchestrator", now_ms=lambda: time.time_ns() // 1_000_000
    )
    yield store
    await store.close()


def recorded(version: str) -> dict[str, Any]:
    """What a person was shown of each run then, by its id."""
    return {run["run_id"]: run for run in json.loads((HERE / version / "runs.json").read_text())}


@pytest.mark.feature("B1")
async def test_every_run_is_still_the_fold_of_its_events(orchestrator: Store, version: str) -> None:
    page = await orchestrator.scan("main/run/", limit=RUNS)
    assert {item.key.rpartition("/")[2] for item in page.items} == set(recorded(version))
    for item in page.items:
        events = [filed.data for filed in await orchestrator.events_of(item.key, 0, 10_000)]
        folded = fold(events)
        stored = run_of(RunHead.FromString(item.head), await orchestrator.records(item.key))
        assert head_of(folded) == RunHead.FromString(item.head)
        assert folded == stored


async def test_every_event_is_still_told_as_an_episode(orchestrator: Store, version: str) -> None:
    told = 0
    for partition in range(PARTITIONS):
        for filed in await orchestrator.events(partition, 0, 10_000):
            assert episode_of(filed.data).what
            told += 1
    assert told == sum(run["sequence"] for run in recorded(version).values())


@pytest.mark.feature("B1", "L1")
def test_this_version_goes_on_where_that_one_stopped(version: str, tmp_path: Path) -> None:
    """Served from the files that it left: every run is as it was, and what waited for a person still does."""
    (tmp_path / "data").mkdir()
    for name in STORES:
        shutil.copy(HERE / version / f"{name}.db", tmp_path / "data")
    with Served(tmp_path, settle_seconds=3600) as served:
        for identity, then in recorded(version).items():
            now = served.aios("run", "show", identity)
            assert {name: now[name] for name in then} == then
        (waiting,) = served.aios("approval", "list")
        rejected = served.aios("approval", "reject", waiting["approval_id"], "--request-id", "later")
        assert rejected["state"] == "rejected"
