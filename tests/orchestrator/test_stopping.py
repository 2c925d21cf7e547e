"""An orchestrator that is told to stop: what it was about goes out, and what could not go out is known."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from aios.task.v1.task_pb2 import Task
from aios_core.errors import RetryableError, TerminalError
from aios_core.ids import partition_of_run
from aios_orchestrator import engine as deciding
from aios_orchestrator import ownership as owning
from aios_orchestrator import publisher as publishing
from aios_orchestrator import timers as timing
from aios_orchestrator.core.decide import Settle
from aios_orchestrator.delivery import TaskKey
from aios_orchestrator.items import Item
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import SharedOwnership
from aios_orchestrator.takeover import redispatch
from aios_orchestrator.timers import Timers
from aios_orchestrator.workflow import Workflow
from aios_runtime.store.port import Result, Write
from tests.orchestrator.deciding import Deciding, outcome_of

pytestmark = pytest.mark.feature("B1", "L2")


@pytest.fixture
async def here() -> Deciding:
    here = Deciding()
    await here.start()
    return here


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_what_is_being_committed_is_handed_out_before_it_has_stopped(here: Deciding) -> None:
    here.store.go.clear()
    here.run("run_a")
    await here.store.asked.wait()
    assert here.publisher.behind() == {partition_of_run("run_a")}
    stopping = asyncio.create_task(here.engine.stop())
    await asyncio.sleep(0)
    here.store.go.set()
    await stopping
    assert here.out() == ["run_a"]
    assert here.publisher.behind() == frozenset()


async def test_what_waits_to_be_decided_is_left_alone(here: Deciding) -> None:
    here.store.go.clear()
    here.run("run_a")
    await here.store.asked.wait()
    later = here.run("run_b")
    await asyncio.sleep(0)
    stopping = asyncio.create_task(here.engine.stop())
    await asyncio.sleep(0)
    here.store.go.set()
    await stopping
    assert here.out() == ["run_a"]
    assert not later.done()
    assert await here.repository.load("main", "run_b") is None
    later.cancel()


async def test_what_the_bus_does_not_take_in_time_is_behind(
    here: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "STOP_S", 0.05)
    here.wire.open = False
    here.run("run_a")
    await until(here.publisher.behind)
    await here.engine.stop()
    assert await here.repository.load("main", "run_a") is not None, "it is committed"
    assert here.out() == []
    assert here.publisher.behind() == {partition_of_run("run_a")}


async def test_a_commit_of_which_nobody_knows_is_behind(here: Deciding) -> None:
    async def lost(writes: Sequence[Write]) -> list[Result]:
        raise RetryableError("UNAVAILABLE", "Whether it is there is not known.", outcome="unknown")

    here.store.commit = lost  # type: ignore[method-assign]
    with pytest.raises(RetryableError):
        await here.run("run_a")
    await here.engine.stop()
    assert here.publisher.behind() == {partition_of_run("run_a")}


async def test_what_waits_for_its_place_is_behind_until_it_goes(
    here: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a store that can't be read for a while, or a run that can't be read at all, holds up no other."""
    monkeypatch.setattr(publishing, "RETRY_S", 0.0)
    delivery = here.publisher.delivery
    delivery._window = 1
    for run in ("run_a", "run_b", "run_c", "run_d"):
        await here.run(run)
    assert here.out() == ["run_a"]
    assert here.publisher.behind() == {partition_of_run(run) for run in ("run_b", "run_c", "run_d")}
    failures = {
        "run_b": [RetryableError("UNAVAILABLE", "Not now.")] * 3,
        "run_c": [TerminalError("CORRUPT_STORE", "No.")],
    }
    fetch = here.fetch

    async def failing(run_id: str) -> tuple[Run, Workflow] | None:
        if failures.get(run_id):
            raise failures[run_id].pop()
        return await fetch(run_id)

    here.publisher.fetch = failing
    delivery.settled("run_a", "a")
    await here.publisher.refill()
    assert here.out() == ["run_a", "run_b"]
    delivery.settled("run_b", "a")
    await here.publisher.refill()
    assert here.out() == ["run_a", "run_b", "run_d"]
    assert here.publisher.behind() == frozenset()
    await here.engine.stop()


async def test_a_task_of_which_it_knows_an_earlier_dispatch_is_handed_out_again(here: Deciding) -> None:
    """It was silent for a while, and the other replica has decided meanwhile, whose dispatch may have got nowhere."""
    await here.run("run_a")
    other = Deciding(here.store)
    await other.start()
    await other.engine.submit(redispatch("main", [TaskKey("run_a", "a")], "another replica takes over"))
    takeover = here.takeover()
    for _ in range(2):  # a take-over that is tried again hands out once
        await takeover.taken({partition_of_run("run_a"): False})
    assert [task.dispatch for task in here.wire.tasks] == [1, 3]
    await here.engine.stop()
    await other.engine.stop()


