"""The one canonical encoding of `Value`: bytes that are equal exactly when the values are.

The bytes are valid protobuf of `aios.value.v1.Value`, made under stricter rules than protobuf has: fields ascend,
varints are minimal, map entries are sorted by the UTF-8 of their key, labels stand in a table in the order of their
first use, a decimal has no exponent and no superfluous zero, a default is left out except as the choice of a oneof.
`decode` refuses whatever `encode` would not have written, so a hash over the bytes is a hash over the value.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

from aios_core.errors import TerminalError
from aios_core.labels import Label, Trust
from aios_core.values import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_VALUE_BYTES,
    Leaf,
    Plain,
    Pointer,
    Value,
    checked_decimal,
    checked_pointer,
    pointers,
)

# Field numbers of aios.value.v1 (proto/aios/value/v1/value.proto).
_VALUE_ROOT, _VALUE_LABELS = 1, 2
_NULL, _BOOL, _INT, _DECIMAL, _TEXT, _BLOB, _TIME, _LIST, _MAP, _POINTER, _LABEL = range(1, 12)
_LABEL_ORIGINS, _LABEL_TRUST, _LABEL_RESTRICTED, _LABEL_READERS = 1, 2, 3, 4
LABELS_REMEMBERED: Final = 4096  # labels whose encoding is kept: few stand for nearly all values
_BYTE: Final = tuple(bytes((number,)) for number in range(128))
_POINTER_HEAD: Final = bytes((1 << 3 | 2, 32))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(value: Value) -> bytes:
    """The canonical bytes. Raises TOO_LARGE past `MAX_VALUE_BYTES` or `MAX_NODES`, TOO_DEEP past `MAX_DEPTH`,
    INVALID_ARGUMENT for text that is not Unicode and for a decimal that is too long."""
    writer = _Writer()
    try:
        parts = [_bytes(_VALUE_ROOT, writer.node(value, 0))]
    except UnicodeEncodeError:
        raise TerminalError(
            "INVALID_ARGUMENT", "A text holds half a character (a lone surrogate); send it as UTF-8."
        ) from None
    parts += [_bytes(_VALUE_LABELS, _encode_label(label)) for label in writer.labels]
    out = b"".join(parts)
    if len(out) > MAX_VALUE_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"The value takes {len(out)} bytes; at most {MAX_VALUE_BYTES} cross steps. Store it as an artifact.",
        )
    return out


def decode(data: bytes) -> Value:
    """The value of canonical bytes. Raises UNDECODABLE for anything that `encode` would not have written."""
    if len(data) > MAX_VALUE_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"The value takes {len(data)} bytes; at most {MAX_VALUE_BYTES} are read. Store it as an artifact.",
        )
    try:
        value = _decode(data)
    except (
        IndexError,
        ValueError,
        OverflowError,
        InvalidOperation,
        RecursionError,
        KeyError,
        AssertionError,
    ) as error:
        raise TerminalError("UNDECODABLE", f"These bytes are not a value: {error}.") from None
    if encode(value) != data:
        raise TerminalError("UNDECODABLE", "These bytes are a value, but not in its canonical encoding.")
    return value


def decode_trusted(data: bytes) -> Value:
    """`decode` without the check that the bytes are canonical, for bytes that this process's own store wrote."""
    return _decode(data)


def pointers_in(data: bytes) -> list[Pointer]:
    """The pointers of a value's canonical bytes, in their order; none in bytes that are not a value.

    Most values have none, and are not decoded for it: a pointer's bytes begin with its hash, a field of 32 bytes.
    """
    if _POINTER_HEAD not in data:
        return []
    try:
        return list(pointers(decode(data)))
    except TerminalError:
        return []


