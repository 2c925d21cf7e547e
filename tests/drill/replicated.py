"""Several of every service on one bus and one MongoDB, or one of each on SQLite, as the drills take them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aios_runtime.bus.embedded import EmbeddedNats, EmbeddedSettings
from aios_runtime.bus.endpoint import Endpoint
from aios_runtime.bus.server_config import REPLICATED_PING_SECONDS
from tests.drill.blackhole import BlackHole
from tests.drill.cluster import REPLICAS, WORKFLOWS, Cluster, Person
from tests.mongo import built_server


class Running(NamedTuple):
    """A cluster with what it stands on. `orchestrator-1` has ways of its own to the bus and the database."""

    cluster: Cluster
    person: Person
    bus: EmbeddedNats
    endpoint: Endpoint
    to_bus: BlackHole
    to_database: BlackHole


@asynccontextmanager
async def running(
    place: Path,
    replicas: Mapping[str, int] = REPLICAS,
    variables: Mapping[str, str] = {},
) -> AsyncIterator[Running]:
    """Started with these environment variables, the workflows of the drills applied. With one of every service each
    keeps its store in SQLite."""
    alone = max(replicas.values()) == 1
    async with AsyncExitStack() as stack:
        server = built_server(place / "data.mv")
        await asyncio.to_thread(server.start)
        stack.callback(server.kill)
        # Killed again and again it would be given up as a bus that can't run.
        bus = EmbeddedNats(
            place / "bus", EmbeddedSettings(steady_seconds=1.0, ping_seconds=REPLICATED_PING_SECONDS)
        )
        endpoint = await bus.start()
        stack.push_async_callback(bus.stop)
        bus_port = int(endpoint.url.rpartition(":")[2])
        to_bus = await stack.enter_async_context(BlackHole(bus_port))
        to_database = await stack.enter_async_context(BlackHole(server.port))

        def environment(name: str) -> Mapping[str, str]:
            apart = name == "orchestrator-1"
            port = to_database.port if apart else server.port
            return {
                **variables,
                "AIOS_NATS_URL": f"nats://127.0.0.1:{to_bus.port if apart else bus_port}",
                "AIOS_NATS_USERS": str(place / "bus" / "nats-users"),
                **({} if alone else {"AIOS_MONGODB_URL": f"mongodb://127.0.0.1:{port}/"}),
            }

        cluster = await Cluster(place, environment, replicas).start()
        stack.push_async_callback(cluster.stop)
        gateways = [part for name, part in cluster.parts.items() if name.startswith("gateway")]
        person = Person(gateways)
        stack.push_async_callback(person.close)
        await person.apply(WORKFLOWS)
        yield Running(cluster, person, bus, endpoint, to_bus, to_database)
