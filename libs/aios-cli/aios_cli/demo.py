"""The demo: a client's monthly report on a server of its own, from the folder to the undone change.

On a terminal the person decides; without one it approves, takes everything back, makes the report again, and says so.
"""

import ctypes
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Approval, ApprovalKind, ApprovalState, RunState
from aios_cli import asking, documents, inputs
from aios_cli.launcher import address
from aios_cli.live import Live
from aios_cli.options import given
from aios_cli.output import console, say
from aios_cli.session import Session
from aios_cli.views import approval as approval_view
from aios_cli.views import story
from aios_core.errors import TerminalError
from aios_core.minting import mint, now_ms
from aios_core.values import Plain
from aios_runtime.run_states import ENDED

WORKFLOW: Final = "monthly-client-report"
CLIENT: Final = "acme"
MONTHS: Final = (
    "2026-09",
    "2026-10",
)  # the first is made without a word, so that the second has one to compare with
SAMPLE: Final = Path(__file__).parent / "sample"
STOP_SECONDS: Final = 15
_PR_SET_PDEATHSIG: Final = 1
SHOWN_LINES: Final = 30  # of each document at the approval


def run(folder: Path | None, *, by_itself: bool) -> int:
    """Show it. Returns the exit code."""
    place = (folder or Path.home() / "aios-demo").expanduser().absolute()
    asks = not by_itself and sys.stdin.isatty() and sys.stdout.isatty()
    clients = _set_up(place)
    say(
        f"AIOS makes the monthly report of the client {CLIENT!r} from the files in {clients / CLIENT}.",
        "bold",
    )
    if not asks:
        say("There is no terminal to ask on, so this decides by itself, and says what.")
    with _server(place, clients) as data_dir:
        given.data_dir = data_dir
        with Session() as session:
            _learn_the_month_before(session)
            code = _show(session, clients, asks)
    _say_what_next(place, clients)
    return code


def _set_up(place: Path) -> Path:
    """The folder of the clients, with the sample in it; what is there already stays as it is."""
    clients = place / "clients"
    try:
        for source in sorted(SAMPLE.rglob("*")):
            target = clients / source.relative_to(SAMPLE)
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    except OSError as error:
        raise TerminalError(
            "DATA_DIR", f"The demo can't be set up in {place}: {error.strerror}. Give another with --folder."
        ) from None
    return clients


