"""Following events by position, and the intake of bare external events, over a real server and FastStream."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import nats
import pytest
from nats.aio.client import Client

from aios.bus.v1.bus_pb2 import DeadLetter, EventsFiled, FiledEvent, ReadEventsRequest, ReadEventsResponse
from aios.event.v1.event_pb2 import ExternalEvent
from aios_core.errors import RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.catchup import CatchUp
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.port import Message
from aios_runtime.bus.subscribers import EventSubscriber, IntakeSubscriber
from tests.bus.serving import Connect, Server, until
from tests.processes import kill_and_delete

PAGE = 100
CONSUMER = "memory__run_events"


class Log:
    """An owner of an event log: events of partitions in gapless positions, read in pages."""

    def __init__(self, bus: NatsBus) -> None:
        self.bus = bus
        self.partitions: dict[int, list[bytes]] = {}
        self.reads = 0

    def file(self, partition: int, count: int) -> Message:
        events = self.partitions.setdefault(partition, [])
        first = len(events) + 1
        fresh = [b"%d/%d" % (partition, first + number) for number in range(count)]
        events += fresh
        filed = EventsFiled(partition=partition, first_position=first, events=fresh)
        return Message(subjects.run_events("main", partition), filed.SerializeToString())

    async def serve(self) -> None:
        await self.bus.answer(subjects.query("run", "read_events", "main"), self.read, queue="orchestrator")

    async def read(self, data: bytes, headers: Mapping[str, str]) -> bytes:
        self.reads += 1
        request = ReadEventsRequest.FromString(data)
        events = self.partitions.get(request.partition, [])
        page = events[request.after : request.after + PAGE]
        return ReadEventsResponse(
            events=[
                FiledEvent(partition=request.partition, position=request.after + 1 + number, event=event)
                for number, event in enumerate(page)
            ],
            head=len(events),
        ).SerializeToString()


class State:
    """A subscriber's state, with the position that is committed with it."""

    def __init__(self) -> None:
        self.partitions: dict[int, list[bytes]] = {}
        self.fail: list[Exception] = []
        self.calls = 0

    async def load(self, partition: int) -> int:
        return len(self.partitions.get(partition, []))

    async def handle(self, partition: int, first: int, events: Sequence[bytes]) -> None:
        self.calls += 1
        if self.fail:
            raise self.fail.pop()
        state = self.partitions.setdefault(partition, [])
        assert first == len(state) + 1
        await asyncio.sleep(0)
        state += events


@pytest.fixture
async def log(orchestrator: NatsBus) -> Log:
    log = Log(orchestrator)
    await log.serve()
    return log


@pytest.fixture
async def memory(orchestrator: NatsBus, connect: Connect) -> NatsBus:
    return await connect("memory")


def follow(bus: NatsBus, state: State) -> EventSubscriber:
    return EventSubscriber(
        bus, "main", consumer=CONSUMER, load_position=state.load, handle=state.handle, partitions=4
    )


async def test_a_subscriber_gets_what_it_missed_and_what_comes_gapless_and_in_order(
    log: Log, memory: NatsBus
) -> None:
    for partition in range(4):
        log.file(partition, 250)  # never announced
    state = State()
    await follow(memory, state).start()
    await until(lambda: state.partitions == log.partitions)
    for number in range(40):
        await log.bus.publish([log.file(number % 4, 3)])
    await until(lambda: state.partitions == log.partitions)


async def test_announced_events_are_not_read_again(log: Log, memory: NatsBus) -> None:
    state = State()
    await follow(memory, state).start()
    await until(lambda: log.reads == 4)
    for number in range(40):
        await log.bus.publish([log.file(number % 4, 3)])
    await until(lambda: state.partitions == log.partitions)
    assert log.reads <= 8  # the first announcements may cross with the reads of the start


async def test_a_gap_is_filled_from_the_log(log: Log, memory: NatsBus) -> None:
    state = State()
    await follow(memory, state).start()
    await until(lambda: log.reads == 4)
    log.file(1, 5)  # announced to nobody
    await log.bus.publish([log.file(1, 1)])
    await until(lambda: state.partitions.get(1, []) == log.partitions[1])


async def test_an_announcement_that_comes_again_changes_nothing(log: Log, memory: NatsBus) -> None:
    state = State()
    await follow(memory, state).start()
    message = log.file(2, 3)
    for _ in range(3):
        await log.bus.publish([message])
    await log.bus.publish([log.file(2, 1)])
    await until(lambda: state.partitions == log.partitions)


