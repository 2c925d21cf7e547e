"""The month's figures once more, written from the rules alone: slow, simple, and sharing nothing with the product.

A row that breaks several rules may be rejected for any of them, so a rejection is (file, line) to the classes
of reason that would be right.
"""

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Any

WORDS = {
    "timesheet": {
        "date": "date datum",
        "project": "project projekt",
        "task": "task aufgabe tätigkeit",
        "hours": "hours stunden",
        "rate": "rate satz stundensatz",
        "currency": "currency währung",
    },
    "invoice": {
        "number": "number rechnungsnummer",
        "date": "date rechnungsdatum",
        "due_date": "due_date fällig_am fälligkeitsdatum",
        "amount": "amount betrag",
        "currency": "currency währung",
        "status": "status",
        "paid_date": "paid_date bezahlt_am",
    },
}
OPTIONAL = {"task", "due_date", "paid_date"}
CURRENCIES = {
    "EUR": "eur € euro",
    "USD": "usd us$",
    "JPY": "jpy ¥",
    "KWD": "kwd",
    "CHF": "chf sfr.",
}
EXPONENTS = {"JPY": 0, "KWD": 3}
STATUSES = {"paid": "paid bezahlt", "open": "open offen", "void": "void storniert"}
BLANKS = " \t\u00a0\u202f"
GROUPS = " '\u2019\u00a0\u202f"
Place = tuple[str, int]


@dataclass
class Expected:
    total_hours: Decimal = Decimal(0)
    billed: dict[str, str] = field(default_factory=dict)
    invoiced: dict[str, str] = field(default_factory=dict)
    outstanding: dict[str, str] = field(default_factory=dict)
    accepted_rows: int = 0
    rejected: dict[Place, set[str]] = field(default_factory=dict)


def expect(files: dict[str, bytes], month: str) -> Expected:
    """What the report of ``month`` (YYYY-MM) has to say about a folder of ``files`` by name."""
    made = Expected()
    sound: dict[str, list[tuple[Place, dict[str, Any]]]] = {"timesheet": [], "invoice": []}
    for name in sorted(files):
        for kind in sound:
            if name.lower().startswith(kind) and name.lower().endswith(".csv"):
                read_file(name, files[name], kind, month, sound[kind], made.rejected)
    times = without_repetition(sound["timesheet"], made.rejected)
    invoices = without_repetition(without_conflicts(sound["invoice"], made.rejected), made.rejected)
    with localcontext(Context(prec=200)):
        made.total_hours = sum((row["hours"] for row in times), Decimal(0))
        made.billed = summed([(row["currency"], row["hours"] * row["rate"]) for row in times])
        made.invoiced = summed([(r["currency"], r["amount"]) for r in invoices if r["status"] != "void"])
        made.outstanding = summed([(r["currency"], r["amount"]) for r in invoices if r["status"] == "open"])
    made.accepted_rows = len(times) + len(invoices)
    return made


def summed(parts: list[tuple[str, Decimal]]) -> dict[str, str]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for code, part in parts:
        sums[code] += part
    rounded = {
        code: value.quantize(Decimal(1).scaleb(-EXPONENTS.get(code, 2)), ROUND_HALF_EVEN)
        for code, value in sums.items()
    }
    return {code: str(abs(value) if value == 0 else value) for code, value in rounded.items()}


def without_repetition(
    rows: list[tuple[Place, dict[str, Any]]], rejected: dict[Place, set[str]]
) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for place, row in rows:  # in the order of file name, then line
        if row in kept:
            rejected[place] = {"duplicate"}
        else:
            kept.append(row)
    return kept


def without_conflicts(
    rows: list[tuple[Place, dict[str, Any]]], rejected: dict[Place, set[str]]
) -> list[tuple[Place, dict[str, Any]]]:
    kept = []
    for place, row in rows:
        same_number = [other for _, other in rows if other["number"] == row["number"]]
        if all(other == row for other in same_number):
            kept.append((place, row))
        else:
            rejected[place] = {"conflict", "duplicate"}
    return kept


def read_file(
    name: str,
    data: bytes,
    kind: str,
    month: str,
    sound: list[tuple[Place, dict[str, Any]]],
    rejected: dict[Place, set[str]],
) -> None:
    text = decode(data)
    if text is None:
        rejected[name, 0] = {"file"}
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip(BLANKS)), None)
    if first is None:
        return
    known = WORDS[kind]
    delimiter = max(",;\t", key=lambda mark: len(columns_of(one_record(lines[first], mark) or [], known)))
    header = one_record(lines[first], delimiter) or []
    columns = columns_of(header, known)
    if not any(line.strip(BLANKS) for line in lines[first + 1 :]):
        return  # a header alone is a note, whatever it says
    if set(known) - OPTIONAL - set(columns):
        rejected[name, 0] = {"file"}
        return
    records = []
    for line, cells in records_of(lines, first + 1, delimiter, len(header)):
        if isinstance(cells, str):
            rejected[name, line] = {cells}
        elif any(cell.strip(BLANKS) for cell in cells):
            records.append((line, cells))
    whole = []
    for line, cells in records:
        surplus = [cell for cell in cells[len(header) :] if cell.strip(BLANKS)]
        missing = any(at >= len(cells) for column, at in columns.items() if column not in OPTIONAL)
        if surplus or missing:
            rejected[name, line] = {"ragged"}
        else:
            whole.append((line, cells))
    for line, cells in whole:  # where a row's cells don't fit their columns, they say nothing of them
        row, faults = read_row(cells, columns, kind, month, delimiter, whole)
        if faults:
            rejected[name, line] = faults
        else:
            sound.append(((name, line), row))


