"""The monthly report's figures: a code agent that reads a month's files and returns what they say.

Start here. The order of the work is the order of `run`: open each table (`sources`), read its rows (`rows`),
count equal ones once (`uniqueness`), add up (`figures`), compare with the months before (`history`,
`outliers`), take the notes (`notes`).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aios_agent_runner.agents.monthly_report import figures
from aios_agent_runner.agents.monthly_report.dates import is_month
from aios_agent_runner.agents.monthly_report.facts import Learned
from aios_agent_runner.agents.monthly_report.findings import Findings
from aios_agent_runner.agents.monthly_report.folder import Folder, read_notes, read_tables
from aios_agent_runner.agents.monthly_report.history import read_history, write_history
from aios_agent_runner.agents.monthly_report.outliers import find_outliers, month_over_month
from aios_agent_runner.agents.monthly_report.reasons import (
    MAX_LISTED,
    REJECTED_ROWS_ARTIFACT,
    Rejection,
    list_rejections,
)
from aios_agent_runner.agents.monthly_report.rows import InvoiceRow, TimeRow
from aios_agent_runner.agents.monthly_report.uniqueness import distinct_invoices, distinct_times
from aios_core.errors import TerminalError

__all__ = ["REJECTED_ROWS_ARTIFACT", "run"]


def run(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Compute one client's month.

    request: {"client": str, "month": "YYYY-MM", "files": [{"name", "sha256", "size"}] with the bytes at files/<name>,
        "facts": learned facts (see `facts`), "history": [{"month", "figures", "rows_artifact": a name in `files`}]}
    result: {"outputs": {total_hours, billed, invoiced, outstanding, accepted_rows, rejected_rows (the first 200),
        rejected_rows_total, rejected_by_code, and rejected_rows_artifact if there are more},
        "questions", "used_facts", "by_project", "by_day", "invoices", "outliers", "month_over_month", "earlier_months",
        "client_notes", "owner_notes", "notes", "warnings", "sources", "history_artifact"}
    Files written to `out`: history-<month>.json, and rejected-rows.json if there are more than 200.

    What an open question is about is treated as unreadable. Raises INVALID_ARGUMENT on a malformed month or
    file list.
    """
    month = request.get("month")
    if not isinstance(month, str) or not is_month(month):
        raise TerminalError("INVALID_ARGUMENT", f"The month must be YYYY-MM, not {month!r}.", field="month")
    folder = Folder(files, request.get("files") or [])
    learned, findings = Learned(request.get("facts") or []), Findings()
    for text in learned.unreadable:
        findings.warn("", 0, "UNUSABLE_FACT", text)

    tables = read_tables(folder, month, learned, findings)
    times, invoices = distinct_times(tables.times, findings), distinct_invoices(tables.invoices, findings)
    sums = figures.totals(times, invoices)
    past = read_history(request.get("history") or [], month, files, findings)
    client_notes, owner_notes = read_notes(folder, findings)
    outliers = find_outliers(times, past)
    projects = {row.project for row in times}
    return {
        "client": request.get("client"),
        "month": month,
        "questions": findings.questions(
            learned, {row.currency for row in times} | {row.currency for row in invoices}
        ),
        "outputs": {
            **sums,
            "accepted_rows": len(times) + len(invoices),
            **list_rejections(findings.rejections, out),
        },
        "accepted": {"timesheet": len(times), "invoice": len(invoices)},
        "used_facts": learned.used(),
        "by_project": figures.by_project(times),
        "projects_total": len(projects),
        "by_day": figures.by_day(times),
        "invoices": figures.invoice_list(invoices),
        "invoices_total": len(invoices),
        "outliers": outliers[:MAX_LISTED],
        "outliers_total": len(outliers),
        "month_over_month": month_over_month(month, sums, past),
        "earlier_months": past.figures,
        "client_notes": client_notes,
        "owner_notes": owner_notes,
        "notes": findings.notes[:MAX_LISTED],
        "warnings": findings.warnings[:MAX_LISTED],
        "warnings_total": len(findings.warnings),
        "sources": _described(tables.read, times, invoices, findings.rejections),
        "history_artifact": write_history(out, month, sums, times),
    }


def _described(
    read: Iterable[dict[str, Any]],
    times: Iterable[TimeRow],
    invoices: Iterable[InvoiceRow],
    rejections: Iterable[Rejection],
) -> list[dict[str, Any]]:
    """How each file was read, and how many of its rows were accepted and rejected."""
    accepted = Counter(row.file for row in times) + Counter(row.file for row in invoices)
    rejected = Counter(one.file for one in rejections)
    return [{**one, "accepted": accepted[one["file"]], "rejected": rejected[one["file"]]} for one in read]