class _Writer:
    __slots__ = ("labels", "nodes")

    def __init__(self) -> None:
        self.labels: dict[Label, int] = {}
        self.nodes = 0

    def node(self, value: Value, depth: int) -> bytes:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise TerminalError(
                "TOO_LARGE", f"The value has more than {MAX_NODES} parts. Store it as an artifact."
            )
        if depth > MAX_DEPTH:
            raise TerminalError("TOO_DEEP", f"The value is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(value, Leaf):
            index = self.labels.setdefault(value.label, len(self.labels))
            scalar = _scalar(value.data)
            return scalar + _int(_LABEL, index) if index else scalar
        if not value:
            kind = "map" if isinstance(value, dict) else "list"
            raise TerminalError(
                "INVALID_ARGUMENT", f"An empty {kind} must be a leaf, so that it has a label."
            )
        if isinstance(value, dict):
            entries = []
            for key in sorted(value, key=str.encode) if len(value) > 1 else value:
                item = _bytes(2, self.node(value[key], depth + 1))
                entries.append(_bytes(1, _bytes(1, key.encode()) + item if key else item))
            return _bytes(_MAP, b"".join(entries))
        return _bytes(_LIST, b"".join([_bytes(1, self.node(item, depth + 1)) for item in value]))


def _scalar(data: Plain) -> bytes:
    if isinstance(data, str):
        return _bytes(_TEXT, data.encode())
    if data is None:
        return _int(_NULL, 1)
    if isinstance(data, bool):
        return _int(_BOOL, int(data))
    if isinstance(data, int):
        return _int(_INT, _zigzag(data))
    if isinstance(data, Decimal):
        return _bytes(_DECIMAL, decimal_text(data).encode())
    if isinstance(data, bytes):
        return _bytes(_BLOB, data)
    if isinstance(data, datetime):
        return _int(_TIME, _zigzag((data - _EPOCH) // _MICROSECOND))
    if isinstance(data, Pointer):
        return _bytes(_POINTER, _encode_pointer(data))
    if data == {}:
        return _bytes(_MAP, b"")
    if data == []:
        return _bytes(_LIST, b"")
    raise TerminalError("INVALID_ARGUMENT", f"A leaf can't hold a {type(data).__name__}.")


def decimal_text(number: Decimal) -> str:
    """The shortest text of a decimal, without an exponent: `1.50` and `1.5` are one value, `-0` is `0`."""
    text = format(checked_decimal(number), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _encode_pointer(pointer: Pointer) -> bytes:
    parts = [_bytes(1, bytes.fromhex(checked_pointer(pointer).sha256))]
    if pointer.size:
        parts.append(_int(2, pointer.size))
    if pointer.media_type:
        parts.append(_bytes(3, pointer.media_type.encode()))
    if pointer.name:
        parts.append(_bytes(4, pointer.name.encode()))
    return b"".join(parts)


@lru_cache(LABELS_REMEMBERED)
def _encode_label(label: Label) -> bytes:
    parts = [_bytes(_LABEL_ORIGINS, origin.encode()) for origin in label.origins]
    parts.append(_int(_LABEL_TRUST, int(label.trust)))
    if label.readers is not None:
        parts.append(_int(_LABEL_RESTRICTED, 1))
        parts += [_bytes(_LABEL_READERS, reader.encode()) for reader in label.readers]
    return b"".join(parts)


def _zigzag(number: int) -> int:
    return (number << 1) ^ (number >> 63)


def _int(field: int, number: int) -> bytes:
    return _BYTE[field << 3] + (_BYTE[number] if number < 0x80 else _long(number))


def _bytes(field: int, data: bytes) -> bytes:
    size = len(data)
    return _BYTE[field << 3 | 2] + (_BYTE[size] if size < 0x80 else _long(size)) + data


def _long(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _size(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(where the bytes of a field begin, where they end), from the place of their length."""
    size = data[at]
    at += 1
    if size >= 0x80:
        size, at = _varint(data, at - 1)
    if at + size > end:
        raise ValueError("a field is cut off")
    return at, at + size


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """(field number, integer, bytes) of each field; only the two wire types that the encoding uses."""
    at, fields = 0, []
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            number, at = _varint(data, at)
            fields.append((tag >> 3, number, b""))
        elif tag & 7 == 2:
            at, end = _size(data, at, len(data))
            fields.append((tag >> 3, 0, data[at:end]))
            at = end
        else:
            raise ValueError("a wire type that values don't use")
    return fields


def _decode(data: bytes) -> Value:
    root, labels, at = None, [], 0
    while at < len(data):
        tag = data[at]
        start, at = _size(data, at + 1, len(data))
        if tag == _VALUE_LABELS << 3 | 2:
            labels.append(_decode_label(data[start:at]))
        elif tag == _VALUE_ROOT << 3 | 2:
            root = (start, at)
        else:
            raise ValueError(f"unknown field {tag >> 3}")
    if root is None:
        raise ValueError("there is no root")
    return _decode_node(data, *root, labels, 0)


def _decode_node(data: bytes, at: int, end: int, labels: list[Label], depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    tag = data[at]
    kind, number, start = tag >> 3, 0, at
    if tag & 7 == 0:
        number, at = _varint(data, at + 1)
    else:
        start, at = _size(data, at + 1, end)
        if kind == _MAP and start < at:
            return _decode_map(data, start, at, labels, depth)
        if kind == _LIST and start < at:
            items: list[Value] = []
            while start < at:
                begin, start = _size(data, start + 1, at)
                items.append(_decode_node(data, begin, start, labels, depth + 1))
            return items
    index = _varint(data, at + 1)[0] if at < end else 0
    return Leaf(_decode_scalar(kind, number, data[start:at]), labels[index])


def _decode_map(data: bytes, at: int, end: int, labels: list[Label], depth: int) -> Value:
    entries: dict[str, Value] = {}
    while at < end:
        start, at = _size(data, at + 1, end)
        key = ""
        if data[start] == 1 << 3 | 2:
            begin, start = _size(data, start + 1, at)
            key = data[begin:start].decode()
        begin, stop = _size(data, start + 1, at)
        entries[key] = _decode_node(data, begin, stop, labels, depth + 1)
    return entries


def _decode_scalar(kind: int, number: int, body: bytes) -> Plain:
    if kind == _NULL:
        return None
    if kind == _BOOL:
        return bool(number)
    if kind == _INT:
        return _unzigzag(number)
    if kind == _TEXT:
        return body.decode()
    if kind == _DECIMAL:
        return Decimal(body.decode("ascii"))
    if kind == _BLOB:
        return body
    if kind == _TIME:
        return _EPOCH + timedelta(microseconds=_unzigzag(number))
    if kind == _POINTER:
        return _decode_pointer(body)
    if kind == _MAP:
        return {}
    if kind == _LIST:
        return []
    raise ValueError(f"unknown kind {kind}")


def _unzigzag(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _decode_pointer(data: bytes) -> Pointer:
    sha256, size, media_type, name = "", 0, "", ""
    for field, number, body in _fields(data):
        if field == 1:
            sha256 = body.hex()
        elif field == 2:
            size = number
        elif field == 3:
            media_type = body.decode()
        elif field == 4:
            name = body.decode()
    return Pointer(sha256, size, media_type, name)


@lru_cache(LABELS_REMEMBERED)
def _decode_label(data: bytes) -> Label:
    origins: list[str] = []
    readers: list[str] = []
    trust, restricted = 0, False
    for field, number, body in _fields(data):
        if field == _LABEL_ORIGINS:
            origins.append(body.decode())
        elif field == _LABEL_TRUST:
            trust = number
        elif field == _LABEL_RESTRICTED:
            restricted = bool(number)
        elif field == _LABEL_READERS:
            readers.append(body.decode())
    return Label(tuple(origins), Trust(trust), tuple(readers) if restricted else None)
