"""Records to typed rows: every check of a single row, in a fixed order; the first that fails gives the reason.

The order: enough fields; date; month; then for time sheets project, hours, rate, currency, and for invoices
number, amount, status, currency. The currency comes last, so that a question about a spelling concerns rows
that lack nothing else.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from aios_agent_runner.agents.monthly_report.currencies import NUMBER_MARKS
from aios_agent_runner.agents.monthly_report.dates import read_date
from aios_agent_runner.agents.monthly_report.facts import Learned
from aios_agent_runner.agents.monthly_report.findings import Findings
from aios_agent_runner.agents.monthly_report.header_names import NEEDED, NUMERIC, OPTIONAL
from aios_agent_runner.agents.monthly_report.numerals import Ambiguous, Column
from aios_agent_runner.agents.monthly_report.reasons import ReasonCode, excerpt
from aios_agent_runner.agents.monthly_report.sources import STATUSES, Source

MAX_HOURS: Final = Decimal(24)
_ZERO: Final = Decimal(0)


class TimeRow(NamedTuple):
    """An accepted line of a time sheet. `date` is YYYY-MM-DD."""

    file: str
    line: int
    date: str
    project: str
    task: str
    hours: Decimal
    rate: Decimal
    currency: str


class InvoiceRow(NamedTuple):
    """An accepted line of an invoice list; a date that can't be read is kept as it was written."""

    file: str
    line: int
    number: str
    date: str
    due_date: str
    amount: Decimal
    currency: str
    status: str
    paid_date: str


def read_times(source: Source, month: str, learned: Learned, findings: Findings) -> list[TimeRow]:
    """The rows of a time sheet that are right by themselves."""
    reader = _Reader(source, month, learned, findings)
    rows = []
    for line, fields in reader.lines():
        date = reader.date(line, fields)
        if date is None:
            continue
        project = reader.text(line, fields, "project")
        if project is None:
            continue
        hours = reader.number(line, fields, "hours")
        if hours is None:
            continue
        if not _ZERO < hours <= MAX_HOURS:
            findings.reject(
                source.name, line, ReasonCode.HOURS_OUT_OF_RANGE, value=excerpt(fields[reader.at["hours"]])
            )
            continue
        rate = reader.number(line, fields, "rate")
        if rate is None:
            continue
        if rate < 0:
            findings.reject(
                source.name, line, ReasonCode.NEGATIVE_RATE, value=excerpt(fields[reader.at["rate"]])
            )
            continue
        currency = reader.currency(line, fields, "rate")
        if currency is not None:
            rows.append(
                TimeRow(
                    source.name, line, date, project, reader.optional(fields, "task"), hours, rate, currency
                )
            )
    reader.close()
    return rows


def read_invoices(source: Source, month: str, learned: Learned, findings: Findings) -> list[InvoiceRow]:
    """The rows of an invoice list that are right by themselves."""
    reader = _Reader(source, month, learned, findings)
    rows = []
    for line, fields in reader.lines():
        date = reader.date(line, fields)
        if date is None:
            continue
        number = reader.text(line, fields, "number")
        if number is None:
            continue
        amount = reader.number(line, fields, "amount")
        if amount is None:
            continue
        status = reader.status(line, fields)
        if status is None:
            continue
        currency = reader.currency(line, fields, "amount")
        if currency is not None:
            due, paid = (
                reader.other_date(line, fields, "due_date"),
                reader.other_date(line, fields, "paid_date"),
            )
            rows.append(InvoiceRow(source.name, line, number, date, due, amount, currency, status, paid))
    reader.close()
    return rows


