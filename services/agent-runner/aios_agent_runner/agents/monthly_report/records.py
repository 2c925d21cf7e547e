"""Text to header and records: delimiters, quotation marks, physical lines.

A physical line ends at CR LF, LF or CR and is counted from 1 as in the file, blank ones included. A quoted
field may span lines. A quotation mark that is never closed costs only its own line, so an opening mark is
believed to span lines only when
 - it closes within MAX_RECORD_LINES, right before a delimiter or a line end,
 - the joined record has as many fields as the header, and
 - none of the lines it would swallow is a row by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from aios_agent_runner.agents.monthly_report.dates import read_date
from aios_agent_runner.agents.monthly_report.reasons import ReasonCode

DELIMITERS: Final = (";", "\t", ",")
MAX_RECORD_LINES: Final = 20
"""Physical lines that one record may span."""
MAX_LINE_CHARS: Final = 64 * 1024
"""Characters of one physical line."""
MAX_COLUMNS: Final = 256

DELIMITER_NAMES: Final = {";": "semicolon", "\t": "tab", ",": "comma"}


class Quoting(Enum):
    """What was wrong with the quotation marks of a text."""

    OPEN = ReasonCode.UNCLOSED_QUOTE
    STRAY = ReasonCode.STRAY_QUOTE


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no record: its reason and the fields of the sentence."""

    line: int
    code: ReasonCode
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of one record, and the physical line it starts on."""

    line: int
    fields: list[str]


@dataclass(slots=True)
class Table:
    """A header and what follows it. A record may have fewer fields; `blank_rows` held delimiters alone."""

    headers: list[str]
    delimiter: str
    records: list[Record] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    blank_rows: int = 0


@dataclass(frozen=True, slots=True)
class BadHeader:
    """The header line can't be split into columns."""

    what: str


