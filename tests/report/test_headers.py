"""Which column is which."""

import pytest

from aios_agent_runner.agents.monthly_report.header_names import NAMES, NEEDED, OPTIONAL, Kind
from aios_agent_runner.agents.monthly_report.headers import KNOWN_NAMES, LearnedColumns, header_key, recognise
from tests.report.months import Folder, places

NOTHING = LearnedColumns()
KNOWN = [
    (kind, column, name)
    for kind in Kind
    for column, tiers in NAMES[kind].items()
    for tier in tiers
    for name in tier.split(", ")
    if name
]


@pytest.mark.parametrize(("kind", "column", "name"), KNOWN)
def test_every_known_name_is_recognised_in_any_writing(kind: Kind, column: str, name: str) -> None:
    umlauts = name.replace("ä", "ae").replace("ü", "ue").replace("ö", "oe")
    for form in (name, name.upper(), name.lower(), f" {name}: ", name.replace(" ", "_"), umlauts):
        assert recognise([form], kind, NOTHING).columns == {column: 0}, form


def test_no_name_stands_for_two_columns() -> None:
    for kind in Kind:
        for column, tiers in NAMES[kind].items():
            for name in (column, *filter(None, ", ".join(tiers).split(", "))):
                assert KNOWN_NAMES[kind][header_key(name)][0] == column, name


@pytest.mark.parametrize(
    "header", ["Rate (EUR/h)", "Rate [EUR]", "Rate EUR", "Rate €", "RATE in EUR", "Satz EUR/h"]
)
def test_a_unit_behind_a_name_is_left_out(header: str) -> None:
    assert recognise([header], Kind.TIMESHEET, NOTHING).columns == {"rate": 0}


def test_brackets_that_are_no_unit_belong_to_the_name() -> None:
    found = recognise(["Date (paid)", "Date"], Kind.INVOICE, NOTHING)
    assert found.columns == {"paid_date": 0, "date": 1}


@pytest.mark.parametrize("kind", list(Kind))
def test_columns_come_in_any_order_with_others_beside(kind: Kind) -> None:
    columns = [*reversed(NEEDED[kind] + OPTIONAL[kind])]
    headers = ["Kürzel", *columns, "", "Bemerkung"]
    found = recognise(headers, kind, NOTHING)
    assert found.columns == {column: index for index, column in enumerate(columns, start=1)}
    assert found.unknown == [0, len(headers) - 1]


def test_the_columns_own_name_wins_over_the_others() -> None:
    found = recognise(["Total hours", "Hours", "Stunden"], Kind.TIMESHEET, NOTHING)
    assert found.columns == {"hours": 1}
    assert recognise(["Nr", "Rechnungsnummer"], Kind.INVOICE, NOTHING).columns == {"number": 1}


def test_equally_good_names_are_ambiguous() -> None:
    found = recognise(["Datum", "Rechnungsdatum"], Kind.INVOICE, NOTHING)
    assert (found.columns, found.ambiguous) == ({}, {"date": [0, 1]})


def test_a_file_without_the_needed_columns_is_rejected_whole(folder: Folder) -> None:
    folder.times("1,2,3", header="a,b,c").invoices(
        "2026-10-01,5,EUR,open", header="date,amount,currency,status"
    )
    folder.put("timesheet-2.csv", "hello world\n")
    assert places(folder.outputs()) == [
        ("invoices.csv", 0, "MISSING_COLUMNS"),
        ("timesheet-2.csv", 0, "MISSING_COLUMNS"),
        ("timesheet.csv", 0, "MISSING_COLUMNS"),
    ]


def test_a_file_without_a_header_is_rejected_whole(folder: Folder) -> None:
    result = folder.times("2026-10-06,A,b,7,100,EUR", header="2026-10-05,A,b,8,100,EUR").compute()
    assert places(result["outputs"]) == [("timesheet.csv", 0, "NO_HEADER")]
    assert result["questions"] == []


def test_the_same_header_twice_rejects_the_file(folder: Folder) -> None:
    folder.times("2026-10-06,A,b,7,7,100,EUR", header="date,project,task,hours,Hours,rate,currency")
    result = folder.compute()
    assert places(result["outputs"]) == [("timesheet.csv", 0, "AMBIGUOUS_COLUMNS")]
    assert result["questions"] == []


def test_missing_optional_columns_are_noted(folder: Folder) -> None:
    folder.times("2026-10-05,A,8,100,EUR", header="date,project,hours,rate,currency")
    folder.invoices("R1,2026-10-01,5,EUR,open", header="number,date,amount,currency,status")
    result = folder.compute()
    assert result["outputs"]["accepted_rows"] == 2
    assert [note["text"] for note in result["notes"]] == [
        "The file has no column for due date.",
        "The file has no column for paid date.",
        "The file has no column for task.",
    ]
