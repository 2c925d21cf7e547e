"""The monthly report's figures: a code agent that reads a month's files and returns what they say.

Start here. The order of the work is the order of `run`: open each table (`sources`), read its rows (`rows`),
count equal ones once (`uniqueness`), add up (`figures`), compare with the months before (`history`,
`outliers`), take the notes (`notes`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.agents.monthly_report import figures
from aios_agent_runner.agents.monthly_report.dates import is_month
from aios_agent_runner.agents.monthly_report.decoding import NotText, decode
from aios_agent_runner.agents.monthly_report.facts import Learned
from aios_agent_runner.agents.monthly_report.findings import MAX_LISTED, Findings
from aios_agent_runner.agents.monthly_report.header_names import Kind
from aios_agent_runner.agents.monthly_report.history import read_history, write_history
from aios_agent_runner.agents.monthly_report.notes import (
    MAX_NOTES_BYTES,
    MAX_SECTION_CHARS,
    Block,
    client_section,
)
from aios_agent_runner.agents.monthly_report.outliers import find_outliers, month_over_month
from aios_agent_runner.agents.monthly_report.reasons import ReasonCode, Rejection
from aios_agent_runner.agents.monthly_report.rows import InvoiceRow, TimeRow, read_invoices, read_times
from aios_agent_runner.agents.monthly_report.sources import MAX_FILE_BYTES, Source, open_source
from aios_agent_runner.agents.monthly_report.uniqueness import distinct_invoices, distinct_times
from aios_core.errors import TerminalError

REJECTED_ROWS_ARTIFACT: Final = "rejected-rows.json"


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
    named = _by_name(request.get("files") or [])
    learned, findings = Learned(request.get("facts") or []), Findings()
    for text in learned.unreadable:
        findings.warn("", 0, "UNUSABLE_FACT", text)

    times, invoices, sources = _read_tables(named, month, files, learned, findings)
    times, invoices = distinct_times(times, findings), distinct_invoices(invoices, findings)
    sums = figures.totals(times, invoices)
    past = read_history(request.get("history") or [], month, files, findings)
    client_notes, owner_notes = _read_notes(named, files, findings)
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
            **_rejected(findings.rejections, out),
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
        "sources": _described(sources, named, times, invoices, findings.rejections),
        "history_artifact": write_history(out, month, sums, times),
    }


def _by_name(listed: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The listed files in the order of their names."""
    named = {str(entry.get("name")): entry for entry in listed}
    return {name: named[name] for name in sorted(named)}


def kind_of(name: str) -> Kind | None:
    """Which table a file of the folder is by its name: `timesheet*.csv`, `invoice*.csv`, in any case."""
    name = name.casefold()
    if name.endswith(".csv") and _in_the_folder(name):
        return next((kind for kind in Kind if name.startswith(kind)), None)
    return None


def is_notes(name: str) -> bool:
    """Whether a file holds notes by its name: `notes*.md`, `notes*.txt`, in any case."""
    name = name.casefold()
    return name.startswith("notes") and name.endswith((".md", ".txt")) and _in_the_folder(name)


def _in_the_folder(name: str) -> bool:
    """Whether it is a file of the folder itself, not of one inside or outside of it."""
    return not {"/", "\\", "\0"}.intersection(name)


def _read_tables(
    named: Mapping[str, Mapping[str, Any]], month: str, files: Path, learned: Learned, findings: Findings
) -> tuple[list[TimeRow], list[InvoiceRow], list[Source]]:
    times: list[TimeRow] = []
    invoices: list[InvoiceRow] = []
    sources: list[Source] = []
    for name in named:
        kind = kind_of(name)
        if kind is None:
            if not is_notes(name):
                findings.note(name, "The file is not a table or notes by its name, so it was not read.")
            continue
        data = _bytes(place_of(named[name], files), MAX_FILE_BYTES)
        if data is None:
            findings.reject(name, 0, ReasonCode.FILE_MISSING)
            continue
        source = open_source(name, kind, data, learned, findings)
        if source is None:
            continue
        sources.append(source)
        if kind is Kind.TIMESHEET:
            times += read_times(source, month, learned, findings)
        else:
            invoices += read_invoices(source, month, learned, findings)
    return times, invoices, sources


