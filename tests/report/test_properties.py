"""However a table is written, reading it gives the same figures; and nothing that is in a file is lost from sight."""

import tempfile
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aios_agent_runner.agents.monthly_report.currencies import EXACT, NUMBER_MARKS
from aios_agent_runner.agents.monthly_report.numerals import read_numeral
from aios_agent_runner.agents.monthly_report.records import Quoting, split_line
from tests.often import tries
from tests.report.months import Folder

NAMES = {
    "date": ["Date", "Datum", "DATE"],
    "project": ["Project", "Projekt", "project name"],
    "task": ["Task", "Aufgabe", "Tätigkeit"],
    "hours": ["Hours", "Stunden", "Std."],
    "rate": ["Rate", "Satz", "Stundensatz (EUR/h)"],
    "currency": ["Currency", "Währung", "Waehrung"],
}
CURRENCIES = {"EUR": ["EUR", "eur", "€", "Euro"], "CHF": ["CHF", "Fr.", "SFr."], "JPY": ["JPY", "¥", "jpy"]}
PLACES = {"EUR": 2, "CHF": 2, "JPY": 0}


@dataclass(frozen=True)
class Time:
    day: int
    project: str
    task: str
    hours: Decimal
    rate: Decimal
    currency: str


text = st.text(st.sampled_from("abcXYZ äöß€,;\"'|.-_0123"), min_size=1, max_size=12).map(str.strip)
times = st.builds(
    Time,
    st.integers(1, 31),
    text.filter(bool),
    text,
    st.decimals("0.01", 24, places=2),
    st.decimals(0, 9_999_999, places=2),
    st.sampled_from(sorted(CURRENCIES)),
)


@dataclass(frozen=True)
class Writing:
    encoding: str
    mark: bytes
    delimiter: str
    end: str
    decimal: str
    group: str
    iso: bool
    order: list[str]
    names: list[int]
    extra: int
    quote_all: bool


writings = st.builds(
    lambda coding, delimiter, end, numbers, iso, order, names, extra, quote_all: Writing(
        coding[0], coding[1], delimiter, end, numbers[0], numbers[1], iso, order, names, extra, quote_all
    ),
    st.sampled_from(
        [
            ("utf-8", b""),
            ("utf-8", b"\xef\xbb\xbf"),
            ("utf-16-le", b"\xff\xfe"),
            ("utf-16-be", b"\xfe\xff"),
            ("utf-16-le", b""),
            ("cp1252", b""),
        ]
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([(".", ","), (",", "."), (".", ""), (",", ""), (".", "'"), (",", " "), (".", "\u00a0")]),
    st.booleans(),
    st.permutations(sorted(NAMES)),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
    st.integers(0, 3),
    st.booleans(),
)


def number(value: Decimal, how: Writing) -> str:
    whole, _, fraction = f"{value:.2f}".partition(".")
    groups = f"{int(whole):,}".replace(",", how.group)
    return f"{groups}{how.decimal}{fraction}"


def written(rows: list[Time], how: Writing) -> bytes:
    headers = [NAMES[column][choice] for column, choice in zip(how.order, how.names, strict=True)]
    lines = [[*headers, *(f"x{n}" for n in range(how.extra))]]
    for row in rows:
        spellings = CURRENCIES[row.currency]
        cells = {
            "date": f"2026-10-{row.day:02d}" if how.iso else f"{row.day}.10.2026",
            "project": row.project,
            "task": row.task,
            "hours": number(row.hours, how),
            "rate": number(row.rate, how),
            "currency": spellings[row.day % len(spellings)],
        }
        lines.append([*(cells[column] for column in how.order), *("1.5" for _ in range(how.extra))])
    return how.mark + "".join(joined(line, how) + how.end for line in lines).encode(how.encoding)


def joined(cells: list[str], how: Writing) -> str:
    def cell(value: str) -> str:
        if how.quote_all or how.delimiter in value or value.startswith('"'):
            return '"' + value.replace('"', '""') + '"'
        return value

    return how.delimiter.join(map(cell, cells))


def expected(rows: list[Time]) -> dict[str, str]:
    sums: dict[str, Decimal] = {}
    for row in set(rows):
        product = EXACT.multiply(row.hours, row.rate)
        sums[row.currency] = EXACT.add(sums.get(row.currency, Decimal(0)), product)
    quanta = {code: Decimal(1).scaleb(-places) for code, places in PLACES.items()}
    return {code: str(total.quantize(quanta[code], ROUND_HALF_EVEN)) for code, total in sums.items()}


@given(st.lists(times, max_size=12), writings)
@settings(max_examples=tries(300))
def test_any_way_of_writing_a_table_gives_the_same_figures(rows: list[Time], how: Writing) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place)).put("timesheet.csv", written(rows, how))
        outputs = folder.outputs()
    assert outputs["billed"] == expected(rows)
    assert Decimal(outputs["total_hours"]) == sum((row.hours for row in set(rows)), Decimal(0))
    assert outputs["accepted_rows"] == len(set(rows))
    assert {row["code"] for row in outputs["rejected_rows"]} <= {"DUPLICATE_ROW"}


