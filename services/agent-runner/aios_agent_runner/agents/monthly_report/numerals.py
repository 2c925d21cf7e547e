"""Numbers as people write them, with the separators of either convention.

A cell that can be read in one way only is `Exact`, and may be evidence of how its column writes numbers.
`1.234` and `1,234` can be read in two ways and are `Ambiguous`; the column's evidence, then the file's
delimiter, decides them (`Column.value`).

Evidence, where `.` and `,` each stand for either one:
    1.234,56                          two different ones: the last is the decimal separator
    1.234.567                         repeated: it groups, so the other one is the decimal separator
    1.5  1.2345  1234.567  0.125  .5  can't group: it is the decimal separator
    12  1'234  1 234                  no evidence
Groups have three digits, the first one to three and no leading zero. A space (also a no-break or thin one) or
an apostrophe groups as well. No exponents, no NaN, at most MAX_DIGITS digits.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

MAX_DIGITS: Final = 30
MAX_CELL_CHARS: Final = 64

_SPACE = " \u00a0\u202f\u2009"
_SHAPE = re.compile(
    r"(?P<open>\()?\s*(?P<sign1>[-+−])?\s*(?P<before>[^\d\s.,()+−'’-][^\d()+−-]*)?(?P<sign2>[-+−])?\s*"
    rf"(?P<body>[.,]?[0-9](?:[0-9.,'’{_SPACE}]*[0-9])?)"
    r"\s*(?P<sign3>[-+−])?\s*(?P<after>[^\d\s.,()+−'’-][^\d()+−-]*)?(?P<sign4>[-+−])?\s*(?P<close>\))?"
)
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:([.,' ])[0-9]{3})(?:\1[0-9]{3})*")
_SPACES = re.compile(f"[{_SPACE}]")


@dataclass(frozen=True, slots=True)
class Exact:
    """A number that can be read in one way. `decimal_mark` is what it shows of its column's convention,
    `currencies` what a currency sign beside it can stand for."""

    value: Decimal
    decimal_mark: str | None = None
    currencies: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A number like 1.234: with `mark` as decimal separator it is `as_decimal`, else `as_grouped`."""

    mark: str
    as_decimal: Decimal
    as_grouped: Decimal
    currencies: frozenset[str] | None = None


Numeral = Exact | Ambiguous


class Column:
    """The numbers of one column of one file; together they decide the cells that can be read in two ways."""

    def __init__(
        self, cells: Iterable[str], delimiter: str, currency_marks: Mapping[str, frozenset[str]]
    ) -> None:
        """`currency_marks` are the spellings that may stand beside a number, as `read_numeral` takes them."""
        self._read = {cell: read_numeral(cell, currency_marks) for cell in set(cells)}
        shown = {n.decimal_mark for n in self._read.values() if isinstance(n, Exact) and n.decimal_mark}
        self.mixed = len(shown) > 1
        self.decimal_mark = shown.pop() if len(shown) == 1 else ("," if delimiter == ";" else ".")

    def numeral(self, cell: str) -> Numeral | None:
        """How the cell was read by itself; None if it is no number."""
        return self._read[cell]

    def value(self, cell: str) -> Decimal | None:
        """The number in the cell; None if it is none, or is ambiguous in a column with both conventions."""
        numeral = self._read[cell]
        if isinstance(numeral, Ambiguous):
            if self.mixed:
                return None
            return numeral.as_decimal if numeral.mark == self.decimal_mark else numeral.as_grouped
        return numeral.value if numeral else None


def read_numeral(cell: str, currency_marks: Mapping[str, frozenset[str]]) -> Numeral | None:
    """Read one cell by itself; None if it is no number.

    `currency_marks` maps casefolded spellings (`€`, `eur`, `fr.`) to the currencies they can stand for; one
    may stand before or after the number.
    """
    cell = cell.strip()
    if not cell or len(cell) > MAX_CELL_CHARS:
        return None
    shape = _SHAPE.fullmatch(cell)
    if shape is None:
        return None
    negative = _negative(shape)
    marks = [mark for mark in (shape["before"], shape["after"]) if mark]
    if negative is None or len(marks) > 1:
        return None
    currencies = currency_marks.get(marks[0].strip().casefold()) if marks else None
    if marks and currencies is None:
        return None
    return _signed(shape["body"], negative, currencies)


def _negative(shape: re.Match[str]) -> bool | None:
    """Whether the sign or the parentheses make it negative; None if they contradict each other."""
    signs = [sign for sign in shape.group("sign1", "sign2", "sign3", "sign4") if sign]
    parentheses = shape["open"] is not None
    if parentheses != (shape["close"] is not None) or len(signs) + parentheses > 1:
        return None
    return parentheses or (bool(signs) and signs[0] != "+")


def _signed(body: str, negative: bool, currencies: frozenset[str] | None) -> Numeral | None:
    body = _SPACES.sub(" ", body).replace("’", "'")
    if sum(char.isdigit() for char in body) > MAX_DIGITS:
        return None
    found = _mark(body)
    if found is None:
        return None
    mark, evidence, ambiguous = found
    as_decimal = _decimal(body, mark, negative)
    if ambiguous:
        assert mark is not None
        return Ambiguous(mark, as_decimal, _decimal(body, None, negative), currencies)
    return Exact(as_decimal, evidence, currencies)


def _mark(body: str) -> tuple[str | None, str | None, bool] | None:
    """The decimal separator in the body, what it shows of its column, and whether it may group instead.

    None if the body is malformed.
    """
    used = [char for char in body if not char.isdigit()]
    if not used:
        return None, None, False
    kinds, last = set(used), used[-1]
    other = {".": ",", ",": "."}
    if len(kinds) == 1:
        if last not in other:
            return (None, None, False) if _GROUPED.fullmatch(body) else None
        if len(used) > 1:
            return (None, other[last], False) if _GROUPED.fullmatch(body) else None
        if _GROUPED.fullmatch(body):
            return last, None, True
        return last, last, False
    whole, _, fraction = body.rpartition(last)
    if len(kinds) == 2 and last in other and used.count(last) == 1 and fraction and _GROUPED.fullmatch(whole):
        return last, last, False
    return None


def _decimal(body: str, mark: str | None, negative: bool) -> Decimal:
    whole, _, fraction = body.partition(mark) if mark else (body, "", "")
    digits = "".join(char for char in whole if char.isdigit())
    value = Decimal(f"{digits or '0'}.{fraction}" if fraction else digits)
    return value.copy_negate() if negative and value else value