def read_table(text: str, recognised: Callable[[list[str]], int]) -> Table | BadHeader | None:
    """The table in a text; None if there is no line with anything in it.

    `recognised` says how many known columns a list of headers holds: of the three delimiters the one that
    finds most of them wins, then the one that makes most columns. A first line `sep=;` names the delimiter.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = 0
    delimiters: tuple[str, ...] = DELIMITERS
    while start < len(lines) and not lines[start].strip("\t ,;\ufeff"):
        start += 1
    if start < len(lines) and (named := _separator_line(lines[start])):
        start, delimiters = start + 1, (named,)
        while start < len(lines) and not lines[start].strip("\t ,;"):
            start += 1
    if start == len(lines):
        return None
    header = _read_header(lines, start, delimiters, recognised)
    if isinstance(header, BadHeader):
        return header
    headers, delimiter, after = header
    table = Table(headers, delimiter)
    _read_records(lines, after, table)
    return table


def _separator_line(line: str) -> str | None:
    line = line.strip(" ").strip('"')
    if len(line) == 5 and line[:4].casefold() == "sep=" and line[4] in DELIMITERS:
        return line[4]
    return None


def _read_header(
    lines: list[str], start: int, delimiters: tuple[str, ...], recognised: Callable[[list[str]], int]
) -> tuple[list[str], str, int] | BadHeader:
    """The headers, their delimiter, and the index of the first line after them."""
    if len(lines[start]) > MAX_LINE_CHARS:
        return BadHeader(f"it has {len(lines[start])} characters")
    best: tuple[tuple[int, int], list[str], str, int] | None = None
    broken = False
    for delimiter in delimiters:
        found = _span(lines, start, delimiter)
        if found is None:
            broken = True
            continue
        fields, after = found
        headers = [" ".join(name.split()) for name in fields]
        rank = (recognised(headers), len(headers))
        if best is None or rank > best[0]:
            best = (rank, headers, delimiter, after)
    if best is None or (broken and best[0][0] == 0):
        return BadHeader("its quotation marks do not match")
    if len(best[1]) > MAX_COLUMNS:
        return BadHeader(f"it has {len(best[1])} columns; at most {MAX_COLUMNS} are read")
    return best[1:]


def _span(lines: list[str], start: int, delimiter: str) -> tuple[list[str], int] | None:
    """The first record at `start` over as many lines as its quotation marks need, and the index after it."""
    for end in range(start + 1, min(start + MAX_RECORD_LINES, len(lines)) + 1):
        fields = split_line("\n".join(lines[start:end]), delimiter)
        if isinstance(fields, list):
            return fields, end
        if fields is Quoting.STRAY:
            return None
    return None


def _read_records(lines: list[str], start: int, table: Table) -> None:
    """Fill the table from the lines at index `start` on."""
    delimiter, blanks, index = table.delimiter, table.delimiter + "\t ", start
    while index < len(lines):
        line = lines[index]
        index += 1
        if len(line) > MAX_LINE_CHARS:
            table.faults.append(
                Fault(index, ReasonCode.LINE_TOO_LONG, {"length": len(line), "limit": MAX_LINE_CHARS})
            )
        elif '"' in line:
            index = _read_quoted(lines, index, table)
        elif line.strip(blanks):
            _add(table, index, line.split(delimiter))
        elif line.strip():
            table.blank_rows += 1


def _read_quoted(lines: list[str], number: int, table: Table) -> int:
    """Read the record that starts on line `number` (from 1) and has a quotation mark; returns its last line."""
    fields = split_line(lines[number - 1], table.delimiter)
    if fields is Quoting.OPEN and (spanning := _spanning(lines, number, table.delimiter, len(table.headers))):
        last, fields = spanning
        table.records.append(Record(number, fields))
        return last
    if fields is Quoting.STRAY:
        table.faults.append(Fault(number, fields.value, {"delimiter": DELIMITER_NAMES[table.delimiter]}))
    elif isinstance(fields, Quoting):
        table.faults.append(Fault(number, fields.value))
    elif any(cell.strip() for cell in fields):
        _add(table, number, fields)
    else:
        table.blank_rows += 1
    return number


def _spanning(lines: list[str], number: int, delimiter: str, width: int) -> tuple[int, list[str]] | None:
    """The line on which the record that starts on line `number` ends, and its fields; None if it is unclosed."""
    own_row = lines[number - 1].count(delimiter) + 1 >= width
    length = len(lines[number - 1])
    for last in range(number + 1, min(number + MAX_RECORD_LINES - 1, len(lines)) + 1):
        line = lines[last - 1]
        length += len(line)
        has_mark = '"' in line
        if length > MAX_LINE_CHARS or ((own_row or not has_mark) and _is_row(line, delimiter, width)):
            return None
        if not has_mark:
            continue
        fields = split_line("\n".join(lines[number - 1 : last]), delimiter)
        if isinstance(fields, list):
            return (last, fields) if len(fields) == width else None
        if fields is Quoting.STRAY:
            return None
    return None


def _is_row(line: str, delimiter: str, width: int) -> bool:
    fields = line.split(delimiter)
    return len(fields) >= width and any(read_date(cell.strip(' "')) for cell in fields)


def _add(table: Table, line: int, fields: list[str]) -> None:
    """Add the record unless it has too many fields; too few are judged when the needed columns are known."""
    width = len(table.headers)
    if len(fields) > width and any(cell.strip() for cell in fields[width:]):
        detail: dict[str, object] = {
            "count": len(fields),
            "width": width,
            "delimiter": DELIMITER_NAMES[table.delimiter],
        }
        table.faults.append(Fault(line, ReasonCode.TOO_MANY_FIELDS, detail))
    else:
        table.records.append(Record(line, fields))


def split_line(text: str, delimiter: str) -> list[str] | Quoting:
    """The fields of one record. A field is quoted if it begins with a quotation mark, spaces before it aside."""
    fields: list[str] = []
    position, length = 0, len(text)
    while True:
        start = position
        while start < length and text[start] == " ":
            start += 1
        if start < length and text[start] == '"':
            quoted = _quoted(text, start + 1)
            if quoted is None:
                return Quoting.OPEN
            value, position = quoted
            fields.append(value)
            while position < length and text[position] == " ":
                position += 1
            if position == length:
                return fields
            if text[position] != delimiter:
                return Quoting.STRAY
        else:
            end = text.find(delimiter, start)
            if end < 0:
                fields.append(text[position:])
                return fields
            fields.append(text[position:end])
            position = end
        position += 1


def _quoted(text: str, position: int) -> tuple[str, int] | None:
    """The value of the quoted field that starts at `position`, and the position after its closing mark."""
    parts: list[str] = []
    while True:
        end = text.find('"', position)
        if end < 0:
            return None
        parts.append(text[position:end])
        if text[end + 1 : end + 2] != '"':
            return "".join(parts), end + 1
        parts.append('"')
        position = end + 2
