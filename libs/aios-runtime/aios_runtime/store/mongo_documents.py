"""The documents of the MongoDB store, collection by collection. Pure: nothing here talks to a database.

    aggregates  _id key · r revision · t creation number · h head · d due time · x index entries "name\\0value"
                c the last commits as [revision, commit id] · g it is deleted · j journal · o 1 while j holds something
    records     _id "<creation number>/<name>" · r the revision that wrote it · v data
    events      one batch: _id <partition><first position> · n count · e [data]
                w [who filed: t creation number, r revision, n count]
    outbox      _id number · s subject · d data · m message id · h headers
    inbox       _id mark · at time of the mark, ms
    meta        _id name · v value

A write is one conditional update of its aggregate's document, which takes the write's records, events, outbox and inbox
marks along in its journal. They are then moved to their own collections, which may be done again by anybody: records
and marks are put under names of their own, events under the next position of their partition together with the number
of the aggregate and the revision that filed them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aios_runtime.store.port import Aggregate, Filed, NewEvent, OutboxMessage, Write

Document = dict[str, Any]

POSITION_BITS: Final = 48  # of an event's key; the rest is its partition
COMMITS_REMEMBERED: Final = 8  # last commits that an aggregate's document names
NEVER: Final = -1  # a revision that no document has


@dataclass(frozen=True, slots=True)
class Entry:
    """What one write has in the journal of its aggregate."""

    number: int
    revision: int
    records: Mapping[str, bytes | None] = field(default_factory=dict)
    events: Sequence[NewEvent] = ()
    outbox: Sequence[OutboxMessage] = ()
    inbox: Sequence[str] = ()


@dataclass(slots=True)
class Known:
    """What is known of an aggregate: `revision` 0 and `number` 0 when there is none."""

    revision: int = 0
    number: int = 0
    index: dict[str, str] = field(default_factory=dict)
    commits: list[list[Any]] = field(default_factory=list)
    fresh: bool = False
    """Read in this round, so that it can't be outdated by more than a race."""


def first_event(partition: int, position: int) -> int:
    """The key of a batch of events that begins there."""
    return partition << POSITION_BITS | position


def last_event(partition: int) -> int:
    """The last key that a batch of events of the partition can have."""
    return first_event(partition + 1, 0) - 1


def position_of(key: int) -> int:
    """The first position of a batch of events."""
    return key & ((1 << POSITION_BITS) - 1)


def record_id(number: int, name: str) -> str:
    """The key of a record of the aggregate with that creation number."""
    return f"{number:016x}/{name}"


def record_name(key: str) -> str:
    """The name of a record, of its key."""
    return key[17:]


def after_prefix(prefix: str) -> str:
    """The first text after all that begin with `prefix`; '' when there is none."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return ""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)  # no text holds a surrogate


def entry_of(number: int, revision: int, write: Write) -> Entry:
    """What of a write goes into the journal."""
    return Entry(number, revision, write.records, write.events, write.outbox, write.inbox)


def journal(entries: Sequence[Entry]) -> list[Document]:
    """The journal of an aggregate's document; what holds nothing is left out."""
    return [
        {
            "r": entry.revision,
            "rec": [[name, data] for name, data in entry.records.items()],
            "ev": [[event.partition, event.data] for event in entry.events],
            "out": [
                [m.subject, m.data, m.message_id, list(map(list, m.headers.items()))] for m in entry.outbox
            ],
            "in": list(entry.inbox),
        }
        for entry in entries
        if entry.records or entry.events or entry.outbox or entry.inbox
    ]


def entries_in(document: Document) -> list[Entry]:
    """The journal of an aggregate's document."""
    return [
        Entry(
            document["t"],
            written["r"],
            dict(written["rec"]),
            [NewEvent(partition, data) for partition, data in written["ev"]],
            [OutboxMessage(s, data, m, dict(headers)) for s, data, m, headers in written["out"]],
            written["in"],
        )
        for written in document.get("j", ())
    ]


def known_of(document: Document | None) -> Known:
    """What a document just read tells; a deleted aggregate is none."""
    if document is None or document.get("g"):
        return Known(fresh=True)
    index = dict(entry.split("\0", 1) for entry in document["x"])
    return Known(document["r"], document["t"], index, document["c"], fresh=True)


def aggregate_of(document: Document) -> Aggregate:
    """An aggregate as the port has it."""
    return Aggregate(document["_id"], document["r"], document["h"], document.get("d"))


def change_of(write: Write, after: Known, entries: Sequence[Entry]) -> Document:
    """The update that makes `after` of an aggregate, whose last write this round is `write`."""
    filed = journal(entries)
    put: Document = {"r": after.revision, "t": after.number, "c": after.commits, "j": filed}
    drop: Document = {}
    if write.head is None:
        put |= {"g": 1, "o": 1, "x": [], "h": b""}
        drop["d"] = ""
    else:
        put |= {"h": write.head, "x": [f"{name}\0{value}" for name, value in after.index.items() if value]}
        (put if filed else drop)["o"] = 1
        if write.due_ms is None:
            drop["d"] = ""
        else:
            put["d"] = write.due_ms
    return {"$set": put, "$unset": drop} if drop else {"$set": put}


def batch_of(partition: int, position: int, entries: Sequence[tuple[Entry, Sequence[bytes]]]) -> Document:
    """The document of events that are filed together, the first of them at `position`."""
    data = [event for _, events in entries for event in events]
    return {
        "_id": first_event(partition, position),
        "n": len(data),
        "e": data,
        "w": [{"t": entry.number, "r": entry.revision, "n": len(events)} for entry, events in entries],
    }


def filed_in(batch: Document) -> list[Filed]:
    """The events of a batch."""
    partition, first = batch["_id"] >> POSITION_BITS, position_of(batch["_id"])
    return [Filed(partition, position, data) for position, data in enumerate(batch["e"], first)]


def filed_by(batch: Document, number: int) -> list[Filed]:
    """The events of a batch that the writes of one aggregate filed."""
    filed, events, at = [], filed_in(batch), 0
    for writer in batch["w"]:
        if writer["t"] == number:
            filed += events[at : at + writer["n"]]
        at += writer["n"]
    return filed
