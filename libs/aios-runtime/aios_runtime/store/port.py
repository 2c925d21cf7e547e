"""The store port: aggregates under compare-and-set, with what must become durable together with them.

An aggregate is a bounded head under a revision, and records beside it. One `Write` changes one aggregate, and carries
its inbox marks, its outbox and its events; all of a write becomes durable, or nothing. A batch of writes shares one
flush to disk, but its writes are independent: one that loses its compare-and-set does not take the others along.
Nothing here needs more of a database than a compare-and-set of one document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

MAX_HEAD_BYTES: Final = 1024 * 1024
MAX_RECORD_BYTES: Final = 1024 * 1024
MAX_BATCH_WRITES: Final = 1024


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message that is published after the commit, and again after a crash until `mark_sent`.

    `message_id` becomes `Nats-Msg-Id`. A lost command is derived again from committed state, so the outbox only
    bridges the moment between commit and publish.
    """

    subject: str
    data: bytes
    message_id: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to file: it gets the next gapless position of its partition."""

    partition: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """One change of one aggregate.

    `key` is `<workspace>/<kind>/<id>`. `expect` is the revision that was read, 0 for "must not exist"; the new revision
    is `expect` + 1. `head` None deletes the aggregate with its records. `records` are put (None: deleted) by their
    name under the aggregate. `due_ms` replaces the aggregate's one due time (None: it has none). `index` replaces its
    entries in the named secondary indexes. `inbox` marks message ids as handled: a write one of whose marks is there
    already is refused as `Duplicate`, and nothing of it is applied.
    """

    key: str
    expect: int
    head: bytes | None
    records: Mapping[str, bytes | None] = field(default_factory=dict)
    events: Sequence[NewEvent] = ()
    outbox: Sequence[OutboxMessage] = ()
    inbox: Sequence[str] = ()
    due_ms: int | None = None
    index: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """Durable. `positions` are those of the write's events, `outbox_ids` those of its outbox messages, in order."""

    revision: int
    positions: tuple[int, ...] = ()
    outbox_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """The aggregate's revision was not the expected one; nothing was applied. `revision` is what stands (0: none)."""

    revision: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An inbox mark of the write was there already; nothing was applied."""

    mark: str


Result = Committed | Conflict | Duplicate


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is stored of one aggregate, without its records."""

    key: str
    revision: int
    head: bytes
    due_ms: int | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A message of the outbox that is not marked as sent."""

    outbox_id: int
    message: OutboxMessage


@dataclass(frozen=True, slots=True)
class Filed:
    """An event with its position."""

    partition: int
    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Aggregates of a listing, and the token of the next page ('' at the end)."""

    items: tuple[Aggregate, ...]
    next_token: str


class Store(Protocol):
    """A service's own store. Reads see every commit that was awaited; they are quick and do not block on writers.

    Raises DISK_FULL (retryable; nothing of the batch is applied), READ_ONLY, CORRUPT_STORE.
    """

    shared: bool
    """Whether other processes write it as well, so that what was read may be out of date."""

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        """Durably apply the writes, results in their order. Two writes to one key in a batch apply in order."""
        ...

    async def read(self, key: str) -> Aggregate | None:
        """One aggregate."""
        ...

    async def record(self, key: str, name: str) -> bytes | None:
        """One record of an aggregate."""
        ...

    async def records(
        self, key: str, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> dict[str, bytes]:
        """Records of an aggregate by name, in name order, those after the name `after`."""
        ...

    async def query(
        self, index: str, value: str, *, token: str = "", limit: int = 100, newest_first: bool = True
    ) -> Page:
        """Aggregates whose entry in `index` equals `value`, by the time of their creation."""
        ...

    async def scan(self, prefix: str, *, token: str = "", limit: int = 100) -> Page:
        """Aggregates by key prefix, in key order."""
        ...

    async def due(self, before_ms: int, limit: int) -> list[Aggregate]:
        """Aggregates whose due time is at or before it, the earliest first."""
        ...

    async def next_due(self) -> int | None:
        """The earliest due time of all."""
        ...

    async def handled(self, mark: str) -> bool:
        """Whether an inbox mark is there."""
        ...

    async def events(self, partition: int, after: int, limit: int) -> list[Filed]:
        """Events of a partition after a position, in order."""
        ...

    async def events_of(self, key: str, skip: int, limit: int) -> list[Filed]:
        """Events that the writes of an aggregate filed, in order, after the first `skip` of them. They must all be of
        one partition to be in order."""
        ...

    async def event_head(self, partition: int) -> int:
        """The last position of a partition; 0 when it has none."""
        ...

    async def pending(self, limit: int) -> list[Pending]:
        """Outbox messages that are not marked as sent, in the order of their commit."""
        ...

    async def meta(self, name: str) -> bytes | None:
        """A small value of the store itself, such as a cursor or the broker's incarnation."""
        ...

    async def mark_sent(self, outbox_ids: Sequence[int]) -> None:
        """Forget outbox messages. Not flushed by itself: after a crash they may be published again."""
        ...

    async def set_meta(self, name: str, value: bytes) -> None:
        """Durably set a small value."""
        ...

    async def settle(self) -> None:
        """Finish what a process that has died left half-done: events and messages it committed and did not file."""
        ...

    async def prune_inbox(self, before_ms: int) -> int:
        """Forget inbox marks older than it; returns how many. Marks outlive the bus's retention."""
        ...

    async def close(self) -> None:
        """Finish pending commits, checkpoint and release the file."""
        ...
