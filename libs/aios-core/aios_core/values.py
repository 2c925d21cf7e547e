"""`Value`: what crosses from step to step, a tree whose every leaf carries a label.

A value is a `Leaf`, a list of values, or a map of values by name. Empty lists and maps are leaves, so that they have
a label too. Plain data (what agents and connectors see) has the same shape without the leaves.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias, Union

from aios_core.errors import TerminalError
from aios_core.labels import Label, meet

MAX_DEPTH: Final = 32  # levels of lists and maps
MAX_NODES: Final = 65_536  # nodes of one value; larger data belongs in an artifact
MAX_VALUE_BYTES: Final = 192 * 1024  # canonical bytes; leaves room for headers in a bus message of 256 KiB
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
MAX_DECIMAL_DIGITS: Final = 400  # written out without an exponent: twenty characters can mean a gigabyte
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a large value lies: memory's artifact store, under the SHA-256 of its bytes.

    `size` is in bytes, `media_type` as in HTTP, `name` what a person would call the file.
    """

    sha256: str
    size: int
    media_type: str = "application/octet-stream"
    name: str = ""


Plain: TypeAlias = Union[
    bool, int, Decimal, str, bytes, datetime, Pointer, "Sequence[Plain]", "Mapping[str, Plain]", None
]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One labelled scalar, pointer, empty list (`[]`) or empty map (`{}`)."""

    data: Plain
    label: Label


Value: TypeAlias = Union[Leaf, "list[Value]", "dict[str, Value]"]


def labeled(data: Plain, label: Label, *, depth: int = 0) -> Value:
    """Plain data as a value, every leaf under `label`. Floats are refused: they have no exact decimal meaning."""
    if depth > MAX_DEPTH:
        raise TerminalError("TOO_DEEP", f"The value is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(data, Mapping):
        if not data:
            return Leaf({}, label)
        return {_key(key): labeled(item, label, depth=depth + 1) for key, item in data.items()}
    if isinstance(data, (str, bytes)) or not isinstance(data, Sequence):
        return Leaf(_scalar(data), label)
    if not data:
        return Leaf([], label)
    return [labeled(item, label, depth=depth + 1) for item in data]


def plain(value: Value) -> Plain:
    """The value without its labels."""
    if isinstance(value, Leaf):
        return value.data
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


def leaves(value: Value) -> Iterator[Leaf]:
    """Every leaf, depth first, map entries in key order."""
    if isinstance(value, Leaf):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from leaves(value[key])
    else:
        for item in value:
            yield from leaves(item)


def label_of(value: Value) -> Label:
    """The meet of all its leaves."""
    if isinstance(value, Leaf):
        return value.label
    return meet(leaf.label for leaf in leaves(value))


def relabeled(value: Value, label: Label) -> Value:
    """The same data, every leaf's label met with `label`."""
    if isinstance(value, Leaf):
        return Leaf(value.data, meet((value.label, label)))
    if isinstance(value, dict):
        return {key: relabeled(item, label) for key, item in value.items()}
    return [relabeled(item, label) for item in value]


def follow(value: "Value | None", path: Sequence[str]) -> "Value | None":
    """The value under map keys; below a null everything is null (None: there is no value). Raises KeyError with the key
    that isn't there."""
    for key in path:
        if value is None or (isinstance(value, Leaf) and value.data is None):
            return value
        if not isinstance(value, dict) or key not in value:
            raise KeyError(key)
        value = value[key]
    return value


def pointers(value: Value) -> Iterator[Pointer]:
    """Every pointer in the value."""
    for leaf in leaves(value):
        if isinstance(leaf.data, Pointer):
            yield leaf.data


def checked_decimal(number: Decimal) -> Decimal:
    """The number itself. Raises INVALID_ARGUMENT when it is not finite, or longer than `MAX_DECIMAL_DIGITS`."""
    if not number.is_finite():
        raise TerminalError("INVALID_ARGUMENT", f"{number} is not a finite number.")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    written = len(digits) + exponent if exponent > 0 else max(len(digits), -exponent)
    if written > MAX_DECIMAL_DIGITS:
        raise TerminalError("INVALID_ARGUMENT", f"A decimal has at most {MAX_DECIMAL_DIGITS} digits.")
    return number


def checked_pointer(pointer: Pointer) -> Pointer:
    """The pointer itself. Raises INVALID_ARGUMENT for what no stored bytes can have as their hash or their size."""
    if not _SHA256.fullmatch(pointer.sha256):
        message = f"A pointer's $artifact is a SHA-256 in 64 digits from 0 to f, not {pointer.sha256[:80]!r}."
        raise TerminalError("INVALID_ARGUMENT", message)
    if not 0 <= pointer.size <= INT64_MAX:
        raise TerminalError("INVALID_ARGUMENT", "A pointer's size is a number of bytes, from 0 on.")
    return pointer


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TerminalError("INVALID_ARGUMENT", f"A map key must be text, not {type(key).__name__}.")
    return key


def _scalar(data: object) -> Plain:
    if data is None or isinstance(data, (bool, str, bytes, Pointer)):
        return data
    if isinstance(data, int):
        if not INT64_MIN <= data <= INT64_MAX:
            shown = data if abs(data) < 10**40 else "with so many digits"
            raise TerminalError(
                "INVALID_ARGUMENT", f"The integer {shown} does not fit in 64 bits; send it as text."
            )
        return data
    if isinstance(data, Decimal):
        return checked_decimal(data)
    if isinstance(data, datetime):
        if data.tzinfo is None:
            raise TerminalError("INVALID_ARGUMENT", "A time needs a time zone.")
        return data.astimezone(UTC)
    raise TerminalError(
        "INVALID_ARGUMENT", f"A value can't hold a {type(data).__name__}; numbers are int or decimal."
    )
