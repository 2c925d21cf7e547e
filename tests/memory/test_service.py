"""The memory service in a process of its own, over a real bus, killed at every named instant."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aios.bus.v1 import bus_pb2
from aios.memory.v1 import memory_pb2
from aios.run.v1 import events_pb2 as run
from aios.task.v1 import task_pb2
from aios_core.encoding import decode
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import event_hash
from aios_core.minting import mint
from aios_core.values import plain
from aios_runtime.artifacts import MemoryArtifacts
from aios_runtime.bus import patience, subjects, topology
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import EmbeddedNats
from aios_runtime.bus.port import Delivery, Message
from tests.memory.serving import WORKSPACE, fact, make_task, write_task
from tests.memory.test_episodes import PARTITION, RUN, event

SECONDS = 30.0  # a test waits at most so long for a thing to happen
ROOT = Path(__file__).parents[2]


class Child:
    """The service as a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), SECONDS)


class World:
    """A bus, and memory beside it on a data directory; outcomes that memory reported."""

    def __init__(self, path: Path, bus: NatsBus, stack: AsyncExitStack) -> None:
        self.path = path
        self.bus = bus
        self.outcomes: list[task_pb2.Outcome] = []
        self._stack = stack
        self._news = asyncio.Event()

    async def memory(self, crash_at: str = "") -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.memory.child", str(self.path), str(self.path / "bus"),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, "AIOS_CRASH_AT": crash_at},
        )  # fmt: skip
        child = Child(process)
        self._stack.push_async_callback(child.stop)
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), SECONDS) == b"ready\n"
        return child

    async def send(self, *tasks: task_pb2.Task) -> None:
        subject = subjects.perform(WORKSPACE, subjects.LANE_MEMORY)
        await self.bus.publish([Message(subject, task_pb2.PerformTasks(tasks=tasks).SerializeToString())])

    async def outcome(self, task_id: str) -> task_pb2.Outcome:
        async with asyncio.timeout(SECONDS):
            while True:
                for outcome in self.outcomes:
                    if outcome.task_id == task_id:
                        return outcome
                self._news.clear()
                await self._news.wait()

    async def received(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.outcomes.extend(task_pb2.ReportOutcomes.FromString(delivery.data).outcomes)
            await delivery.ack()
        self._news.set()

    async def ask(self, name: str, request: object, response: type) -> object:
        data = request.SerializeToString()
        return response.FromString(await self.bus.ask(subjects.query("memory", name, WORKSPACE), data, 10.0))

    async def versions(self, key: str) -> list[memory_pb2.Record]:
        request = memory_pb2.ListVersionsRequest(workspace=WORKSPACE, kind="fact", key=key)
        return list((await self.ask("list_versions", request, memory_pb2.ListVersionsResponse)).records)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(topology, "ACK_WAIT_SECONDS", 1.0)  # what a killed worker held comes again soon
    async with AsyncExitStack() as stack:
        server = EmbeddedNats(tmp_path / "bus")
        endpoint = await server.start()
        stack.push_async_callback(server.stop)
        bus = await NatsBus.connect(endpoint.credentials("orchestrator"), service="orchestrator")
        stack.push_async_callback(bus.close, 1.0)
        world = World(tmp_path, bus, stack)
        await bus.consume("orchestrator__report_outcomes", world.received, batch=16, slots=64)
        yield world


TASK_POINTS = [
    "memory.lane.received",
    "memory.committed",
    "memory.committed:2",
    "memory.lane.worked",
    "memory.lane.reported",
    "memory.lane.acknowledged",
]


@pytest.mark.feature("B1")
@pytest.mark.feature("G9")
@pytest.mark.parametrize("point", TASK_POINTS)
async def test_a_kill_at_any_instant_of_a_write_neither_loses_nor_doubles_a_version(
    world: World, point: str
) -> None:
    doomed = await world.memory(crash_at=point)
    tasks = [
        write_task(fact("a", 1), fact("b", {"means": "hours"}), step="one"),
        write_task(fact("c", 1, "any"), step="two"),
    ]
    await world.send(*tasks)
    assert await asyncio.wait_for(doomed.process.wait(), SECONDS) == -signal.SIGKILL
    await world.memory()
    if point != "memory.lane.acknowledged":
        for task in tasks:
            outcome = await world.outcome(task.task_id)
            assert outcome.status == task_pb2.STATUS_SUCCEEDED
            assert [version["version"] for version in plain(decode(outcome.output))["versions"]] == [1] * len(
                outcome.changes
            )
            assert outcome.undo_token
    for key in "abc":
        assert [record.version for record in await world.versions(key)] == [1], key


@pytest.mark.feature("D6")
@pytest.mark.parametrize("point", ["memory.committed", "memory.lane.reported"])
async def test_a_kill_in_the_middle_of_an_undo_restores_once(world: World, point: str) -> None:
    first = await world.memory()
    write = write_task(fact("a", 1))
    await world.send(write)
    token = (await world.outcome(write.task_id)).undo_token
    assert await first.stop() == 0
    doomed = await world.memory(crash_at=point)
    undo = make_task("memory.write", None, run="run_1", step="undo-remember", mode=task_pb2.MODE_UNDO)
    undo.undo_token = token
    await world.send(undo)
    assert await asyncio.wait_for(doomed.process.wait(), SECONDS) == -signal.SIGKILL
    await world.memory()
    assert (await world.outcome(undo.task_id)).status == task_pb2.STATUS_SUCCEEDED
    assert [(record.version, record.deleted) for record in await world.versions("a")] == [
        (1, False),
        (2, True),
    ]


async def test_a_kill_between_a_blob_and_its_commit_leaves_an_upload_that_can_be_repeated(
    world: World,
) -> None:
    doomed = await world.memory(crash_at="memory.blob_stored")
    client = MemoryArtifacts(world.bus, WORKSPACE, mint)
    data = os.urandom(300_000)
    upload = asyncio.ensure_future(client.put(data, "application/octet-stream", "rows.bin"))
    assert await asyncio.wait_for(doomed.process.wait(), SECONDS) == -signal.SIGKILL
    upload.cancel()
    await world.memory()
    pointer = await client.put(data, "application/octet-stream", "rows.bin")
    assert pointer.sha256 == hashlib.sha256(data).hexdigest()
    assert await client.get(pointer) == data
    blobs = [
        path for path in (world.path / "artifacts").rglob("*") if path.is_file() and path.suffix != ".upload"
    ]
    assert len(blobs) == 1


class _Asking:
    """A connection that says when a question was not answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.unanswered = asyncio.Event()

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        try:
            return await self._world.bus.ask(subject, data, timeout)
        except RetryableError:
            self.unanswered.set()
            raise


async def test_who_stores_an_artifact_waits_for_memory_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its death costs no step one of its attempts, and no run its end."""
    bus = _Asking(world)
    client = MemoryArtifacts(bus, WORKSPACE, mint)  # type: ignore[arg-type]
    storing = asyncio.ensure_future(client.put(b"after"))
    await asyncio.wait_for(bus.unanswered.wait(), SECONDS)
    assert not storing.done()
    await world.memory()
    assert await client.get(await storing) == b"after"
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    with pytest.raises(RetryableError) as caught:
        await MemoryArtifacts(world.bus, "another", mint).put(b"nobody is there")
    assert caught.value.code == "UNAVAILABLE"


async def test_other_services_store_and_fetch_artifacts_and_read_what_steps_wrote(world: World) -> None:
    await world.memory()
    client = MemoryArtifacts(world.bus, WORKSPACE, mint)
    for data in (b"", b"small", os.urandom(128 * 1024), os.urandom(1_000_000)):
        pointer = await client.put(data, "text/plain", "notes.txt")
        assert await client.get(pointer) == data
    with pytest.raises(TerminalError) as caught:
        await client.get(type(pointer)("ab" * 32, 3))
    assert caught.value.code == "NOT_FOUND"

    task = write_task(
        *(fact(f"client/acme/{n:02}", {"n": n, "rows": pointer}) for n in range(30)), event_id="evt_1"
    )
    read = make_task("memory.read", None, run="run_1", step="recall")
    await world.send(task)
    outcome = await world.outcome(task.task_id)
    assert outcome.summary == "wrote fact client/acme/00 and 29 more"
    assert outcome.worker == "memory-1"
    read.input = outcome.output
    await world.send(read)
    assert (await world.outcome(read.task_id)).error.code == "UNKNOWN_FIELD"

    token, keys = "", []
    while True:
        request = memory_pb2.ListRecordsRequest(
            workspace=WORKSPACE, kind="fact", prefix="client/acme/", page_size=7, page_token=token
        )
        page = await world.ask("list_records", request, memory_pb2.ListRecordsResponse)
        keys += [record.key for record in page.records]
        token = page.next_page_token
        if not token:
            break
    assert keys == [f"client/acme/{n:02}" for n in range(30)]

    source = f"artifact:{pointer.sha256}"
    uses = await world.ask(
        "list_uses",
        memory_pb2.ListUsesRequest(workspace=WORKSPACE, source=source),
        memory_pb2.ListUsesResponse,
    )
    assert len(uses.uses) == 30
    record = await world.ask(
        "get_record",
        memory_pb2.GetRecordRequest(workspace=WORKSPACE, kind="fact", key="client/acme/03"),
        memory_pb2.GetRecordResponse,
    )
    assert record.record.provenance.event_id == "evt_1"
    key = hashlib.sha256(b"question").digest()
    put = memory_pb2.PutCachedRequest(workspace=WORKSPACE, key_sha256=key, value=b"answer")
    await world.ask("put_cached", put, memory_pb2.PutCachedResponse)
    get = memory_pb2.GetCachedRequest(workspace=WORKSPACE, key_sha256=key)
    assert (await world.ask("get_cached", get, memory_pb2.GetCachedResponse)).value == b"answer"


class EventLog:
    """The orchestrator's event log of one partition."""

    def __init__(self, bus: NatsBus) -> None:
        self.bus = bus
        self.events: list[bytes] = []

    async def answer(self, data: bytes, headers: Mapping[str, str]) -> bytes:
        request = bus_pb2.ReadEventsRequest.FromString(data)
        events = self.events if request.partition == PARTITION else []
        filed = [
            bus_pb2.FiledEvent(partition=request.partition, position=n, event=event)
            for n, event in enumerate(events, 1)
            if n > request.after
        ]
        return bus_pb2.ReadEventsResponse(events=filed[:3], head=len(events)).SerializeToString()

    async def file(self, events: list[bytes]) -> None:
        first = len(self.events) + 1
        self.events += events
        filed = bus_pb2.EventsFiled(partition=PARTITION, first_position=first, events=events)
        subject = subjects.run_events(WORKSPACE, PARTITION)
        await self.bus.publish([Message(subject, filed.SerializeToString())])


@pytest.mark.feature("G10")
async def test_every_event_is_told_once_whether_it_was_notified_missed_or_told_before_a_kill(
    world: World,
) -> None:
    log = EventLog(world.bus)
    await world.bus.answer(subjects.query("run", "read_events", WORKSPACE), log.answer, queue="orchestrator")
    log.events = [
        event(n, wait_started=run.WaitStarted(step=f"s{n}")) for n in range(1, 8)
    ]  # before memory was there
    doomed = await world.memory(crash_at="memory.episodes_committed:2")
    assert await asyncio.wait_for(doomed.process.wait(), SECONDS) == -signal.SIGKILL
    await world.memory()
    await log.file([event(n, run_succeeded=run.RunSucceeded()) for n in (8, 9)])

    told: list[memory_pb2.Episode] = []
    async with asyncio.timeout(SECONDS):
        while len(told) < 9:
            request = memory_pb2.ListEpisodesRequest(workspace=WORKSPACE, run_id=RUN, page_size=50)
            told = list((await world.ask("list_episodes", request, memory_pb2.ListEpisodesResponse)).episodes)
    assert [episode.sequence for episode in told] == list(range(1, 10))
    assert told[-1].event_sha256 == event_hash(log.events[-1])


WRONG = [
    ("get_record", memory_pb2.GetRecordRequest(workspace="main", kind="fact", key="none"), "NOT_FOUND"),
    ("get_record", memory_pb2.GetRecordRequest(workspace="else", kind="fact", key="a"), "NOT_FOUND"),
    ("get_record", memory_pb2.GetRecordRequest(workspace="main", kind="story", key="a"), "INVALID_ARGUMENT"),
    (
        "list_records",
        memory_pb2.ListRecordsRequest(workspace="main", kind="fact", page_token="x" * 1001),
        "INVALID_ARGUMENT",
    ),
    ("list_versions", memory_pb2.ListVersionsRequest(workspace="main", kind="fact", key="none"), "NOT_FOUND"),
    ("list_uses", memory_pb2.ListUsesRequest(workspace="main", source="nonsense"), "INVALID_ARGUMENT"),
    ("list_episodes", memory_pb2.ListEpisodesRequest(workspace="main"), "INVALID_ARGUMENT"),
    ("get_cached", memory_pb2.GetCachedRequest(workspace="main", key_sha256=b"x"), "INVALID_ARGUMENT"),
    ("put_cached", memory_pb2.PutCachedRequest(workspace="else", key_sha256=b"x"), "NOT_FOUND"),
    ("put_artifact", memory_pb2.PutArtifactRequest(workspace="else"), "NOT_FOUND"),
]


async def test_a_wrong_question_gets_a_clear_error(world: World) -> None:
    await world.memory()
    for name, request, code in WRONG:
        for data, expected in ((request.SerializeToString(), code), (b"\xff\xff\xff", "UNDECODABLE")):
            with pytest.raises(TerminalError) as caught:
                await world.bus.ask(subjects.query("memory", name, WORKSPACE), data, 10.0)
            assert caught.value.code == expected, name
