"""What only a database over a network has: cut connections, a server that dies, several processes that write."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.store.checks import MAX_WRITE_BYTES
from aios_runtime.store.mongo import MongoStore, open_mongo_store
from aios_runtime.store.mongo_documents import COMMITS_REMEMBERED
from aios_runtime.store.port import MAX_RECORD_BYTES, Committed, NewEvent, Write
from tests.mongo import built_server
from tests.store.cut_proxy import Applied, CutProxy
from tests.store.histories import assert_nothing_torn
from tests.store.test_kill import acknowledgements, run_until_killed, start

KEY = "main/run/1"


async def opened(url: str, database: str) -> MongoStore:
    return await open_mongo_store(url, database=database, service="test", now_ms=lambda: 1_700_000_000_000)


@pytest.fixture
async def store(mongo_url: str, database: str) -> AsyncIterator[MongoStore]:
    store = await opened(mongo_url, database)
    yield store
    await store.close()


@pytest.mark.feature("J1", "L2")
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_process_killed_again_and_again_loses_nothing_acknowledged(
    mongo_url: str, database: str, seed: int
) -> None:
    random_ = random.Random(seed)
    for _ in range(3):
        place = f"{mongo_url.rstrip('/')}/{database}"
        acknowledged = run_until_killed(place, random_.randint(1, 300), random_.random() * 0.05)
        store = await opened(mongo_url, database)
        await assert_nothing_torn(store, acknowledged)
        await store.close()


@pytest.mark.feature("J1", "L2")
@pytest.mark.parametrize("point", ["before_commit", "after_commit", "moved"])
@pytest.mark.parametrize("passing", [1, 4])
async def test_a_process_killed_at_a_crash_point_of_the_commit_loses_nothing_acknowledged(
    mongo_url: str, database: str, tmp_path: Path, point: str, passing: int
) -> None:
    marker = tmp_path / "marker"
    child = start(
        f"{mongo_url.rstrip('/')}/{database}",
        200,
        AIOS_CRASH_AT=f"test.store.{point}:{passing}",
        AIOS_CRASH_MARKER=str(marker),
    )
    output, _ = await asyncio.to_thread(child.communicate, timeout=60)
    assert (child.returncode, marker.read_text()) == (-signal.SIGKILL, f"test.store.{point}")
    store = await opened(mongo_url, database)
    acknowledged = acknowledgements(output)
    revisions = await assert_nothing_torn(store, acknowledged)
    if point != "before_commit":
        assert sum(revisions.values()) > sum(acknowledged.values())
    await store.close()


@pytest.mark.feature("J1", "L2")
async def test_a_server_killed_in_the_middle_and_started_again_lost_nothing_acknowledged(
    tmp_path: Path, database: str
) -> None:
    server = built_server(tmp_path / "data.mv").start()
    store = await opened(server.url, database)
    acknowledged: dict[int, int] = {}

    async def write(writer: int) -> None:
        key, revision = f"main/run/{writer}", 0
        for _ in range(60):
            try:
                (result,) = await store.commit(
                    [Write(key, revision, b"", events=[NewEvent(0, key.encode())])]
                )
            except RetryableError:
                found = None
                while found is None:
                    try:
                        found = await store.read(key)
                        break
                    except RetryableError:
                        continue
                revision = found.revision if found else 0
                continue
            assert isinstance(result, Committed)
            acknowledged[writer] = revision = result.revision

    async def kill() -> None:
        for _ in range(3):
            before = sum(acknowledged.values())
            while sum(acknowledged.values()) < before + 40 and not all(task.done() for task in writing):
                await asyncio.sleep(0)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

    writing = [asyncio.create_task(write(writer)) for writer in range(10)]
    await asyncio.gather(kill(), *writing)
    filed = [event.data.decode() for event in await store.events(0, 0, 10_000)]
    for writer, revision in acknowledged.items():
        found = await store.read(f"main/run/{writer}")
        assert found is not None
        assert found.revision >= revision
        assert filed.count(f"main/run/{writer}") == found.revision
    assert len(filed) == await store.event_head(0)
    await store.close()
    server.kill()


@pytest.mark.feature("J1", "L2")
@pytest.mark.parametrize("collection", ["aggregates", "events", "records"])
@pytest.mark.parametrize("applied", ["none", "some", "all"])
@pytest.mark.parametrize("steps_down", [False, True], ids=["cut", "step-down"])
async def test_a_primary_that_is_cut_off_or_steps_down_in_the_middle_of_a_bulk_write_loses_and_doubles_nothing(
    mongo_url: str, database: str, collection: str, applied: Applied, steps_down: bool
) -> None:
    async with CutProxy(mongo_url) as proxy:
        store = await opened(proxy.url, database)
        writes = [
            Write(f"main/run/{n}", 0, b"h", records={"a": b"%d" % n}, events=[NewEvent(3, b"%d" % n)])
            for n in range(50)
        ]
        await store.commit(writes[:1])
        proxy.cut(collection, applied=applied, answers=steps_down)
        results = await store.commit(writes[1:])
        assert proxy.cuts == 1
        assert [type(result) for result in results] == [Committed] * 49
        assert [result.positions for result in results if isinstance(result, Committed)] == [
            (position,) for position in range(2, 51)
        ]
        again = await store.commit(writes)
        assert not any(isinstance(result, Committed) for result in again)
        assert [event.data for event in await store.events(3, 0, 100)] == [b"%d" % n for n in range(50)]
        for n in range(50):
            assert await store.record(f"main/run/{n}", "a") == b"%d" % n
        await store.close()


@pytest.mark.feature("L2")
async def test_of_several_processes_that_write_the_same_aggregates_one_wins_each_revision(
    mongo_url: str, database: str
) -> None:
    stores = [await opened(mongo_url, database) for _ in range(3)]

    async def add(store: MongoStore, who: int) -> int:
        won = 0
        for number in range(40):
            key = f"main/run/{number % 4}"
            found = await store.read(key)
            event = NewEvent(number % 2, b"%d.%d" % (who, number))
            write = Write(
                key, found.revision if found else 0, b"h", events=[event], records={f"{who}.{number}": b""}
            )
            (result,) = await store.commit([write])
            won += isinstance(result, Committed)
        return won

    won = await asyncio.gather(*(add(store, who) for who, store in enumerate(stores)))
    heads = [await stores[0].read(f"main/run/{n}") for n in range(4)]
    assert sum(head.revision for head in heads if head) == sum(won) > 40
    for store in stores:
        filed = [event for partition in (0, 1) for event in await store.events(partition, 0, 1000)]
        assert len(filed) == len({event.data for event in filed}) == sum(won)
        for partition in (0, 1):
            positions = [event.position for event in filed if event.partition == partition]
            assert positions == list(range(1, len(positions) + 1))
        kept = [name for n in range(4) for name in await store.records(f"main/run/{n}", limit=1000)]
        assert sorted(kept) == sorted(event.data.decode() for event in filed)
    for store in stores:
        await store.close()


@pytest.mark.feature("L2")
async def test_of_several_processes_that_write_at_the_same_instant_one_wins(
    mongo_url: str, database: str
) -> None:
    stores = [await opened(mongo_url, database) for _ in range(3)]
    for revision in range(20):
        writes = [Write(KEY, revision, b"%d" % who, events=[NewEvent(0, b"e")]) for who in range(3)]
        results = await asyncio.gather(
            *(store.commit([write]) for store, write in zip(stores, writes, strict=True))
        )
        assert sorted(type(result).__name__ for (result,) in results) == ["Committed", "Conflict", "Conflict"]
    assert await stores[0].event_head(0) == 20
    for store in stores:
        await store.close()


@pytest.mark.feature("L2")
async def test_processes_that_open_a_database_at_the_same_instant_keep_their_aggregates_apart(
    mongo_url: str, database: str
) -> None:
    """They create at the same millisecond, as the clock stands; what one files is never taken for the other's."""
    stores = await asyncio.gather(*(opened(mongo_url, database) for _ in range(12)))
    try:
        await asyncio.gather(
            *(
                store.commit([Write(f"main/run/{at}", 0, b"", events=[NewEvent(at, b"%d" % at)])])
                for at, store in enumerate(stores)
            )
        )
        for at, store in enumerate(stores):
            filed = await store.events_of(f"main/run/{at}", 0, 10)
            assert [event.data for event in filed] == [b"%d" % at]
    finally:
        await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.feature("J1")
