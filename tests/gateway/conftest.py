from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.serving import Api, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    try:
        await world.start()
        yield world
    finally:
        await world.stop()


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    async with world.client() as api:
        yield api
