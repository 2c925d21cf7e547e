"""The first hour: what a person does first, through the command line alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drill.kept import patiently
from tests.drill.served import CLIENT, MONTH, Served, check_undone, check_written, make_report


def aios(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of a person whose home is `home`."""
    return subprocess.run(
        [sys.executable, "-m", "aios_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
        env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": "", "XDG_STATE_HOME": "", **environment},
    )


@pytest.mark.feature("L1", "M1", "D6", "K2")
def test_the_demo_makes_a_report_takes_it_back_and_makes_it_again_by_itself_and_can_be_repeated(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        shown = aios("demo", "--folder", str(tmp_path / "demo"), home=tmp_path)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert "decides by itself" in shown.stdout
        assert "everything is undone" in shown.stdout
        assert "aios serve --files-root" in shown.stdout
        report = tmp_path / "demo" / "clients" / "acme" / "2026-10" / "report"
        assert {"report.md", "report.html", "review.md", "review.html"} <= {
            file.name for file in report.iterdir()
        }


def test_without_a_server_a_command_says_how_to_start_one(tmp_path: Path) -> None:
    for command in ((), ("run", "list"), ("approval", "list")):
        said = aios(*command, home=tmp_path)
        assert said.returncode == 4
        assert "No AIOS here" in said.stderr + said.stdout
        assert "Traceback" not in said.stderr


@pytest.mark.feature("M1", "K2", "K3", "D10", "B2", "L3")
def test_a_report_from_start_to_undo(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        inputs = ("--input", f"client={CLIENT}", "--input", f"month={MONTH}")
        before = sorted(path for path in served.files.rglob("*"))
        simulated = served.aios("run", "simulate", "monthly-client-report", *inputs)
        assert simulated["state"] == "succeeded"
        assert sorted(path for path in served.files.rglob("*")) == before
        assert (
            len([change for change in simulated["predicted"] if change["resource"].startswith("file:")]) == 5
        )
        run = make_report(served)
        check_written(served, run)
        shown = served.aios("run", "show", run)
        told = " ".join(line["what"] for line in shown["timeline"])
        assert "needs your approval" in told
        linked = {change["resource"] for line in shown["timeline"] for change in line["changes"]}
        assert f"file:{CLIENT}/{MONTH}/report/report.md" in linked
        assert shown["trace_id"]
        assert shown["cost"] == "0.00"
        check_undone(served, run)


@pytest.mark.feature("D6")
def test_what_a_person_has_edited_is_left_and_the_rest_is_taken_back(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        run = make_report(served)
        edited = served.report / "report.md"
        edited.write_text("mine now\n")
        undone = served.aios("run", "undo", run, "--request-id", "undo")
        assert undone["state"] == "undo_incomplete"
        assert edited.read_text() == "mine now\n"
        assert [path.name for path in served.report.iterdir()] == ["report.md"]


def test_the_same_request_id_is_the_same_run_and_with_other_content_it_is_refused(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        start = ("run", "start", "monthly-client-report", "--request-id", "one", "--input", "month=2026-07")
        first = served.aios(*start, "--input", "client=acme")
        again = served.aios(*start, "--input", "client=acme")
        assert (again["run_id"], again["duplicate"]) == (first["run_id"], True)
        other = served.aios(*start, "--input", "client=other")
        assert other["error"]["code"] == "REQUEST_ID_REUSED"


def test_a_second_server_on_the_same_data_and_a_taken_port_are_told(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        second = aios(
            "serve", "--data-dir", str(served.data), "--files-root", str(served.files), home=tmp_path
        )
        assert second.returncode != 0
        assert "ALREADY_SERVING" in second.stderr + second.stdout
        port = json.loads((served.data / "server.json").read_text())["grpc"].rpartition(":")[2]
        taken = aios("serve", "--data-dir", str(tmp_path / "two"), "--grpc-port", port, home=tmp_path)
        assert taken.returncode != 0
        assert "PORT_TAKEN" in taken.stderr + taken.stdout
        assert "Traceback" not in second.stderr + taken.stderr


@pytest.mark.feature("M1")
def test_a_settled_folder_starts_a_run_and_a_later_change_replaces_its_approval(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        month = served.files / CLIENT / "2026-08"
        month.mkdir()
        header = "date,project,task,hours,rate,currency\n"
        (month / "timesheet.csv").write_text(header + "2026-08-03,Shop,x,2,100,EUR\n")
        first = waiting(served, f"{CLIENT} for 2026-08", None)
        (month / "timesheet.csv").write_text(header + "2026-08-03,Shop,x,3,100,EUR\n")
        second = waiting(served, f"{CLIENT} for 2026-08", first["approval_id"])
        stale = served.aios("approval", "approve", first["approval_id"])
        assert stale["error"]["code"] == "APPROVAL_STALE"
        ended = served.aios("approval", "approve", second["approval_id"], "--wait")
        assert ended["outputs"]["billed"] == {"EUR": "300.00"}


def waiting(served: Served, title: str, other_than: str | None) -> dict[str, str]:
    """The open approval of that title, once there is one."""
    for _ in patiently():
        for item in served.aios("approval", "list"):
            if title in item["title"] and item["approval_id"] != other_than:
                return dict(item)
    raise AssertionError(f"no approval for {title} came")


def test_ctrl_c_stops_a_server_cleanly(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        assert served.stop(signal.SIGINT) == 0
        assert not (served.data / "server.json").exists()
