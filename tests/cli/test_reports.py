"""The monthly report through the command line: what it learns, what it shows, and what can be taken back."""

import hashlib
from pathlib import Path

import pytest

from tests.served import Said, Server

UNKNOWN = "date,project,task,Std-Anz,rate,currency\n{month}-03,Shop,design,2,100,EUR\n"
ODD_NAMES = ("Müller & Söhne", "O\"Neil's", "🦄 Labs", "-dash", "x" * 100, "${inputs}", "<b>bold")


def report(server: Server, client: str, month: str, verb: str = "start") -> Said:
    wait = ("--wait",) if verb == "start" else ()
    inputs = ("--input", f"client={client}", "--input", f"month={month}")
    return server.aios("run", verb, "monthly-client-report", *inputs, *wait, "--json")


def approved(server: Server, client: str, month: str) -> str:
    """The id of a run that was approved and has ended."""
    waits = report(server, client, month)
    assert waits.code == 3, waits.out
    ended = server.json("approval", "approve", waits.json["pending_approvals"][0], "--wait")
    assert ended["state"] == "succeeded", ended
    return str(ended["run_id"])


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.feature("D10")
def test_a_simulation_says_what_it_would_write_and_writes_nothing(server: Server) -> None:
    server.month("simulated", "2026-07")
    before = tree(server.files)
    said = report(server, "simulated", "2026-07", "simulate")
    assert (said.code, said.json["mode"]) == (0, "simulate")
    assert len([change for change in said.json["predicted"] if change["resource"].startswith("file:")]) == 5
    assert tree(server.files) == before
    shown = server.aios("run", "show", said.json["run_id"])
    assert "you simulated monthly-client-report" in shown.out


@pytest.mark.feature("D6")
def test_of_two_runs_of_a_month_the_second_is_undone_first_and_then_nothing_is_left(server: Server) -> None:
    folder = server.month("twice", "2026-07")
    first = approved(server, "twice", "2026-07")
    kept = tree(folder)
    with (folder / "timesheet.csv").open("a") as file:
        file.write("2026-07-09,Shop,more,1,100,EUR\n")
    second = approved(server, "twice", "2026-07")
    early = server.aios("run", "undo", first, "--json")
    assert (early.code, early.json["state"]) == (5, "undo_incomplete")
    conflict = server.aios("run", "show", first).out
    assert "report.md was edited since" in " ".join(conflict.split())
    assert server.aios("run", "undo", second, "--json").json["state"] == "undone"
    restored = tree(folder)
    assert {name: restored[name] for name in kept if name.startswith("report/report")} == {
        name: kept[name] for name in kept if name.startswith("report/report")
    }
    late = server.aios("run", "undo", first, "--json")
    assert (late.code, late.json["state"]) == (0, "undone"), server.aios("run", "show", first).out
    assert [path.name for path in folder.iterdir()] == ["timesheet.csv"]


@pytest.mark.feature("M1")
def test_an_unknown_column_is_asked_for_once_used_next_month_and_can_be_unlearned(server: Server) -> None:
    for month in ("2026-07", "2026-08", "2026-09"):
        server.month("learner", month, timesheet=UNKNOWN.format(month=month))
    asks = report(server, "learner", "2026-07")
    assert asks.code == 3
    question = server.aios("approval", "show", asks.json["pending_approvals"][0])
    assert "Which column is hours?" in question.out
    proposed = server.aios(
        "approval", "answer", asks.json["pending_approvals"][0], "Std-Anz", "--wait", "--json"
    )
    assert proposed.code == 3
    taught = server.json("approval", "approve", proposed.json["pending_approvals"][0], "--wait")
    next_month = report(server, "learner", "2026-08")
    shown = server.json("approval", "show", next_month.json["pending_approvals"][0])
    assert shown["kind"] == "gate"
    assert "1 row counts: 2 hours" in shown["why"]
    assert "as you said in 2026-07" in shown["why"]
    server.json("approval", "reject", shown["approval_id"], "--wait")
    assert server.aios("run", "undo", taught["run_id"]).code == 0
    again = report(server, "learner", "2026-09")
    assert server.json("approval", "show", again.json["pending_approvals"][0])["kind"] == "question"


