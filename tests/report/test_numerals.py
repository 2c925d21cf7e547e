"""How numbers are read: in a cell, then in their column, then by the file's delimiter."""

from decimal import Decimal

import pytest

from aios_agent_runner.agents.monthly_report.currencies import NUMBER_MARKS
from aios_agent_runner.agents.monthly_report.numerals import Ambiguous, Column, Exact, read_numeral


def column(*cells: str, delimiter: str = ",") -> dict[str, Decimal | None]:
    numbers = Column(cells, delimiter, NUMBER_MARKS)
    return {cell: numbers.value(cell) for cell in cells}


@pytest.mark.parametrize(
    ("cell", "value", "mark"),
    [
        ("8", "8", None),
        ("007", "7", None),
        ("7.5", "7.5", "."),
        ("7,5", "7.5", ","),
        (".5", "0.5", "."),
        ("0.125", "0.125", "."),
        ("0,125", "0.125", ","),
        ("1.2345", "1.2345", "."),
        ("1234.567", "1234.567", "."),
        ("1.234,56", "1234.56", ","),
        ("1,234.56", "1234.56", "."),
        ("1.234,567", "1234.567", ","),
        ("1.234.567", "1234567", ","),
        ("1,234,567", "1234567", "."),
        ("1,234,567.8", "1234567.8", "."),
        ("1'234.50", "1234.50", "."),
        ("1’234.50", "1234.50", "."),
        ("1 234,50", "1234.50", ","),
        ("1\u00a0234,50", "1234.50", ","),
        ("1\u202f234", "1234", None),
        ("1'234.567", "1234.567", "."),
        ("-5", "-5", None),
        ("+5", "5", None),
        ("5-", "-5", None),
        ("−5", "-5", None),
        ("(1,234.50)", "-1234.50", "."),
        ("€ 90,50", "90.50", ","),
        ("90.50 EUR", "90.50", "."),
        ("-€90", "-90", None),
        ("€-90", "-90", None),
        ("Fr. 100", "100", None),
        ("Fr.100", "100", None),
        ("$1,234.00", "1234.00", "."),
    ],
)
def test_a_number_that_can_be_read_in_one_way_is_read_so(cell: str, value: str, mark: str | None) -> None:
    numeral = read_numeral(cell, NUMBER_MARKS)
    assert isinstance(numeral, Exact)
    assert (numeral.value, numeral.decimal_mark) == (Decimal(value), mark)


@pytest.mark.parametrize("cell", ["1.234", "1,234", "12.345", "999,999", "-1.234", "€ 1.234"])
def test_one_separator_before_three_digits_can_be_read_in_two_ways(cell: str) -> None:
    assert isinstance(read_numeral(cell, NUMBER_MARKS), Ambiguous)


@pytest.mark.parametrize(
    "cell",
    [
        *[
            "1.23.4",
            "1.2345.678",
            "12.34,5",
            "1,23.45",
            "1.234.56",
            "0.123.456",
            "1,,5",
            "5.",
            ",",
            ".",
            "-",
            "1'23",
            "1 5",
            "1 234'567",
            "1.234 567",
        ],
        *[
            "abc",
            "8h",
            "7:30",
            "1e5",
            "1E5",
            "NaN",
            "inf",
            "Infinity",
            "0x10",
            "½",
            "٣",
            "1/2",
            "5%",
            "=1+1",
            "1_000",
            "2026-10-05",
            "1\n234",
            "1\t234",
        ],
        *["--5", "-5-", "(-5)", "(5", "5)", "EUR", "EUR 5 EUR", "kr 5"],
        "9" * 31,
        "1" + " " * 70 + "2",
        "",
    ],
)
def test_what_is_no_well_formed_number_is_none(cell: str) -> None:
    assert read_numeral(cell, NUMBER_MARKS) is None


def test_a_negative_zero_is_zero() -> None:
    assert str(read_numeral("-0.00", NUMBER_MARKS).value) == "0.00"  # type: ignore[union-attr]


def test_thirty_digits_are_kept_exactly() -> None:
    digits = "-123456789012345.678901234567891"
    assert str(read_numeral(digits, NUMBER_MARKS).value) == digits  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("delimiter", "cell", "value"),
    [
        (";", "1.234", "1234"),
        (";", "1,234", "1.234"),
        (",", "1.234", "1.234"),
        (",", "1,234", "1234"),
        ("\t", "1.234", "1.234"),
        ("\t", "1,234", "1234"),
    ],
)
def test_without_evidence_the_delimiter_decides(delimiter: str, cell: str, value: str) -> None:
    assert column(cell, "12", "1'234", "x", delimiter=delimiter)[cell] == Decimal(value)


@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
@pytest.mark.parametrize("evidence", ["7.5", "1,234.5", "1,234,567", "0.125", "1'000.5"])
def test_other_cells_with_a_decimal_point_decide(delimiter: str, evidence: str) -> None:
    read = column("1.234", "1,234", evidence, delimiter=delimiter)
    assert (read["1.234"], read["1,234"]) == (Decimal("1.234"), Decimal("1234"))


@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
@pytest.mark.parametrize("evidence", ["7,5", "1.234,5", "1.234.567", "0,125", "1 000,5"])
def test_other_cells_with_a_decimal_comma_decide(delimiter: str, evidence: str) -> None:
    read = column("1.234", "1,234", evidence, delimiter=delimiter)
    assert (read["1.234"], read["1,234"]) == (Decimal("1234"), Decimal("1.234"))


def test_in_a_column_with_both_conventions_only_the_ambiguous_cells_are_refused() -> None:
    read = column("1.234", "1,234", "7,5", "7.5", "8", "1.234,5")
    assert read == {
        "1.234": None,
        "1,234": None,
        "7,5": Decimal("7.5"),
        "7.5": Decimal("7.5"),
        "8": Decimal(8),
        "1.234,5": Decimal("1234.5"),
    }