@pytest.mark.parametrize("error", [RetryableError("UNAVAILABLE", "Not now."), KeyError("defect")])
async def test_a_handler_that_fails_gets_the_events_again(
    log: Log, memory: NatsBus, error: Exception
) -> None:
    state = State()
    state.fail = [error]
    await follow(memory, state).start()
    await log.bus.publish([log.file(0, 3), log.file(0, 3)])
    await until(lambda: state.partitions == log.partitions)
    assert state.calls >= 2


async def test_a_subscriber_waits_for_a_log_whose_owner_is_not_there_yet(
    orchestrator: NatsBus, memory: NatsBus
) -> None:
    log = Log(orchestrator)
    state = State()
    await follow(memory, state).start()
    await orchestrator.publish([log.file(0, 3)])
    await asyncio.sleep(0.2)
    await log.serve()
    await until(lambda: state.partitions == log.partitions)


async def test_a_subscriber_catches_up_after_the_bus_lost_everything(
    server: Server, log: Log, memory: NatsBus
) -> None:
    state = State()
    await follow(memory, state).start()
    await log.bus.publish([log.file(0, 3)])
    await until(lambda: state.partitions == log.partitions)
    before = memory.incarnation
    kill_and_delete(server.pid or 0, server.data_dir / "nats")
    log.file(0, 4)  # its announcement is lost with the bus
    await until(lambda: memory.incarnation not in ("", before))
    await until(lambda: state.partitions == log.partitions)
    await until(lambda: log.bus.connected)
    await publish_again(log.bus, log.file(3, 2))
    await until(lambda: state.partitions == log.partitions)


async def test_many_announcements_at_once_are_all_followed(log: Log, memory: NatsBus) -> None:
    state = State()
    await follow(memory, state).start()
    await log.bus.publish([log.file(number % 4, 2) for number in range(1000)])
    await until(lambda: state.partitions == log.partitions, 30)


async def test_an_announcement_of_what_can_not_be_is_a_dead_letter(log: Log, memory: NatsBus) -> None:
    state = State()
    await follow(memory, state).start()
    wrong = EventsFiled(partition=99, first_position=1, events=[b"x"]).SerializeToString()
    for data in (wrong, b"\xff\xff"):
        await log.bus.publish([Message(subjects.run_events("main", 1), data)])
    letters = await dead_letters(log.bus, 2)
    assert {letter.reason.code for letter in letters} == {"UNDECODABLE"}


async def test_stopping_lets_nobody_wait(orchestrator: NatsBus, memory: NatsBus) -> None:
    state = State()
    catch_up = CatchUp(memory, "main", 1, load_position=state.load, handle=state.handle)
    await catch_up.start()
    offered = asyncio.create_task(catch_up.offer(EventsFiled(partition=0, first_position=5, events=[b"x"])))
    await asyncio.sleep(0)
    await catch_up.stop()
    with pytest.raises(RetryableError):
        await offered


class Taken:
    """A handler of external events that keeps them."""

    def __init__(self) -> None:
        self.events: list[ExternalEvent] = []
        self.fail: list[Exception] = []

    async def __call__(self, event: ExternalEvent) -> None:
        if self.fail:
            raise self.fail.pop()
        self.events.append(event)


async def outside(server: Server) -> Client:
    credentials = server.endpoint.credentials("external")
    return await nats.connect(credentials.url, user="external", password=credentials.password)


STRUCTURED = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/shop",
    "type": "order.paid",
    "data": {"total": "12.50"},
}


