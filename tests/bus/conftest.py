from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aios_runtime.bus.connection import NatsBus
from tests.bus.serving import Connect, Server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    server.endpoint = await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Connect]:
    """Connect as a service; the orchestrator first, since it makes the topology."""
    async with AsyncExitStack() as stack:

        async def connect(service: str) -> NatsBus:
            bus = await NatsBus.connect(server.endpoint.credentials(service), service=service)
            stack.push_async_callback(bus.close, 1.0)
            return bus

        yield connect


@pytest.fixture
async def orchestrator(connect: Connect) -> NatsBus:
    return await connect("orchestrator")


@pytest.fixture
async def agent(orchestrator: NatsBus, connect: Connect) -> NatsBus:
    return await connect("agent-runner")
