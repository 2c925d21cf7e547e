"""Folders that a real server meets: very many files, very many faults, odd names, links, every flaw at once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.drill.kept import patiently
from tests.drill.served import Served
from tests.report.months import TIMES
from tests.report.oracle import expect
from tests.report.strange_months import folder

MONTH = "2026-10"
EVERY_FLAW = 2491  # the seed of a folder with both kinds of tables, four currencies and 20 rejected rows
ODD_NAMES = [
    "timesheet \n x.csv",
    "timesheet\"'$(x)`.csv",
    "timesheet<b>.csv",
    "timesheet\\back.csv",
    "timesheet😀.csv",
]
ODD_NAMES += ["timesheet\u202e.csv", "timesheet\x01.csv", "timesheet ü.csv", f"timesheet{'y' * 240}.csv"]


def row(number: int) -> bytes:
    return f"{TIMES}\n2026-10-05,A,{number},1,100,EUR\n".encode()


def put(served: Served, client: str, files: dict[str, bytes]) -> Path:
    place = served.files / client / MONTH
    place.mkdir(parents=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def run(served: Served, client: str) -> dict[str, Any]:
    """The run of the client's month, approved, at its end."""
    inputs = ("--input", f"client={client}", "--input", f"month={MONTH}", "--request-id", f"start-{client}")
    shown: dict[str, Any] = served.aios("run", "start", "monthly-client-report", *inputs, "--wait")
    for approval in shown["pending_approvals"]:
        served.aios("approval", "approve", approval)
        for _ in patiently():
            shown = served.aios("run", "start", "monthly-client-report", *inputs, "--wait")
            if not shown["pending_approvals"]:
                break
    return shown


@pytest.mark.feature("M1", "D6")
def test_strange_folders_are_reported_or_refused_in_a_clear_sentence(tmp_path: Path) -> None:
    served = Served(tmp_path)
    many = put(served, "many", {f"timesheet-{n:03}.csv": row(n) for n in range(600)})
    put(served, "more", {f"timesheet-{n:03}.csv": row(n) for n in range(601)})
    put(served, "long", {f"timesheet-{n:03}-{'ü' * 110}.csv": row(n) for n in range(600)})
    put(served, "flawed", folder(EVERY_FLAW))
    put(served, "bad", {"timesheet.csv": f"{TIMES}\n".encode() + b"x,A,b,1,1,EUR\n" * 450})
    odd = put(served, "odd", {name: row(n) for n, name in enumerate(ODD_NAMES)})
    (odd / "timesheet-link.csv").symlink_to("/etc/passwd")
    with open(os.fsencode(odd) + b"/timesheet \xfc.csv", "wb") as file:
        file.write(row(99))
    outside = put(served, "../outside", {"timesheet.csv": row(1)})
    (served.files / "linked").symlink_to(outside.parent)
    with served:
        for client, sentence in (
            ("more", "more/2026-10 has 601 files; at most 600 are read."),
            ("long", "names of the 600 files in long/2026-10 are too long together"),
            ("linked", "linked/2026-10 is a link; links are not followed."),
        ):
            refused = run(served, client)
            assert (refused["state"], sentence in refused["error"]["message"]) == ("failed", True), refused
        assert [path.name for path in outside.iterdir()] == ["timesheet.csv"]
        assert run(served, "many")["outputs"]["total_hours"] == "600"
        assert "<svg" in (many / "report" / "report.html").read_text()
        check_odd(run(served, "odd")["outputs"])
        check_bad(served, run(served, "bad")["outputs"], tmp_path)
        outputs, right = run(served, "flawed")["outputs"], expect(folder(EVERY_FLAW), MONTH)
        for name in ("billed", "invoiced", "outstanding", "accepted_rows"):
            assert outputs[name] == getattr(right, name)
        assert {(said["file"], said["line"]) for said in outputs["rejected_rows"]} == right.rejected.keys()


def check_odd(outputs: dict[str, Any]) -> None:
    assert outputs["total_hours"] == str(len(ODD_NAMES) + 1)
    (link,) = outputs["rejected_rows"]
    assert (link["file"], link["line"]) == ("timesheet-link.csv", 0)
    assert "links are not followed" in link["reason"]


def check_bad(served: Served, outputs: dict[str, Any], place: Path) -> None:
    assert (len(outputs["rejected_rows"]), outputs["accepted_rows"]) == (200, 0)
    served.aios("artifact", "get", outputs["rejected_rows_all"]["$artifact"], "--output", str(place / "all"))
    listed = json.loads((place / "all").read_text())
    assert listed[:200] == outputs["rejected_rows"]
    assert [said["line"] for said in listed] == list(range(2, 452))
