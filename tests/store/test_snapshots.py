"""Several stores as they were at one moment, while their services write them."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import apsw
import pytest

from aios_core.errors import RetryableError
from aios_runtime.store import snapshots
from aios_runtime.store.port import Committed, Write
from aios_runtime.store.sqlite import SqliteStore, open_store

NAMES = ("first", "second", "third")
MOMENTS = 60


async def put(store: SqliteStore, number: int) -> None:
    (result,) = await store.commit([Write("w/count/1", number - 1, str(number).encode())])
    assert isinstance(result, Committed)


def seen(reader: apsw.Connection) -> int:
    row = reader.execute("SELECT head FROM aggregates").fetchone()
    return int(row[0]) if row else 0


def look(paths: dict[str, Path]) -> list[int]:
    with snapshots.moment(paths) as readers:
        return [seen(readers[name]) for name in NAMES]


@pytest.mark.feature("J5")
async def test_all_stores_are_seen_at_one_moment(tmp_path: Path) -> None:
    """A number goes from store to store: at no moment is a later one ahead, or more than one behind."""
    paths = {name: tmp_path / f"{name}.db" for name in NAMES}
    stores = [await open_store(path, service=name, now_ms=lambda: 0) for name, path in paths.items()]
    stop = asyncio.Event()

    async def write() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            for store in stores:
                await put(store, number)
        return number

    writing = asyncio.create_task(write())
    moments = []
    for _ in range(MOMENTS):
        moments.append(await asyncio.to_thread(look, paths))
    stop.set()
    last = await writing
    for store in stores:
        await store.close()
    assert moments[-1][0] > moments[0][0], "work went on"
    assert moments[-1][0] <= last
    for first, second, third in moments:
        assert first >= second >= third >= first - 1, moments


@pytest.mark.feature("J5")
async def test_nobody_can_commit_between_the_first_reader_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {name: tmp_path / f"{name}.db" for name in NAMES}
    for name, path in paths.items():
        await (await open_store(path, service=name, now_ms=lambda: 0)).close()
    opened = 0
    really = snapshots._open

    def watched(path: Path, stack: ExitStack) -> apsw.Connection:
        nonlocal opened
        connection = really(path, stack)
        opened += 1
        if opened > len(NAMES):  # the first ones hold the writers, these are readers
            for other in paths.values():
                with pytest.raises(apsw.BusyError):
                    apsw.Connection(str(other)).execute("BEGIN IMMEDIATE")
        return connection

    monkeypatch.setattr(snapshots, "_open", watched)
    with snapshots.moment(paths):
        assert opened == 2 * len(NAMES)
        for path in paths.values():
            apsw.Connection(str(path)).execute("BEGIN IMMEDIATE")


async def test_a_copy_is_of_the_moment_and_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "first.db"
    store = await open_store(path, service="first", now_ms=lambda: 0)
    await put(store, 1)
    steps: list[tuple[int, int]] = []
    with snapshots.moment({"first": path}) as readers:
        await put(store, 2)
        snapshots.copy(
            readers["first"], tmp_path / "copy.db", lambda done, total: steps.append((done, total))
        )
    await store.close()
    assert steps[-1][0] == steps[-1][1] > 0
    assert [found.name for found in tmp_path.glob("copy.db*")] == ["copy.db"]
    copied = await open_store(tmp_path / "copy.db", service="copy", now_ms=lambda: 0)
    aggregate = await copied.read("w/count/1")
    await copied.close()
    assert aggregate is not None
    assert aggregate.head == b"1"


async def test_a_store_that_can_not_be_held_is_named_and_all_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "HOLD_MS", 1)
    paths = {name: tmp_path / f"{name}.db" for name in NAMES}
    for name, path in paths.items():
        await (await open_store(path, service=name, now_ms=lambda: 0)).close()
    busy = apsw.Connection(str(paths["second"]))
    busy.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableError, match="second"), snapshots.moment(paths):
        pass
    busy.close()
    with snapshots.moment(paths) as readers:
        assert set(readers) == set(NAMES)
