"""Which column of a file is which: names known from the start, and names learned from a person.

Two headers are the same name if they differ in case, spaces, punctuation or the spelling of umlauts only; a
unit behind a name (`Satz (EUR/h)`) is left out. Where several headers fit one column the stronger name wins:
one learned from a person, then the column's own name, then its usual names, then names that fit it only when
nothing better is there. Two that are equally strong leave a needed column to a question; of an optional one
the first is taken.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aios_agent_runner.agents.monthly_report.header_names import NAMES, NEEDED, OPTIONAL, UNITS, Kind

EVERY_COLUMN: Final = "*"

_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")
_WORDS = re.compile(r"\w+")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


def header_key(header: str) -> str:
    """What all spellings of a header have in common: lower-case letters and digits."""
    text = unicodedata.normalize("NFKC", header.replace("#", " nr ")).casefold().translate(_UMLAUTS)
    return "".join(char for char in text if char.isalnum())


def _known_names() -> dict[Kind, dict[str, tuple[str, int]]]:
    """Key to (column, strength): 1 its own name, 2 usual names, 3 names for want of a better one."""
    known: dict[Kind, dict[str, tuple[str, int]]] = {}
    for kind, columns in NAMES.items():
        names = known.setdefault(kind, {})
        for column, tiers in columns.items():
            names[header_key(column)] = (column, 1)
            for strength, tier in enumerate(tiers, start=2):
                for name in filter(None, tier.split(", ")):
                    names.setdefault(header_key(name), (column, strength))
    return known


KNOWN_NAMES: Final = _known_names()


@dataclass(frozen=True, slots=True)
class LearnedColumns:
    """What a person said about the headers of one kind of table.

    `means` maps a header key to its column and its place in the order of learning. `denied` holds the (header
    key, column) pairs that are not so; the column may be EVERY_COLUMN.
    """

    means: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    denied: frozenset[tuple[str, str]] = frozenset()

    def denies(self, key: str, column: str) -> bool:
        return (key, column) in self.denied or (key, EVERY_COLUMN) in self.denied


@dataclass(frozen=True, slots=True)
class Recognition:
    """What became of a header line.

    `columns` maps a column to its index and `learned` names those found by a learned name. `ambiguous` maps a
    needed column to the indexes that fit it equally well. `unknown` are the indexes of headers that fit no
    column.
    """

    columns: dict[str, int]
    learned: frozenset[str]
    ambiguous: dict[str, list[int]]
    unknown: list[int]

    def missing(self, kind: Kind) -> list[str]:
        """The needed columns that no header fits."""
        return [
            column for column in NEEDED[kind] if column not in self.columns and column not in self.ambiguous
        ]


def recognise(headers: Iterable[str], kind: Kind, learned: LearnedColumns) -> Recognition:
    """Which header is which column of this kind."""
    fits: dict[
        str, list[tuple[int, int, int]]
    ] = {}  # column -> (strength, minus the order of learning, index)
    unknown: list[int] = []
    for index, header in enumerate(headers):
        key = header_key(header)
        if key in learned.means:
            column, order = learned.means[key]
            fits.setdefault(column, []).append((0, -order, index))
        elif (known := _known(header, kind)) and not learned.denies(key, known[0]):
            fits.setdefault(known[0], []).append((known[1], 0, index))
        elif key:
            unknown.append(index)
    columns: dict[str, int] = {}
    ambiguous: dict[str, list[int]] = {}
    for column, found in fits.items():
        best = min(rank[:2] for rank in found)
        indexes = [rank[2] for rank in found if rank[:2] == best]
        if len(indexes) == 1 or column in OPTIONAL[kind]:
            columns[column] = indexes[0]
        else:
            ambiguous[column] = indexes
    by_fact = frozenset(column for column in columns if min(fits[column])[0] == 0)
    return Recognition(columns, by_fact, ambiguous, unknown)


def _known(header: str, kind: Kind) -> tuple[str, int] | None:
    names = KNOWN_NAMES[kind]
    if found := names.get(header_key(header)):
        return found
    words = _WORDS.findall(_BRACKETS.sub(_without_units, header).casefold())
    while len(words) > 1 and words[-1] in UNITS:
        words.pop()
    return names.get(header_key(" ".join(words)))


def _without_units(brackets: re.Match[str]) -> str:
    words = _WORDS.findall(brackets.group().casefold())
    return " " if all(word in UNITS for word in words) else brackets.group()
