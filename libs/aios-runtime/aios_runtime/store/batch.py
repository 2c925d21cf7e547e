"""Which writes of one transaction win, and what the transaction changes: pure, so that it needs no rollback.

The writer reads what the writes refer to, decides all of them in memory in their order, and then stores the changes
of the winners. So a losing write costs nothing and takes no other along, and several writes of one aggregate in one
transaction store it once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aios_runtime.store import schema
from aios_runtime.store.port import Committed, Conflict, Duplicate, NewEvent, OutboxMessage, Result, Write


class Known(NamedTuple):
    """What is stored of an aggregate, as far as the next write of it needs it. `entries` is JSON: index to value."""

    seq: int
    revision: int
    due_ms: int | None
    entries: str


class Row(NamedTuple):
    """A row of `aggregates`."""

    seq: int
    key: str
    revision: int
    due_ms: int | None
    entries: str
    head: bytes


@dataclass(slots=True)
class Counters:
    """The last keys given out. `heads` has the last position of each partition that was asked for."""

    seq: int
    outbox: int
    inbox: int
    heads: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    """The changes of one transaction. `known` holds every aggregate that its writes name (None: there is none),
    `marks` those of their inbox marks that are stored, `counters.heads` their partitions."""

    known: dict[str, Known | None]
    marks: set[str]
    counters: Counters
    created: dict[int, Row] = field(default_factory=dict)
    updated: dict[int, Row] = field(default_factory=dict)
    moved: dict[int, Row] = field(default_factory=dict)  # updated, and their due time or entries change
    deleted: list[int] = field(default_factory=list)
    records: dict[int, dict[str, bytes | None]] = field(default_factory=dict)
    entries: dict[tuple[str, str, int], bool] = field(default_factory=dict)
    events: list[tuple[int, int, bytes]] = field(default_factory=list)
    outbox: list[tuple[int, str, str, str, bytes]] = field(default_factory=list)
    inbox: list[tuple[int, str]] = field(default_factory=list)

    def decide(self, write: Write, now_ms: int) -> Result:
        """Apply a write to the batch if its marks are new and its revision stands."""
        for mark in write.inbox:
            if mark in self.marks:
                return Duplicate(mark)
        known = self.known[write.key]
        revision = known.revision if known else 0
        if revision != write.expect:
            return Conflict(revision)
        if write.head is None:
            self._delete(write.key, known)
            seq = known.seq if known else 0
        else:
            seq = self._put(write, write.head, known)
        for mark in write.inbox:
            self._mark(mark, now_ms)
        return Committed(revision + 1, self._file(seq, write.events), self._send(write.outbox))

    def _put(self, write: Write, head: bytes, known: Known | None) -> int:
        if known is None:
            self.counters.seq += 1
            known = Known(self.counters.seq, 0, None, "{}")
            rows = self.created
        else:
            rows = self.created if known.seq in self.created else self.updated
        seq = known.seq
        entries = self._reindex(seq, known.entries, write.index) if write.index else known.entries
        if rows is self.updated and (
            entries is not known.entries or write.due_ms != known.due_ms or seq in self.moved
        ):
            self.updated.pop(seq, None)
            rows = self.moved
        rows[seq] = Row(seq, write.key, known.revision + 1, write.due_ms, entries, head)
        self.known[write.key] = Known(seq, known.revision + 1, write.due_ms, entries)
        if write.records:
            self.records.setdefault(seq, {}).update(write.records)
        return seq

    def _reindex(self, seq: int, stored: str, index: Mapping[str, str]) -> str:
        entries: dict[str, str] = json.loads(stored)
        changed = False
        for name, value in index.items():
            before = entries.get(name, "")
            if value == before:
                continue
            changed = True
            if before:
                self.entries[name, before, seq] = False
            if value:
                self.entries[name, value, seq] = True
                entries[name] = value
            else:
                del entries[name]
        return json.dumps(entries, ensure_ascii=False, separators=(",", ":")) if changed else stored

    def _delete(self, key: str, known: Known | None) -> None:
        if known is None:
            return
        seq = known.seq
        for rows in (self.created, self.updated, self.moved):
            rows.pop(seq, None)
        for name, value in json.loads(known.entries).items():
            self.entries[name, value, seq] = False
        self.records.pop(seq, None)
        self.deleted.append(seq)
        self.known[key] = None

    def _mark(self, mark: str, now_ms: int) -> None:
        if mark not in self.marks:
            self.marks.add(mark)
            self.counters.inbox = max(self.counters.inbox + 1, schema.mark_id(now_ms))
            self.inbox.append((self.counters.inbox, mark))

    def _file(self, seq: int, events: Sequence[NewEvent]) -> tuple[int, ...]:
        if not events:
            return ()
        heads = self.counters.heads
        positions = []
        for event in events:
            position = heads[event.partition] + 1
            heads[event.partition] = position
            self.events.append((schema.event_id(event.partition, position), seq, event.data))
            positions.append(position)
        return tuple(positions)

    def _send(self, outbox: Sequence[OutboxMessage]) -> tuple[int, ...]:
        if not outbox:
            return ()
        first = self.counters.outbox + 1
        for number, message in enumerate(outbox, first):
            headers = json.dumps(dict(message.headers), ensure_ascii=False) if message.headers else ""
            self.outbox.append((number, message.subject, message.message_id, headers, message.data))
        self.counters.outbox += len(outbox)
        return tuple(range(first, first + len(outbox)))
