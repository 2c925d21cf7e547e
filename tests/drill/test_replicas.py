"""Two of every service on one bus and one database: one is killed, frozen or cut off, and the other goes on."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from aios.run.v1.state_pb2 import RUN_STATE_SUCCEEDED
from aios_runtime.bus.embedded import EmbeddedNats
from aios_runtime.bus.endpoint import Endpoint
from tests.drill.cluster import WORKFLOWS, Cluster, Person, check_histories
from tests.mongo import built_server

ALL = os.environ.get("AIOS_DRILL") == "all"
RUNS = 10_000 if ALL else 200
PATIENCE = 3600.0 if ALL else 240.0

pytestmark = [pytest.mark.drill, pytest.mark.timeout(PATIENCE + 60)]


class Running(NamedTuple):
    """A cluster with what it stands on."""

    cluster: Cluster
    person: Person
    bus: EmbeddedNats
    endpoint: Endpoint


@asynccontextmanager
async def running(place: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        server = built_server(place / "data.mv")
        await asyncio.to_thread(server.start)
        stack.callback(server.kill)
        bus = EmbeddedNats(place / "bus")
        endpoint = await bus.start()
        stack.push_async_callback(bus.stop)
        environment = {
            "AIOS_NATS_URL": endpoint.url,
            "AIOS_NATS_USERS": str(place / "bus" / "nats-users"),
            "AIOS_MONGODB_URL": server.url,
        }
        cluster = await Cluster(place, environment).start()
        stack.push_async_callback(cluster.stop)
        gateways = [part for name, part in cluster.parts.items() if name.startswith("gateway")]
        person = Person(gateways)
        stack.push_async_callback(person.close)
        await person.apply(WORKFLOWS)
        yield Running(cluster, person, bus, endpoint)


@pytest.mark.feature("B1", "B3", "D3", "J1", "L2")
async def test_whoever_dies_at_random_the_work_of_many_runs_ends_and_every_effect_is_there_once(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (cluster, person, bus, endpoint):
        done = asyncio.Event()
        killing = asyncio.create_task(
            cluster.kill_at_random(done, random.Random(1), {"bus": lambda: _kill(bus)})
        )
        approving = asyncio.create_task(person.approve(done))
        kept = RUNS // 10
        await person.start("echoes", range(RUNS - 2 * kept))
        await person.start("waits", range(kept))
        await person.start("keeps", range(kept))
        states = await person.ended(PATIENCE)
        done.set()
        killed = await killing
        await approving
        assert set(states.values()) == {RUN_STATE_SUCCEEDED}
        events = await check_histories(endpoint, person.started, RUN_STATE_SUCCEEDED)
        for number in range(kept):
            lines = (cluster.files / "notes" / f"{number}.jsonl").read_text().splitlines()
            assert len(lines) == 1, number
        print(
            f"{len(states)} runs, {events} events, killed {killed}, the slowest call {person.slowest:.1f} s"
        )


def _kill(bus: EmbeddedNats) -> None:
    if bus.pid is not None:
        os.kill(bus.pid, signal.SIGKILL)
