from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import EmbeddedNats
from aios_runtime.bus.endpoint import Endpoint
from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store
from tests.memory.serving import Clock, Memory


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    store = await open_store(tmp_path / "memory.db", service="memory", now_ms=clock)
    yield store
    await store.close()


@pytest.fixture
async def memory(store: Store, tmp_path: Path, clock: Clock) -> Memory:
    memory = Memory(store, tmp_path / "artifacts", clock)
    await memory.artifacts.start()
    return memory


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    server = EmbeddedNats(tmp_path / "bus")
    yield await server.start()
    await server.stop()


@pytest.fixture
async def orchestrator(endpoint: Endpoint) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.connect(endpoint.credentials("orchestrator"), service="orchestrator")
    yield bus
    await bus.close(1.0)
