"""Words that every page, story, log and error makes the same way."""

from datetime import datetime
from decimal import Decimal
from typing import Final

from aios_core.values import Plain, Pointer

SHOWN: Final = 40  # characters of a text that is told


def counted(number: int, noun: str) -> str:
    """`1 change`, `2,000 changes`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def kind_of(data: Plain) -> str:
    """What some data is, where another kind was looked for: `'soon'`, `a number`, `a map`."""
    if isinstance(data, str):
        return f"{data[:SHOWN]!r}{'…' if len(data) > SHOWN else ''}"
    if isinstance(data, bool):
        return "a truth value"
    if isinstance(data, int | Decimal):
        return "a number"
    if isinstance(data, datetime):
        return "a time"
    if isinstance(data, bytes):
        return "bytes"
    if isinstance(data, Pointer):
        return "an artifact"
    return "nothing" if data is None else "a map" if isinstance(data, dict) else "a list"
