"""What the computation has to tell besides figures: rejections, warnings, notes, open questions."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aios_agent_runner.agents.monthly_report.currencies import spelling_key
from aios_agent_runner.agents.monthly_report.facts import (
    MAX_CURRENCY_QUESTIONS,
    Learned,
    Question,
    column_question,
    currency_question,
)
from aios_agent_runner.agents.monthly_report.header_names import Kind
from aios_agent_runner.agents.monthly_report.headers import header_key
from aios_agent_runner.agents.monthly_report.reasons import (
    EXCERPT_CHARS,
    ReasonCode,
    Rejection,
    excerpt,
    reject,
)


@dataclass(slots=True)
class UnknownCurrency:
    """A spelling that nobody knows, as first seen, and in how many rows of which files."""

    spelling: str
    rows: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class PendingColumn:
    """A column to ask about: its candidates with examples, and the files that need it."""

    kind: Kind
    column: str
    candidates: dict[str, list[str]]
    files: list[str]
    ambiguous: bool


class Findings:
    """Collects, in the order of reading, what a person should be told."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []
        self.warnings: list[dict[str, Any]] = []
        self.notes: list[dict[str, str]] = []
        self._columns: dict[tuple[str, ...], PendingColumn] = {}
        self._currencies: dict[str, UnknownCurrency] = {}

    def reject(self, file: str, line: int, code: ReasonCode, /, **fields: object) -> None:
        self.rejections.append(reject(file, line, code, **fields))

    def warn(self, file: str, line: int, code: str, text: str) -> None:
        self.warnings.append({"file": file, "line": line, "code": code, "text": text})

    def note(self, file: str, text: str) -> None:
        self.notes.append({"file": file, "text": text})

    def ask_column(
        self, kind: Kind, column: str, candidates: dict[str, list[str]], file: str, *, ambiguous: bool = False
    ) -> None:
        """Ask once for all files that have the same candidates."""
        candidates = {
            header: [value[:EXCERPT_CHARS] for value in values] for header, values in candidates.items()
        }
        key = (kind, column, *sorted(header_key(header) for header in candidates))
        self._columns.setdefault(key, PendingColumn(kind, column, candidates, [], ambiguous)).files.append(
            file
        )

    def unknown_currency(self, spelling: str, file: str) -> None:
        """A row that only its currency keeps from being counted."""
        self._currencies.setdefault(spelling_key(spelling), UnknownCurrency(spelling)).rows[file] += 1

    def questions(self, learned: Learned, codes_in_use: Iterable[str]) -> list[Question]:
        """The open questions: columns first, then the spellings of currencies with most rows."""
        asked = [_about_column(pending) for pending in self._columns.values()]
        codes = sorted(codes_in_use)
        unknown = [
            u
            for u in self._currencies.values()
            if _can_be_a_currency(u.spelling) and not learned.has_answered(u.spelling)
        ]
        unknown.sort(key=lambda u: (-u.rows.total(), u.spelling))
        for one in unknown[:MAX_CURRENCY_QUESTIONS]:
            asked.append(currency_question(one.spelling, sorted(one.rows), one.rows.total(), codes))
        return asked


def _about_column(pending: PendingColumn) -> Question:
    files, column = sorted(pending.files), pending.column.replace("_", " ")
    have = "has" if len(files) == 1 else "have"
    seen = "; ".join(
        f"{excerpt(header)} holds {_values(values)}" for header, values in pending.candidates.items()
    )
    if pending.ambiguous:
        problem = f"{have} more than one column that can be {column}"
    else:
        problem = f"{have} no column that is known as {column}"
    why = f"{', '.join(files)} {problem}: {seen}. Nothing of it is counted until you say."
    return column_question(pending.kind, pending.column, pending.candidates, files, why)


def _values(values: list[str]) -> str:
    return ", ".join(excerpt(value) for value in values) or "nothing"


def _can_be_a_currency(spelling: str) -> bool:
    return (
        len(spelling) <= 24
        and not any(char.isdigit() for char in spelling)
        and any(not c.isspace() and c.isprintable() for c in spelling)
    )
