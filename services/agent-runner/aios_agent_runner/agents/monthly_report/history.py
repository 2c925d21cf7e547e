"""What a month leaves to the later ones: its figures, and how its rows are spread, in a compact artifact.

The artifact is JSON: {"format": 1, "month": "2026-09", "figures": {…}, "projects": {name: {"hours": {"8": 41,
"7.5": 3}, "rates": {"EUR": {"90": 44}}}}}, each inner map counting the accepted rows that have the value.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.agents.monthly_report.currencies import plain
from aios_agent_runner.agents.monthly_report.dates import is_month, months_between
from aios_agent_runner.agents.monthly_report.findings import Findings
from aios_agent_runner.agents.monthly_report.rows import TimeRow

FORMAT: Final = 1
MONTHS_BACK: Final = 12
MAX_HISTORY_BYTES: Final = 16 * 1024 * 1024

Spread = Counter[Decimal]


@dataclass(slots=True)
class Past:
    """The months before: their figures, oldest first, and each project's hours per row and rates by currency."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    hours: defaultdict[str, Spread] = field(default_factory=lambda: defaultdict(Counter))
    rates: defaultdict[tuple[str, str], Spread] = field(default_factory=lambda: defaultdict(Counter))


def write_history(out: Path, month: str, figures: Mapping[str, Any], times: Iterable[TimeRow]) -> str:
    """Write the month's artifact into `out`; returns its name."""
    hours: defaultdict[str, Spread] = defaultdict(Counter)
    rates: defaultdict[str, defaultdict[str, Spread]] = defaultdict(lambda: defaultdict(Counter))
    for row in times:
        hours[row.project][row.hours] += 1
        rates[row.project][row.currency][row.rate] += 1
    projects = {
        project: {
            "hours": _counts(hours[project]),
            "rates": {currency: _counts(spread) for currency, spread in rates[project].items()},
        }
        for project in hours
    }
    document = {"format": FORMAT, "month": month, "figures": figures, "projects": projects}
    name = f"history-{month}.json"
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    (out / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    return name


def read_history(entries: Sequence[Mapping[str, Any]], month: str, files: Path, findings: Findings) -> Past:
    """The up to 12 months before `month`. One that can't be read is left out, with a warning."""
    past = Past()
    before = {
        entry["month"]: entry
        for entry in entries
        if is_month(str(entry.get("month"))) and 1 <= months_between(entry["month"], month) <= MONTHS_BACK
    }
    for earlier in sorted(before):
        entry = before[earlier]
        if isinstance(entry.get("figures"), dict):
            past.figures[earlier] = entry["figures"]
        name = entry.get("rows_artifact")
        if name and not _add_rows(past, files / Path(str(name)).name):
            text = f"The rows kept of {earlier} can't be read, so outliers are judged without them."
            findings.warn(str(name), 0, "UNREADABLE_HISTORY", text)
    return past


def _add_rows(past: Past, path: Path) -> bool:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_HISTORY_BYTES + 1)
        document = json.loads(data) if len(data) <= MAX_HISTORY_BYTES else None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            return False
        read = Past()
        for project, kept in document["projects"].items():
            read.hours[project] = _spread(kept["hours"])
            for currency, counts in kept["rates"].items():
                read.rates[project, currency] = _spread(counts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidOperation, RecursionError):
        return False
    for project, spread in read.hours.items():
        past.hours[project].update(spread)
    for key, spread in read.rates.items():
        past.rates[key].update(spread)
    return True


def _counts(spread: Spread) -> dict[str, int]:
    return {plain(value): count for value, count in spread.items()}


def _spread(counts: Mapping[str, int]) -> Spread:
    spread = Counter({Decimal(value): int(count) for value, count in counts.items()})
    if any(not value.is_finite() for value in spread):
        raise ValueError("a value is not finite")
    return spread
