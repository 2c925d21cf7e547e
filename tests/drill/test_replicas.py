"""Two of every service on one bus and one database: one is killed, frozen or cut off, and the other goes on."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from aios.run.v1.state_pb2 import RUN_STATE_SUCCEEDED
from aios_runtime.bus.embedded import EmbeddedNats
from tests.drill.cluster import BODIES, REPLICAS, check_histories
from tests.drill.replicated import running

ALL = os.environ.get("AIOS_DRILL") == "all"
# What stands for MongoDB goes through whole collections where MongoDB has an index: it is slower by each run.
RUNS = {"sqlite": 10_000, "mongodb": 1_000} if ALL else dict.fromkeys(("sqlite", "mongodb"), 200)
PATIENCE = 4 * 3600.0 if ALL else 300.0
STORES = {"mongodb": REPLICAS, "sqlite": dict.fromkeys(REPLICAS, 1)}

pytestmark = [pytest.mark.drill, pytest.mark.timeout(PATIENCE + 60)]


@pytest.mark.feature("B1", "B3", "D3", "J1", "L2")
@pytest.mark.parametrize("store", STORES)
async def test_whoever_dies_at_random_the_work_of_many_runs_ends_and_every_effect_is_there_once(
    tmp_path: Path, store: str
) -> None:
    async with running(tmp_path, STORES[store]) as (cluster, person, bus, endpoint, *_):
        kept = RUNS[store] // 10
        async with person.approving() as (meanwhile, done):
            killing = meanwhile.create_task(
                cluster.kill_at_random(done, random.Random(1), {"bus": lambda: _kill(bus)})
            )
            await person.apply(BODIES)
            await person.start("echoes", range(RUNS[store] - 3 * kept))
            for workflow in ("waits", "keeps", "maps"):
                await person.start(workflow, range(kept))
            ended = await person.all_succeed(PATIENCE)
        killed = killing.result()
        events = await check_histories(endpoint, person.started, RUN_STATE_SUCCEEDED)
        notes = [str(number) for number in range(kept)]
        notes += [f"m{number}-{item}" for number in range(kept) for item in (1, 2, 3)]
        for note in notes:
            assert len((cluster.files / "notes" / f"{note}.jsonl").read_text().splitlines()) == 1, note
        print(f"{ended} runs, {events} events, killed {killed}, the slowest call {person.slowest:.1f} s")


def _kill(bus: EmbeddedNats) -> None:
    if bus.pid is not None:
        os.kill(bus.pid, signal.SIGKILL)


FAULTS = ("killed", "frozen", "cut off from the bus", "cut off from the database")


@pytest.mark.feature("B1", "L2")
@pytest.mark.parametrize("fault", FAULTS)
async def test_when_one_orchestrator_is_gone_the_other_takes_over_and_what_wakes_does_no_harm(
    tmp_path: Path, fault: str
) -> None:
    """The longest that a run takes from its start to its end, of those that come every tenth of a second."""
    replicas = {"gateway": 1, "orchestrator": 2, "agent-runner": 1}
    async with running(tmp_path, replicas) as (cluster, person, _, endpoint, to_bus, to_database):
        before = [await person.one_run("echoes", number) for number in range(50)]
        took: list[asyncio.Task[tuple[float, float]]] = []

        async def runs(count: int) -> None:
            for _ in range(count):
                took.append(asyncio.create_task(person.one_run("echoes", 1000 + len(took))))
                await asyncio.sleep(0.1)

        await runs(10)
        if fault == "killed":
            cluster.parts["orchestrator-1"].kill_for_good()
        elif fault == "frozen":
            cluster.signal("orchestrator-1", signal.SIGSTOP)
        else:
            (to_bus if fault == "cut off from the bus" else to_database).cut()
        await runs(80)
        async with asyncio.timeout(60):
            await asyncio.gather(*took)  # all of them while it is gone
        cluster.signal("orchestrator-1", signal.SIGCONT)
        to_bus.mend()
        to_database.mend()
        await runs(30)
        async with asyncio.timeout(60):
            seconds = await asyncio.gather(*took)
        await check_histories(endpoint, person.started, RUN_STATE_SUCCEEDED)
        assert not person.put_off, "a start waits for the take-over; its caller is not told to come again"
        print(
            f"{fault}: until a start was accepted at most {max(took for took, _ in seconds):.1f} s, until its run was"
            f" seen to end {max(took for _, took in seconds):.1f} s; before that {max(b for _, b in before):.1f} s"
        )