class _Reader:
    """Reads the cells of one source; each method rejects the row and returns None if its cell is not right."""

    def __init__(self, source: Source, month: str, learned: Learned, findings: Findings) -> None:
        self._file, self._month, self._learned, self._findings = source.name, month, learned, findings
        self._source = source
        self.at = source.columns
        self._width = 1 + max(self.at[column] for column in NEEDED[source.kind])
        known = OPTIONAL[source.kind] + NEEDED[source.kind]
        self._last = 1 + max(self.at[column] for column in known if column in self.at)
        whole = [record.fields for record in source.records if len(record.fields) >= self._width]
        self._numbers = {
            column: Column([fields[index] for fields in whole], source.delimiter, NUMBER_MARKS)
            for column, index in self.at.items()
            if column in NUMERIC
        }
        self._dates: dict[str, str | None] = {}
        self._codes: dict[str, str | None] = {}
        self._currency_rows: Counter[str] = Counter()

    def lines(self) -> Sequence[tuple[int, list[str]]]:
        """The records that have all needed fields; optional ones missing at the end count as blank."""
        whole = []
        for record in self._source.records:
            fields = record.fields
            if len(fields) < self._width:
                self._reject(
                    record.line, ReasonCode.TOO_FEW_FIELDS, count=len(fields), width=len(self._source.headers)
                )
                continue
            if len(fields) < self._last:
                fields = fields + [""] * (self._last - len(fields))
            whole.append((record.line, fields))
        return whole

    def _reject(self, line: int, code: ReasonCode, **fields: object) -> None:
        self._findings.reject(self._file, line, code, **fields)

    def date(self, line: int, fields: list[str]) -> str | None:
        cell = fields[self.at["date"]]
        try:
            date = self._dates[cell]
        except KeyError:
            date = self._dates[cell] = read_date(cell)
        if date is None:
            if cell.strip():
                self._reject(line, ReasonCode.BAD_DATE, value=excerpt(cell))
            else:
                self._reject(line, ReasonCode.MISSING_VALUE, column="date")
        elif not date.startswith(self._month):
            self._reject(line, ReasonCode.OTHER_MONTH, value=date, month=self._month)
            return None
        return date

    def text(self, line: int, fields: list[str], column: str) -> str | None:
        text = _clean(fields[self.at[column]])
        if not text:
            self._reject(line, ReasonCode.MISSING_VALUE, column=column)
            return None
        return text

    def optional(self, fields: list[str], column: str) -> str:
        index = self.at.get(column)
        return _clean(fields[index]) if index is not None else ""

    def number(self, line: int, fields: list[str], column: str) -> Decimal | None:
        cell, numbers = fields[self.at[column]], self._numbers[column]
        value = numbers.value(cell)
        if value is not None:
            return value
        numeral = numbers.numeral(cell)
        if isinstance(numeral, Ambiguous):
            readings = {
                "as_decimal": format(numeral.as_decimal, "f"),
                "as_grouped": format(numeral.as_grouped, "f"),
            }
            self._reject(line, ReasonCode.AMBIGUOUS_NUMBER, column=column, value=excerpt(cell), **readings)
        elif cell.strip():
            self._reject(line, ReasonCode.BAD_NUMBER, column=column, value=excerpt(cell))
        else:
            self._reject(line, ReasonCode.MISSING_VALUE, column=column)
        return None

    def status(self, line: int, fields: list[str]) -> str | None:
        cell = fields[self.at["status"]].strip()
        status = STATUSES.get(cell.casefold())
        if status is None and cell:
            self._reject(line, ReasonCode.UNKNOWN_STATUS, value=excerpt(cell))
        elif status is None:
            self._reject(line, ReasonCode.MISSING_VALUE, column="status")
        return status

    def currency(self, line: int, fields: list[str], beside: str) -> str | None:
        """The row's currency; a sign beside the number in the column `beside` must not contradict it."""
        cell = fields[self.at["currency"]].strip()
        if not cell:
            self._reject(line, ReasonCode.MISSING_VALUE, column="currency")
            return None
        if cell not in self._codes:
            self._codes[cell] = self._learned.currency(cell)
        code = self._codes[cell]
        if code is None:
            self._reject(line, ReasonCode.UNKNOWN_CURRENCY, value=excerpt(cell))
            self._findings.unknown_currency(cell, self._file)
            return None
        amount = fields[self.at[beside]]
        numeral = self._numbers[beside].numeral(amount)
        if numeral is not None and numeral.currencies is not None and code not in numeral.currencies:
            self._reject(
                line, ReasonCode.CURRENCY_MISMATCH, column=beside, value=excerpt(amount), currency=code
            )
            return None
        self._currency_rows[cell] += 1
        return code

    def other_date(self, line: int, fields: list[str], column: str) -> str:
        """A date that only informs: blank, YYYY-MM-DD, or, with a warning, the text as it is."""
        cell = self.optional(fields, column)
        date = read_date(cell) if cell else ""
        if date is None:
            name = column.replace("_", " ")
            text = f"The {name} {excerpt(cell)} can't be read; the invoice counts all the same."
            self._findings.warn(self._file, line, f"UNREADABLE_{column.upper()}", text)
            return cell
        return date

    def close(self) -> None:
        """Remember which learned spellings of currencies were used."""
        for spelling, rows in self._currency_rows.items():
            self._learned.use_currency(spelling, self._file, rows)


def _clean(cell: str) -> str:
    cell = cell.strip()
    return cell if cell.isascii() else unicodedata.normalize("NFC", cell)
