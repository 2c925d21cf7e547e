"""The rules of a single row, of equal rows, and of the sums."""

import json

import pytest

from aios_agent_runner.agents.monthly_report.reasons import SENTENCES, ReasonCode
from tests.report.months import INVOICES, TIMES, Folder, places, reasons


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("2026-10-05,A,b,24,0,EUR", None),
        ("2026-10-05,A,b,0.01,100,EUR", None),
        ("5.10.2026,A,,8,100,eur", None),
        ("05.10.2026,A,b,8,100,€", None),
        ("2026-10-05T00:00:00,A,b,8,100,Euro", None),
        ("2026-10-05,=SUM(A1),@x,8,100,EUR", None),
        ("2026-10-05,A,b,0,100,EUR", "HOURS_OUT_OF_RANGE"),
        ("2026-10-05,A,b,-1,100,EUR", "HOURS_OUT_OF_RANGE"),
        ("2026-10-05,A,b,24.01,100,EUR", "HOURS_OUT_OF_RANGE"),
        ("2026-10-05,A,b,1e1,100,EUR", "BAD_NUMBER"),
        ("2026-10-05,A,b,NaN,100,EUR", "BAD_NUMBER"),
        ("2026-10-05,A,b,=8,100,EUR", "BAD_NUMBER"),
        ("2026-10-05,A,b,,100,EUR", "MISSING_VALUE"),
        ("2026-10-05,A,b,8,-0.01,EUR", "NEGATIVE_RATE"),
        ("2026-10-05,A,b,8,abc,EUR", "BAD_NUMBER"),
        ("2026-10-05,A,b,8,,EUR", "MISSING_VALUE"),
        ("2026-10-05,A,b,8,100,", "MISSING_VALUE"),
        ("2026-10-05,A,b,8,100,???", "UNKNOWN_CURRENCY"),
        ("2026-10-05,A,b,8,€100,USD", "CURRENCY_MISMATCH"),
        ("2026-10-05,A,b,8,$100,CAD", None),
        ("2026-10-05, ,b,8,100,EUR", "MISSING_VALUE"),
        (",A,b,8,100,EUR", "MISSING_VALUE"),
        ("2026-09-30,A,b,8,100,EUR", "OTHER_MONTH"),
        ("2025-10-05,A,b,8,100,EUR", "OTHER_MONTH"),
        ("1.11.2026,A,b,8,100,EUR", "OTHER_MONTH"),
        ("2026-10-32,A,b,8,100,EUR", "BAD_DATE"),
        ("31.9.2026,A,b,8,100,EUR", "BAD_DATE"),
        ("2026-02-29,A,b,8,100,EUR", "BAD_DATE"),
        ("2026-10-5,A,b,8,100,EUR", "BAD_DATE"),
        ("10/05/2026,A,b,8,100,EUR", "BAD_DATE"),
        ("5.10.26,A,b,8,100,EUR", "BAD_DATE"),
        ("20261005,A,b,8,100,EUR", "BAD_DATE"),
        ("yesterday,A,b,8,100,EUR", "BAD_DATE"),
        ("2026-09-30,A,b,99,-1,??", "OTHER_MONTH"),
        ("2026-10-05,A,b,99,-1,??", "HOURS_OUT_OF_RANGE"),
    ],
)
def test_a_time_row_is_judged_by_its_first_fault(folder: Folder, row: str, code: str | None) -> None:
    outputs = folder.times(row).outputs()
    assert reasons(outputs) == ({2: code} if code else {})
    assert outputs["accepted_rows"] == (0 if code else 1)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("R1,2026-10-05,2026-11-05,100,EUR,paid,2026-10-20", None),
        ("R1,2026-10-05,,-100,EUR,OPEN,", None),
        ("R1,2026-10-05,,100,EUR, Void ,", None),
        ("R1,2026-10-05,,100,EUR,bezahlt,", None),
        ("R1,2026-10-05,,100,EUR,offen,", None),
        ("R1,2026-10-05,,100,EUR,Storniert,", None),
        ("R1,2026-10-05,,100,EUR,pending,", "UNKNOWN_STATUS"),
        ("R1,2026-10-05,,100,EUR,,", "MISSING_VALUE"),
        (",2026-10-05,,100,EUR,open,", "MISSING_VALUE"),
        ("R1,2026-10-05,,x,EUR,open,", "BAD_NUMBER"),
        ("R1,2026-11-05,,100,EUR,open,", "OTHER_MONTH"),
    ],
)
def test_an_invoice_row_is_judged_by_its_first_fault(folder: Folder, row: str, code: str | None) -> None:
    assert reasons(folder.invoices(row).outputs()) == ({2: code} if code else {})


