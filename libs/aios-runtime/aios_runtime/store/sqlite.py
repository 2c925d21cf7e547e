"""The embedded store: SQLite, one file a service, one process that writes it. `open_store` is the way in.

Reads run on the event loop's thread over a connection of their own and see the last commit; writes are handed to the
`Writer`. Besides the port: an empty value in `Write.index` takes the aggregate out of that index.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.store import connection as files
from aios_runtime.store import rows, schema
from aios_runtime.store.checks import check
from aios_runtime.store.failures import as_error, unclear
from aios_runtime.store.port import Aggregate, Filed, OutboxMessage, Page, Pending, Result, Write
from aios_runtime.store.transactions import PRUNED_AT_ONCE, Request, Transactions
from aios_runtime.store.writer import Outcome, Turn, Writer

MAX_WAITING_WRITES: Final = 16_384  # more than these wait outside the writer's queue
MAX_SENT: Final = 4096  # messages marked as sent that are forgotten at once, without waiting for a commit
SENT_SECONDS: Final = 1.0  # after which they are forgotten by a transaction of their own
MAX_PAGE: Final = 10_000  # rows of one read

_READ: Final = "SELECT key, revision, head, due_ms FROM aggregates WHERE key = ?"
_RECORD: Final = (
    "SELECT data FROM records WHERE seq = (SELECT seq FROM aggregates WHERE key = ?) AND name = ?"
)
_RECORDS: Final = (
    "SELECT name, data FROM records WHERE seq = (SELECT seq FROM aggregates WHERE key = ?)"
    " AND name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?"
)
_NEWEST: Final = (
    "SELECT a.key, revision, head, due_ms, e.seq FROM entries e JOIN aggregates a ON a.seq = e.seq"
    " WHERE e.name = ? AND e.value = ? AND e.seq < ? ORDER BY e.seq DESC LIMIT ?"
)
_OLDEST: Final = (
    "SELECT a.key, revision, head, due_ms, e.seq FROM entries e JOIN aggregates a ON a.seq = e.seq"
    " WHERE e.name = ? AND e.value = ? AND e.seq > ? ORDER BY e.seq LIMIT ?"
)
_SCAN: Final = (
    "SELECT key, revision, head, due_ms FROM aggregates"
    " WHERE key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?"
)
_DUE: Final = (
    "SELECT key, revision, head, due_ms FROM aggregates WHERE due_ms <= ? ORDER BY due_ms, seq LIMIT ?"
)


async def open_store(
    path: Path, *, service: str, now_ms: Callable[[], int], vfs: str | None = None
) -> "SqliteStore":
    """Open or create the store of a service in this process, migrated to this release.

    `now_ms` dates inbox marks. Raises ALREADY_SERVING, NEWER_STORE, CORRUPT_STORE, READ_ONLY, DATA_DIR, DISK_FULL.
    """
    descriptor = files.lock(path)
    try:
        writer = await asyncio.to_thread(files.open_writer, path, vfs)
        return SqliteStore(path, writer, descriptor, service=service, now_ms=now_ms, vfs=vfs)
    except BaseException:
        files.unlock(descriptor)
        raise


class SqliteStore:
    """A `Store` over one SQLite file. Use it from the event loop that opened it."""

    shared = False

    def __init__(
        self,
        path: Path,
        writer: apsw.Connection,
        lock: int,
        *,
        service: str,
        now_ms: Callable[[], int],
        vfs: str | None,
    ) -> None:
        self._path = str(path)
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._connection = files.open_reader(path, vfs)
        self._transactions = Transactions(writer, path=self._path, service=service, now_ms=now_ms)
        self._writer = Writer(
            writer, self._transactions, deliver=self._deliver, loop=self._loop, name=f"{service}-store"
        )
        self._turn: list[Request] = []
        self._waiting = 0  # writes that were handed over and have no result
        self._room = asyncio.Event()
        self._sent: list[int] = []  # marked as sent, not handed over
        self._forgotten: set[int] = set()  # marked as sent, not deleted
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._closing = False

    @property
    def trouble(self) -> AiosError | None:
        """What keeps the store from working as it should, for the health of its service."""
        return unclear(self._path) if self._transactions.broken else self._writer.checkpoint_failure

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        """Durably apply the writes, results in their order. Two writes to one key in a batch apply in order.

        Cancelling the wait does not take the writes back. Raises TOO_LARGE or INVALID_ARGUMENT before any is applied.
        """
        if not writes:
            return []
        size = check(writes)
        while self._waiting >= MAX_WAITING_WRITES:
            self._room.clear()
            await self._room.wait()
        results: list[Result] = await self._request(
            Request(self._loop.create_future(), tuple(writes), size=size)
        )
        return results

    async def read(self, key: str) -> Aggregate | None:
        """One aggregate."""
        found = self._rows(_READ, (key,))
        return Aggregate(*found[0]) if found else None

    async def record(self, key: str, name: str) -> bytes | None:
        """One record of an aggregate."""
        data: bytes | None = self._value(_RECORD, (key, name))
        return data

    async def records(
        self, key: str, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> dict[str, bytes]:
        """Records of an aggregate by name, in name order, those after the name `after`."""
        return dict(self._rows(_RECORDS, (key, *_range(prefix), after, _bounded(limit))))

    async def query(
        self, index: str, value: str, *, token: str = "", limit: int = 100, newest_first: bool = True
    ) -> Page:
        """Aggregates whose entry in `index` equals `value`, by the time of their creation."""
        sql, start = (_NEWEST, 1 << 62) if newest_first else (_OLDEST, 0)
        limit = _bounded(limit) or 1
        found = self._rows(sql, (index, value, _cursor(token, start), limit + 1))
        items = tuple(Aggregate(*row[:4]) for row in found[:limit])
        return Page(items, str(found[limit - 1][4]) if len(found) > limit else "")

    async def scan(self, prefix: str, *, token: str = "", limit: int = 100) -> Page:
        """Aggregates by key prefix, in key order."""
        limit = _bounded(limit) or 1
        found = self._rows(_SCAN, (*_range(prefix), token, limit + 1))
        items = tuple(Aggregate(*row) for row in found[:limit])
        return Page(items, items[-1].key if len(found) > limit else "")

    async def due(self, before_ms: int, limit: int) -> list[Aggregate]:
        """Aggregates whose due time is at or before it, the earliest first."""
        return [Aggregate(*row) for row in self._rows(_DUE, (before_ms, _bounded(limit)))]

    async def next_due(self) -> int | None:
        """The earliest due time of all."""
        due_ms: int | None = self._value(
            "SELECT due_ms FROM aggregates WHERE due_ms IS NOT NULL ORDER BY due_ms LIMIT 1"
        )
        return due_ms

    async def handled(self, mark: str) -> bool:
        """Whether an inbox mark is there."""
        return bool(self._rows("SELECT 1 FROM inbox WHERE mark = ?", (mark,)))

    async def events(self, partition: int, after: int, limit: int) -> list[Filed]:
        """Events of a partition after a position, in order."""
        found = self._rows(
            "SELECT id, data FROM events WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (schema.event_id(partition, after), schema.last_event_id(partition), _bounded(limit)),
        )
        return [Filed(partition, schema.event_position(key), data) for key, data in found]

    async def events_of(self, key: str, skip: int, limit: int) -> list[Filed]:
        """Events that the writes of an aggregate filed, in order, after the first `skip` of them."""
        found = self._rows(
            "SELECT id, data FROM events WHERE seq = (SELECT seq FROM aggregates WHERE key = ?) ORDER BY id"
            " LIMIT ? OFFSET ?",
            (key, _bounded(limit), skip),
        )
        return [Filed(key >> schema.POSITION_BITS, schema.event_position(key), data) for key, data in found]

    async def event_head(self, partition: int) -> int:
        """The last position of a partition; 0 when it has none."""
        try:
            return rows.load_position(self._connection, partition)
        except apsw.Error as error:
            raise as_error(error, self._path, self._connection.system_errno) from error

    async def pending(self, limit: int) -> list[Pending]:
        """Outbox messages that are not marked as sent, in the order of their commit."""
        found = self._rows(
            "SELECT id, subject, data, message_id, headers FROM outbox ORDER BY id LIMIT ?",
            (_bounded(limit) + len(self._forgotten),),
        )
        waiting = [row for row in found if row[0] not in self._forgotten]
        return [
            Pending(row[0], OutboxMessage(row[1], row[2], row[3], json.loads(row[4]) if row[4] else {}))
            for row in waiting[:limit]
        ]

    async def meta(self, name: str) -> bytes | None:
        """A small value of the store itself, such as a cursor or the broker's incarnation."""
        value: bytes | None = self._value("SELECT value FROM meta WHERE name = ?", (name,))
        return value

    async def mark_sent(self, outbox_ids: Sequence[int]) -> None:
        """Forget outbox messages, with the next commit or after `SENT_SECONDS` without one."""
        new = [number for number in outbox_ids if number not in self._forgotten]
        self._sent.extend(new)
        self._forgotten.update(new)
        if len(self._sent) >= MAX_SENT:
            self._schedule()
        elif self._sent and self._timer is None:
            self._timer = self._loop.call_later(SENT_SECONDS, self._hand_over)

    async def set_meta(self, name: str, value: bytes) -> None:
        """Durably set a small value."""
        await self._request(Request(self._loop.create_future(), meta=((name, value),)))

    async def settle(self) -> None:
        """Nothing is ever left half-done: a commit is one transaction."""

    async def prune_inbox(self, before_ms: int) -> int:
        """Forget inbox marks older than it; returns how many. Marks outlive the bus's retention."""
        total = 0
        while True:
            pruned: int = await self._request(Request(self._loop.create_future(), prune_before_ms=before_ms))
            total += pruned
            if pruned < PRUNED_AT_ONCE:
                return total

    async def close(self) -> None:
        """Finish pending commits, checkpoint and release the file."""
        if self._closing:
            return
        self._closing = True
        self._hand_over(stop=True)
        await asyncio.to_thread(self._writer.join)
        self._connection.close(True)
        files.unlock(self._lock)

    async def _request(self, request: Request) -> Any:
        if self._closing:
            raise RetryableError("UNAVAILABLE", f"The store {self._path} is closed.", path=self._path)
        self._turn.append(request)
        self._waiting += len(request.writes)
        self._schedule()
        return await request.done

    def _schedule(self) -> None:
        """Hand over at the end of this turn of the event loop, with what else comes in it."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self, stop: bool = False) -> None:
        self._scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not (self._turn or self._sent or stop):
            return
        turn = Turn(self._turn, self._sent, stop)
        self._turn, self._sent = [], []
        self._writer.hand_over(turn)

    def _deliver(self, outcomes: list[Outcome], forgotten: list[int]) -> None:
        self._forgotten.difference_update(forgotten)
        for request, result, error in outcomes:
            self._waiting -= len(request.writes)
            if request.done.done():  # its caller was cancelled
                continue
            if error is None:
                request.done.set_result(result)
            else:
                request.done.set_exception(error)
        self._room.set()

    def _rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise as_error(error, self._path, self._connection.system_errno) from error

    def _value(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        found = self._rows(sql, bindings)
        return found[0][0] if found else None


def _bounded(limit: int) -> int:
    return max(0, min(limit, MAX_PAGE))


def _cursor(token: str, start: int) -> int:
    if not token:
        return start
    if not (token.isascii() and token.isdigit() and len(token) < 19):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"The page token {token[:64]!r} is not one that a query gave out.",
            field="token",
        )
    return int(token)


def _range(prefix: str) -> tuple[str, str | bytes]:
    """The first name with a prefix, and the first one after them all; SQLite orders bytes after every text."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return prefix, b""
    after = ord(stem[-1]) + 1
    return prefix, stem[:-1] + chr(0xE000 if after == 0xD800 else after)  # no text holds a surrogate
