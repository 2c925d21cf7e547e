"""The bounds of writes, checked before they are queued. The port's contract, whatever the store."""

from collections.abc import Sequence
from typing import Final

from aios_core.errors import TerminalError
from aios_runtime.bus.port import MAX_MESSAGE_BYTES
from aios_runtime.store.port import (
    MAX_BATCH_WRITES,
    MAX_HEAD_BYTES,
    MAX_RECORD_BYTES,
    NewEvent,
    OutboxMessage,
    Write,
)

MAX_KEY_CHARS: Final = 512
MAX_NAME_CHARS: Final = 512  # record names, index names and values, inbox marks, subjects and message ids
MAX_EVENT_BYTES: Final = 1024 * 1024
MAX_OUTBOX_BYTES: Final = MAX_MESSAGE_BYTES - 4096  # the rest is for subject, trace context and framing
MAX_PARTITION: Final = 32_767
MAX_WRITE_BYTES: Final = 8 * 1024 * 1024  # of all that one write holds: it must fit into one document


def check(writes: Sequence[Write]) -> int:
    """Check a batch of writes; returns its payload in bytes. Raises TOO_LARGE or INVALID_ARGUMENT."""
    if len(writes) > MAX_BATCH_WRITES:
        raise _too_large("writes", "of one commit", len(writes), MAX_BATCH_WRITES, "writes")
    return sum(map(_check, writes))


def _check(write: Write) -> int:
    key = write.key
    if len(key) > MAX_KEY_CHARS:
        raise _too_large("key", key[:64], len(key), MAX_KEY_CHARS, "characters")
    if key.count("/") < 2 or key.startswith("/") or key.endswith("/") or "//" in key:
        raise _invalid("key", f"the key {key!r} is not <workspace>/<kind>/<id>")
    _check_text("key", key)
    if write.expect < 0:
        raise _invalid(
            "expect", f"the expected revision of {key} is negative; use 0 for one that must not exist"
        )
    size = 0
    if write.head is None:
        if write.records or write.index or write.due_ms is not None:
            raise _invalid(
                "head", f"the deletion of {key} has records, index entries or a due time; leave them out"
            )
    else:
        size = len(write.head)
        if size > MAX_HEAD_BYTES:
            raise _too_large("head", key, size, MAX_HEAD_BYTES, "bytes")
    for name, data in write.records.items():
        _check_name("records", key, name)
        if data is not None:
            if len(data) > MAX_RECORD_BYTES:
                raise _too_large("records", f"{key} {name}", len(data), MAX_RECORD_BYTES, "bytes")
            size += len(data)
    for name, value in write.index.items():
        _check_name("index", key, name)
        _check_text("index", value)
        if len(value) > MAX_NAME_CHARS:
            raise _too_large("index", f"{key} {name}", len(value), MAX_NAME_CHARS, "characters")
    for mark in write.inbox:
        _check_name("inbox", key, mark)
    for event in write.events:
        size += _check_event(key, event)
    for message in write.outbox:
        size += _check_message(key, message)
    if size > MAX_WRITE_BYTES:
        raise _too_large("write", f"of {key}", size, MAX_WRITE_BYTES, "bytes")
    return size


def _check_event(key: str, event: NewEvent) -> int:
    if not 0 <= event.partition <= MAX_PARTITION:
        raise _invalid(
            "events", f"an event of {key} names partition {event.partition}; use 0 to {MAX_PARTITION}"
        )
    if len(event.data) > MAX_EVENT_BYTES:
        raise _too_large("events", key, len(event.data), MAX_EVENT_BYTES, "bytes")
    return len(event.data)


def _check_message(key: str, message: OutboxMessage) -> int:
    size = len(message.data)
    for name, value in message.headers.items():
        _check_text("outbox", name)
        _check_text("outbox", value)
        size += len(name.encode()) + len(value.encode()) + 4
    if size > MAX_OUTBOX_BYTES:
        raise _too_large("outbox", f"{key} {message.subject}", size, MAX_OUTBOX_BYTES, "bytes")
    _check_name("outbox", key, message.subject)
    if len(message.message_id) > MAX_NAME_CHARS:
        raise _too_large(
            "outbox", message.message_id[:64], len(message.message_id), MAX_NAME_CHARS, "characters"
        )
    _check_text("outbox", message.message_id)
    return size


def _check_name(field: str, key: str, name: str) -> None:
    _check_text(field, name)
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise _invalid(field, f"a name of {key} has {len(name)} characters; use 1 to {MAX_NAME_CHARS}")


def _check_text(field: str, text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _invalid(field, f"the text {text[:64]!r} of {field} holds half a character") from None


def _too_large(field: str, what: str, size: int, limit: int, unit: str) -> TerminalError:
    return TerminalError(
        "TOO_LARGE",
        f"The {field} {what} has {size} {unit}, at most {limit} fit; store less or split it.",
        field=field,
    )


def _invalid(field: str, why: str) -> TerminalError:
    return TerminalError("INVALID_ARGUMENT", f"In a write to the store, {why}.", field=field)
