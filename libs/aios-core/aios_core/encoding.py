"""The one canonical encoding of `Value`: bytes that are equal exactly when the values are.

The bytes are valid protobuf of `aios.value.v1.Value`, made under stricter rules than protobuf has: fields ascend,
varints are minimal, map entries are sorted by the UTF-8 of their key, labels stand in a table in the order of their
first use, a decimal has no exponent and no superfluous zero, a default is left out except as the choice of a oneof.
`decode` refuses whatever `encode` would not have written, so a hash over the bytes is a hash over the value.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from aios_core.errors import TerminalError
from aios_core.labels import Label, Trust
from aios_core.values import MAX_DEPTH, MAX_NODES, MAX_VALUE_BYTES, Leaf, Plain, Pointer, Value

# Field numbers of aios.value.v1 (proto/aios/value/v1/value.proto).
_VALUE_ROOT, _VALUE_LABELS = 1, 2
_NULL, _BOOL, _INT, _DECIMAL, _TEXT, _BLOB, _TIME, _LIST, _MAP, _POINTER, _LABEL = range(1, 12)
_LABEL_ORIGINS, _LABEL_TRUST, _LABEL_RESTRICTED, _LABEL_READERS = 1, 2, 3, 4
_MAX_DECIMAL_CHARS: Final = 400
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(value: Value) -> bytes:
    """The canonical bytes. Raises TOO_LARGE past `MAX_VALUE_BYTES` or `MAX_NODES`, TOO_DEEP past `MAX_DEPTH`."""
    writer = _Writer()
    root = writer.node(value, 0)
    out = bytearray()
    _put_bytes(out, _VALUE_ROOT, root)
    for label in writer.labels:
        _put_bytes(out, _VALUE_LABELS, _encode_label(label))
    if len(out) > MAX_VALUE_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"The value takes {len(out)} bytes; at most {MAX_VALUE_BYTES} cross steps. Store it as an artifact.",
        )
    return bytes(out)


def decode(data: bytes) -> Value:
    """The value of canonical bytes. Raises UNDECODABLE for anything that `encode` would not have written."""
    if len(data) > MAX_VALUE_BYTES:
        raise TerminalError(
            "TOO_LARGE", f"The value takes {len(data)} bytes; at most {MAX_VALUE_BYTES} are read."
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


class _Writer:
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
        out = bytearray()
        if isinstance(value, Leaf):
            _put_scalar(out, value.data)
            index = self.labels.setdefault(value.label, len(self.labels))
            if index:
                _put_int(out, _LABEL, index)
        elif isinstance(value, dict):
            if not value:
                raise TerminalError(
                    "INVALID_ARGUMENT", "An empty map must be a leaf, so that it has a label."
                )
            entries = bytearray()
            for key in sorted(value, key=str.encode):
                entry = bytearray()
                if key:
                    _put_bytes(entry, 1, key.encode())
                _put_bytes(entry, 2, self.node(value[key], depth + 1))
                _put_bytes(entries, 1, entry)
            _put_bytes(out, _MAP, entries)
        else:
            if not value:
                raise TerminalError(
                    "INVALID_ARGUMENT", "An empty list must be a leaf, so that it has a label."
                )
            items = bytearray()
            for item in value:
                _put_bytes(items, 1, self.node(item, depth + 1))
            _put_bytes(out, _LIST, items)
        return bytes(out)


def _put_scalar(out: bytearray, data: Plain) -> None:
    if data is None:
        _put_int(out, _NULL, 1)
    elif isinstance(data, bool):
        _put_int(out, _BOOL, int(data))
    elif isinstance(data, int):
        _put_int(out, _INT, _zigzag(data))
    elif isinstance(data, str):
        _put_bytes(out, _TEXT, data.encode())
    elif isinstance(data, Decimal):
        _put_bytes(out, _DECIMAL, decimal_text(data).encode())
    elif isinstance(data, bytes):
        _put_bytes(out, _BLOB, data)
    elif isinstance(data, datetime):
        _put_int(out, _TIME, _zigzag((data - _EPOCH) // _MICROSECOND))
    elif isinstance(data, Pointer):
        _put_bytes(out, _POINTER, _encode_pointer(data))
    elif data == {}:
        _put_bytes(out, _MAP, b"")
    elif data == []:
        _put_bytes(out, _LIST, b"")
    else:
        raise TerminalError("INVALID_ARGUMENT", f"A leaf can't hold a {type(data).__name__}.")


def decimal_text(number: Decimal) -> str:
    """The shortest text of a decimal, without an exponent: `1.50` and `1.5` are one value, `-0` is `0`."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if len(text) > _MAX_DECIMAL_CHARS:
        raise TerminalError("INVALID_ARGUMENT", f"A decimal has at most {_MAX_DECIMAL_CHARS} digits.")
    return "0" if text in ("-0", "") else text


def _encode_pointer(pointer: Pointer) -> bytes:
    out = bytearray()
    _put_bytes(out, 1, bytes.fromhex(pointer.sha256))
    if pointer.size:
        _put_int(out, 2, pointer.size)
    if pointer.media_type:
        _put_bytes(out, 3, pointer.media_type.encode())
    if pointer.name:
        _put_bytes(out, 4, pointer.name.encode())
    return bytes(out)


def _encode_label(label: Label) -> bytes:
    out = bytearray()
    for origin in label.origins:
        _put_bytes(out, _LABEL_ORIGINS, origin.encode())
    _put_int(out, _LABEL_TRUST, int(label.trust))
    if label.readers is not None:
        _put_int(out, _LABEL_RESTRICTED, 1)
        for reader in label.readers:
            _put_bytes(out, _LABEL_READERS, reader.encode())
    return bytes(out)


def _zigzag(number: int) -> int:
    return (number << 1) ^ (number >> 63)


def _put_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_int(out: bytearray, field: int, number: int) -> None:
    _put_varint(out, field << 3)
    _put_varint(out, number)


def _put_bytes(out: bytearray, field: int, data: bytes | bytearray) -> None:
    _put_varint(out, field << 3 | 2)
    _put_varint(out, len(data))
    out += data


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


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """(field number, integer, bytes) of each field; only the two wire types that the encoding uses."""
    at, fields = 0, []
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            number, at = _varint(data, at)
            fields.append((tag >> 3, number, b""))
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is cut off")
            fields.append((tag >> 3, 0, data[at : at + size]))
            at += size
        else:
            raise ValueError("a wire type that values don't use")
    return fields


def _decode(data: bytes) -> Value:
    root, labels = None, []
    for field, _, body in _fields(data):
        if field == _VALUE_ROOT:
            root = body
        elif field == _VALUE_LABELS:
            labels.append(_decode_label(body))
        else:
            raise ValueError(f"unknown field {field}")
    if root is None:
        raise ValueError("there is no root")
    return _decode_node(root, labels, 0)


def _decode_node(data: bytes, labels: list[Label], depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    fields = _fields(data)
    kind, number, body = fields[0]
    if kind == _MAP and body:
        entries: dict[str, Value] = {}
        for _, _, entry in _fields(body):
            *key, (_, _, item) = _fields(entry)
            entries[key[0][2].decode() if key else ""] = _decode_node(item, labels, depth + 1)
        return entries
    if kind == _LIST and body:
        return [_decode_node(item, labels, depth + 1) for _, _, item in _fields(body)]
    return Leaf(_decode_scalar(kind, number, body), labels[fields[1][1] if len(fields) > 1 else 0])


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