@given(
    st.lists(times, max_size=10),
    st.lists(writings, min_size=2, max_size=3),
    st.randoms(use_true_random=False),
)
@settings(max_examples=tries(60))
def test_rows_spread_and_repeated_over_files_count_once(
    rows: list[Time], hows: list[Writing], random: object
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place))
        for index, how in enumerate(hows):
            part = [row for row in rows if random.random() < 0.7] if index else rows  # type: ignore[attr-defined]
            folder.put(f"timesheet-{index}.csv", written(part, how))
        outputs = folder.outputs()
    assert outputs["billed"] == expected(rows)
    assert outputs["accepted_rows"] == len(set(rows))


@given(st.binary(max_size=400))
@settings(max_examples=tries(200))
def test_any_bytes_are_counted_rejected_or_noted(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        result = Folder(Path(place)).put("timesheet.csv", data).put("notes.md", data).compute()
    assert result["outputs"]["accepted_rows"] == 0
    assert result["outputs"]["rejected_rows"] or any(
        note["file"] == "timesheet.csv" for note in result["notes"]
    )


cells = st.one_of(
    st.sampled_from(
        [
            "2026-10-05",
            "5.10.2026",
            "A",
            "8",
            "7,5",
            "1.234",
            "100",
            "EUR",
            "Taler",
            "",
            " ",
            '"',
            '"A"',
            '"A',
            'A"',
            '""',
        ]
    ),
    st.text(max_size=5).filter(lambda value: not set(value) & {"\0"}),
)


@given(st.lists(st.lists(cells, min_size=1, max_size=8).map(",".join), max_size=15))
@settings(max_examples=tries(300))
def test_every_line_is_accepted_rejected_blank_or_part_of_a_cell(lines: list[str]) -> None:
    """No line vanishes: each physical line is accounted for, and none twice."""
    header = "date,project,task,hours,rate,currency"
    content = "\n".join([header, *lines]) + "\n"
    physical = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    with tempfile.TemporaryDirectory() as place:
        result = Folder(Path(place)).put("timesheet.csv", content.encode("utf-8", "replace")).compute()
    rejected = [row["line"] for row in result["outputs"]["rejected_rows"]]
    if rejected == [0]:
        return
    assert len(set(rejected)) == len(rejected)
    assert all(2 <= line <= len(physical) for line in rejected)
    if '"' not in content:
        filled = sum(1 for line in physical[1:] if line.strip(", \t"))
        assert result["outputs"]["accepted_rows"] + len(rejected) == filled


@given(st.text(max_size=40))
def test_a_cell_is_a_finite_number_or_none(cell: str) -> None:
    numeral = read_numeral(cell, NUMBER_MARKS)
    value = getattr(numeral, "value", getattr(numeral, "as_decimal", Decimal(0)))
    assert value.is_finite()


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=8), min_size=1, max_size=6
    )
)
def test_what_is_quoted_is_read_back(values: list[str]) -> None:
    line = ",".join('"' + value.replace('"', '""') + '"' for value in values)
    assert split_line(line, ",") == values
    assert split_line(line[:-1], ",") in (Quoting.OPEN, Quoting.STRAY) or line[:-1].count('"') % 2 == 0


def test_the_last_day_of_each_month_is_in_it() -> None:
    for month in range(1, 13):
        last = date(2026 + month // 12, month % 12 + 1, 1).toordinal() - 1
        day = date.fromordinal(last).isoformat()
        with tempfile.TemporaryDirectory() as place:
            folder = Folder(Path(place), day[:7]).times(f"{day},A,b,8,100,EUR")
            assert folder.outputs()["accepted_rows"] == 1
