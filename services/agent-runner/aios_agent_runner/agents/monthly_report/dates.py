"""Dates as people write them: YYYY-MM-DD and D.M.YYYY, each with or without midnight behind it."""

import re
from datetime import date

_MIDNIGHT = r"(?:[T ]00:00(?::00(?:\.0{1,6})?)?)?"  # programs that only know instants write it behind days
_ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})" + _MIDNIGHT)
_DAY_FIRST = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})" + _MIDNIGHT)
_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")


def read_date(cell: str) -> str | None:
    """The date as YYYY-MM-DD, or None if the cell is no day of the calendar in one of the two forms."""
    cell = cell.strip()
    if found := _ISO.fullmatch(cell):
        year, month, day = found.groups()
    elif found := _DAY_FIRST.fullmatch(cell):
        day, month, year = found.groups()
    else:
        return None
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def is_month(text: str) -> bool:
    """Whether the text is a month as YYYY-MM."""
    return _MONTH.fullmatch(text) is not None and text[:4] != "0000"


def months_between(earlier: str, later: str) -> int:
    """How many months `later` comes after `earlier`, both as YYYY-MM."""
    return (int(later[:4]) - int(earlier[:4])) * 12 + int(later[5:]) - int(earlier[5:])