def test_an_unreadable_due_or_paid_date_is_a_warning_and_the_invoice_counts(folder: Folder) -> None:
    result = folder.invoices("R1,2026-10-05,soon,100,EUR,paid,31.2.2026").compute()
    assert result["outputs"]["invoiced"] == {"EUR": "100.00"}
    assert [(w["line"], w["code"]) for w in result["warnings"]] == [
        (2, "UNREADABLE_DUE_DATE"),
        (2, "UNREADABLE_PAID_DATE"),
    ]


def test_ambiguous_numbers_are_rejected_where_the_column_holds_both_conventions(folder: Folder) -> None:
    folder.put(
        "invoices.csv",
        INVOICES.replace(",", ";")
        + "\nR1;2026-10-01;;1.234;EUR;open;\nR2;2026-10-01;;1,5;EUR;open;"
        + "\nR3;2026-09-01;;1.5;EUR;open;\nR4;2026-10-01;;7;EUR;open;\n",
    )
    outputs = folder.outputs()
    assert reasons(outputs) == {2: "AMBIGUOUS_NUMBER", 4: "OTHER_MONTH"}
    assert outputs["invoiced"] == {"EUR": "8.50"}


def test_evidence_is_that_of_one_column_of_one_file(folder: Folder) -> None:
    folder.put("timesheet-1.csv", TIMES.replace(",", ";") + "\n2026-10-01;A;b;7.5;1.234;EUR\n")
    folder.put("timesheet-2.csv", TIMES.replace(",", ";") + "\n2026-10-02;A;b;1;1.5;EUR\n")
    assert folder.outputs()["billed"] == {"EUR": "9256.50"}  # 7.5 × 1234 + 1.5