def test_none_of_these_is_an_answer_and_nothing_of_the_file_counts(server: Server) -> None:
    server.month("unsure", "2026-07", timesheet=UNKNOWN.format(month="2026-07"))
    asks = report(server, "unsure", "2026-07")
    said = server.aios(
        "approval", "answer", asks.json["pending_approvals"][0], "none of these", "--wait", "--json"
    )
    shown = server.json("approval", "show", said.json["pending_approvals"][0])
    assert "0 rows count" in shown["why"]


@pytest.mark.parametrize("client", ODD_NAMES)
def test_a_client_may_have_any_name_that_a_folder_may_have(server: Server, client: str) -> None:
    server.month(client, "2026-07")
    waits = report(server, client, "2026-07")
    assert waits.code == 3, waits.out
    assert waits.json["about"] == f"{client}/2026-07"
    shown = server.json("approval", "show", waits.json["pending_approvals"][0])
    assert shown["title"] == f"Write the report of {client} for 2026-07"


@pytest.mark.parametrize(
    ("client", "month", "code"),
    [
        ("../../etc", "2026-07", 2),
        ("/etc", "2026-07", 2),
        ("..", "2026-07", 2),
        ("", "2026-07", 2),
        ("a/b", "2026-07", 2),
        ("x" * 101, "2026-07", 2),
        ("nobody", "2026-07", 1),
        ("nobody", "2026-13", 2),
        ("nobody", "july", 2),
        ("nobody", "", 2),
    ],
)
def test_a_client_or_month_that_is_none_is_refused_in_words(
    server: Server, client: str, month: str, code: int
) -> None:
    said = report(server, client, month)
    assert said.code == code
    error = said.json["error"]
    assert "^" not in error["message"], "a person reads no patterns"
    assert error["message"]


def test_two_months_at_once_are_two_approvals_told_apart(server: Server) -> None:
    approvals = []
    for month in ("2026-07", "2026-08"):
        server.month("parallel", month)
        run = server.json(
            "run", "start", "monthly-client-report", "-i", "client=parallel", "-i", f"month={month}"
        )
        approvals.append(run["run_id"])
    for run_id in approvals:
        assert server.aios("run", "watch", run_id).code == 3
    titles = {item["title"] for item in server.json("approval", "list") if item["run_id"] in approvals}
    assert titles == {f"Write the report of parallel for {month}" for month in ("2026-07", "2026-08")}
    listed = server.aios("run", "list").out
    assert "parallel · 2026-07" in listed
    assert "parallel · 2026-08" in listed


def test_an_artifact_is_read_to_standard_output_and_to_a_file(server: Server, tmp_path: Path) -> None:
    folder = server.month("reader", "2026-07")
    run = server.json("run", "show", approved(server, "reader", "2026-07"))
    sha256 = run["outputs"]["report"]["$artifact"]
    written = (folder / "report" / "report.md").read_text()
    assert server.aios("artifact", "get", sha256).out == written
    got = server.json("artifact", "get", sha256, "--output", str(tmp_path / "copy.md"))
    assert (got["name"], got["size"]) == ("report.md", len(written.encode()))
    assert (tmp_path / "copy.md").read_text() == written
    refused = server.aios("artifact", "get", sha256, "--output", str(tmp_path / "no" / "copy.md"), "--json")
    assert refused.json["error"]["message"].endswith("No such file or directory.")


def test_the_page_of_an_approval_fetches_nothing_and_shows_markup_as_text(server: Server) -> None:
    from aios.run.v1.state_pb2 import Approval, ApprovalKind
    from aios_cli.documents import Document
    from aios_cli.views.preview import page

    item = Approval(
        approval_id="apr_x", title="<script>alert(1)</script>", kind=ApprovalKind.APPROVAL_KIND_GATE
    )
    shown = page(item, [Document("a/b.html", "create", b"<script src=http://x></script>", "text/html")])
    assert "<script" not in shown
    assert "default-src 'none'" in shown
    assert 'name="viewport"' in shown
