"""What counts once: equal rows over all files of a kind, and invoices by their number.

Equal means equal in every column of the kind after parsing (`8,00` is `8.0`, `5.10.2026` is `2026-10-05`);
other columns beside them don't count. Only rows that are right by themselves take part, so one of another
month is no double of anything.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from aios_agent_runner.agents.monthly_report.findings import Findings
from aios_agent_runner.agents.monthly_report.reasons import ReasonCode, excerpt
from aios_agent_runner.agents.monthly_report.rows import InvoiceRow, TimeRow

MAX_PLACES: Final = 5
"""How many places a sentence about a conflicting invoice names."""


def distinct_times(rows: Iterable[TimeRow], findings: Findings) -> list[TimeRow]:
    """The first of each set of equal rows, by file name and then line; the others are rejected."""
    first: dict[tuple[object, ...], TimeRow] = {}
    for row in sorted(rows, key=_place):
        kept = first.setdefault(row[2:], row)
        if kept is not row:
            findings.reject(row.file, row.line, ReasonCode.DUPLICATE_ROW, file=kept.file, line=kept.line)
    return list(first.values())


def distinct_invoices(rows: Iterable[InvoiceRow], findings: Findings) -> list[InvoiceRow]:
    """The same for invoices; a number that comes with different contents rejects all rows that have it."""
    by_number: defaultdict[str, list[InvoiceRow]] = defaultdict(list)
    for row in sorted(rows, key=_place):
        by_number[row.number].append(row)
    kept = []
    for number, same in by_number.items():
        first = same[0]
        if all(row[2:] == first[2:] for row in same):
            kept.append(first)
            for row in same[1:]:
                findings.reject(
                    row.file, row.line, ReasonCode.DUPLICATE_ROW, file=first.file, line=first.line
                )
            continue
        places = ", ".join(f"{row.file} line {row.line}" for row in same[:MAX_PLACES])
        more = len(same) - MAX_PLACES
        places += f" and {more} more" if more > 0 else ""
        for row in same:
            findings.reject(
                row.file, row.line, ReasonCode.CONFLICTING_INVOICE, number=excerpt(number), places=places
            )
    return kept


def _place(row: TimeRow | InvoiceRow) -> tuple[str, int]:
    return row.file, row.line
