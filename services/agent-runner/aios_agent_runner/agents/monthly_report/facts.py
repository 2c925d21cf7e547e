"""What AIOS has learned from a person about one client's files, and the questions that teach it more.

A fact is a plain dict that memory keeps as a versioned entry:
    {"kind": "column", "table": "timesheet", "header": "Std-Anz", "means": "hours"}
    {"kind": "column", "table": "timesheet", "header": "Anz", "means": "none", "column": "hours"}
    {"kind": "currency", "spelling": "Fränkli", "means": "CHF"}
with whatever memory adds, such as "learned" (the month) and "version". "means" may be "none": not this column
(without "column": none at all), or no currency. A fact learned later overrides an earlier one about the
same thing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aios_agent_runner.agents.monthly_report.currencies import KNOWN_SPELLINGS, PLACES, spelling_key
from aios_agent_runner.agents.monthly_report.header_names import NEEDED, OPTIONAL, Kind
from aios_agent_runner.agents.monthly_report.headers import EVERY_COLUMN, LearnedColumns, header_key
from aios_agent_runner.agents.monthly_report.reasons import excerpt
from aios_core.errors import TerminalError

NONE_OF_THESE: Final = "none of these"
MAX_CURRENCY_QUESTIONS: Final = 5
"""Questions about currencies in one run; more unknown spellings mean the column is something else."""
_USUAL_CODES = ("EUR", "USD", "GBP", "CHF", "JPY")

Fact = dict[str, Any]
Question = dict[str, Any]


class Learned:
    """The facts of one client, and which of them a run used."""

    def __init__(self, facts: Iterable[Mapping[str, Any]]) -> None:
        self.unreadable: list[str] = []
        self._means: dict[Kind, dict[str, tuple[str, int]]] = {kind: {} for kind in Kind}
        self._denied: dict[Kind, set[tuple[str, str]]] = {kind: set() for kind in Kind}
        self._currencies: dict[str, Fact] = {}
        self._columns: dict[tuple[Kind, str], Fact] = {}
        self._used: dict[int, tuple[Fact, dict[str, int], str]] = {}
        for order, fact in enumerate(sorted(facts, key=lambda fact: str(fact.get("learned") or ""))):
            if not self._learn(dict(fact), order):
                self.unreadable.append(f"A learned fact can't be used: {excerpt(str(dict(fact)))}.")

    def _learn(self, fact: Fact, order: int) -> bool:
        means = fact.get("means")
        if (
            fact.get("kind") == "currency"
            and isinstance(fact.get("spelling"), str)
            and (means in PLACES or means == "none")
        ):
            self._currencies[spelling_key(fact["spelling"])] = fact
            return True
        if (
            fact.get("kind") != "column"
            or fact.get("table") not in set(Kind)
            or not isinstance(fact.get("header"), str)
        ):
            return False
        kind, key = Kind(fact["table"]), header_key(fact["header"])
        if means == "none":
            column = str(fact.get("column") or EVERY_COLUMN)
            if column in {EVERY_COLUMN, self._means[kind].get(key, ("", 0))[0]}:
                self._means[kind].pop(key, None)
            self._denied[kind].add((key, column))
            return True
        if means not in NEEDED[kind] + OPTIONAL[kind]:
            return False
        self._denied[kind] -= {(key, means), (key, EVERY_COLUMN)}
        self._means[kind][key] = (means, order)
        self._columns[kind, key] = fact
        return True

    def columns(self, kind: Kind) -> LearnedColumns:
        return LearnedColumns(self._means[kind], frozenset(self._denied[kind]))

    def use_column(self, kind: Kind, header: str, file: str) -> None:
        fact = self._columns[kind, header_key(header)]
        self._use(fact, file, 0, f"“{header}” was read as {fact['means'].replace('_', ' ')}")

    def currency(self, spelling: str) -> str | None:
        """The code of the currency, from what is learned, then from what is known; None if neither knows."""
        key = spelling_key(spelling)
        if fact := self._currencies.get(key):
            return None if fact["means"] == "none" else str(fact["means"])
        return KNOWN_SPELLINGS.get(key)

    def use_currency(self, spelling: str, file: str, rows: int) -> None:
        """Say that the spelling was read in so many rows; only a learned one is remembered."""
        if (fact := self._currencies.get(spelling_key(spelling))) and fact["means"] != "none":
            self._use(fact, file, rows, f"“{fact['spelling']}” was read as {fact['means']}")

    def has_answered(self, spelling: str) -> bool:
        return spelling_key(spelling) in self._currencies

    def _use(self, fact: Fact, file: str, rows: int, sentence: str) -> None:
        _, files, _ = self._used.setdefault(id(fact), (fact, {}, sentence))
        files[file] = files.get(file, 0) + rows

    def used(self) -> list[dict[str, Any]]:
        """The facts that were used, each with its files and a sentence for the person."""
        entries = []
        for fact, files, sentence in self._used.values():
            since = f", as you said in {fact['learned']}" if fact.get("learned") else ", as you said"
            entries.append(
                {
                    "fact": fact,
                    "files": sorted(files),
                    "rows": sum(files.values()),
                    "sentence": f"{sentence}{since}.",
                }
            )
        return entries


def column_question(
    kind: Kind, column: str, candidates: Mapping[str, Iterable[str]], files: Iterable[str], why: str
) -> Question:
    """Ask which of the `candidates` (header to examples of its values) is the column."""
    headers = list(candidates)
    wanted = column.replace("_", " ")
    answers: dict[str, list[Fact]] = {h: [_column_fact(kind, h, column)] for h in headers}
    answers[NONE_OF_THESE] = [{**_column_fact(kind, h, "none"), "column": column} for h in headers]
    return {
        "id": f"column.{kind}.{column}.{_digest(*sorted(header_key(h) for h in headers))}",
        "kind": "column",
        "text": f"Which column is {wanted}?",
        "why": why,
        "files": list(files),
        "options": [*headers, NONE_OF_THESE],
        "examples": {header: list(values) for header, values in candidates.items()},
        "fact": {"kind": "column", "table": str(kind), "header": None, "means": column},
        "answers": answers,
    }


def currency_question(
    spelling: str, files: Iterable[str], rows: int, codes_in_use: Iterable[str]
) -> Question:
    """Ask which currency a spelling means. Any ISO 4217 code is an answer, not only the options."""
    files = list(files)
    options = list(dict.fromkeys([*sorted(codes_in_use), *_USUAL_CODES]))
    return {
        "id": f"currency.{_digest(spelling_key(spelling))}",
        "kind": "currency",
        "text": f"Which currency is {excerpt(spelling)}?",
        "why": f"{_and(files)} {'has' if len(files) == 1 else 'have'} it in {rows} {'row' if rows == 1 else 'rows'}, "
        "which are not counted until you say.",
        "files": files,
        "options": [*options, NONE_OF_THESE],
        "also_accepted": "any ISO 4217 code, such as SEK",
        "fact": {"kind": "currency", "spelling": spelling, "means": None},
        "answers": {option: [_currency_fact(spelling, option)] for option in [*options, NONE_OF_THESE]},
    }


def facts_from_answer(question: Question, answer: str) -> list[Fact]:
    """The facts that an answer teaches. Raises BAD_ANSWER on one that the question doesn't allow."""
    answer = answer.strip()
    known: dict[str, list[Fact]] = question["answers"]
    for option, facts in known.items():
        if option == answer or option.casefold() == answer.casefold():
            return facts
    if question["kind"] == "currency" and answer.upper() in PLACES:
        return [_currency_fact(question["fact"]["spelling"], answer.upper())]
    allowed = ", ".join(question["options"])
    also = f", or {question['also_accepted']}" if "also_accepted" in question else ""
    raise TerminalError(
        "BAD_ANSWER",
        f"{excerpt(answer)} is not an answer to “{question['text']}”. Answer with one of: {allowed}{also}.",
    )


def _column_fact(kind: Kind, header: str, means: str) -> Fact:
    return {"kind": "column", "table": str(kind), "header": header, "means": means}


def _currency_fact(spelling: str, answer: str) -> Fact:
    return {"kind": "currency", "spelling": spelling, "means": "none" if answer == NONE_OF_THESE else answer}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
