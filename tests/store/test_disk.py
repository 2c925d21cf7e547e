"""A disk that loses its power, runs full or fails never makes a caller believe what is not so."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random

import apsw
import pytest

from aios_core.errors import AiosError, RetryableError
from aios_runtime.store import sqlite, transactions, writer
from aios_runtime.store.port import Committed, NewEvent, OutboxMessage, Write
from aios_runtime.store.sqlite import SqliteStore, open_store

from .faulty_disk import FaultyDisk
from .histories import assert_nothing_torn

_names = itertools.count()


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk(f"faulty{next(_names)}")
    yield disk
    disk.unregister()


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "UNCLEAR_DELAYS", (0.0, 0.0))


async def opened(path: Path, disk: FaultyDisk | None = None) -> SqliteStore:
    return await open_store(path, service="test", now_ms=lambda: 0, vfs=disk.name if disk else None)


def step(writer_: int, revision: int) -> Write:
    text = str(revision + 1)
    return Write(
        f"main/run/{writer_}",
        revision,
        text.encode().ljust(600, b"."),
        records={"last": text.encode(), f"step/{text}": text.encode()},
        events=[NewEvent(0, f"{writer_} {text} {part}".encode()) for part in "ab"],
        outbox=[OutboxMessage("s", f"{writer_} {text}".encode(), "id")],
        inbox=[f"main/run/{writer_}:{text}"],
        due_ms=revision + 1,
        index={"revision": text},
    )


@pytest.mark.feature("B1")
@pytest.mark.parametrize("seed", range(6))
async def test_a_loss_of_power_at_any_instant_loses_nothing_acknowledged(
    tmp_path: Path, disk: FaultyDisk, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 30)
    monkeypatch.setattr(writer, "MAX_LOG_PAGES", 60)
    random = Random(seed)
    store = await opened(tmp_path / "test.db", disk)
    acknowledged: dict[int, int] = {}
    cuts: list[tuple[Path, dict[int, int]]] = []

    async def commit(writer_: int) -> None:
        for revision in range(15):
            (result,) = await store.commit([step(writer_, revision)])
            assert isinstance(result, Committed)
            acknowledged[writer_] = result.revision
            if random.random() < 0.1:
                folder = tmp_path / f"cut{len(cuts)}"
                folder.mkdir()
                cuts.append((folder, dict(acknowledged)))
                disk.lose_power(folder, random)

    await asyncio.gather(*(commit(number) for number in range(8)))
    await store.close()
    assert cuts
    for folder, known in cuts:
        recovered = await opened(folder / "test.db")
        await assert_nothing_torn(recovered, known)
        await recovered.close()


def full(name: str) -> Exception | None:
    return apsw.FullError("full") if name.endswith("-wal") else None


async def test_a_full_disk_refuses_the_whole_batch_and_goes_on_once_there_is_room(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    store = await opened(tmp_path / "test.db", disk)
    await store.commit([step(0, 0)])
    disk.fail_write = full
    answers = await asyncio.gather(
        *(store.commit([step(number, number == 0)]) for number in range(50)), return_exceptions=True
    )
    assert {answer.code for answer in answers if isinstance(answer, RetryableError)} == {"DISK_FULL"}
    assert len(answers) == 50
    await assert_nothing_torn(store, {0: 1})
    assert len((await store.scan("main/", limit=100)).items) == 1
    disk.fail_write = lambda _: None
    results = await asyncio.gather(*(store.commit([step(number, number == 0)]) for number in range(50)))
    assert all(isinstance(result, Committed) for (result,) in results)
    await assert_nothing_torn(store, dict.fromkeys(range(50), 1))
    await store.close()
    store = await opened(tmp_path / "test.db")
    await assert_nothing_torn(store, dict.fromkeys(range(50), 1))
    await store.close()


async def test_a_disk_that_is_full_for_checkpoints_alone_keeps_everything_in_the_log(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 1)
    store = await opened(tmp_path / "test.db", disk)
    disk.fail_write = lambda name: apsw.FullError("full") if name.endswith(".db") else None
    for revision in range(20):
        await store.commit([step(0, revision)])
    while (trouble := store.trouble) is None:  # the checkpoint comes after the answer
        await asyncio.sleep(0)
    assert trouble.code == "DISK_FULL"
    disk.fail_write = lambda _: None
    await store.commit([step(0, 20)])
    await store.close()
    assert store.trouble is None
    store = await opened(tmp_path / "test.db")
    await assert_nothing_torn(store, {0: 21})
    await store.close()


async def test_a_flush_that_fails_once_is_made_again_and_counts_once(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    store = await opened(tmp_path / "test.db", disk)
    await store.commit([step(0, 0)])
    failures = iter([apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)])
    disk.fail_sync = lambda _: next(failures, None)
    assert await store.commit([step(0, 1), step(1, 0)]) == [
        Committed(2, (3, 4), (2,)),
        Committed(1, (5, 6), (3,)),
    ]
    assert next(failures, None) is None
    await assert_nothing_torn(store, {0: 2, 1: 1})
    folder = tmp_path / "cut"
    folder.mkdir()
    disk.lose_power(folder, Random(0))
    recovered = await opened(folder / "test.db")
    await assert_nothing_torn(recovered, {0: 2, 1: 1})
    await recovered.close()
    await store.close()


@pytest.mark.parametrize("reaches_disk", [True, False])
async def test_a_commit_that_stays_unclear_is_called_unknown_and_a_restart_tells(
    tmp_path: Path, disk: FaultyDisk, reaches_disk: bool
) -> None:
    store = await opened(tmp_path / "test.db", disk)
    await store.commit([step(0, 0)])

    def fail(name: str) -> Exception:
        if reaches_disk:
            disk.files[name].flush()
        return apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)

    disk.fail_sync = fail
    with pytest.raises(RetryableError) as caught:
        await store.commit([step(0, 1)])
    assert (caught.value.code, caught.value.details["outcome"]) == ("UNAVAILABLE", "unknown")
    folder = tmp_path / "cut"
    folder.mkdir()
    disk.lose_power(folder, Random(1))
    disk.fail_sync = lambda _: None
    with pytest.raises(RetryableError, match="after a restart"):
        await store.commit([step(1, 0)])
    assert store.trouble is not None
    await assert_nothing_torn(store, {0: 1})
    await store.close()
    recovered = await opened(folder / "test.db")
    revisions = await assert_nothing_torn(recovered, {0: 1})
    assert revisions[0] in ((2,) if reaches_disk else (1, 2))
    await recovered.close()


async def test_a_commit_of_a_batch_flushes_the_disk_once(tmp_path: Path, disk: FaultyDisk) -> None:
    store = await opened(tmp_path / "test.db", disk)
    await store.commit([step(0, 0)])
    disk.syncs.clear()
    await asyncio.gather(*(store.commit([step(number, 0)]) for number in range(1, 101)))
    assert disk.syncs == ["test.db-wal"]
    await store.mark_sent([pending.outbox_id for pending in await store.pending(1000)])
    await asyncio.gather(*(store.commit([step(number, 1)]) for number in range(1, 101)))
    assert disk.syncs == ["test.db-wal"] * 2
    assert len(await store.pending(1000)) == 100
    await store.close()


async def test_a_request_that_holds_what_no_store_takes_fails_alone(tmp_path: Path) -> None:
    store = await opened(tmp_path / "test.db")
    wrong = Write("main/run/wrong", 0, "text, not bytes")  # type: ignore[arg-type]
    answers = await asyncio.gather(
        store.commit([step(0, 0)]), store.commit([wrong]), store.commit([step(1, 0)]), return_exceptions=True
    )
    assert isinstance(answers[1], AiosError)
    assert answers[1].code == "INTERNAL"
    await assert_nothing_torn(store, {0: 1, 1: 1})
    await store.close()


async def test_callers_beyond_the_bound_of_waiting_writes_wait_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_WAITING_WRITES", 10)
    store = await opened(tmp_path / "test.db")
    results = await asyncio.gather(*(store.commit([step(number, 0)]) for number in range(500)))
    assert all(isinstance(result, Committed) for (result,) in results)
    await assert_nothing_torn(store, dict.fromkeys(range(500), 1))
    await store.close()


async def test_messages_marked_as_sent_are_forgotten_without_a_commit_after_a_while(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SENT_SECONDS", 0.01)
    store = await opened(tmp_path / "test.db", disk)
    await store.commit([step(0, 0), step(1, 0)])
    await store.mark_sent([1, 2])
    disk.syncs.clear()
    async with asyncio.timeout(10):
        while not disk.syncs:
            await asyncio.sleep(0.01)
    await store.set_meta("after", b"it")
    folder = tmp_path / "cut"
    folder.mkdir()
    disk.lose_power(folder, Random(0))
    await store.close()
    recovered = await opened(folder / "test.db")
    assert await recovered.pending(10) == []
    await recovered.close()
