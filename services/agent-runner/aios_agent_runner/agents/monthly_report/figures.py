"""The sums: exact over all rows, each currency by itself, rounded half-even once at the end."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import Any, Final

from aios_agent_runner.agents.monthly_report.currencies import EXACT, plain, rounded
from aios_agent_runner.agents.monthly_report.reasons import MAX_LISTED
from aios_agent_runner.agents.monthly_report.rows import InvoiceRow, TimeRow

MAX_TASKS: Final = 12
"""Tasks listed for one project; the rest are summed up as `other tasks`."""

MAX_NAME_CHARS: Final = 200
"""A longer name of a project, task or invoice is cut where it is listed."""

_ZERO = Decimal(0)
Amounts = defaultdict[str, Decimal]


def totals(times: Sequence[TimeRow], invoices: Sequence[InvoiceRow]) -> dict[str, Any]:
    """`total_hours` (decimal string) and `billed`, `invoiced`, `outstanding` (currency to decimal string).

    A currency is in a map if at least one row adds to it.
    """
    with localcontext(EXACT):
        billed, invoiced, outstanding = (defaultdict[str, Decimal](Decimal) for _ in range(3))
        hours = _ZERO
        for time in times:
            hours += time.hours
            billed[time.currency] += time.hours * time.rate
        for invoice in invoices:
            if invoice.status != "void":
                invoiced[invoice.currency] += invoice.amount
            if invoice.status == "open":
                outstanding[invoice.currency] += invoice.amount
    return {
        "total_hours": plain(hours),
        "billed": _money(billed),
        "invoiced": _money(invoiced),
        "outstanding": _money(outstanding),
    }


def by_project(times: Iterable[TimeRow]) -> list[dict[str, Any]]:
    """Hours and billed amounts of each project with its tasks, most hours first; at most MAX_LISTED.

    The amounts are rounded for each project, so their sum can differ from `billed` in the last place.
    """
    projects: dict[str, _Project] = {}
    with localcontext(EXACT):
        for row in times:
            projects.setdefault(row.project, _Project()).add(row)
    ranked = sorted(projects.items(), key=lambda item: (-item[1].hours, item[0]))
    return [{"project": _cut(name), **project.to_dict()} for name, project in ranked[:MAX_LISTED]]


class _Project:
    def __init__(self) -> None:
        self.hours, self.rows = _ZERO, 0
        self.billed: Amounts = defaultdict(Decimal)
        self.tasks: Amounts = defaultdict(Decimal)

    def add(self, row: TimeRow) -> None:
        self.rows += 1
        self.hours += row.hours
        self.billed[row.currency] += row.hours * row.rate
        self.tasks[row.task] += row.hours

    def to_dict(self) -> dict[str, Any]:
        ranked = sorted(self.tasks.items(), key=lambda item: (-item[1], item[0]))
        with localcontext(EXACT):
            other = sum((hours for _, hours in ranked[MAX_TASKS:]), _ZERO)
        tasks = [{"task": _cut(task), "hours": plain(hours)} for task, hours in ranked[:MAX_TASKS]]
        if other:
            tasks.append({"task": "other tasks", "hours": plain(other)})
        return {"hours": plain(self.hours), "rows": self.rows, "billed": _money(self.billed), "tasks": tasks}


def by_day(times: Iterable[TimeRow]) -> dict[str, str]:
    """Hours of each day that has any: YYYY-MM-DD to decimal string."""
    days: Amounts = defaultdict(Decimal)
    with localcontext(EXACT):
        for row in times:
            days[row.date] += row.hours
    return {day: plain(days[day]) for day in sorted(days)}


def invoice_list(invoices: Iterable[InvoiceRow]) -> list[dict[str, str]]:
    """The accepted invoices by date and number, at most MAX_LISTED, amounts rounded."""
    ranked = sorted(invoices, key=lambda row: (row.date, row.number))[:MAX_LISTED]
    return [
        {
            "number": _cut(row.number),
            "date": row.date,
            "due_date": _cut(row.due_date),
            "amount": rounded(row.amount, row.currency),
            "currency": row.currency,
            "status": row.status,
            "paid_date": _cut(row.paid_date),
        }
        for row in ranked
    ]


def _cut(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1]}…"


def _money(amounts: Amounts) -> dict[str, str]:
    return {currency: rounded(amounts[currency], currency) for currency in sorted(amounts)}
