"""The SQL of the writing side: what a batch needs to know, and its changes, each in a few long statements.

A statement of many rows lets go of the interpreter's lock once for all of them; one statement a row would hand the
lock back and forth with the event loop thousands of times a transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from aios_runtime.store import schema
from aios_runtime.store.batch import Batch, Counters, Known

_SIZES: Final = (64, 16, 4, 1)  # rows a statement; few sizes, so that all stay prepared


class _Many:
    """A statement that takes a list of rows of so many columns."""

    def __init__(self, head: str, columns: int, tail: str = "", row: str = "") -> None:
        row = row or "(" + ",".join("?" * columns) + ")"
        self._columns = columns
        self._sql = tuple((size, f"{head}{','.join([row] * size)}{tail}") for size in _SIZES)

    def run(self, connection: apsw.Connection, rows: Sequence[Sequence[Any]]) -> None:
        at, left = 0, len(rows)
        for size, sql in self._sql:
            while left >= size:
                if size == 1:
                    connection.execute(sql, rows[at])
                else:
                    connection.execute(sql, [value for row in rows[at : at + size] for value in row])
                at += size
                left -= size


_CREATE: Final = _Many("INSERT INTO aggregates (seq, key, revision, due_ms, entries, head) VALUES ", 6)
_UPDATE: Final = _Many(
    "INSERT INTO aggregates (seq, key, revision, due_ms, entries, head) VALUES ",
    6,
    " ON CONFLICT (seq) DO UPDATE SET revision = excluded.revision, head = excluded.head",
)
_MOVE: Final = _Many(
    "INSERT INTO aggregates (seq, key, revision, due_ms, entries, head) VALUES ",
    6,
    " ON CONFLICT (seq) DO UPDATE SET revision = excluded.revision, head = excluded.head, due_ms = excluded.due_ms,"
    " entries = excluded.entries",
)
_RECORD: Final = _Many("INSERT OR REPLACE INTO records (seq, name, data) VALUES ", 3)
_ENTRY: Final = _Many("INSERT OR IGNORE INTO entries (name, value, seq) VALUES ", 3)
_EVENT: Final = _Many("INSERT INTO events (id, seq, data) VALUES ", 3)
_OUTBOX: Final = _Many("INSERT INTO outbox (id, subject, message_id, headers, data) VALUES ", 5)
_INBOX: Final = _Many("INSERT INTO inbox (id, mark) VALUES ", 2)
_META: Final = _Many("INSERT OR REPLACE INTO meta (name, value) VALUES ", 2)
_KNOWN: Final = _Many(
    "SELECT key, seq, revision, due_ms, entries FROM aggregates WHERE key IN (", 1, ")", "?"
)
_MARKED: Final = _Many("SELECT mark FROM inbox WHERE mark IN (", 1, ")", "?")


def _select(connection: apsw.Connection, many: _Many, values: Sequence[str]) -> Iterable[Any]:
    at, left = 0, len(values)
    for size, sql in many._sql:
        while left >= size:
            yield from connection.execute(sql, values[at : at + size])
            at += size
            left -= size


def load_counters(connection: apsw.Connection) -> Counters:
    """The last keys that are stored. Events outlive their aggregate, so its `seq` is not given out again."""
    last = connection.execute(
        "SELECT (SELECT max(seq) FROM aggregates), (SELECT max(seq) FROM events),"
        " (SELECT max(id) FROM outbox), (SELECT max(id) FROM inbox)"
    ).get
    aggregates, events, outbox, inbox = (value or 0 for value in last)
    return Counters(max(aggregates, events), outbox, inbox)


def load_position(connection: apsw.Connection, partition: int) -> int:
    """The last position of a partition; 0 when it has no event."""
    last = connection.execute(
        "SELECT max(id) FROM events WHERE id BETWEEN ? AND ?",
        (schema.event_id(partition, 0), schema.last_event_id(partition)),
    ).get
    return schema.event_position(last) if last is not None else 0


def load_known(connection: apsw.Connection, keys: Sequence[str]) -> dict[str, Known | None]:
    """What is stored of aggregates; None for those that don't exist."""
    known: dict[str, Known | None] = dict.fromkeys(keys)
    for key, seq, revision, due_ms, entries in _select(connection, _KNOWN, keys):
        known[key] = Known(seq, revision, due_ms, entries)
    return known


def load_marks(connection: apsw.Connection, marks: Sequence[str]) -> set[str]:
    """Those of the inbox marks that are stored."""
    return {mark for (mark,) in _select(connection, _MARKED, marks)}


def store(connection: apsw.Connection, batch: Batch) -> None:
    """Write a batch's changes within the open transaction."""
    for seq in batch.deleted:
        connection.execute("DELETE FROM aggregates WHERE seq = ?", (seq,))
        connection.execute("DELETE FROM records WHERE seq = ?", (seq,))
    added = []
    for entry, present in batch.entries.items():
        if present:
            added.append(entry)
        else:
            connection.execute("DELETE FROM entries WHERE name = ? AND value = ? AND seq = ?", entry)
    _ENTRY.run(connection, added)
    _CREATE.run(connection, list(batch.created.values()))
    _UPDATE.run(connection, list(batch.updated.values()))
    _MOVE.run(connection, list(batch.moved.values()))
    _store_records(connection, batch)
    _EVENT.run(connection, batch.events)
    _OUTBOX.run(connection, batch.outbox)
    _INBOX.run(connection, batch.inbox)


def _store_records(connection: apsw.Connection, batch: Batch) -> None:
    put = []
    for seq, records in batch.records.items():
        for name, data in records.items():
            if data is None:
                connection.execute("DELETE FROM records WHERE seq = ? AND name = ?", (seq, name))
            else:
                put.append((seq, name, data))
    _RECORD.run(connection, put)


def store_meta(connection: apsw.Connection, values: Sequence[tuple[str, bytes]]) -> None:
    """Set small values of the store itself; the last one of a name stands."""
    _META.run(connection, values)


def delete_outbox(connection: apsw.Connection, ids: Sequence[int]) -> None:
    """Forget outbox messages, a run of neighbours in one statement."""
    ordered = sorted(ids)
    first = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1:
            connection.execute(
                "DELETE FROM outbox WHERE id BETWEEN ? AND ?", (ordered[first], ordered[at - 1])
            )
            first = at


def delete_marks(connection: apsw.Connection, before_ms: int, limit: int) -> int:
    """Forget up to `limit` inbox marks older than `before_ms`; returns how many."""
    connection.execute(
        "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE id < ? ORDER BY id LIMIT ?)",
        (schema.mark_id(before_ms), limit),
    )
    return connection.changes()
