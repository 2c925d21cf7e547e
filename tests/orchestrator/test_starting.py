"""An orchestrator that starts: what it hands out then is looked after as what it hands out later."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aios_orchestrator.module import create
from aios_runtime.bus.port import Message
from aios_runtime.service.port import Context
from aios_runtime.store.port import Store
from tests.orchestrator.deciding import Deciding, Wire

pytestmark = pytest.mark.feature("B1", "L2")

Listener = Callable[[bool], Awaitable[None]]


class Bus(Wire):
    """A bus on which nothing comes in, and that has lost what it held when the first task of all was on it: whoever
    has asked by then to be told of that will be."""

    incarnation = "2"

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []
        self.to_be_told: list[Listener] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        before = len(self.tasks)
        await super().publish(messages)
        if not before and self.tasks:
            self.to_be_told = [*self.listeners]

    def on_restart(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def on_close(self, listener: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        async def nothing(*given: object, **named: object) -> None:
            pass

        return nothing


async def test_a_bus_that_is_wiped_while_it_starts_costs_no_task(tmp_path: Path) -> None:
    before = Deciding()
    await before.start()
    await before.run("run_a")
    await before.engine.stop()

    async def opened(name: str) -> Store:
        return before.store

    bus = Bus()
    context = Context(
        service="orchestrator",
        instance="here.1",
        workspace="main",
        data_dir=tmp_path,
        options={},
        bus=bus,  # type: ignore[arg-type]
        open_store=opened,
        now_ms=lambda: 0,
        mint="{}_1".format,
    )
    service = create(context)
    await service.start()
    for listener in bus.to_be_told:
        await listener(True)
    assert [(task.run_id, task.dispatch) for task in bus.tasks] == [("run_a", 2), ("run_a", 3)]
    await service.stop()