@pytest.mark.feature("L3")
async def test_binary_and_structured_events_from_outside_come_in(
    server: Server, orchestrator: NatsBus
) -> None:
    taken = Taken()
    await IntakeSubscriber(orchestrator, "main", taken).start()
    client = await outside(server)
    binary = {
        "ce-specversion": "1.0",
        "ce-id": "e2",
        "ce-source": "/shop",
        "ce-type": "order.paid",
        "ce-subject": "o7",
    }
    binary |= {
        "ce-time": "2026-10-31T12:00:00Z",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    js = client.jetstream()
    await js.publish("aios.in.main.shop.order.paid", json.dumps(STRUCTURED).encode())
    await js.publish(
        "aios.in.main.shop.order.paid",
        b'{"total": 1}',
        headers={**binary, "content-type": "application/json"},
    )
    await until(lambda: len(taken.events) == 2)
    first, second = sorted(taken.events, key=lambda event: event.id)
    assert (first.workspace, first.id, first.source, first.type) == ("main", "e1", "/shop", "order.paid")
    assert json.loads(first.data) == {"total": "12.50"}
    assert (second.id, second.subject, second.time_ms, second.data) == (
        "e2",
        "o7",
        1793448000000,
        b'{"total": 1}',
    )
    assert (second.received_by, second.traceparent) == ("bus", binary["traceparent"])
    await client.close()


@pytest.mark.parametrize(
    ("body", "headers", "code", "word"),
    [
        (b"not json", None, "INVALID_ARGUMENT", "JSON"),
        (b"[1]", None, "INVALID_ARGUMENT", "object"),
        (b'{"specversion": "1.0", "source": "s", "type": "t"}', None, "INVALID_ARGUMENT", "id"),
        (
            b'{"specversion": "2.0", "id": "1", "source": "s", "type": "t"}',
            None,
            "INVALID_ARGUMENT",
            "specversion",
        ),
        (b"{}", {"ce-id": "1", "ce-specversion": "1.0", "ce-source": "s"}, "INVALID_ARGUMENT", "type"),
        (
            b"[" * 5000,
            {"ce-id": "1", "ce-specversion": "1.0", "ce-source": "s", "ce-type": "t"},
            "TOO_DEEP",
            "JSON",
        ),
    ],
)
async def test_what_is_no_event_is_a_dead_letter_that_says_why(
    server: Server, orchestrator: NatsBus, body: bytes, headers: dict[str, str] | None, code: str, word: str
) -> None:
    taken = Taken()
    await IntakeSubscriber(orchestrator, "main", taken).start()
    client = await outside(server)
    await client.jetstream().publish("aios.in.main.shop.order", body, headers=headers)
    await client.jetstream().publish("aios.in.main.shop.order", json.dumps(STRUCTURED).encode())
    (letter,) = await dead_letters(orchestrator, 1)
    assert letter.reason.code == code
    assert word in letter.reason.message
    await until(lambda: len(taken.events) == 1)
    await client.close()


async def test_an_event_is_acknowledged_only_when_it_is_taken(server: Server, orchestrator: NatsBus) -> None:
    taken = Taken()
    taken.fail = [ValueError("defect"), RetryableError("DISK_FULL", "Full.", retry_after=0.01)]
    await IntakeSubscriber(orchestrator, "main", taken).start()
    client = await outside(server)
    await client.jetstream().publish("aios.in.main.shop.order", json.dumps(STRUCTURED).encode())
    await until(lambda: len(taken.events) == 1)
    assert taken.fail == []
    js = orchestrator.keeper.alive().jetstream()
    async with asyncio.timeout(5):
        while (await js.consumer_info(subjects.STREAM_IN, "orchestrator__intake")).num_ack_pending:
            await asyncio.sleep(0.01)
    await client.close()


async def test_a_refused_event_is_a_dead_letter(server: Server, orchestrator: NatsBus) -> None:
    taken = Taken()
    taken.fail = [TerminalError("REQUEST_ID_REUSED", "It came before with other data.")]
    await IntakeSubscriber(orchestrator, "main", taken).start()
    client = await outside(server)
    await client.jetstream().publish("aios.in.main.shop.order", json.dumps(STRUCTURED).encode())
    (letter,) = await dead_letters(orchestrator, 1)
    assert (letter.reason.code, json.loads(letter.data)["id"]) == ("REQUEST_ID_REUSED", "e1")
    await client.close()


async def test_the_intake_goes_on_after_the_server_was_killed(server: Server, orchestrator: NatsBus) -> None:
    taken = Taken()
    await IntakeSubscriber(orchestrator, "main", taken).start()
    client = await outside(server)
    await client.jetstream().publish("aios.in.main.shop.order", json.dumps(STRUCTURED).encode())
    await until(lambda: len(taken.events) == 1)
    await client.close()
    first = server.pid
    os.kill(first or 0, signal.SIGKILL)
    await until(lambda: server.pid not in (None, first) and orchestrator.connected)
    client = await outside(server)
    await client.jetstream().publish(
        "aios.in.main.shop.order", json.dumps({**STRUCTURED, "id": "e9"}).encode()
    )
    await until(lambda: taken.events[-1].id == "e9", 10)
    await client.close()


def test_faststream_is_not_loaded_until_something_subscribes() -> None:
    code = "import sys, aios_runtime.bus.subscribers, aios_runtime.bus.connection; print('faststream' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def dead_letters(bus: NatsBus, count: int) -> list[DeadLetter]:
    js = bus.keeper.alive().jetstream()
    async with asyncio.timeout(15):
        while (await js.stream_info(subjects.STREAM_DLQ)).state.messages < count:
            await asyncio.sleep(0.01)
    kept = [await js.get_msg(subjects.STREAM_DLQ, number) for number in range(1, count + 1)]
    return [DeadLetter.FromString(message.data or b"") for message in kept]


async def publish_again(bus: NatsBus, message: Message) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                return await bus.publish([message])
            except RetryableError:
                await asyncio.sleep(0.01)
