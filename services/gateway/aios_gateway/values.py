"""Values from clients: bounded, checked, and labelled as what they are, said by a person."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from aios.value.v1 import value_pb2
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import MAX_DEPTH, Plain, Pointer, labeled

_DECIMAL: Final = re.compile(r"-?[0-9]{1,200}(?:\.[0-9]{1,200})?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHA256_BYTES: Final = 32


def canonical(value: value_pb2.Value, field: str) -> bytes:
    """A client's value in its canonical encoding, every leaf under the owner's label: clients never choose labels.

    An absent value is an empty map. Raises INVALID_ARGUMENT, TOO_DEEP or TOO_LARGE.
    """
    data: Plain = _plain(value.root, field, 0) if value.HasField("root") else {}
    return encode(labeled(data, OWNER))


def message(data: bytes) -> value_pb2.Value | None:
    """A stored value as clients see it; None for one that is not there yet."""
    return value_pb2.Value.FromString(data) if data else None


def _plain(node: value_pb2.Node, field: str, depth: int) -> Plain:
    if depth > MAX_DEPTH:
        raise TerminalError("TOO_DEEP", f"{field} is nested deeper than {MAX_DEPTH} levels.", field=field)
    kind = node.WhichOneof("kind")
    if kind == "map":
        return _map(node.map, field, depth)
    if kind == "list":
        return [_plain(item, f"{field}[{index}]", depth + 1) for index, item in enumerate(node.list.items)]
    return _scalar(node, kind, field)


def _map(entries: value_pb2.Map, field: str, depth: int) -> dict[str, Plain]:
    data: dict[str, Plain] = {}
    for entry in entries.entries:
        inner = f"{field}.{entry.key[:80]}"
        if entry.key in data:
            raise _wrong(inner, "is given twice; a key stands once in a map.")
        data[entry.key] = _plain(entry.value, inner, depth + 1)
    return data


def _scalar(node: value_pb2.Node, kind: str | None, field: str) -> Plain:
    if kind == "null":
        return None
    if kind == "boolean":
        return node.boolean
    if kind == "integer":
        return node.integer
    if kind == "text":
        return node.text
    if kind == "blob":
        return node.blob
    if kind == "decimal":
        if not _DECIMAL.fullmatch(node.decimal):
            raise _wrong(field, f"is {node.decimal[:80]!r}; a decimal is digits with one point at most.")
        return Decimal(node.decimal)
    if kind == "time_us":
        try:
            return _EPOCH + timedelta(microseconds=node.time_us)
        except OverflowError:
            raise _wrong(field, "is a time outside the years 1 to 9999.") from None
    if kind == "pointer":
        if len(node.pointer.sha256) != _SHA256_BYTES or node.pointer.size < 0:
            raise _wrong(field, "is a pointer without a SHA-256 and a size.")
        pointer = node.pointer
        return Pointer(pointer.sha256.hex(), pointer.size, pointer.media_type, pointer.name)
    raise _wrong(field, "has no kind set.")


def _wrong(field: str, what: str) -> TerminalError:
    return TerminalError("INVALID_ARGUMENT", f"{field} {what}", field=field)
