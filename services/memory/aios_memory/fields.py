"""Reading a labelled map field by field: each missing, unknown or mistyped field is named in the error."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches

from aios_core.errors import TerminalError
from aios_core.labels import Label, meet
from aios_core.values import Leaf, Plain, Value, label_of, plain


class Fields:
    """One map of a request. `where` is its place in words, such as `writes[2]`. A null counts as left out."""

    def __init__(self, value: Value, where: str) -> None:
        if isinstance(value, Leaf) and value.data == {}:
            value = {}
        if not isinstance(value, dict):
            raise _wrong(where, "a map", value)
        self._where = where
        self._fields = {
            name: item for name, item in value.items() if not (isinstance(item, Leaf) and item.data is None)
        }
        self._value = value

    def only(self, *names: str) -> None:
        """Refuse any other field, with the nearest right name."""
        for name in self._value:
            if name not in names:
                near = get_close_matches(name, names, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(names)}."
                raise TerminalError(
                    "UNKNOWN_FIELD",
                    f"{self._where} has no field {name[:60]!r}{hint}",
                    field=f"{self._where}.{name[:60]}",
                )

    def value(self, name: str) -> Value | None:
        """A field as it is; None when it is left out."""
        return self._fields.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """A text; without a default it is required."""
        data = self._scalar(name, default)
        if not isinstance(data, str):
            raise _wrong(f"{self._where}.{name}", "a text", self._fields[name])
        return data

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        data = self._scalar(name, default)
        if isinstance(data, bool) or not isinstance(data, int) or not low <= data <= high:
            raise _wrong(f"{self._where}.{name}", f"an integer from {low} to {high}", self._fields[name])
        return data

    def number(self, name: str, default: Decimal) -> Decimal:
        """An integer or a decimal."""
        data = self._scalar(name, default)
        if isinstance(data, bool) or not isinstance(data, (int, Decimal)):
            raise _wrong(f"{self._where}.{name}", "a number", self._fields[name])
        return Decimal(data)

    def boolean(self, name: str) -> bool:
        """True or false; false when it is left out."""
        data = self._scalar(name, False)
        if not isinstance(data, bool):
            raise _wrong(f"{self._where}.{name}", "true or false", self._fields[name])
        return data

    def time(self, name: str) -> datetime | None:
        """A time; None when it is left out."""
        value = self._fields.get(name)
        if value is None:
            return None
        if not isinstance(value, Leaf) or not isinstance(value.data, datetime):
            raise _wrong(f"{self._where}.{name}", "a time", value)
        return value.data

    def items(self, name: str, limit: int, *, required: bool = False) -> list[Value]:
        """A list of at most `limit` items."""
        value = self._fields.get(name)
        if isinstance(value, Leaf) and value.data == []:
            value = []
        if value is None and not required:
            return []
        if not isinstance(value, list) or len(value) > limit or (required and not value):
            raise _wrong(f"{self._where}.{name}", f"a list of {1 if required else 0} to {limit} items", value)
        return value

    def label(self, names: Iterable[str]) -> Label:
        """The meet of these fields' labels."""
        return meet(label_of(self._fields[name]) for name in names if name in self._fields)

    def _scalar(self, name: str, default: Plain) -> Plain:
        value = self._fields.get(name)
        if value is None:
            if default is None:
                raise TerminalError(
                    "INVALID_ARGUMENT", f"{self._where}.{name} is missing.", field=f"{self._where}.{name}"
                )
            return default
        return value.data if isinstance(value, Leaf) else ()


def _wrong(field: str, expected: str, value: Value | None) -> TerminalError:
    if value is None:
        return TerminalError("INVALID_ARGUMENT", f"{field} is missing; it must be {expected}.", field=field)
    found = repr(plain(value))
    shown = found if len(found) <= 60 else found[:57] + "…"
    return TerminalError("INVALID_ARGUMENT", f"{field} is {shown}; it must be {expected}.", field=field)
