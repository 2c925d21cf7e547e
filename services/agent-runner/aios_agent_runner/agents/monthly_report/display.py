"""How values are shown: text made harmless, numbers grouped for the eye, months and days in words."""

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from markupsafe import Markup

MONTHS: Final = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_FORMATS: Final = {"": Markup("{}"), "*": Markup("<em>{}</em>"), "**": Markup("<strong>{}</strong>")}
_JOINERS = frozenset("\u200c\u200d")
_THIN = "\u202f"
_MINUS = "\u2212"

_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|(?<=\])\(|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_EMPHASIS = re.compile(r"(\*\*|__|(?<!\w)[*_])(?=\S)(.+?)(?<=\S)\1(?!\w)")
_LINE_START = re.compile(r"^(?:([-+#=])|(\d{1,9})([.)]))")


class Raw(str):
    """Markdown that is written as it is."""

    __slots__ = ()


def clean(text: object) -> str:
    """One line of printable text: spaces and line ends become one space, control and direction marks go."""
    kept = (
        char if char.isprintable() or char in _JOINERS else (" " if char.isspace() else "")
        for char in str(text)
        if unicodedata.category(char) not in {"Cf", "Cs", "Co", "Cn"} or char in _JOINERS
    )
    return " ".join("".join(kept).split())


def markdown(value: object) -> str:
    """The value as Markdown that stays text: nothing in it is markup, a link, HTML or the end of a cell."""
    if isinstance(value, Raw):
        return value
    return _escaped(clean(value))


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(lambda found: "\\" + found.group(), text).translate(_ENTITIES)


def _unlisted(found: re.Match[str]) -> str:
    return f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}"


def markdown_line(value: object) -> Raw:
    """The same for text at the start of a line, where a list, a heading or a quotation could begin."""
    return Raw(_LINE_START.sub(_unlisted, markdown(value)))


def emphasis_html(text: object) -> Markup:
    """Text of the notes, where **strong** and *emphasis* keep their meaning and nothing else has one."""
    return Markup("").join(_FORMATS[mark].format(part) for mark, part in _emphasized(clean(text)))


def emphasis_markdown(text: object) -> Raw:
    """The same as Markdown, at the start of a line."""
    written = "".join(f"{mark}{_escaped(part)}{mark}" for mark, part in _emphasized(clean(text)))
    return Raw(_LINE_START.sub(_unlisted, written))


def _emphasized(text: str) -> list[tuple[str, str]]:
    """The text in pieces, each with its mark: `**`, `*` or none."""
    pieces, end = [], 0
    for found in _EMPHASIS.finditer(text):
        pieces += [("", text[end : found.start()]), (found[1].replace("_", "*"), found[2])]
        end = found.end()
    return [(mark, piece) for mark, piece in [*pieces, ("", text[end:])] if piece]


def markdown_number(number: object) -> str:
    """A decimal string as it is; anything else as text."""
    text = str(number)
    return Raw(text) if re.fullmatch(r"[+-]?\d+(?:\.\d+)?", text, re.ASCII) else markdown(text)


def month_name(month: str) -> str:
    """2026-10 as October 2026."""
    return f"{MONTHS[int(month[5:]) - 1]} {month[:4]}"


def short_month(month: str) -> str:
    """2026-10 as Oct 26."""
    return f"{MONTHS[int(month[5:]) - 1][:3]} {month[2:4]}"


def day_name(date: str) -> str:
    """2026-10-05 as 5 Oct 2026; anything else as it is."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        return date
    return f"{int(date[8:])} {MONTHS[int(date[5:7]) - 1][:3]} {date[:4]}"


def grouped(number: object) -> str:
    """A decimal string with thin spaces between groups of three and a true minus: 12345.50 as 12 345.50."""
    text = str(number)
    sign, digits = (_MINUS, text[1:]) if text.startswith("-") else ("", text)
    whole, point, fraction = digits.partition(".")
    groups = [whole[max(0, end - 3) : end] for end in range(len(whole), 0, -3)]
    return sign + _THIN.join(reversed(groups)) + point + fraction


def number_html(number: object) -> Markup:
    """The number for the eye, with its exact value beside it for programs."""
    return Markup('<data value="{}">{}</data>').format(str(number), grouped(number))


def signed(number: object) -> str:
    """A change with its sign: + or a true minus; 0 without."""
    value, text = _decimal(number), grouped(number)
    return f"+{text}" if value > 0 else text


def _decimal(number: object) -> Decimal:
    try:
        return Decimal(str(number))
    except InvalidOperation:
        return Decimal(0)


def rounding_shows(by_project: list[Mapping[str, Any]], billed: Mapping[str, str]) -> bool:
    """Whether the projects' rounded amounts don't add up to the exact total."""
    sums: dict[str, Decimal] = {}
    for project in by_project:
        for currency, amount in project["billed"].items():
            sums[currency] = sums.get(currency, Decimal(0)) + Decimal(amount)
    return any(total != Decimal(billed.get(currency, "0")) for currency, total in sums.items())
