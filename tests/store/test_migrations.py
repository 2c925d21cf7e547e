"""Files of every version that ever wrote one are brought up to today's, whole, whatever interrupts it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from aios_core.errors import TerminalError
from aios_runtime.store import migrations
from aios_runtime.store.port import Aggregate, Committed, NewEvent, OutboxMessage, Write
from aios_runtime.store.sqlite import open_store

RECORDED = Path(__file__).parents[1] / "histories" / "stores"


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS) + 1))
async def test_a_recorded_file_of_each_version_holds_what_was_written(tmp_path: Path, version: int) -> None:
    path = tmp_path / "test.db"
    shutil.copy(RECORDED / f"v{version}.db", path)
    store = await open_store(path, service="test", now_ms=lambda: 1_800_000_000_000)
    assert await store.read("main/run/one") == Aggregate("main/run/one", 2, b"third head", 1_700_000_000_900)
    assert await store.records("main/run/one") == {"step/2": b"two"}
    assert [item.key for item in (await store.scan("main/")).items] == ["main/run/one", "main/run/two"]
    assert [item.key for item in (await store.query("state", "open")).items] == ["main/run/two"]
    assert [item.key for item in (await store.query("client", "acme")).items] == ["main/run/one"]
    assert [event.data for event in await store.events(3, 0, 10)] == [b"started", b"stepped"]
    assert [event.data for event in await store.events_of("main/run/one", 1, 10)] == [b"stepped"]
    assert [pending.message for pending in await store.pending(10)] == [
        OutboxMessage("aios.cmd.test", b"\x00", "id-2", {"a": "ü"})
    ]
    assert (await store.handled("mark-1"), await store.next_due(), await store.meta("incarnation")) == (
        True,
        1_700_000_000_900,
        b"abc",
    )
    results = await store.commit(
        [
            Write("main/run/one", 2, b"now", events=[NewEvent(3, b"more")], index={"client": ""}),
            Write("main/run/gone", 0, b"back", events=[NewEvent(0, b"f")], inbox=["mark-2"]),
        ]
    )
    assert results == [Committed(3, (3,)), Committed(1, (2,))]
    assert await store.records("main/run/gone") == {}
    assert await store.prune_inbox(1_750_000_000_000) == 1
    await store.close()


def test_each_version_has_a_recorded_file() -> None:
    assert {file.name for file in RECORDED.glob("*.db")} == {
        f"v{version}.db" for version in range(1, len(migrations.MIGRATIONS) + 1)
    }


def add_column(connection: apsw.Connection) -> None:
    connection.execute("ALTER TABLE aggregates ADD COLUMN extra INTEGER")
    connection.execute("UPDATE aggregates SET extra = seq * 10")


def add_table(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE copied AS SELECT seq, extra FROM aggregates")


def fail(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE half (a)")
    connection.execute("DELETE FROM aggregates")
    raise apsw.FullError("full")


@pytest.fixture
def old(tmp_path: Path) -> apsw.Connection:
    shutil.copy(RECORDED / "v1.db", tmp_path / "test.db")
    return apsw.Connection(str(tmp_path / "test.db"))


def extras(connection: apsw.Connection) -> list[Any]:
    return connection.execute("SELECT seq, extra FROM copied ORDER BY seq").fetchall()


def test_a_file_is_brought_up_one_version_after_the_other(old: apsw.Connection) -> None:
    steps = (*migrations.MIGRATIONS[:1], add_column, add_table)
    assert migrations.migrate(old, "test.db", steps) == 2
    assert (old.pragma("user_version"), extras(old)) == (3, [(1, 10), (2, 20)])
    assert migrations.migrate(old, "test.db", steps) == 0


def test_a_step_that_fails_leaves_the_step_before_it_and_is_made_again(old: apsw.Connection) -> None:
    with pytest.raises(apsw.FullError):
        migrations.migrate(old, "test.db", (*migrations.MIGRATIONS[:1], add_column, fail))
    assert (old.pragma("user_version"), old.table_exists(None, "half")) == (2, False)
    assert old.execute("SELECT count(*) FROM aggregates").get == 2
    assert migrations.migrate(old, "test.db", (*migrations.MIGRATIONS[:1], add_column, add_table)) == 1
    assert extras(old) == [(1, 10), (2, 20)]


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from aios_runtime.store import connection, migrations

def add_column(database):
    database.execute("ALTER TABLE aggregates ADD COLUMN extra INTEGER")
    database.execute("UPDATE aggregates SET extra = seq * 10")

def die(database):
    database.execute("CREATE TABLE half (a)")
    database.execute("DELETE FROM aggregates")
    database.cache_flush()
    os.kill(os.getpid(), signal.SIGKILL)

database = connection.open_writer(Path(sys.argv[1]))
migrations.migrate(database, "test.db", (*migrations.MIGRATIONS[:1], add_column, die))
"""


def test_a_migration_whose_process_is_killed_goes_on_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    shutil.copy(RECORDED / "v1.db", path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    connection = apsw.Connection(str(path))
    assert (connection.pragma("user_version"), connection.table_exists(None, "half")) == (2, False)
    assert migrations.migrate(connection, "test.db", (*migrations.MIGRATIONS[:1], add_column, add_table)) == 1
    assert extras(connection) == [(1, 10), (2, 20)]


async def test_a_file_of_a_newer_release_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    shutil.copy(RECORDED / "v1.db", path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(TerminalError, match="version 99") as caught:
        await open_store(path, service="test", now_ms=lambda: 0)
    assert caught.value.code == "NEWER_STORE"
    assert path.read_bytes() == before
