"""A decision that loses to another one leaves nothing held, and no longer than until it is known."""

import asyncio

import pytest

from aios.run.v1.budget_pb2 import Hold
from aios_orchestrator.core.decide import Settle
from aios_orchestrator.core.money import Attempt
from aios_orchestrator.items import Item
from aios_runtime.store.port import Write
from tests.orchestrator.deciding import Deciding, capped, outcome_of

pytestmark = pytest.mark.feature("F5", "B1")

DOCUMENTS = capped(b"0.15")


async def held(here: Deciding) -> list[Hold]:
    return list((await here.accounts.open()).holds.values())


async def end(here: Deciding, run: str) -> None:
    """A worker has done the task of a run."""
    (task,) = [task for task in here.wire.tasks if task.run_id == run]
    await here.engine.submit([Item("main", run, Settle(outcome_of(task)), "service:agent")])


async def test_a_start_that_comes_again_when_its_run_is_over_holds_nothing() -> None:
    here = Deciding(documents=DOCUMENTS)
    await here.start()
    await here.run("run_one")
    assert [hold.run_id for hold in await held(here)] == ["run_one"]
    await end(here, "run_one")
    assert not await held(here)
    here.repository.forget("main", "run_one")  # as after a restart: nearly every start is of a new run
    (again,) = await here.run("run_one")
    assert again.duplicate and not await held(here)
    (other,) = await here.run("run_two")  # which would wait, were it held
    assert other.run is not None and here.out() == ["run_one", "run_two"]
    await here.engine.stop()


async def test_what_somebody_else_counts_on_meanwhile_stays_held() -> None:
    """A slower process decides the same; the quicker one has taken its hold for its own, and marked it."""
    here = Deciding(documents=DOCUMENTS)
    await here.start()
    await here.run("run_one")
    (before,) = await held(here)
    purse = await here.accounts.open()
    assert purse.hold(Attempt("run_one", "a", 1, 1), 100_000, 0) == before.serial
    assert not purse.made_for({"run_one"})  # it was there
    assert await here.accounts.write(purse)
    await here.accounts.settle([], lost=[before])
    (after,) = await held(here)
    assert (after.serial, after.run_id) == (before.serial, "run_one")
    await here.accounts.settle([], lost=[after])
    assert not await held(here)
    await here.engine.stop()


async def test_of_a_batch_of_which_one_run_is_lost_each_run_holds_once() -> None:
    here = Deciding(documents=capped(b"9.00"))
    await here.start()
    # The place of one is taken already, by what keeps an earlier decision from being committed; nobody knows it here.
    await here.store.commit([Write("main/run/run_lost", 0, b"")])
    await asyncio.gather(here.run("run_lost"), here.run("run_won"))
    assert [(hold.serial, hold.run_id) for hold in await held(here)] == [(2, "run_won"), (3, "run_lost")]
    assert sorted(here.out()) == ["run_lost", "run_won"]
    await here.engine.stop()
