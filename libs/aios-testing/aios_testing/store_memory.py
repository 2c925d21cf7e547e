"""A store in memory: the shortest reading of the store's port, against which real stores are compared.

It keeps nothing, so it is a model for tests and never a store of a service.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aios_core.errors import TerminalError
from aios_runtime.store.checks import check
from aios_runtime.store.port import (
    Aggregate,
    Committed,
    Conflict,
    Duplicate,
    Filed,
    NewEvent,
    Page,
    Pending,
    Result,
    Write,
)


@dataclass
class _Stored:
    created: int
    revision: int = 0
    head: bytes = b""
    due_ms: int | None = None
    records: dict[str, bytes] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    events: list[Filed] = field(default_factory=list)


class Tables:
    """What a store holds, and the port's reads of it."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._created = 0
        self._aggregates: dict[str, _Stored] = {}
        self._marks: dict[str, int] = {}
        self._events: dict[int, list[bytes]] = {}
        self._outbox: dict[int, Pending] = {}
        self._sent = 0
        self._meta: dict[str, bytes] = {}

    def apply(self, write: Write) -> Result:
        """Apply one write."""
        for mark in write.inbox:
            if mark in self._marks:
                return Duplicate(mark)
        stored = self._aggregates.get(write.key)
        revision = stored.revision if stored else 0
        if revision != write.expect:
            return Conflict(revision)
        if write.head is None:
            self._aggregates.pop(write.key, None)
        else:
            self._put(write, write.head, stored)
        self._marks |= dict.fromkeys(write.inbox, self._now_ms())
        filed = [self._file(event) for event in write.events]
        if stored := self._aggregates.get(write.key):
            stored.events += filed
        positions = [event.position for event in filed]
        ids = range(self._sent + 1, self._sent + 1 + len(write.outbox))
        self._sent += len(ids)
        self._outbox |= {
            number: Pending(number, message) for number, message in zip(ids, write.outbox, strict=True)
        }
        return Committed(revision + 1, tuple(positions), tuple(ids))

    def _put(self, write: Write, head: bytes, stored: _Stored | None) -> None:
        if stored is None:
            self._created += 1
            stored = self._aggregates[write.key] = _Stored(self._created)
        stored.revision += 1
        stored.head, stored.due_ms = head, write.due_ms
        for name, data in write.records.items():
            if data is None:
                stored.records.pop(name, None)
            else:
                stored.records[name] = data
        stored.index |= write.index

    def _file(self, event: NewEvent) -> Filed:
        filed = self._events.setdefault(event.partition, [])
        filed.append(event.data)
        return Filed(event.partition, len(filed), event.data)

    def read(self, key: str) -> Aggregate | None:
        stored = self._aggregates.get(key)
        return Aggregate(key, stored.revision, stored.head, stored.due_ms) if stored else None

    def record(self, key: str, name: str) -> bytes | None:
        stored = self._aggregates.get(key)
        return stored.records.get(name) if stored else None

    def records(self, key: str, prefix: str = "", *, after: str = "", limit: int = 1000) -> dict[str, bytes]:
        stored = self._aggregates.get(key)
        found = sorted(stored.records.items()) if stored else []
        return dict(
            [(name, data) for name, data in found if name.startswith(prefix) and name > after][:limit]
        )

    def query(
        self, index: str, value: str, *, token: str = "", limit: int = 100, newest_first: bool = True
    ) -> Page:
        found = [
            (stored.created, key)
            for key, stored in self._aggregates.items()
            if value and stored.index.get(index) == value
        ]
        found.sort(reverse=newest_first)
        if token and not token.isdigit():
            raise TerminalError("INVALID_ARGUMENT", "The page token is not one that a query gave out.")
        if token:
            found = [
                entry for entry in found if (entry[0] < int(token)) is newest_first and entry[0] != int(token)
            ]
        return self._page([key for _, key in found], limit, lambda key: str(self._aggregates[key].created))

    def scan(self, prefix: str, *, token: str = "", limit: int = 100) -> Page:
        found = sorted(key for key in self._aggregates if key.startswith(prefix) and key > token)
        return self._page(found, limit, str)

    def _page(self, keys: list[str], limit: int, token: Callable[[str], str]) -> Page:
        items = tuple(item for key in keys[:limit] if (item := self.read(key)))
        return Page(items, token(keys[limit - 1]) if len(keys) > limit else "")

    def due(self, before_ms: int, limit: int) -> list[Aggregate]:
        found = sorted(
            (stored.due_ms, stored.created, key)
            for key, stored in self._aggregates.items()
            if stored.due_ms is not None and stored.due_ms <= before_ms
        )
        return [item for _, _, key in found[:limit] if (item := self.read(key))]

    def next_due(self) -> int | None:
        times = [stored.due_ms for stored in self._aggregates.values() if stored.due_ms is not None]
        return min(times, default=None)

    def handled(self, mark: str) -> bool:
        return mark in self._marks

    def events(self, partition: int, after: int, limit: int) -> list[Filed]:
        filed = self._events.get(partition, [])
        return [Filed(partition, at, filed[at - 1]) for at in range(after + 1, len(filed) + 1)][:limit]

    def events_of(self, key: str, skip: int, limit: int) -> list[Filed]:
        stored = self._aggregates.get(key)
        return stored.events[skip:][:limit] if stored else []

    def event_head(self, partition: int) -> int:
        return len(self._events.get(partition, []))

    def pending(self, limit: int) -> list[Pending]:
        return list(self._outbox.values())[:limit]

    def meta(self, name: str) -> bytes | None:
        return self._meta.get(name)

    def forget(self, outbox_ids: Sequence[int]) -> None:
        """The messages were published."""
        for number in outbox_ids:
            self._outbox.pop(number, None)

    def put_meta(self, name: str, value: bytes) -> None:
        """Set a small value."""
        self._meta[name] = value

    def prune(self, before_ms: int) -> int:
        """Forget old inbox marks; returns how many."""
        old = [mark for mark, at_ms in self._marks.items() if at_ms < before_ms]
        for mark in old:
            del self._marks[mark]
        return len(old)


