"""A store that can't be opened or written says so with a reason code, and nothing is lost by it."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from aios_core.errors import AiosError, TerminalError
from aios_runtime.store.port import Committed, Write
from aios_runtime.store.sqlite import SqliteStore, open_store

NOBODY = 65534


async def opened(path: Path) -> SqliteStore:
    return await open_store(path, service="test", now_ms=lambda: 0)


async def refusal(path: Path) -> TerminalError:
    with pytest.raises(TerminalError) as caught:
        await opened(path)
    assert str(path) in caught.value.message
    return caught.value


async def test_a_second_opener_in_the_same_process_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path / "test.db")
    error = await refusal(tmp_path / "test.db")
    assert (error.code, error.details["process"]) == ("ALREADY_SERVING", str(os.getpid()))
    assert await store.commit([Write("main/run/1", 0, b"")]) == [Committed(1)]
    await store.close()
    await (await opened(tmp_path / "test.db")).close()


async def test_a_second_process_is_refused_while_the_first_serves(tmp_path: Path) -> None:
    store = await opened(tmp_path / "test.db")
    second = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "test.db")], capture_output=True, text=True, check=False
    )
    assert second.stdout.strip() == "ALREADY_SERVING"
    await store.close()


OPEN = """
import asyncio, sys
from pathlib import Path
from aios_core.errors import AiosError
from aios_runtime.store.port import Write
from aios_runtime.store.sqlite import open_store

async def main():
    try:
        store = await open_store(Path(sys.argv[1]), service="test", now_ms=lambda: 0)
    except AiosError as error:
        print(error.code)
    else:
        print(await store.commit([Write("main/run/1", 0, b"")]))
        await store.close()

asyncio.run(main())
"""


async def test_a_file_that_is_no_database_is_called_corrupt_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(b"not a database, but somebody's file. " * 200)
    before = path.read_bytes()
    assert (await refusal(path)).code == "CORRUPT_STORE"
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE other (a)")
    connection.close()
    before = path.read_bytes()
    error = await refusal(path)
    assert (error.code, "another program" in error.message) == ("CORRUPT_STORE", True)
    assert path.read_bytes() == before


async def test_damage_that_a_read_or_a_write_meets_is_called_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    store = await opened(path)
    await store.commit([Write(f"main/run/{number}", 0, b"h" * 500) for number in range(200)])
    await store.close()
    content = bytearray(path.read_bytes())
    content[8 * 4096 :] = b"\xff" * (len(content) - 8 * 4096)
    path.write_bytes(content)
    store = await opened(path)
    with pytest.raises(TerminalError, match="CORRUPT_STORE"):
        await store.scan("main/", limit=1000)
    with pytest.raises(TerminalError, match="CORRUPT_STORE"):
        await store.commit([Write(f"main/run/{number}", 1, b"x" * 900) for number in range(200)])
    await store.close()


async def test_a_store_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "test.db"
    store = await opened(path)
    await store.commit([Write("main/run/1", 0, b"")])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes) == {"test.db", "test.db-wal", "test.db-shm", "test.db.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()
    assert {file.name for file in path.parent.iterdir()} == {"test.db", "test.db.lock"}


async def test_a_path_through_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert (await refusal(tmp_path / "file" / "test.db")).code == "DATA_DIR"


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that another user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def open_unprivileged(path: Path) -> str:
    """What opening a store says to a user whom file modes bind: this one, or nobody when this one is root."""
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED + OPEN, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout.strip()


UNPRIVILEGED = f"""
import os, concurrent.futures.thread, aios_runtime.store.sqlite
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


async def test_a_folder_that_may_not_be_written_is_called_read_only(shared_folder: Path) -> None:
    shared_folder.chmod(0o555)
    assert open_unprivileged(shared_folder / "test.db") == "READ_ONLY"
    assert list(shared_folder.iterdir()) == []


async def test_a_store_file_that_may_not_be_written_is_called_read_only(shared_folder: Path) -> None:
    path = shared_folder / "test.db"
    await (await opened(path)).close()
    before = path.read_bytes()
    shared_folder.chmod(0o777)
    path.with_name("test.db.lock").chmod(0o666)
    path.chmod(0o444)
    assert open_unprivileged(path) == "READ_ONLY"
    assert path.read_bytes() == before


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from aios_core.errors import AiosError
from aios_runtime.store.port import Write
from aios_runtime.store.sqlite import open_store

async def main():
    store = await open_store(Path(sys.argv[1]), service="test", now_ms=lambda: 0)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    number = 0
    try:
        while number < 1000:
            await store.commit([Write(f"main/run/{number}", 0, b"h" * 10_000)])
            number += 1
    except AiosError as error:
        print(error.code, error.retryable, len((await store.scan("main/", limit=1000)).items) == number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    results = await store.commit([Write(f"main/run/{number}", 0, b"h" * 10_000)])
    await store.close()
    store = await open_store(Path(sys.argv[1]), service="test", now_ms=lambda: 0)
    print(results, len((await store.scan("main/", limit=1000)).items) == number + 1)
    await store.close()

asyncio.run(main())
"""


def test_a_file_that_may_not_grow_is_a_full_disk_until_it_may(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "test.db")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "DISK_FULL True True",
        "[Committed(revision=1, positions=(), outbox_ids=())] True",
    ]


async def test_the_log_stays_bounded_and_ends_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    store = await opened(path)
    for number in range(60):
        await store.commit([Write(f"main/run/{number}-{part}", 0, b"h" * 4000) for part in range(200)])
    assert path.with_name("test.db-wal").stat().st_size < 64 * 1024 * 1024
    await store.close()
    assert not path.with_name("test.db-wal").exists()
    with pytest.raises(AiosError, match="closed"):
        await store.commit([Write("main/run/1", 0, b"")])
