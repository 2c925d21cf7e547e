"""The tables of the embedded store, version by version, and how their integer keys are made.

Rows that grow with the work are keyed by growing integers, so that a commit appends at the right edge of each tree
and costs the same beside a million finished aggregates:

- `aggregates.seq` is the order of creation; records and index entries refer to it instead of repeating the key.
- `events.id` is partition and position in one integer; an index by aggregate holds two integers an event.
- `inbox.id` begins with the time of the mark, so pruning is a range.
"""

from typing import Final

APPLICATION_ID: Final = 0x41494F53  # "AIOS"

POSITION_BITS: Final = 48  # which leaves 15 for the partition
MARK_BITS: Final = 20  # marks a millisecond before ids run ahead of the clock

VERSION_1: Final = (
    """CREATE TABLE aggregates (
        seq INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        revision INTEGER NOT NULL,
        due_ms INTEGER,
        entries TEXT NOT NULL,
        head BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX aggregates_by_due ON aggregates (due_ms) WHERE due_ms IS NOT NULL",
    """CREATE TABLE records (
        seq INTEGER NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (seq, name)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE entries (
        name TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (name, value, seq)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE events (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, data BLOB NOT NULL) STRICT",
    "CREATE INDEX events_by_aggregate ON events (seq)",
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY,
        subject TEXT NOT NULL,
        message_id TEXT NOT NULL,
        headers TEXT NOT NULL,
        data BLOB NOT NULL
    ) STRICT""",
    "CREATE TABLE inbox (id INTEGER PRIMARY KEY, mark TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
)


def event_id(partition: int, position: int) -> int:
    """The key of an event; position 0 is just before the first one of the partition."""
    return partition << POSITION_BITS | position


def last_event_id(partition: int) -> int:
    """The largest key that an event of the partition can have."""
    return event_id(partition + 1, 0) - 1


def event_position(key: int) -> int:
    """The position within its partition of an event's key."""
    return key & ((1 << POSITION_BITS) - 1)


def mark_id(at_ms: int) -> int:
    """The smallest key of an inbox mark made at that time."""
    return at_ms << MARK_BITS
