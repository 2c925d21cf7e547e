"""A server that is killed and wiped again and again, at moments nobody chose: everything works when it stays up."""

import asyncio
import json
import os
import random
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import pytest

from aios.event.v1.event_pb2 import ExternalEvent
from aios_core.errors import RetryableError
from aios_runtime.bus import embedded, subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.port import Delivery, Message
from aios_runtime.bus.subscribers import IntakeSubscriber
from tests.bus.serving import Connect, Server, until

START = subjects.run_command("start_run", "main", 0)
QUESTION = subjects.query("run", "get_run", "main")
LAST = (
    Message(subjects.perform("main", "agent"), b"last"),
    Message(subjects.run_events("main", 0), b"last"),
)
KILLS = 25

T = TypeVar("T")


@pytest.mark.slow
@pytest.mark.feature("B1")
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_service_recovers_from_any_series_of_crashes(
    server: Server,
    orchestrator: NatsBus,
    agent: NatsBus,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(embedded, "BACKOFF_SECONDS", (0.0, 0.02))
    gateway, connector = await connect("gateway"), await connect("connector-files")
    tasks: list[bytes] = []
    events: list[str] = []
    heard: list[bytes] = []

    async def perform(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            tasks.append(delivery.data)
            await delivery.ack()

    async def command(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await orchestrator.reply(delivery, delivery.data)
            await delivery.ack()

    async def answer(data: bytes, headers: Mapping[str, str]) -> bytes:
        return data

    async def accept(event: ExternalEvent) -> None:
        events.append(event.id)

    async def hear(data: bytes) -> None:
        heard.append(data)

    await agent.consume("agent-runner__perform", perform, batch=16, slots=64)
    await orchestrator.consume("orchestrator__commands", command, batch=16, slots=64)
    await orchestrator.answer(QUESTION, answer, queue="orchestrator")
    await gateway.listen(subjects.run_events("*", "*"), hear)
    await IntakeSubscriber(orchestrator, "main", accept).start()
    load = asyncio.create_task(publish_always(orchestrator))
    await crash(server, random.Random(seed))
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)

    assert await gateway.command(Message(START, b"go"), 10) == b"go"
    assert await insist(lambda: gateway.ask(QUESTION, b"?", 2)) == b"?"
    event = {"specversion": "1.0", "id": "last", "source": "s", "type": "t"}
    await insist(lambda: connector.publish([Message("aios.in.main.files.t", json.dumps(event).encode())]))
    published = 0

    async def publish_last() -> None:
        nonlocal published
        published += 1
        await orchestrator.publish(LAST)

    await insist(publish_last)  # one that got no confirmation may have been heard all the same
    await again_until(lambda: b"last" in heard, publish_last)
    await until(lambda: b"last" in tasks and b"last" in heard and "last" in events, 20)
    assert heard.count(b"last") <= published, "nothing is heard twice"
    # each finds out by itself, up to a second after the streams are there, what the broker behind its connection is
    await until(lambda: not any(bus.trouble for bus in (orchestrator, agent, gateway, connector)), 5)


async def again_until(heard: Callable[[], bool], publish: Callable[[], Awaitable[None]]) -> None:
    """An announcement is a hint: it does not come to whom is not back yet, so it is made again."""
    for _ in range(20):
        with suppress(TimeoutError):
            await until(heard, 1)
            return
        await insist(publish)


async def publish_always(bus: NatsBus) -> None:
    while True:
        try:
            await bus.publish([Message(subjects.perform("main", "agent"), b"x")])
        except RetryableError:
            await asyncio.sleep(0.001)


async def crash(server: Server, chance: random.Random) -> None:
    """Kill the server at any moment of its start, work and recovery; a third of the times with all that it has."""
    for _ in range(KILLS):
        await until(lambda: server.pid is not None)
        await asyncio.sleep(chance.random() * chance.choice([0.01, 0.05, 0.2]))
        pid = server.pid
        if pid is None:
            continue
        with suppress(ProcessLookupError):  # it may just have ended
            os.kill(pid, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        if chance.random() < 0.35:
            shutil.rmtree(server.data_dir / "nats", ignore_errors=True)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the bus is there."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await call()
            except RetryableError:
                await asyncio.sleep(0.02)
