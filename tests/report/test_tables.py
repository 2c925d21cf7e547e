"""Encodings, delimiters, quotation marks and physical lines."""

import pytest

from aios_agent_runner.agents.monthly_report.sources import MAX_FILE_BYTES
from tests.report.months import INVOICES, TIMES, Folder, places, reasons

ROW = "2026-10-05,Müller,build,8,100,EUR"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("latin-1", b""),
        ("cp1252", b""),
    ],
)
def test_every_encoding_is_read(folder: Folder, encoding: str, mark: bytes) -> None:
    folder.put("timesheet.csv", mark + f"{TIMES}\n{ROW}\n".encode(encoding))
    result = folder.compute()
    assert result["outputs"]["billed"] == {"EUR": "800.00"}
    assert result["by_project"][0]["project"] == "Müller"


def test_windows_1252_reads_the_euro_sign(folder: Folder) -> None:
    folder.put("timesheet.csv", f"{TIMES}\n2026-10-05,Café,x,1,5,€\n".encode("cp1252"))
    assert folder.outputs()["billed"] == {"EUR": "5.00"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_delimiter_and_line_end_is_read(folder: Folder, delimiter: str, end: str) -> None:
    rows = [TIMES, "", ROW, "   ", "2026-10-32,A,b,8,100,EUR", ""]
    folder.put("timesheet.csv", end.join(rows).replace(",", delimiter))
    outputs = folder.outputs()
    assert outputs["total_hours"] == "8"
    assert reasons(outputs) == {5: "BAD_DATE"}


def test_the_delimiter_is_found_outside_of_quotation_marks(folder: Folder) -> None:
    folder.times(
        '2026-10-05;A;b;"7,5";100;EUR', header='date;"project";task;hours;rate;"currency";"a,b,c,d,e,f,g,h"'
    )
    assert folder.outputs()["total_hours"] == "7.5"


def test_a_sep_line_names_the_delimiter_and_lines_stay_physical(folder: Folder) -> None:
    folder.put(
        "timesheet.csv",
        "sep=;\r\n" + TIMES.replace(",", ";") + "\r\n05.10.2026;A;b;7,5;100;EUR\r\nx;A;b;1;1;EUR\r\n",
    )
    outputs = folder.outputs()
    assert outputs["total_hours"] == "7.5"
    assert reasons(outputs) == {4: "BAD_DATE"}


def test_quoted_cells_keep_delimiters_doubled_marks_and_line_ends(folder: Folder) -> None:
    folder.times(
        '2026-10-05,"Alpha, ""the"" first","one',
        "",
        'three",8,"100",EUR',
        "nonsense,A,b,8,100,EUR",
    )
    result = folder.compute()
    assert result["outputs"]["total_hours"] == "8"
    assert result["by_project"][0]["project"] == 'Alpha, "the" first'
    assert reasons(result["outputs"]) == {5: "BAD_DATE"}


def test_a_quoted_cell_at_the_start_of_a_row_may_span_lines(folder: Folder) -> None:
    folder.times('"Alpha', 'two",2026-10-05,b,8,100,EUR', header="project,date,task,hours,rate,currency")
    assert folder.outputs()["total_hours"] == "8"


@pytest.mark.parametrize(
    "broken",
    [
        '2026-10-05,"Alpha,b,8,100,EUR',
        '2026-10-05,Alpha,"b,8,100,EUR',
        '2026-10-05,Alpha,b,8,100,"EUR',
        '"2026-10-05,Alpha,b,8,100,EUR',
        '2026-10-05,"Alp',
        '"',
    ],
)
@pytest.mark.parametrize(
    "after",
    [
        "2026-10-06,Beta,b,7,100,EUR",
        '2026-10-06,"Beta",b,7,100,EUR',
        '2026-10-06,Beta,"b, c",7,100,EUR',
        '2026-10-06,Beta,b",7,100,EUR',
        '2026-10-06,"",b,7,100,EUR',
        '"2026-10-06","Beta","b","7","100","EUR"',
    ],
)
def test_an_unclosed_quotation_mark_costs_its_own_line_only(folder: Folder, broken: str, after: str) -> None:
    folder.times("2026-10-01,A,b,1,100,EUR", broken, after, "2026-10-07,C,d,2,100,EUR")
    outputs = folder.outputs()
    blank = ',"",' in after
    assert outputs["total_hours"] == ("3" if blank else "10")
    assert reasons(outputs) == {3: "UNCLOSED_QUOTE"} | ({4: "MISSING_VALUE"} if blank else {})


def test_two_unclosed_marks_cost_two_lines(folder: Folder) -> None:
    folder.times(*['2026-10-05,"A,b,8,100,EUR', "2026-10-06,A,b,1,100,EUR"] * 2, "2026-10-07,A,b,2,100,EUR")
    outputs = folder.outputs()
    assert reasons(outputs) == {2: "UNCLOSED_QUOTE", 4: "UNCLOSED_QUOTE", 5: "DUPLICATE_ROW"}
    assert outputs["total_hours"] == "3"


def test_an_unclosed_mark_in_the_last_line_is_rejected(folder: Folder) -> None:
    assert reasons(folder.times(ROW, '2026-10-06,"A').outputs()) == {3: "UNCLOSED_QUOTE"}


def test_a_mark_inside_of_an_unquoted_cell_is_text(folder: Folder) -> None:
    result = folder.times('2026-10-05,5" disk,b,8,100,EUR').compute()
    assert result["by_project"][0]["project"] == '5" disk'


def test_text_after_a_closing_mark_rejects_the_line(folder: Folder) -> None:
    assert reasons(folder.times('2026-10-05,"A"x,b,8,100,EUR', ROW).outputs()) == {2: "STRAY_QUOTE"}


def test_too_few_and_too_many_fields_are_rejected(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8,100", "2026-10-05,A,b,7,5,100,EUR", ROW, header=TIMES)
    assert reasons(folder.outputs()) == {2: "TOO_FEW_FIELDS", 3: "TOO_MANY_FIELDS"}


def test_missing_optional_fields_and_blank_surplus_at_the_end_are_accepted(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8,100,EUR", "2026-10-06,A,b,8,100,EUR,note,,", header=TIMES + ",note")
    folder.invoices("R1,2026-10-01,,100,EUR,open", header=INVOICES)
    assert folder.outputs()["accepted_rows"] == 3


def test_rows_of_delimiters_alone_are_passed_over_with_a_note(folder: Folder) -> None:
    result = folder.times(",,,,,", ROW, '"","",,,,').compute()
    assert result["outputs"]["rejected_rows"] == []
    assert result["notes"] == [{"file": "timesheet.csv", "text": "2 rows were blank and passed over."}]


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", TIMES, TIMES + "\n\n", TIMES.upper() + "\r\n"])
def test_an_empty_file_or_a_header_alone_is_a_note(folder: Folder, content: str) -> None:
    result = folder.put("timesheet.csv", content).compute()
    assert [note["file"] for note in result["notes"]] == ["timesheet.csv"]
    assert result["outputs"]["rejected_rows"] == []
    assert result["outputs"] | {"total_hours": "0", "billed": {}, "accepted_rows": 0} == result["outputs"]


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n%\xe2\xe3\n1 0 obj",
        b"PK\x03\x04\x14\x00\x06\x00",
        b"\x00\x01\x02\x03",
        bytes(range(256)) * 4,
        TIMES.encode() + b"\n2026-10-05,A\x00,b,8,100,EUR\n",
        b"\x01\x02\x03\x04\x05 abc",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_a_binary_file_is_rejected_whole(folder: Folder, data: bytes) -> None:
    folder.put("timesheet.csv", data).times(ROW, name="timesheet-2.csv")
    outputs = folder.outputs()
    assert places(outputs) == [("timesheet.csv", 0, "BINARY_FILE")]
    assert outputs["total_hours"] == "8"


def test_damaged_utf_16_is_rejected_whole(folder: Folder) -> None:
    folder.put("timesheet.csv", b"\xff\xfe" + f"{TIMES}\n{ROW}".encode("utf-16-le") + b"x")
    assert places(folder.outputs()) == [("timesheet.csv", 0, "UNREADABLE_TEXT")]


def test_a_file_over_the_limit_is_rejected_whole(folder: Folder) -> None:
    with (folder.files / "timesheet.csv").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert places(folder.outputs()) == [("timesheet.csv", 0, "FILE_TOO_LARGE")]


def test_a_line_over_the_limit_is_rejected_alone(folder: Folder) -> None:
    assert reasons(folder.times("2026-10-05," + "x" * 70_000 + ",b,8,100,EUR", ROW).outputs()) == {
        2: "LINE_TOO_LONG"
    }


def test_an_unclosed_mark_in_the_header_rejects_the_file(folder: Folder) -> None:
    assert places(folder.times(ROW, header='date,"project,task').outputs()) == [
        ("timesheet.csv", 0, "BAD_HEADER")
    ]


@pytest.mark.parametrize(
    "name", ["TIMESHEET.CSV", "Timesheet Oktober.csv", "timesheet-2.CsV", "timesheet\\2.csv"]
)
def test_file_names_match_in_any_case(folder: Folder, name: str) -> None:
    assert folder.times(ROW, name=name).outputs()["total_hours"] == "8"


def test_other_files_are_not_read_and_named_in_a_note(folder: Folder) -> None:
    result = folder.put("mytimesheet.csv", TIMES).put("timesheet.xlsx", b"PK\x03\x04").compute()
    assert [note["file"] for note in result["notes"]] == ["mytimesheet.csv", "timesheet.xlsx"]


def test_a_name_that_leads_out_of_the_folder_is_not_opened(folder: Folder) -> None:
    from aios_agent_runner.agents.monthly_report import compute

    (folder.files.parent / "secret.csv").write_text(f"{TIMES}\n{ROW}\n")
    names = ["timesheet/../../secret.csv", "../timesheet.csv", "timesheet.csv"]
    request = {"client": "a", "month": "2026-10", "files": [{"name": name} for name in names]}
    request["files"][2]["file"] = {"path": "../secret.csv"}  # type: ignore[index]
    outputs = compute.run(request, folder.files, folder.out)["outputs"]
    assert [(row["file"], row["code"]) for row in outputs["rejected_rows"]] == [
        ("timesheet.csv", "FILE_MISSING")
    ]
