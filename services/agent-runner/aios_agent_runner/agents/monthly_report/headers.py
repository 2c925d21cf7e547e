"""Which column of a file is which: names known from the start, in English and German, and names learned from a person.

Two headers are the same name if they differ in case, spaces, punctuation or the spelling of umlauts only; a unit behind a
name (`Satz (EUR/h)`) is left out. Where several headers fit one column the stronger name wins: one learned from a person,
then the column's own name, then its usual names, then names that fit it only when nothing better is there.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The two kinds of tables."""

    TIMESHEET = "timesheet"
    INVOICE = "invoice"


NEEDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TIMESHEET: ("date", "project", "hours", "rate", "currency"),
    Kind.INVOICE: ("number", "date", "amount", "currency", "status"),
}
"""Without these a file can't be counted."""

OPTIONAL: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TIMESHEET: ("task",),
    Kind.INVOICE: ("due_date", "paid_date"),
}
"""Without these a file is counted, with a note."""

NUMERIC: Final = frozenset({"hours", "rate", "amount"})

_CURRENCY = ("Währung|Whg|Curr|Ccy|Currency code|Währungscode|Währungskürzel|ISO currency", "Cur")
_USUAL: Final[Mapping[Kind, Mapping[str, tuple[str, str]]]] = {
    Kind.TIMESHEET: {
        "date": ("Datum|Work date|Date worked|Entry date|Leistungsdatum|Arbeitsdatum", "Tag|Day|Arbeitstag"),
        "project": (
            "Projekt|Project name|Projektname|Projektbezeichnung|Projects|Projekte",
            "Project code|Project ID|Project no|Projektnummer|Projekt-Nr",
        ),
        "task": (
            "Aufgabe|Tätigkeit|Activity|Tasks|Task name|Aufgaben|Tätigkeiten|Aktivität",
            "Description|Beschreibung|Leistung|Task description|Tätigkeitsbeschreibung",
        ),
        "hours": (
            "Stunden|Std|Hrs|Hour|Hours worked|Worked hours|Arbeitsstunden|Anzahl Stunden|Stundenzahl|Stundenanzahl|Number of hours",
            "h|Billable hours|Billed hours|Total hours",
        ),
        "rate": (
            "Satz|Stundensatz|Hourly rate|Rate per hour|Hour rate|Price per hour|Rate/hour|Std-Satz|Satz pro Stunde|Satz/Std",
            "Billing rate|Bill rate|Tarif",
        ),
        "currency": _CURRENCY,
    },
    Kind.INVOICE: {
        "number": (
            "Invoice number|Invoice no|Invoice nr|Invoice num|Invoice #|Invoice ID|Rechnungsnummer|Rechnungsnr|Rechnung Nr|"
            "Rechnung Nummer|RechNr|Rg-Nr|Re-Nr|Number of invoice",
            "Nummer|Nr|No|Num|#|Invoice|Rechnung|Belegnummer|Beleg-Nr",
        ),
        "date": (
            "Datum|Invoice date|Rechnungsdatum|Issue date|Date issued|Issued|Issued on|Date of issue|Ausstellungsdatum|Rechnung vom",
            "Belegdatum|Tag|Day",
        ),
        "due_date": (
            "Due|Due on|Due by|Payable by|Payment due|Fällig|Fällig am|Fällig bis|Fälligkeit|Fälligkeitsdatum|Fälligkeitstag|Zahlbar bis",
            "",
        ),
        "amount": (
            "Betrag|Invoice amount|Rechnungsbetrag|Summe|Total|Gesamtbetrag|Total amount|Rechnungssumme|Invoice total",
            "Sum|Gesamt|Endbetrag|Net amount|Gross amount|Nettobetrag|Bruttobetrag|Netto|Brutto|Net|Gross",
        ),
        "currency": _CURRENCY,
        "status": ("State|Payment status|Invoice status|Zahlungsstatus|Rechnungsstatus|Zustand", ""),
        "paid_date": (
            "Paid on|Paid at|Date paid|Payment date|Date of payment|Bezahlt am|Gezahlt am|Bezahldatum|Zahldatum|Zahlungsdatum|Zahlungseingang|Datum bezahlt",
            "",
        ),
    },
}

_UNITS = frozenset(
    ["h", "hr", "hrs", "std", "stunde", "hour", "decimal", "dezimal", "eur", "euro", "usd", "chf", "gbp", "jpy", "net", "netto", "iso", "yyyy", "mm", "dd", "tt", "jjjj", "per", "pro", "in"]
)
_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


def header_key(header: str) -> str:
    """What all spellings of a header have in common: lower-case letters and digits."""
    text = unicodedata.normalize("NFKC", header.replace("#", " nr ")).casefold().translate(_UMLAUTS)
    return "".join(char for char in text if char.isalnum())


def _known_names() -> dict[Kind, dict[str, tuple[str, int]]]:
    """Key to (column, strength): 1 the column's own name, 2 usual names, 3 names that fit when nothing better is there."""
    known: dict[Kind, dict[str, tuple[str, int]]] = {}
    for kind, columns in _USUAL.items():
        names = known.setdefault(kind, {})
        for column, tiers in columns.items():
            names[header_key(column)] = (column, 1)
            for strength, tier in enumerate(tiers, start=2):
                for name in filter(None, tier.split("|")):
                    names.setdefault(header_key(name), (column, strength))
    return known


KNOWN_NAMES: Final = _known_names()


@dataclass(frozen=True, slots=True)
class LearnedColumns:
    """What a person said about the headers of one kind of table: `means` maps a key to its column and its place in the
    order of learning; `not_this` holds (key, column) pairs, with the column `*` for every one."""

    means: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    not_this: frozenset[tuple[str, str]] = frozenset()

    def denies(self, key: str, column: str) -> bool:
        return (key, column) in self.not_this or (key, "*") in self.not_this


@dataclass(frozen=True, slots=True)
class Recognition:
    """`columns` maps a column to its index; `learned` are those found by a learned name; `ambiguous` maps a column to the
    indexes that fit it equally well; `unknown` are the indexes of named headers that fit no column."""

    columns: dict[str, int]
    learned: frozenset[str]
    ambiguous: dict[str, list[int]]
    unknown: list[int]

    def missing(self, kind: Kind) -> list[str]:
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
    by_fact = frozenset(column for column, found in fits.items() if column in columns and min(found)[0] == 0)
    return Recognition(columns, by_fact, ambiguous, unknown)


def _known(header: str, kind: Kind) -> tuple[str, int] | None:
    names = KNOWN_NAMES[kind]
    if found := names.get(header_key(header)):
        return found
    words = re.findall(r"\w+", _units_in_brackets_removed(header).casefold())
    while len(words) > 1 and words[-1] in _UNITS:
        words.pop()
    return names.get(header_key(" ".join(words)))


def _units_in_brackets_removed(header: str) -> str:
    def shorten(found: re.Match[str]) -> str:
        words = re.findall(r"\w+", found.group().casefold())
        return " " if all(word in _UNITS for word in words) else found.group()

    return _BRACKETS.sub(shorten, header)
