"""files.read_folder: exactly the files of a month, as they are."""

import os
from datetime import UTC, datetime

import pytest

from aios.task.v1.task_pb2 import MODE_SIMULATE, STATUS_FAILED, STATUS_SUCCEEDED
from aios_connector_files import listing
from aios_core.encoding import decode
from aios_core.labels import Trust
from aios_core.values import Pointer, leaves
from tests.connector_files.acting import Desk, output

MONTH = {"client": "acme", "month": "2026-10"}


async def test_every_regular_file_directly_in_the_folder_is_read(desk: Desk) -> None:
    month = desk.root / "acme" / "2026-10"
    (month / "timesheet.csv").write_bytes(b"date\n")
    (month / "Notizen \xe4.txt").write_bytes(b"")
    os.utime(month / "timesheet.csv", ns=(0, 1_700_000_000_123_456_789))
    outcome = await desk.do("read_folder", MONTH)
    assert outcome.status == STATUS_SUCCEEDED
    result = output(outcome)
    assert [file["name"] for file in result["files"]] == ["Notizen ä.txt", "timesheet.csv"]
    sheet = result["files"][1]
    assert isinstance(sheet["file"], Pointer)
    assert await desk.artifacts.get(sheet["file"]) == b"date\n"
    assert (sheet["size"], sheet["file"].media_type) == (5, "text/csv")
    assert sheet["modified"] == datetime.fromtimestamp(1_700_000_000, UTC).replace(microsecond=123456)
    assert (result["client"], result["month"], result["path"]) == ("acme", "2026-10", "acme/2026-10")
    assert outcome.summary == "read 2 files from acme/2026-10 (5 bytes)"


async def test_what_does_not_count_is_told_with_its_reason(desk: Desk) -> None:
    month = desk.root / "acme" / "2026-10"
    (month / "report").mkdir()
    (month / "report" / "report.md").write_text("ours")
    for name in (".~lock.timesheet.csv#", "~$rates.xlsx", "timesheet.csv.part"):
        (month / name).write_text("x")
    (month / "elsewhere.csv").symlink_to("/etc/passwd")
    os.mkfifo(month / "pipe.csv")
    result = output(await desk.do("read_folder", MONTH))
    assert result["files"] == []
    assert {item["name"]: item["why"] for item in result["ignored"]} == {
        ".~lock.timesheet.csv#": "hidden or temporary",
        "elsewhere.csv": "a link; links are not followed",
        "pipe.csv": "not a regular file",
        "report": "a folder",
        "timesheet.csv.part": "hidden or temporary",
        "~$rates.xlsx": "hidden or temporary",
    }


async def test_a_name_that_is_not_utf8_is_read_as_latin1(desk: Desk) -> None:
    folder = os.fsencode(desk.root / "acme" / "2026-10")
    with open(folder + b"/Stunden f\xfcr M\xe4rz.csv", "wb") as file:
        file.write(b"x")
    result = output(await desk.do("read_folder", MONTH))
    assert [file["name"] for file in result["files"]] == ["Stunden für März.csv"]


async def test_what_is_read_is_not_trusted(desk: Desk) -> None:
    (desk.root / "acme" / "2026-10" / "a.csv").write_text("x")
    outcome = await desk.do("read_folder", MONTH)
    assert {leaf.label.trust for leaf in leaves(decode(outcome.output))} == {Trust.UNTRUSTED}
    assert all("connector:files" in leaf.label.origins for leaf in leaves(decode(outcome.output)))


async def test_the_fingerprint_is_that_of_the_contents_alone(desk: Desk) -> None:
    file = desk.root / "acme" / "2026-10" / "a.csv"
    file.write_text("x")
    first = output(await desk.do("read_folder", MONTH))["fingerprint"]
    os.utime(file, ns=(0, 0))
    assert output(await desk.do("read_folder", MONTH))["fingerprint"] == first
    file.write_text("y")
    assert output(await desk.do("read_folder", MONTH))["fingerprint"] != first


async def test_a_simulated_run_reads_for_real(desk: Desk) -> None:
    (desk.root / "acme" / "2026-10" / "a.csv").write_text("x")
    assert len(output(await desk.do("read_folder", MONTH, MODE_SIMULATE))["files"]) == 1


async def test_a_file_that_changes_while_it_is_read_is_read_again_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.root / "acme" / "2026-10" / "a.csv"
    file.write_text("x")
    put = desk.artifacts.put

    async def slow_put(*arguments: object) -> Pointer:
        pointer = await put(*arguments)  # type: ignore[arg-type]
        file.write_text("more")
        return pointer

    monkeypatch.setattr(desk.artifacts, "put", slow_put)
    outcome = await desk.do("read_folder", MONTH)
    assert (outcome.status, outcome.error.code, outcome.error.retryable) == (STATUS_FAILED, "CONFLICT", True)
    assert "a.csv changed while it was read" in outcome.error.message


@pytest.mark.parametrize(
    ("input", "code"),
    [
        ({"client": "nobody", "month": "2026-10"}, "NOT_FOUND"),
        ({"client": "acme"}, "INVALID_ARGUMENT"),
        ({"client": "../acme", "month": "2026-10"}, "INVALID_ARGUMENT"),
        ({"client": "acme", "month": "2026-10", "path": "acme"}, "INVALID_ARGUMENT"),
        ({"path": "../outside"}, "PATH_OUTSIDE_ROOT"),
        ({"path": "acme/2026-10/report"}, "INVALID_ARGUMENT"),
        ({}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_folder_that_can_not_be_is_refused(desk: Desk, input: dict[str, str], code: str) -> None:
    outcome = await desk.do("read_folder", input)
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, code)


async def test_a_file_that_is_too_large_is_told_and_the_others_are_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk.root / "acme" / "2026-10" / "film.mov").write_bytes(bytes(100))
    (desk.root / "acme" / "2026-10" / "a.csv").write_text("x")
    monkeypatch.setattr(listing, "MAX_FILE_BYTES", 99)
    result = output(await desk.do("read_folder", MONTH))
    assert [file["name"] for file in result["files"]] == ["a.csv"]
    assert [item["name"] for item in result["ignored"]] == ["film.mov"]
    assert result["ignored"][0]["why"].startswith("larger than")


async def test_too_many_files_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (desk.root / "acme" / "2026-10" / f"{number}.csv").write_text("xyz")
    monkeypatch.setattr(listing, "MAX_FILES", 3)
    outcome = await desk.do("read_folder", MONTH)
    assert outcome.error.code == "TOO_LARGE"
    assert "has 4 files; at most 3 are read" in outcome.error.message


async def test_two_names_that_would_be_shown_the_same_are_told_apart(desk: Desk) -> None:
    folder = os.fsencode(desk.root / "acme" / "2026-10")
    for name in (b"/\xfc.csv", "/ü.csv".encode()):
        with open(folder + name, "wb") as file:
            file.write(name)
    result = output(await desk.do("read_folder", MONTH))
    assert {file["name"]: file["size"] for file in result["files"]} == {"\\xfc.csv": 6, "ü.csv": 7}


async def test_names_that_are_too_long_together_are_refused(desk: Desk) -> None:
    for number in range(300):
        (desk.root / "acme" / "2026-10" / f"{number}{'x' * 200}.csv").write_text("")
    outcome = await desk.do("read_folder", MONTH)
    assert outcome.error.code == "TOO_LARGE"
    assert "The names of the 300 files in acme/2026-10 are too long together" in outcome.error.message