async def test_a_batch_is_not_committed_on_a_run_that_another_one_decides_for(here: Deciding) -> None:
    """It waited to be decided while its partition was let go of, as one in which all is handed out."""
    here.engine.decider.owns = lambda run: run != "run_a"
    with pytest.raises(RetryableError) as caught:
        await here.run("run_a")
    assert caught.value.code == "UNAVAILABLE"
    assert await here.repository.load("main", "run_a") is None
    assert here.publisher.behind() == frozenset()
    await here.run("run_b")
    assert here.out() == ["run_b"]
    await here.engine.stop()


async def test_a_task_of_a_run_that_became_anothers_goes_out_and_keeps_no_place(here: Deciding) -> None:
    """Its commit was under way when this replica fell silent. Counted here, it would keep its place on the lane until
    its lease ends, whoever has done it."""
    delivery = here.publisher.delivery
    here.store.go.clear()
    here.run("run_a")
    await here.store.asked.wait()
    here.publisher.owns = lambda run: run != "run_a"
    here.store.go.set()
    await until(here.out)
    assert here.out() == ["run_a"]
    assert delivery.all_out() == []
    await here.run("run_b")
    assert delivery.all_out() == [TaskKey("run_b", "a")]
    await here.engine.stop()


async def test_who_loses_a_partition_while_it_takes_it_over_counts_nothing_there(here: Deciding) -> None:
    await here.run("run_a")
    other = Deciding(here.store)
    await other.start()
    taken = {partition_of_run("run_a"): True}
    other.publisher.owns = lambda run: False
    await other.takeover().taken(taken)
    assert other.publisher.delivery.all_out() == []
    other.publisher.owns = lambda run: True
    await other.takeover().taken(taken)
    assert other.publisher.delivery.all_out() == [TaskKey("run_a", "a")]
    await here.engine.stop()
    await other.engine.stop()


async def test_a_place_that_nobody_gave_back_is_free_once_its_lease_ends(
    here: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of its outcome stood although that was not known, so that nothing followed from it here."""
    await here.run("run_a")
    delivery, commit = here.publisher.delivery, here.store.commit
    (task,) = here.wire.tasks

    async def unclear(writes: Sequence[Write]) -> list[Result]:
        await commit(writes)
        raise RetryableError("UNAVAILABLE", "Whether it is there is not known.", outcome="unknown")

    settle = Item("main", "run_a", Settle(outcome_of(task)), "service:agent")
    monkeypatch.setattr(here.store, "commit", unclear)
    with pytest.raises(RetryableError):
        await here.engine.submit([settle])
    monkeypatch.setattr(here.store, "commit", commit)
    await here.engine.submit([settle])  # it comes again, and is settled already
    assert delivery.all_out() == [TaskKey("run_a", "a")]

    monkeypatch.setattr(timing, "lease_ms", lambda: publishing.lease_ms() + 24 * 3_600_000)
    await here.timers(0)._due()
    assert delivery.all_out() == []
    await here.engine.stop()


async def test_all_tasks_of_a_batch_take_their_places_before_anything_is_waited_for(
    here: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is cancelled meanwhile gives its places back only where it has them."""
    monkeypatch.setattr(publishing, "lane_of", lambda run, workflow, name: run.run_id)
    go, offered = asyncio.Event(), here.publisher._offered

    async def slow(run: Run, workflow: Workflow, name: str) -> Task:
        await go.wait()
        return await offered(run, workflow, name)

    monkeypatch.setattr(here.publisher, "_offered", slow)
    here.store.go.clear()
    here.run("run_a")
    await here.store.asked.wait()
    runs = [here.run("run_b"), here.run("run_c")]  # one batch, once the first is committed
    await asyncio.sleep(0)
    here.store.go.set()
    await until(lambda: len(here.publisher.delivery.all_out()) == 3)
    assert not any(run.done() for run in runs)
    go.set()
    await asyncio.gather(*runs)
    await here.engine.stop()


async def test_a_defect_ends_neither_the_timers_nor_a_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE_S", 0.0)
    monkeypatch.setattr(owning, "LEASE_MS", 0)
    unused: Any = None
    timers = Timers(*[unused] * 10)
    ownership = SharedOwnership(unused, unused, "main", "replica_1", "here.1")
    ownership._mine, ownership._untold = {3: 1}, {3: False}
    calls: list[object] = []
    both = asyncio.Event()

    async def defective(*told: object) -> bool:
        calls.append(told)
        if len(calls) == 1:
            raise ValueError("a defect")
        both.set()
        await asyncio.Event().wait()
        return True

    for begin in (timers._run, ownership._tell):
        calls.clear()
        both.clear()
        monkeypatch.setattr(timers, "_due", defective)
        ownership.taken = defective  # type: ignore[assignment]
        ownership._news.set()
        task = asyncio.create_task(begin())
        await asyncio.wait_for(both.wait(), 10)
        task.cancel()
        assert calls[0] == calls[1]
