"""`aios run migrate`: runs under way go on under another version of their workflow."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.commands.runs import RequestId, Why
from aios_cli.options import command, given

if TYPE_CHECKING:
    from aios_cli.session import Session

MAX_ALL = 1000


def add_to(app: typer.Typer) -> None:
    """Make it a command of `aios run`."""
    command(app, "migrate")(migrate)


Run = Annotated[
    str, typer.Argument(metavar="[RUN]", help="A run's id, or its last characters.", show_default=False)
]
Every = Annotated[
    str,
    typer.Option(
        "--all-of", metavar="WORKFLOW", help="All runs of a workflow that are under way.", show_default=False
    ),
]
To = Annotated[
    str, typer.Option("--to", metavar="VERSION", help="A version other than the newest.", show_default=False)
]
Rename = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="A step that has another name now; repeatable."),
]
Accept = Annotated[
    bool, typer.Option("--accept", help="Go on although the new version has otherwise what a run has done.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do, and what is in the way.")]


def migrate(
    run: Run = "",
    every: Every = "",
    to: To = "",
    rename: Rename = None,
    accept: Accept = False,
    why: Why = "",
    dry_run: DryRun = False,
    request_id: RequestId = None,
) -> None:
    """Have runs go on under another version of their workflow. What they have done stays, and is not done again."""
    from aios_cli import pick
    from aios_cli.commands.runs import named
    from aios_cli.exits import FAILED
    from aios_cli.output import print_json
    from aios_cli.session import Session
    from aios_core.errors import TerminalError

    if bool(run) == bool(every):
        raise TerminalError("INVALID_ARGUMENT", "Name a run, or a workflow with --all-of.", field="run")
    names = dict(_name(text) for text in rename or ())
    asked = {
        "workflow_version": to,
        "renamed": names,
        "accept": accept,
        "why": why,
        "dry_run": dry_run,
    }
    with Session() as session:
        request = named(request_id)
        if run:
            told = [_migrated(session, pick.run(session.client, run), request, asked)]
        else:
            told = [
                _migrated(session, one, f"{request}/{one}", asked, several=True)
                for one in _under_way(session, every)
            ]
    if given.json:
        print_json(told[0] if run else told)
    else:
        _show(told, dry_run)
    if any(item["error"] for item in told):
        raise typer.Exit(FAILED)


def _name(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise typer.BadParameter(f"--rename {text!r} must be OLD=NEW, such as pay=transfer.")
    return old, new


def _under_way(session: "Session", workflow: str) -> list[str]:
    """Runs that a migration is for: those that go on, and those that failed and may be tried again."""
    from itertools import islice

    from aios.api.v1 import api_pb2
    from aios.run.v1.state_pb2 import RunState
    from aios.task.v1.task_pb2 import Mode

    wanted = (RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_FAILED)
    request = api_pb2.ListRunsRequest(workflow=workflow, states=wanted, page_size=100)
    found = session.client.each(session.client.runs.ListRuns, request, "runs")
    return list(islice((run.run_id for run in found if run.mode != Mode.MODE_SIMULATE), MAX_ALL))


def _migrated(
    session: "Session", run_id: str, request_id: str, asked: dict[str, Any], *, several: bool = False
) -> dict[str, Any]:
    """What became of it, or would; of several, what is wrong with one is its own answer."""
    from aios.api.v1 import api_pb2
    from aios_core.errors import AiosError

    request = api_pb2.MigrateRunRequest(request_id=request_id, run_id=run_id, **asked)
    shape: dict[str, Any] = {"run_id": run_id, "from_version": "", "to_version": ""}
    shape |= {"breaks": [], "asks_again": [], "error": None}
    try:
        answer = session.client.call(session.client.runs.MigrateRun, request)
    except AiosError as error:
        if not several:
            raise
        return shape | {"error": {"code": error.code, "message": error.message}}
    breaks = [{"step": b.step, "what": b.what, "final": b.final} for b in answer.breaks]
    shape |= {"from_version": answer.from_version, "to_version": answer.to_version}
    return shape | {"breaks": breaks, "asks_again": list(answer.again)}


def _show(told: list[dict[str, Any]], dry_run: bool) -> None:
    from aios_cli.output import say
    from aios_cli.words import clean, short

    if not told:
        say("No run of it is under way.")
    for item in told:
        name = short(item["run_id"])
        if item["error"]:
            say(clean(f"{name} stays: {item['error']['message']}"), "red")
            continue
        versions = f"{item['from_version'][:8]} → {item['to_version'][:8]}"
        if item["from_version"] == item["to_version"]:
            say(f"{name} follows {item['to_version'][:8]} already.")
            continue
        if not dry_run:
            say(f"{name} goes on: {versions}.")
            continue
        final = any(found["final"] for found in item["breaks"])
        verdict = (
            "could not follow"
            if final
            else "could follow with --accept"
            if item["breaks"]
            else "could follow"
        )
        say(f"{name} {verdict}: {versions}", "red" if final else "")
        for found in item["breaks"]:
            say(clean(f"  {'✗' if found['final'] else '!'} {found['what']}"))
        for step in item["asks_again"]:
            say(clean(f"  ? {step} would ask a person anew"))