def decode(data: bytes) -> str | None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def one_record(text: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def columns_of(header: list[str], known: dict[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for at, cell in enumerate(header):
        plain = re.sub(r"[\[(].*[\])]", "", cell).strip(BLANKS).lower().replace(" ", "_")
        for column, words in known.items():
            if plain in words.split():
                found[column] = at
    return found


def records_of(lines: list[str], start: int, delimiter: str, width: int) -> list[tuple[int, list[str] | str]]:
    """Records by the physical line they begin in; a quotation mark that nothing closes costs its line alone."""
    found: list[tuple[int, list[str] | str]] = []
    at = start
    while at < len(lines):
        end = at + 1
        cells: list[str] | str | None = one_record(lines[at], delimiter)
        if cells is None:
            cells = "quote"
            for last in range(at + 1, min(at + 20, len(lines))):
                if (
                    lines[at].count('"') % 2
                    and (joined := quoted_over_lines(lines[at : last + 1], delimiter)) is not None
                    and len(joined) == width
                ):
                    cells, end = joined, last + 1
                    break
        found.append((at + 1, cells))
        at = end
    return found


def quoted_over_lines(lines: list[str], delimiter: str) -> list[str] | None:
    try:
        read = list(csv.reader([line + "\n" for line in lines], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return read[0] if len(read) == 1 else None


def read_row(
    cells: list[str],
    columns: dict[str, int],
    kind: str,
    month: str,
    delimiter: str,
    records: list[tuple[int, list[str]]],
) -> tuple[dict[str, Any], set[str]]:
    row: dict[str, Any] = {}
    faults: set[str] = set()
    for column in WORDS[kind]:
        at = columns.get(column, len(cells))
        cell = cells[at].strip(BLANKS + "\n") if at < len(cells) else ""
        if not cell:
            row[column] = ""
            faults |= set() if column in OPTIONAL else {"missing"}
        elif column in ("hours", "rate", "amount"):
            others = [other[at] for _, other in records if at < len(other)]
            row[column] = number(cell, others, delimiter)
            faults |= {"number"} if row[column] is None else set()
        elif column.endswith("date"):
            row[column] = day(cell) or cell
            if column == "date":
                faults |= {"date"} if day(cell) is None else set()
                faults |= {"month"} if day(cell) and not str(day(cell)).startswith(month) else set()
        elif column == "currency":
            row[column] = spelled(cell, CURRENCIES)
            faults |= set() if row[column] else {"currency"}
        elif column == "status":
            row[column] = spelled(cell, STATUSES)
            faults |= set() if row[column] else {"status"}
        else:
            row[column] = cell
    if isinstance(hours := row.get("hours"), Decimal) and not 0 < hours <= 24:
        faults.add("hours")
    if isinstance(rate := row.get("rate"), Decimal) and rate < 0:
        faults.add("rate")
    return row, faults


def spelled(cell: str, spellings: dict[str, str]) -> str | None:
    return next((code for code, words in spellings.items() if cell.lower() in words.split()), None)


def day(cell: str) -> date | None:
    iso = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", cell)
    german = re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})", cell)
    parts = iso.groups() if iso else german.groups()[::-1] if german else None
    try:
        return date(*map(int, parts)) if parts else None
    except ValueError:
        return None


def readings(cell: str) -> dict[str, Decimal]:
    """Decimal mark to what the cell says under it: both keys where it is ambiguous or whole, none if no number."""
    text = cell.strip(BLANKS + "\n")
    found = {}
    for mark, other in ((".", ","), (",", ".")):
        for group in other + GROUPS:
            grouped = rf"[1-9][0-9]{{0,2}}({re.escape(group)}[0-9]{{3}})+"
            if match := re.fullmatch(rf"([+-]?)({grouped}|[0-9]+)({re.escape(mark)}[0-9]+)?", text):
                whole = match[2].replace(group, "")
                found[mark] = Decimal(f"{match[1]}{whole}{(match[4] or '').replace(mark, '.')}")
    return found


def number(cell: str, column: list[str], delimiter: str) -> Decimal | None:
    read = readings(cell)
    if len(set(read.values())) <= 1:
        return next(iter(read.values()), None)
    evidence = {mark for other in column if len(marks := readings(other)) == 1 for mark in marks}
    if len(evidence) == 2:
        return None
    return read[next(iter(evidence))] if evidence else read["," if delimiter == ";" else "."]