def test_equal_rows_over_all_files_count_once_the_first_by_file_name_then_line(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8.0,100,EUR", "2026-10-05,A,b,8,100.00,€", name="timesheet-b.csv")
    folder.put(
        "Timesheet-c.csv",
        "Währung;Stunden;Satz;Datum;Aufgabe;Projekt;Notiz\nEUR;8,00;100;5.10.2026;b;A;other\n",
    )
    folder.times("2026-10-05,A,b,8,100,EUR", "2026-10-05,A,B,8,100,EUR", name="timesheet-a.csv")
    outputs = folder.outputs()
    assert places(outputs) == [
        ("timesheet-a.csv", 2, "DUPLICATE_ROW"),
        ("timesheet-b.csv", 2, "DUPLICATE_ROW"),
        ("timesheet-b.csv", 3, "DUPLICATE_ROW"),
    ]
    assert "Timesheet-c.csv line 2" in outputs["rejected_rows"][0]["reason"]
    assert (outputs["accepted_rows"], outputs["total_hours"]) == (2, "16")


def test_one_invoice_number_with_different_contents_rejects_all_its_rows(folder: Folder) -> None:
    folder.invoices(
        "R1,2026-10-01,,100,EUR,open,", "R2,2026-10-01,,50,EUR,open,", "R1,2026-10-01,,100,EUR,paid,"
    )
    folder.invoices("R1,1.10.2026,,100.0,EUR,open,", "R2,01.10.2026,,50.00,eur,Offen,", name="invoice-2.csv")
    outputs = folder.outputs()
    assert places(outputs) == [
        ("invoice-2.csv", 2, "CONFLICTING_INVOICE"),
        ("invoices.csv", 2, "CONFLICTING_INVOICE"),
        ("invoices.csv", 3, "DUPLICATE_ROW"),
        ("invoices.csv", 4, "CONFLICTING_INVOICE"),
    ]
    assert outputs["outstanding"] == {"EUR": "50.00"}


def test_a_rejected_row_takes_no_part_in_the_rules_of_equal_rows(folder: Folder) -> None:
    folder.invoices(
        "R1,2026-10-01,,100,EUR,open,", "R1,2026-09-01,,70,EUR,open,", "R1,2026-10-01,,100,EUR,lost,"
    )
    outputs = folder.outputs()
    assert reasons(outputs) == {3: "OTHER_MONTH", 4: "UNKNOWN_STATUS"}
    assert outputs["invoiced"] == {"EUR": "100.00"}


def test_invoiced_leaves_out_void_and_outstanding_is_what_is_open(folder: Folder) -> None:
    folder.invoices(
        "R1,2026-10-01,,100,EUR,paid,",
        "R2,2026-10-01,,50.5,EUR,open,",
        "R3,2026-10-01,,-20,EUR,open,",
        "R4,2026-10-01,,999,USD,void,",
        "R5,2026-10-01,,7,CHF,paid,",
    )
    outputs = folder.outputs()
    assert outputs["invoiced"] == {"CHF": "7.00", "EUR": "130.50"}
    assert outputs["outstanding"] == {"EUR": "30.50"}
    assert outputs["accepted_rows"] == 5


@pytest.mark.parametrize(
    ("currency", "rows", "billed"),
    [
        ("JPY", [("0.5", "1")], "0"),
        ("JPY", [("0.5", "3")], "2"),
        ("JPY", [("0.5", "1"), ("0.5", "1.01")], "1"),
        ("EUR", [("0.5", "0.01")], "0.00"),
        ("EUR", [("0.5", "0.03")], "0.02"),
        ("EUR", [("0.5", "0.05"), ("0.1", "0.0001")], "0.03"),
        ("KWD", [("0.5", "0.001")], "0.000"),
        ("KWD", [("3", "1.5")], "4.500"),
        ("EUR", [("24", "99999999999999999999.99")], "2399999999999999999999.76"),
    ],
)
def test_billed_is_exact_and_rounded_half_even_once(
    folder: Folder, currency: str, rows: list[tuple[str, str]], billed: str
) -> None:
    folder.times(*(f"2026-10-05,A,{n},{hours},{rate},{currency}" for n, (hours, rate) in enumerate(rows)))
    assert folder.outputs()["billed"] == {currency: billed}


def test_currencies_are_never_added_to_each_other(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,1,100,EUR", "2026-10-05,A,b,1,100,USD", "2026-10-05,A,b,1,100,US$")
    outputs = folder.outputs()
    assert outputs["billed"] == {"EUR": "100.00", "USD": "100.00"}
    assert reasons(outputs) == {4: "DUPLICATE_ROW"}


def test_a_credit_that_rounds_to_nothing_is_no_negative_zero(folder: Folder) -> None:
    assert folder.invoices("R1,2026-10-01,,-0.001,EUR,open,").outputs()["invoiced"] == {"EUR": "0.00"}


def test_total_hours_is_exact(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,0.1,1,EUR", "2026-10-06,A,b,0.20,1,EUR", "2026-10-07,A,b,20.70,1,EUR")
    assert folder.outputs()["total_hours"] == "21"


def test_past_two_hundred_rejected_rows_all_of_them_are_in_an_artifact(folder: Folder) -> None:
    outputs = folder.times(*("x,A,b,8,100,EUR" for _ in range(201))).outputs()
    assert len(outputs["rejected_rows"]) == 200
    assert outputs["rejected_rows_total"] == 201
    listed = json.loads((folder.out / outputs["rejected_rows_artifact"]).read_text(encoding="utf-8"))
    assert listed[:200] == outputs["rejected_rows"]
    assert [row["line"] for row in listed] == list(range(2, 203))


def test_two_hundred_rejected_rows_need_no_artifact(folder: Folder) -> None:
    outputs = folder.times(*("x,A,b,8,100,EUR" for _ in range(200))).outputs()
    assert "rejected_rows_artifact" not in outputs


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(ReasonCode)


def test_a_month_without_files_computes_to_nothing(folder: Folder) -> None:
    outputs = folder.outputs()
    assert (outputs["total_hours"], outputs["billed"], outputs["accepted_rows"]) == ("0", {}, 0)
