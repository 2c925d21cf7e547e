"""The headers that are known from the start: the columns of both kinds of tables, and their names."""

from collections.abc import Mapping
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

_CURRENCY = (
    "Währung, Währungscode, Währungskürzel, Whg, Currency code, ISO currency, Curr, Ccy",
    "Cur",
)

NAMES: Final[Mapping[Kind, Mapping[str, tuple[str, str]]]] = {
    Kind.TIMESHEET: {
        "date": (
            "Datum, Work date, Date worked, Date of work, Entry date, Leistungsdatum, Arbeitsdatum",
            "Day, Tag, Arbeitstag",
        ),
        "project": (
            "Projekt, Project name, Projektname, Projektbezeichnung, Projects, Projekte",
            "Project code, Project ID, Project no, Project number, Projektnummer, Projekt-Nr",
        ),
        "task": (
            "Aufgabe, Tätigkeit, Activity, Task name, Tasks, Aufgaben, Tätigkeiten, Aktivität",
            "Description, Task description, Beschreibung, Tätigkeitsbeschreibung, Leistung",
        ),
        "hours": (
            "Stunden, Std, Hrs, Hour, Hours worked, Worked hours, Number of hours, Arbeitsstunden, Anzahl Stunden, "
            "Stundenzahl, Stundenanzahl",
            "h, Billable hours, Billed hours, Total hours",
        ),
        "rate": (
            "Satz, Stundensatz, Std-Satz, Satz pro Stunde, Satz/Std, Satz/h, Hourly rate, Hour rate, Rate per hour, "
            "Rate/hour, Price per hour",
            "Billing rate, Bill rate, Tarif",
        ),
        "currency": _CURRENCY,
    },
    Kind.INVOICE: {
        "number": (
            "Invoice number, Invoice no, Invoice nr, Invoice num, Invoice #, Invoice ID, Number of invoice, "
            "Rechnungsnummer, Rechnungsnr, Rechnung Nr, Rechnung Nummer, Rech-Nr, Rg-Nr, Re-Nr",
            "Nummer, Nr, No, Num, #, Invoice, Rechnung, Belegnummer, Beleg-Nr",
        ),
        "date": (
            "Datum, Invoice date, Date of invoice, Issue date, Date issued, Date of issue, Issued, Issued on, "
            "Rechnungsdatum, Ausstellungsdatum, Rechnung vom",
            "Day, Tag, Belegdatum",
        ),
        "due_date": (
            "Due, Due on, Due by, Payable by, Payment due, Fällig, Fällig am, Fällig bis, Fälligkeit, "
            "Fälligkeitsdatum, Fälligkeitstag, Zahlbar bis",
            "",
        ),
        "amount": (
            "Betrag, Rechnungsbetrag, Gesamtbetrag, Summe, Rechnungssumme, Invoice amount, Total amount, "
            "Invoice total, Total",
            "Sum, Gesamt, Endbetrag, Net amount, Gross amount, Nettobetrag, Bruttobetrag, Net, Gross, Netto, Brutto",
        ),
        "currency": _CURRENCY,
        "status": (
            "State, Payment status, Invoice status, Zahlungsstatus, Rechnungsstatus, Zustand",
            "",
        ),
        "paid_date": (
            "Paid on, Paid at, Date paid, Payment date, Date of payment, Bezahlt am, Gezahlt am, Bezahldatum, "
            "Zahldatum, Zahlungsdatum, Zahlungseingang, Datum bezahlt",
            "",
        ),
    },
}
"""Column to its usual names, and to names that fit it only when nothing better is there."""

UNITS: Final = frozenset(
    [
        "h",
        "hr",
        "hrs",
        "std",
        "stunde",
        "hour",
        "decimal",
        "dezimal",
        "eur",
        "euro",
        "usd",
        "chf",
        "gbp",
        "jpy",
        "net",
        "netto",
        "iso",
        "yyyy",
        "mm",
        "dd",
        "tt",
        "jjjj",
        "per",
        "pro",
        "in",
    ]
)
"""Words that may stand behind a name, or in brackets behind it, without changing it."""
