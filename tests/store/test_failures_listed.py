"""What failed is listed by both stores, over a restart, until somebody deals with it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aios.run.v1.state_pb2 import Recovery
from aios_orchestrator.repository import Repository, Stored
from aios_runtime.store.mongo import open_mongo_store
from aios_runtime.store.port import Committed, Store
from aios_runtime.store.sqlite import open_store
from tests.orchestrator.runs import Driver
from tests.orchestrator.test_core import TWO

Open = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite", "mongodb"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> Open:
    if request.param == "sqlite":
        return lambda: open_store(tmp_path / "o.db", service="orchestrator", now_ms=lambda: 5_000)
    url = request.getfixturevalue("mongo_url")
    return lambda: open_mongo_store(url, database=database, service="orchestrator", now_ms=lambda: 5_000)


async def commit(store: Store, driver: Driver, before: Stored | None, events: int) -> Stored:
    run = driver.run
    writes = Repository(store).writes(
        before, run, list(run.steps), driver.history[events:], {}, driver.workflow
    )
    result = (await store.commit(writes))[0]
    assert isinstance(result, Committed)
    return Stored(run, result.revision)


@pytest.mark.feature("J2")
async def test_a_failure_is_listed_by_its_cause_until_the_run_goes_on(opened: Open) -> None:
    driver = Driver(TWO)
    driver.fail("a", code="READ_ONLY")
    store = await opened()
    stored = await commit(store, driver, None, 0)
    await store.close()
    store = await opened()
    listed, token = await Repository(store).failures("main", "", "", 10)
    assert [(item.run_id, item.step, item.error.code) for item in listed] == [("run_test", "a", "READ_ONLY")]
    assert token == ""
    assert (await Repository(store).failures("main", listed[0].cause, "", 10))[0] == listed
    assert (await Repository(store).failures("main", "cause_another", "", 10))[0] == []
    assert (await Repository(store).failures("other", "", "", 10))[0] == []
    events = len(driver.history)
    driver.recover(Recovery.RECOVERY_RETRY)
    stored = await commit(store, driver, stored, events)
    for cause in ("", listed[0].cause):
        assert (await Repository(store).failures("main", cause, "", 10))[0] == []
    read = await Repository(store).view("main", "run_test")
    assert read is not None and read.run == driver.run
    events = len(driver.history)
    driver.fail("a", code="DISK_FULL")
    await commit(store, driver, stored, events)
    (again,) = (await Repository(store).failures("main", "", "", 10))[0]
    assert again.cause != listed[0].cause
    await store.close()
