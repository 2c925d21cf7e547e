"""What a commit put in the outbox reaches a real bus, whatever happens between the two."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import apsw
import pytest

from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.port import MAX_MESSAGE_BYTES, Delivery
from aios_runtime.outbox import OutboxRelay, committed
from aios_runtime.store.port import Committed, OutboxMessage, Pending, Write
from aios_runtime.store.sqlite import SqliteStore, open_store
from tests.bus.serving import Server, until
from tests.processes import kill_and_delete

SUBJECT = subjects.perform("main", "agent")


class Received:
    """What a subscriber on the bus got."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, str]] = []

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.messages.append((delivery.data, delivery.headers.get("Aios-Test", "")))
            await delivery.ack()

    @property
    def numbers(self) -> list[int]:
        return [int(data) for data, _ in self.messages]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "bus")
    server.endpoint = await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.connect(server.endpoint.credentials("orchestrator"), service="orchestrator")
    yield bus
    await bus.close(1.0)


@pytest.fixture
async def received(server: Server, bus: NatsBus) -> AsyncIterator[Received]:
    agent = await NatsBus.connect(server.endpoint.credentials("agent-runner"), service="agent-runner")
    received = Received()
    await agent.consume("agent-runner__perform", received, batch=50, slots=500)
    yield received
    await agent.close(1.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with AsyncExitStack() as stack:
        store = await opened(tmp_path)
        stack.push_async_callback(store.close)
        yield store


async def opened(folder: Path) -> SqliteStore:
    return await open_store(folder / "test.db", service="test", now_ms=lambda: 0)


@pytest.fixture
async def relay(store: SqliteStore, bus: NatsBus) -> AsyncIterator[OutboxRelay]:
    relay = OutboxRelay(store, bus)
    yield relay
    await relay.close()


async def commit(store: SqliteStore, first: int, count: int = 1) -> list[Pending]:
    """Commit writes that send one numbered message each."""
    writes = [
        Write(
            f"main/run/{number}",
            0,
            b"",
            outbox=[OutboxMessage(SUBJECT, b"%d" % number, f"m{number}", {"Aios-Test": str(number)})],
        )
        for number in range(first, first + count)
    ]
    results = await store.commit(writes)
    pairs = [
        committed(write, result)
        for write, result in zip(writes, results, strict=True)
        if isinstance(result, Committed)
    ]
    return [pending for pair in pairs for pending in pair]


async def test_messages_of_a_commit_are_published_and_no_longer_pending(
    store: SqliteStore, relay: OutboxRelay, received: Received
) -> None:
    await relay.publish(await commit(store, 0, 700))
    assert await store.pending(10) == []
    await until(lambda: len(received.messages) == 700)
    assert sorted(received.messages) == sorted((b"%d" % n, str(n)) for n in range(700))


@pytest.mark.feature("B1")
async def test_what_was_committed_and_not_published_goes_out_at_the_next_start(
    tmp_path: Path, bus: NatsBus, received: Received
) -> None:
    store = await opened(tmp_path)
    await commit(store, 0, 600)
    await store.close()
    store = await opened(tmp_path)
    relay = OutboxRelay(store, bus)
    assert await relay.drain() == 600
    assert (await relay.drain(), await store.pending(10)) == (0, [])
    await until(lambda: sorted(received.numbers) == list(range(600)))
    await relay.close()
    await store.close()


@pytest.mark.feature("B1")
async def test_messages_of_the_time_without_a_bus_go_out_once_it_is_back(
    server: Server, store: SqliteStore, relay: OutboxRelay, received: Received
) -> None:
    await relay.publish(await commit(store, 0, 5))
    await until(lambda: len(received.messages) == 5)
    await server.stop()
    for number in range(5, 25):
        await relay.publish(await commit(store, number))
    assert relay.behind
    assert len(await store.pending(100)) == 20
    await server.start()
    await until(lambda: not relay.behind)
    assert await store.pending(100) == []
    await until(lambda: set(received.numbers) == set(range(25)))


@pytest.mark.feature("B1")
async def test_a_bus_that_lost_its_directory_gets_what_was_pending(
    server: Server, store: SqliteStore, relay: OutboxRelay, received: Received
) -> None:
    kill_and_delete(server.pid or 0, server.data_dir / "nats")
    for number in range(30):
        await relay.publish(await commit(store, number))

    async def sent() -> bool:
        return not relay.behind and await store.pending(1) == []

    await until(sent)
    await until(lambda: set(received.numbers) == set(range(30)))


async def test_a_message_that_the_bus_refuses_for_good_holds_up_no_other(
    tmp_path: Path, bus: NatsBus, received: Received
) -> None:
    store = await opened(tmp_path)
    await commit(store, 0, 3)
    await store.close()
    connection = apsw.Connection(str(tmp_path / "test.db"))
    connection.execute("UPDATE outbox SET data = ? WHERE id = 2", (bytes(MAX_MESSAGE_BYTES + 1),))
    connection.close()
    store = await opened(tmp_path)
    relay = OutboxRelay(store, bus)
    await relay.drain()
    assert [pending.outbox_id for pending in await store.pending(10)] == [2]
    await relay.publish(await commit(store, 3))
    assert (await relay.drain(), [pending.outbox_id for pending in await store.pending(10)]) == (0, [2])
    await until(lambda: set(received.numbers) == {0, 2, 3})
    await relay.close()
    await store.close()


async def test_after_closing_messages_stay_for_the_next_start(store: SqliteStore, relay: OutboxRelay) -> None:
    await relay.close()
    await relay.publish(await commit(store, 0))
    assert len(await store.pending(10)) == 1
