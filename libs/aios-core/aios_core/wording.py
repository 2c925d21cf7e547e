"""Words that every page, story, log and error makes the same way."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from aios_core.values import Pointer

SHOWN: Final = 40  # characters of a text or a number that is told


def counted(number: int, noun: str) -> str:
    """`1 change`, `2,000 changes`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def kind_of(data: Any) -> str:
    """What some data is, where another kind was looked for: `'soon'`, `the number 7`, `an empty list`."""
    if data is None:
        return "nothing"
    if isinstance(data, bool):
        return str(data).lower()
    if isinstance(data, int | Decimal):
        return f"the number {str(data)[:SHOWN]}"
    if isinstance(data, str):
        return f"{data[:SHOWN]!r}{'…' if len(data) > SHOWN else ''}"
    if isinstance(data, datetime):
        return "a time"
    if isinstance(data, bytes):
        return "bytes"
    if isinstance(data, Pointer):
        return "an artifact"
    empty = "" if data else "n empty"
    return f"a{empty} {'list' if isinstance(data, list) else 'map'}"