async def test_an_aggregate_of_three_times_what_a_document_holds_meets_no_wall(store: MongoStore) -> None:
    for part in range(10):
        names = [f"step/{number:05}" for number in range(part * 200, part * 200 + 200)]
        records = {name: name.encode() * 1000 for name in names}
        events = [NewEvent(0, bytes(1500)) for _ in range(1000)]
        (result,) = await store.commit([Write(KEY, part, b"head", records=records, events=events)])
        assert isinstance(result, Committed)
    found: dict[str, bytes] = {}
    while page := await store.records(KEY, after=max(found, default=""), limit=300):
        found |= page
    assert len(found) == 2000
    assert sum(map(len, found.values())) + 10_000 * 1500 > 2 * 16 * 1024 * 1024
    assert len(await store.events_of(KEY, 9_990, 100)) == 10
    document = await store._database.aggregates.find_one({"_id": KEY})
    assert document is not None
    assert len(document["c"]) == COMMITS_REMEMBERED


async def test_a_write_that_no_document_could_hold_is_refused(store: MongoStore) -> None:
    count = MAX_WRITE_BYTES // MAX_RECORD_BYTES
    records = {str(number): bytes(MAX_RECORD_BYTES) for number in range(count)}
    (result,) = await store.commit([Write(KEY, 0, b"", records=records)])
    assert isinstance(result, Committed)
    with pytest.raises(TerminalError, match="TOO_LARGE"):
        await store.commit([Write(KEY, 1, b"x", records=records)])


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("not an address", "INVALID_ARGUMENT"),
        ("mongodb://user:se%ret@localhost/", "INVALID_ARGUMENT"),
        ("mongodb://user:secret@127.0.0.1:1/", "UNAVAILABLE"),
    ],
)
async def test_an_address_that_does_not_work_is_told_without_its_password(url: str, code: str) -> None:
    with pytest.raises(AiosError) as caught:
        await open_mongo_store(url, database="test", service="test", now_ms=lambda: 0, connect_ms=200)
    assert caught.value.code == code
    assert "secret" not in f"{caught.value.message} {caught.value.details}"


async def test_a_database_of_a_later_release_is_left_alone(mongo_url: str, database: str) -> None:
    store = await opened(mongo_url, database)
    await store._database.meta.update_one({"_id": "\0schema"}, {"$set": {"n": 99}})
    await store.close()
    with pytest.raises(TerminalError, match="NEWER_STORE"):
        await opened(mongo_url, database)