def place_of(entry: Mapping[str, Any], files: Path) -> Path:
    """Where the bytes of a listed file lie: at the `path` of its `file`, or under its name; always in `files`."""
    pointer = entry.get("file")
    place = pointer.get("path") if isinstance(pointer, Mapping) else None
    return files / Path(str(place or entry["name"])).name


def _bytes(path: Path, limit: int) -> bytes | None:
    """The file's bytes, at most one more than the limit; None if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError:
        return None


def _read_notes(
    named: Mapping[str, Mapping[str, Any]], files: Path, findings: Findings
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The blocks for the client, and for the owner what was taken of each notes file, without its text."""
    blocks: list[Block] = []
    owner: list[dict[str, Any]] = []
    for name in filter(is_notes, named):
        data = _bytes(place_of(named[name], files), MAX_NOTES_BYTES)
        text = decode(data) if data is not None and len(data) <= MAX_NOTES_BYTES else None
        if text is None or isinstance(text, NotText):
            findings.warn(
                name,
                0,
                "UNREADABLE_NOTES",
                "The notes can't be read as text, so nothing of them is in the report.",
            )
            continue
        section, rest = client_section(text.content)
        blocks += section
        owner.append({"file": name, "blocks_for_client": len(section), "kept_back": rest})
    kept, room = [], MAX_SECTION_CHARS
    for block in blocks:
        room -= len(block.text)
        if room < 0:
            cut = f"The notes for the client have over {MAX_SECTION_CHARS} characters; the rest was left out."
            findings.warn("", 0, "NOTES_TOO_LONG", cut)
            break
        kept.append(asdict(block))
    return kept, owner


def _rejected(rejections: list[Rejection], out: Path) -> dict[str, Any]:
    """The rejected rows by file and line; past MAX_LISTED the whole list is written to an artifact."""
    rejections = sorted(rejections, key=lambda one: (one.file, one.line, one.code))
    by_code: dict[str, int] = {}
    for one in rejections:
        by_code[str(one.code)] = by_code.get(str(one.code), 0) + 1
    result: dict[str, Any] = {
        "rejected_rows": [one.to_dict() for one in rejections[:MAX_LISTED]],
        "rejected_rows_total": len(rejections),
        "rejected_by_code": dict(sorted(by_code.items(), key=lambda item: (-item[1], item[0]))),
    }
    if len(rejections) > MAX_LISTED:
        text = json.dumps([one.to_dict() for one in rejections], ensure_ascii=False, indent=0)
        (out / REJECTED_ROWS_ARTIFACT).write_bytes(text.encode("utf-8", "surrogatepass"))
        result["rejected_rows_artifact"] = REJECTED_ROWS_ARTIFACT
    return result


def _described(
    sources: Iterable[Source],
    named: Mapping[str, Mapping[str, Any]],
    times: Iterable[TimeRow],
    invoices: Iterable[InvoiceRow],
    rejections: Iterable[Rejection],
) -> list[dict[str, Any]]:
    """How each file was read, with its hash and how many of its rows were accepted and rejected."""
    accepted: dict[str, int] = {}
    rejected: dict[str, int] = {}
    for file in (*(row.file for row in times), *(row.file for row in invoices)):
        accepted[file] = accepted.get(file, 0) + 1
    for one in rejections:
        rejected[one.file] = rejected.get(one.file, 0) + 1
    return [
        {
            **source.describe(),
            "sha256": named[source.name].get("sha256"),
            "accepted": accepted.get(source.name, 0),
            "rejected": rejected.get(source.name, 0),
        }
        for source in sources
    ]
