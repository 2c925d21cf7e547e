"""One file of the folder: from bytes to records whose columns are known, or the reason why not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from aios_agent_runner.agents.monthly_report.currencies import KNOWN_SPELLINGS, NUMBER_MARKS, spelling_key
from aios_agent_runner.agents.monthly_report.dates import read_date
from aios_agent_runner.agents.monthly_report.decoding import NotText, decode
from aios_agent_runner.agents.monthly_report.facts import Learned
from aios_agent_runner.agents.monthly_report.findings import Findings
from aios_agent_runner.agents.monthly_report.header_names import NEEDED, OPTIONAL, Kind
from aios_agent_runner.agents.monthly_report.headers import Recognition, header_key, recognise
from aios_agent_runner.agents.monthly_report.numerals import Column, read_numeral
from aios_agent_runner.agents.monthly_report.reasons import ReasonCode, excerpt
from aios_agent_runner.agents.monthly_report.records import (
    DELIMITER_NAMES,
    BadHeader,
    Record,
    Table,
    read_table,
)

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
SAMPLE_ROWS: Final = 200
"""Rows that are looked at to see whether an unknown column could be a missing one."""
MAX_CANDIDATES: Final = 12
"""Headers that a question offers."""
MAX_HEADER_CHARS: Final = 80
"""A longer header is not offered in a question."""

STATUSES: Final = {
    "paid": "paid",
    "open": "open",
    "void": "void",
    "bezahlt": "paid",
    "offen": "open",
    "storniert": "void",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file whose columns are known; `columns` maps a column to its index, `lines` counts line ends."""

    name: str
    kind: Kind
    encoding: str
    delimiter: str
    headers: list[str]
    columns: dict[str, int]
    records: list[Record]
    lines: int

    def describe(self) -> dict[str, Any]:
        """How the file was read, as evidence."""
        return {
            "file": self.name,
            "kind": str(self.kind),
            "encoding": self.encoding,
            "delimiter": DELIMITER_NAMES[self.delimiter],
            "columns": {column: self.headers[index] for column, index in self.columns.items()},
        }


def open_source(
    name: str, kind: Kind, data: bytes, room: int, learned: Learned, findings: Findings
) -> Source | None:
    """The file's records; None when it is rejected whole, is empty, or waits for an answer (see `findings`).

    `room` is how many lines it may have.
    """
    if len(data) > MAX_FILE_BYTES:
        findings.reject(name, 0, ReasonCode.FILE_TOO_LARGE, size=len(data), limit=MAX_FILE_BYTES)
        return None
    text = decode(data)
    if isinstance(text, NotText):
        findings.reject(name, 0, text.code, **text.fields)
        return None
    lines = max(text.content.count("\n"), text.content.count("\r"))
    if lines > room:
        findings.reject(name, 0, ReasonCode.TOO_MANY_LINES, count=lines, room=room)
        return None
    names = learned.columns(kind)
    table = read_table(text.content, lambda headers: len(recognise(headers, kind, names).columns))
    if table is None:
        findings.note(name, "The file is empty.")
        return None
    if isinstance(table, BadHeader):
        findings.reject(name, 0, ReasonCode.BAD_HEADER, what=table.what)
        return None
    found = recognise(table.headers, kind, names)
    if not (table.records or table.faults) and (found.columns or found.ambiguous):
        findings.note(name, "The file has a header and no rows.")
        return None
    if not _complete(name, kind, table, found, learned, findings):
        return None
    return _opened(name, kind, text.encoding, lines, table, found, learned, findings)


def _opened(
    name: str,
    kind: Kind,
    encoding: str,
    lines: int,
    table: Table,
    found: Recognition,
    learned: Learned,
    findings: Findings,
) -> Source:
    for fault in table.faults:
        findings.reject(name, fault.line, fault.code, **fault.fields)
    for column in sorted(found.learned):
        learned.use_column(kind, table.headers[found.columns[column]], name)
    for column in OPTIONAL[kind]:
        if column not in found.columns:
            findings.note(name, f"The file has no column for {column.replace('_', ' ')}.")
    if table.blank_rows:
        were = "1 row was" if table.blank_rows == 1 else f"{table.blank_rows} rows were"
        findings.note(name, f"{were} blank and passed over.")
    return Source(name, kind, encoding, table.delimiter, table.headers, found.columns, table.records, lines)


