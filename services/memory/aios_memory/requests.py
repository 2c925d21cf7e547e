"""From the input of a memory step to what it asks for: `memory.read` and `memory.write`, checked field by field."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import Label
from aios_core.values import Leaf, Value, plain, pointers
from aios_memory.fields import Fields
from aios_memory.model import (
    ABSENT,
    ANY,
    MAX_CONFIDENCE,
    MAX_POINTERS,
    MAX_RECORD_VALUE_BYTES,
    MAX_SOURCES,
    Authority,
    Change,
    Name,
    check_key,
    check_kind,
    check_schema,
    check_source,
)
from aios_memory.schemas import check_entity

MAX_READS: Final = 16  # named reads of one memory.read
MAX_LIST: Final = 200  # records of one named read
DEFAULT_LIST: Final = 100
MAX_WRITES: Final = 64  # records of one memory.write
MAX_NOTE_CHARS: Final = 200
MAX_EVENT_ID_CHARS: Final = 200
MAX_VERSION: Final = 2**31

_RESULT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_WRITE_FIELDS: Final = (
    "kind", "key", "value", "delete", "expect", "authority", "confidence", "schema", "sources", "actor", "note",
)  # fmt: skip
_GUARDS: Final = tuple(name for name in _WRITE_FIELDS if name not in ("value", "note"))


@dataclass(frozen=True, slots=True)
class Read:
    """One named read: a record by its `key`, or those whose key starts with `prefix`, in key order.

    Of a longer list the `first` or last `limit` stay; `before` leaves out keys from it on. `as_of_ms` 0 is now.
    `label` is the meet of what chose the read.
    """

    result: str
    name: Name
    single: bool
    limit: int
    first: bool
    before: str
    as_of_ms: int
    label: Label


@dataclass(frozen=True, slots=True)
class Writes:
    """What one memory.write asks for; `pointers` are the artifacts (SHA-256 in hex) that must be stored before."""

    changes: tuple[Change, ...]
    event_id: str
    pointers: tuple[str, ...]


def parse_reads(value: Value) -> tuple[Read, ...]:
    """The reads of a memory.read input. Raises INVALID_ARGUMENT or UNKNOWN_FIELD."""
    fields = Fields(value, "input")
    fields.only("reads")
    reads = tuple(
        _read(item, f"reads[{at}]") for at, item in enumerate(fields.items("reads", MAX_READS, required=True))
    )
    _distinct([read.result for read in reads], "reads", "name")
    return reads


def parse_writes(value: Value) -> Writes:
    """The writes of a memory.write input. Raises INVALID_ARGUMENT, UNKNOWN_FIELD, TOO_LARGE or BAD_RESOURCE."""
    fields = Fields(value, "input")
    fields.only("writes", "event_id")
    items = fields.items("writes", MAX_WRITES, required=True)
    changes = tuple(_change(item, f"writes[{at}]") for at, item in enumerate(items))
    _distinct([str(change.name) for change in changes], "writes", "record")
    event_id = fields.text("event_id", "")
    if len(event_id) > MAX_EVENT_ID_CHARS or not event_id.isprintable():
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"input.event_id has at most {MAX_EVENT_ID_CHARS} printable characters.",
            field="event_id",
        )
    return Writes(changes, event_id, tuple(dict.fromkeys(pointer.sha256 for pointer in pointers(value))))


def _read(value: Value, where: str) -> Read:
    fields = Fields(value, where)
    fields.only("name", "kind", "key", "prefix", "limit", "take", "before", "as_of")
    result = fields.text("name")
    if not _RESULT_NAME.fullmatch(result):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{where}.name is {result[:60]!r}; a result's name has lower case letters, digits and underscores.",
            field=f"{where}.name",
        )
    single = fields.value("key") is not None
    if single == (fields.value("prefix") is not None):
        raise TerminalError("INVALID_ARGUMENT", f"{where} needs either key or prefix.", field=f"{where}.key")
    take = fields.text("take", "first")
    if take not in ("first", "last"):
        raise TerminalError(
            "INVALID_ARGUMENT", f"{where}.take is {take[:40]!r}; it is first or last.", field=f"{where}.take"
        )
    as_of = fields.time("as_of")
    kind = check_kind(fields.text("kind"), f"{where}.kind")
    selector = "key" if single else "prefix"
    return Read(
        result=result,
        name=Name(kind, check_key(fields.text(selector), f"{where}.{selector}", prefix=not single)),
        single=single,
        limit=fields.integer("limit", DEFAULT_LIST, 1, MAX_LIST),
        first=take == "first",
        before=fields.text("before", ""),
        as_of_ms=int(as_of.timestamp() * 1000) if as_of else 0,
        label=fields.label(("kind", "key", "prefix", "limit", "take", "before", "as_of")),
    )


def _change(value: Value, where: str) -> Change:
    fields = Fields(value, where)
    fields.only(*_WRITE_FIELDS)
    name = Name(
        check_kind(fields.text("kind"), f"{where}.kind"), check_key(fields.text("key"), f"{where}.key")
    )
    guard = fields.label(_GUARDS)
    authority = _authority(fields.text("authority", "heuristic"), f"{where}.authority")
    content, found = _content(fields, name, where)
    sources = [
        check_source(_text(item, f"{where}.sources[{at}]"), f"{where}.sources[{at}]")
        for at, item in enumerate(fields.items("sources", MAX_SOURCES))
    ]
    return Change(
        name=name,
        value=content,
        expect=_expect(fields, where),
        authority=authority,
        confidence=_confidence(fields, authority, where),
        schema=check_schema(fields.text("schema", ""), f"{where}.schema"),
        labeled_key=encode(Leaf(name.key, guard)),
        sources=tuple(dict.fromkeys((*sources, *(f"artifact:{sha256}" for sha256 in found)))),
        actor=_actor(fields, where),
        note=_line(fields.text("note", ""))[:MAX_NOTE_CHARS],
    )


def _content(fields: Fields, name: Name, where: str) -> tuple[bytes | None, list[str]]:
    """The canonical value (None: delete), and the artifacts that it points to."""
    value = fields.value("value")
    if fields.boolean("delete") == (value is not None):
        raise TerminalError(
            "INVALID_ARGUMENT", f"{where} needs either a value or delete: true.", field=f"{where}.value"
        )
    if value is None:
        return None, []
    found = list(dict.fromkeys(pointer.sha256 for pointer in pointers(value)))
    content = encode(value)
    if len(content) > MAX_RECORD_VALUE_BYTES or len(found) > MAX_POINTERS:
        raise TerminalError(
            "TOO_LARGE",
            f"{where}.value takes {len(content)} bytes and points to {len(found)} artifacts; a record holds at most "
            f"{MAX_RECORD_VALUE_BYTES} bytes and {MAX_POINTERS} pointers. Store it as an artifact.",
            field=f"{where}.value",
        )
    check_entity(name, fields.text("schema", ""), plain(value), f"{where}.value")
    return content, found


def _expect(fields: Fields, where: str) -> int:
    value = fields.value("expect")
    data = value.data if isinstance(value, Leaf) else None
    if data == "any":
        return ANY
    if data == "absent":
        return ABSENT
    if isinstance(data, bool) or not isinstance(data, int) or not 0 <= data <= MAX_VERSION:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{where}.expect must be the version that was read, `absent` or `any`.",
            field=f"{where}.expect",
        )
    return data


def _authority(text: str, field: str) -> Authority:
    try:
        return Authority(text)
    except ValueError:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{field} is {text[:40]!r}; it is authoritative or heuristic.", field=field
        ) from None


def _confidence(fields: Fields, authority: Authority, where: str) -> int:
    """Thousandths; a guess that does not say how sure it is counts half."""
    number = fields.number(
        "confidence", Decimal(1) if authority is Authority.AUTHORITATIVE else Decimal("0.5")
    )
    if not 0 <= number <= 1:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{where}.confidence is {number}; it is from 0 to 1.",
            field=f"{where}.confidence",
        )
    return int(number * MAX_CONFIDENCE)


def _actor(fields: Fields, where: str) -> str:
    """Who is said to have written it: only somebody whom the labels of the write name."""
    actor = fields.text("actor", "")
    if actor and actor not in fields.label(_WRITE_FIELDS).origins:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{where}.actor is {actor[:60]!r}, but nothing in the write comes from there.",
            field=f"{where}.actor",
        )
    return actor


def _line(text: str) -> str:
    """Words for a person on one line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _text(value: Value, field: str) -> str:
    if not isinstance(value, Leaf) or not isinstance(value.data, str):
        raise TerminalError("INVALID_ARGUMENT", f"{field} must be a text.", field=field)
    return value.data


def _distinct(names: list[str], field: str, what: str) -> None:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"{field}[{at}] names the {what} {name[:120]} a second time.",
                field=f"{field}[{at}]",
            )