class Reads:
    """The reads of the port, answered from tables."""

    shared = False

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    async def read(self, key: str) -> Aggregate | None:
        return self.tables.read(key)

    async def record(self, key: str, name: str) -> bytes | None:
        return self.tables.record(key, name)

    async def records(
        self, key: str, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> dict[str, bytes]:
        return self.tables.records(key, prefix, after=after, limit=limit)

    async def query(
        self, index: str, value: str, *, token: str = "", limit: int = 100, newest_first: bool = True
    ) -> Page:
        return self.tables.query(index, value, token=token, limit=limit, newest_first=newest_first)

    async def scan(self, prefix: str, *, token: str = "", limit: int = 100) -> Page:
        return self.tables.scan(prefix, token=token, limit=limit)

    async def due(self, before_ms: int, limit: int) -> list[Aggregate]:
        return self.tables.due(before_ms, limit)

    async def next_due(self) -> int | None:
        return self.tables.next_due()

    async def handled(self, mark: str) -> bool:
        return self.tables.handled(mark)

    async def events(self, partition: int, after: int, limit: int) -> list[Filed]:
        return self.tables.events(partition, after, limit)

    async def events_of(self, key: str, skip: int, limit: int) -> list[Filed]:
        return self.tables.events_of(key, skip, limit)

    async def event_head(self, partition: int) -> int:
        return self.tables.event_head(partition)

    async def pending(self, limit: int) -> list[Pending]:
        return self.tables.pending(limit)

    async def meta(self, name: str) -> bytes | None:
        return self.tables.meta(name)

    async def settle(self) -> None:
        """A write is whole from the start."""


class MemoryStore(Reads):
    """A `Store` that forgets everything with its process, unless its tables outlive it."""

    def __init__(self, now_ms: Callable[[], int], tables: Tables | None = None) -> None:
        super().__init__(Tables(now_ms) if tables is None else tables)

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        check(writes)
        return [self.tables.apply(write) for write in writes]

    async def mark_sent(self, outbox_ids: Sequence[int]) -> None:
        self.tables.forget(outbox_ids)

    async def set_meta(self, name: str, value: bytes) -> None:
        self.tables.put_meta(name, value)

    async def prune_inbox(self, before_ms: int) -> int:
        return self.tables.prune(before_ms)

    async def close(self) -> None:
        pass