def _complete(
    name: str, kind: Kind, table: Table, found: Recognition, learned: Learned, findings: Findings
) -> bool:
    """Whether every needed column is known; else the file is rejected, with questions if they could help."""
    for column, indexes in found.ambiguous.items():
        if len({header_key(table.headers[index]) for index in indexes}) < len(indexes):
            headers = excerpt(table.headers[indexes[0]])
            findings.reject(
                name, 0, ReasonCode.AMBIGUOUS_COLUMNS, headers=headers, column=column.replace("_", " ")
            )
            return False
    missing = found.missing(kind)
    if not missing and not found.ambiguous:
        return True
    names = ", ".join(column.replace("_", " ") for column in missing)
    if missing and _looks_like_values(table.headers):
        findings.reject(name, 0, ReasonCode.NO_HEADER)
        return False
    candidates = {column: _candidates(column, kind, table, found, learned) for column in missing}
    if not _can_all_be_filled(candidates):
        shown = ", ".join(excerpt(header) for header in table.headers[:MAX_CANDIDATES])
        findings.reject(name, 0, ReasonCode.MISSING_COLUMNS, missing=names, headers=shown)
        return False
    for column, indexes in (*found.ambiguous.items(), *candidates.items()):
        examples = {table.headers[index]: _sample(table, index)[:3] for index in indexes}
        findings.ask_column(kind, column, examples, name, ambiguous=column in found.ambiguous)
    waiting = ", ".join(
        column.replace("_", " ")
        for column in NEEDED[kind]
        if column in candidates or column in found.ambiguous
    )
    findings.reject(name, 0, ReasonCode.UNANSWERED_COLUMN, missing=waiting)
    return False


def _looks_like_values(headers: Sequence[str]) -> bool:
    return (
        any(read_date(header) for header in headers)
        or sum(read_numeral(h, NUMBER_MARKS) is not None for h in headers) > 1
    )


def _candidates(column: str, kind: Kind, table: Table, found: Recognition, learned: Learned) -> list[int]:
    """The unknown headers whose values could be this column's."""
    names = learned.columns(kind)
    keys = [header_key(header) for header in table.headers]
    return [
        index
        for index in found.unknown
        if keys.count(keys[index]) == 1
        and len(table.headers[index]) <= MAX_HEADER_CHARS
        and not names.denies(keys[index], column)
        and _plausible(column, _sample(table, index), table.delimiter, learned)
    ][:MAX_CANDIDATES]


def _sample(table: Table, index: int) -> list[str]:
    cells = (record.fields[index].strip() for record in table.records if index < len(record.fields))
    return list(islice(filter(None, cells), SAMPLE_ROWS))


def _plausible(column: str, cells: list[str], delimiter: str, learned: Learned) -> bool:
    """Whether at least half of the cells can be read as the column's kind."""
    if column in {"hours", "rate", "amount"}:
        numbers = Column(cells, delimiter, NUMBER_MARKS)
        values = [number for cell in cells if (number := numbers.value(cell)) is not None]
        if column == "hours":
            values = [number for number in values if 0 < number <= 24]
        elif column == "rate":
            values = [number for number in values if number >= 0]
        fitting = len(values)
    else:
        fitting = sum(map(_READS_AS[column], cells))
        if column == "currency":
            fitting += sum(
                spelling_key(cell) not in KNOWN_SPELLINGS and learned.currency(cell) is not None
                for cell in cells
            )
    return fitting > 0 and fitting * 2 >= len(cells)


def _is_date(cell: str) -> bool:
    return read_date(cell) is not None


def _is_currency(cell: str) -> bool:
    return spelling_key(cell) in KNOWN_SPELLINGS


def _is_status(cell: str) -> bool:
    return cell.casefold() in STATUSES


def _is_name(cell: str) -> bool:
    return any(char.isalpha() for char in cell) and not (
        _is_date(cell) or _is_currency(cell) or _is_status(cell)
    )


def _is_invoice_number(cell: str) -> bool:
    return any(char.isdigit() for char in cell) and not _is_date(cell)


_READS_AS: Final[dict[str, Callable[[str], bool]]] = {
    "date": _is_date,
    "project": _is_name,
    "currency": _is_currency,
    "status": _is_status,
    "number": _is_invoice_number,
}


def _can_all_be_filled(candidates: dict[str, list[int]]) -> bool:
    """Whether each column can have a header of its own (a matching, found by augmenting paths)."""
    taken: dict[int, str] = {}

    def place(column: str, tried: set[int]) -> bool:
        for index in candidates[column]:
            if index not in tried:
                tried.add(index)
                if index not in taken or place(taken[index], tried):
                    taken[index] = column
                    return True
        return False

    return all(place(column, set()) for column in candidates)