@contextmanager
def _server(place: Path, clients: Path) -> Iterator[Path]:
    """The data directory of a running server; one that the demo started is stopped at the end."""
    data_dir = place / "data"
    if address.read(data_dir) is not None:
        yield data_dir
        return
    command = [
        sys.executable,
        "-m",
        "aios_cli",
        "serve",
        "--data-dir",
        str(data_dir),
        "--files-root",
        str(clients),
    ]
    process = subprocess.Popen(
        [*command, "--grpc-port", "0", "--http-port", "0", "--json"],
        stdout=subprocess.PIPE,
        preexec_fn=_end_with_the_demo,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        ready = json.loads(line) if line else {}
        if ready.get("event") != "ready":
            problem = ready.get("error", {}).get("message", "its log says why")
            raise TerminalError("UNAVAILABLE", f"The demo's server did not start: {problem}.")
        say(f"A server of its own is ready (took {ready['took_ms']} ms).", "dim")
        yield data_dir
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _end_with_the_demo() -> None:
    """In the server's process: stop it when the demo is killed (Linux; elsewhere the next demo uses it on)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _start(session: Session, month: str) -> str:
    request = api_pb2.StartRunRequest(
        request_id=mint("req"), workflow=WORKFLOW, input=inputs.to_value({"client": CLIENT, "month": month})
    )
    return session.client.call(session.client.runs.StartRun, request).run.run_id


def _learn_the_month_before(session: Session) -> None:
    """Make the earlier report quietly, once, so that there is something to compare with."""
    request = api_pb2.ListRecordsRequest(kind="document", prefix=f"client/{CLIENT}/month/", page_size=10)
    if session.client.call(session.client.memory.ListRecords, request).records:
        return
    say(
        f"First it makes the report of {MONTHS[0]}, and approves it for you, so that there is a month before.",
        "dim",
    )
    run_id = _start(session, MONTHS[0])
    with Live(quiet=True) as live:
        waiting = session.follow(run_id, live.show)
        for approval_id in waiting.pending_approvals:
            _decide(session, _approval(session, approval_id), ApprovalState.APPROVAL_STATE_APPROVED)
        session.follow(run_id, live.show, after=waiting.sequence)


def _show(session: Session, clients: Path, asks: bool) -> int:
    """The run that is watched: approved, taken back if wanted, and kept at the end when nobody was asked."""
    ended = _run_once(session, asks)
    if ended.state != RunState.RUN_STATE_SUCCEEDED:
        return 0 if ended.state == RunState.RUN_STATE_CANCELLED else 1
    report = clients / CLIENT / MONTHS[1] / "report"
    say(f"\nThe report lies in {report}:", "bold")
    for file in sorted(report.iterdir()):
        say(f"  {file.name}")
    if asks and not typer.confirm("\nTake everything back?", default=False):
        return 0
    say("\nNow everything is taken back, the last change first:", "bold")
    undone = _undo(session, ended)
    if undone.state != RunState.RUN_STATE_UNDONE:
        return 1
    if not asks:
        say("\nNobody was asked, so it makes the report once more, for you to look at:", "bold")
        ended = _run_once(session, asks, briefly=True)
    return 0 if ended.state == RunState.RUN_STATE_SUCCEEDED else 1


def _run_once(session: Session, asks: bool, *, briefly: bool = False) -> api_pb2.Run:
    """One run to its end, with the person's decisions."""
    say(f"\nThe report of {MONTHS[1]}:", "bold")
    run_id, after = _start(session, MONTHS[1]), 0
    while True:
        with Live() as live:
            run = session.follow(run_id, live.show, after=after)
        after = run.sequence
        if run.state in ENDED or not run.pending_approvals:
            console().print(story.footing(run))
            return run
        for approval_id in run.pending_approvals:
            _ask(session, _approval(session, approval_id), asks, briefly)


def _approval(session: Session, approval_id: str) -> Approval:
    request = api_pb2.GetApprovalRequest(approval_id=approval_id)
    return session.client.call(session.client.approvals.GetApproval, request).approval


def _ask(session: Session, item: Approval, asks: bool, briefly: bool) -> None:
    """Show what is asked, and decide."""
    console().print()
    found = [] if briefly else list(documents.of(session.client, item))
    console().print(approval_view.approval(item, found, now_ms(), SHOWN_LINES))
    if item.kind != ApprovalKind.APPROVAL_KIND_GATE:
        answers = asking.answers(item, "", [] if asks else [f"{q.id}={q.options[0]}" for q in item.questions])
        _decide(session, item, ApprovalState.APPROVAL_STATE_ANSWERED, dict(answers))
        return
    approved = True
    if asks:
        approved = typer.confirm("\nWrite these files?", default=True)
    else:
        say("\nIt approves this by itself.", "yellow")
    states = ApprovalState.APPROVAL_STATE_APPROVED, ApprovalState.APPROVAL_STATE_REJECTED
    _decide(session, item, states[0] if approved else states[1])


def _decide(
    session: Session,
    item: Approval,
    decision: ApprovalState.ValueType,
    answers: Mapping[str, Plain] | None = None,
) -> None:
    request = api_pb2.DecideApprovalRequest(
        request_id=mint("req"),
        approval_id=item.approval_id,
        decision=decision,
        arguments_sha256=item.arguments_sha256,
    )
    if answers is not None:
        request.answers.CopyFrom(inputs.to_value(answers))
    session.client.call(session.client.approvals.DecideApproval, request)


def _undo(session: Session, run: api_pb2.Run) -> api_pb2.Run:
    request = api_pb2.UndoRunRequest(request_id=mint("req"), run_id=run.run_id, why="shown in the demo")
    session.client.call(session.client.runs.UndoRun, request)
    with Live() as live:
        ended = session.follow(run.run_id, live.show, after=run.sequence)
    console().print(story.heading(ended))
    return ended


def _say_what_next(place: Path, clients: Path) -> None:
    report = clients / CLIENT / MONTHS[1] / "report"
    if report.exists():
        say(f"\nLook at it: {report / 'report.html'} (for the client), {report / 'review.html'} (for you).")
    say(f"Serve this folder again: ./aios serve --data-dir {place / 'data'} --files-root {clients}")
    say("Your own clients:        ./aios serve --files-root ~/clients", "bold")
    say("  Put time sheets and invoices into ~/clients/<client>/<YYYY-MM>/; five seconds later it begins.")
