"""What was found about a backup, and what any store can be asked, whatever is in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from aios_core.errors import TerminalError
from aios_runtime.store import migrations, schema
from aios_runtime.store.failures import as_error

MAX_NAMED: Final = 3  # of what is wrong, in one message


@dataclass(frozen=True, slots=True)
class Proven:
    """One thing that was looked at and holds: `what`, for `count` of them."""

    what: str
    count: int


@dataclass(slots=True)
class Proof:
    """What services prove of their own stores. `artifacts` are those that are known and there, `pointed` those that
    something points to and who, by their hash in hex."""

    proven: list[Proven] = field(default_factory=list)
    artifacts: set[str] = field(default_factory=set)
    pointed: dict[str, str] = field(default_factory=dict)

    def holds(self, what: str, count: int) -> None:
        self.proven.append(Proven(what, count))

    def check_pointers(self) -> None:
        """Raises CORRUPT_STORE for a pointer to what isn't there."""
        missing = [sha256 for sha256 in self.pointed if sha256 not in self.artifacts]
        if missing:
            named = ", ".join(f"{sha256} (of {self.pointed[sha256]})" for sha256 in missing[:MAX_NAMED])
            raise TerminalError(
                "CORRUPT_STORE", f"{len(missing)} artifacts are pointed to and missing: {named}."
            )
        self.holds("artifacts that a run points to are there", len(self.pointed))


def heads(connection: apsw.Connection) -> dict[int, int]:
    """The last event position of each partition."""
    bits = schema.POSITION_BITS
    rows = connection.execute(f"SELECT id >> {bits}, max(id) FROM events GROUP BY id >> {bits}")  # noqa: S608
    return {partition: schema.event_position(last) for partition, last in rows}


def workspaces(connection: apsw.Connection) -> list[str]:
    """Whose aggregates a store has, found by one look for each."""
    found: list[str] = []
    key = ""
    while row := connection.execute("SELECT min(key) FROM aggregates WHERE key > ?", (key,)).fetchone():
        if row[0] is None:
            break
        found.append(row[0].partition("/")[0])
        key = found[-1] + "0"  # what follows every key of the workspace: "0" comes after "/"
    return found


def _schema(connection: apsw.Connection) -> set[tuple[str, ...]]:
    connection.pragma("trusted_schema", False)
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema LIMIT 1000")
    return {tuple(map(str, row)) for row in rows}


def _schema_of(version: int) -> set[tuple[str, ...]]:
    """The tables that a store of this version has."""
    fresh = apsw.Connection(":memory:")
    for migration in migrations.MIGRATIONS[:version]:
        migration(fresh)
    return _schema(fresh)


def prove_file(path: Path, expected: Mapping[int, int] | None) -> int:
    """SQLite's own check of a store's file, and that no event position is missing. Returns how many events there are.

    `expected` are the heads that its backup noted. Raises CORRUPT_STORE, NEWER_STORE.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise as_error(error, str(path)) from error
    try:
        version = migrations.check_version(connection, str(path))
        if _schema(connection) != _schema_of(version):  # before anything of it could be carried out
            raise TerminalError("CORRUPT_STORE", f"{path.name} has other tables than a store of AIOS.")
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
        if found != ["ok"]:
            raise TerminalError(
                "CORRUPT_STORE", f"{path.name} fails SQLite's check: {'; '.join(found)[:300]}."
            )
        now = heads(connection)
        if expected is not None and now != dict(expected):
            raise TerminalError(
                "CORRUPT_STORE", f"{path.name} does not end at the events that the backup notes."
            )
        events = 0
        for partition, last in now.items():
            low, high = schema.event_id(partition, 0), schema.last_event_id(partition)
            count = connection.execute(
                "SELECT count(*) FROM events WHERE id > ? AND id <= ?", (low, high)
            ).get
            if count != last:
                raise TerminalError(
                    "CORRUPT_STORE", f"{path.name} has {count} of {last} events of partition {partition}."
                )
            events += count
        return events
    except apsw.Error as error:
        raise as_error(error, str(path)) from error
    finally:
        connection.close(True)
