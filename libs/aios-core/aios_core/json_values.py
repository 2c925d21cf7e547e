"""Plain data to and from JSON, for people and for code agents: decimals and times are strings, pointers are objects."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from aios_core.errors import TerminalError
from aios_core.values import MAX_DECIMAL_DIGITS, Plain, Pointer, checked_decimal, checked_pointer

POINTER_KEY = "$artifact"
BYTES_KEY = "$bytes"


def to_json(data: Plain) -> Any:
    """JSON-compatible data. A decimal becomes its text, a time RFC 3339 in UTC, a pointer `{"$artifact": …}`."""
    if data is None or isinstance(data, (bool, int, str)):
        return data
    if isinstance(data, Decimal):
        return format(data, "f")
    if isinstance(data, datetime):
        return rfc3339(data)
    if isinstance(data, bytes):
        return {BYTES_KEY: base64.b64encode(data).decode()}
    if isinstance(data, Pointer):
        return {POINTER_KEY: data.sha256, "size": data.size, "media_type": data.media_type, "name": data.name}
    if isinstance(data, Mapping):
        return {key: to_json(item) for key, item in data.items()}
    return [to_json(item) for item in data]


def from_json(data: Any) -> Plain:
    """The plain data of parsed JSON. A JSON fraction must have been parsed as Decimal (`loads` here does)."""
    if isinstance(data, Mapping):
        if POINTER_KEY in data:
            return _pointer(data)
        if set(data) == {BYTES_KEY}:
            return base64.b64decode(str(data[BYTES_KEY]), validate=True)
        return {str(key): from_json(item) for key, item in data.items()}
    if isinstance(data, float):
        return Decimal(repr(data))
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return [from_json(item) for item in data]
    if data is None or isinstance(data, (bool, int, str, Decimal, datetime, bytes, Pointer)):
        return data
    raise TerminalError("INVALID_ARGUMENT", f"JSON can't hold a {type(data).__name__}.")


def dumps(data: Plain) -> bytes:
    """Compact JSON in UTF-8, keys sorted: the same data gives the same bytes."""
    return json.dumps(to_json(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def loads(text: bytes | str) -> Plain:
    """Plain data from JSON in UTF-8; fractions stay exact.

    Raises INVALID_ARGUMENT on what is not JSON, on numbers too long to be a value and on half characters; TOO_DEEP.
    """
    try:
        read = text if isinstance(text, str) else text.decode("utf-8-sig")
        data = json.loads(read, parse_float=_fraction, parse_int=_whole, parse_constant=_no_constant)
        if "\\u" in read or isinstance(text, str):
            json.dumps(data, ensure_ascii=False, default=str).encode()  # an escape can name half a character
        return from_json(data)
    except RecursionError:
        raise TerminalError("TOO_DEEP", "This JSON is nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise _unreadable(f"byte {error.start + 1} is not UTF-8 text") from None
    except UnicodeEncodeError:
        raise _unreadable("a text holds half a character (a lone surrogate)") from None
    except ValueError as error:
        raise _unreadable(str(error)) from None


def rfc3339(time: datetime) -> str:
    """UTC with a `Z`, microseconds only when there are any."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _unreadable(why: str) -> TerminalError:
    return TerminalError("INVALID_ARGUMENT", f"This is not readable JSON: {why}.")


def _fraction(text: str) -> Decimal:
    try:
        return checked_decimal(Decimal(text))
    except InvalidOperation:
        raise ValueError(f"the number {text[:40]} is out of range") from None


def _whole(text: str) -> int:
    if len(text) > MAX_DECIMAL_DIGITS:
        raise TerminalError("INVALID_ARGUMENT", f"A number has at most {MAX_DECIMAL_DIGITS} digits.")
    return int(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _pointer(data: Mapping[str, Any]) -> Pointer:
    try:
        pointer = Pointer(
            str(data[POINTER_KEY]),
            int(data.get("size", 0)),
            str(data.get("media_type", "application/octet-stream")),
            str(data.get("name", "")),
        )
    except (TypeError, ValueError):
        raise TerminalError(
            "INVALID_ARGUMENT", "A pointer needs $artifact (text) and size (bytes)."
        ) from None
    return checked_pointer(pointer)
