"""`aios run undo` and `redo`: take back what a run changed, and put it back."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aios_cli.commands.runs import RequestId, RunId, Wait, Why, _finish, _show_result, followed, named
from aios_cli.options import command, given

if TYPE_CHECKING:
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session

Preview = Annotated[
    bool, typer.Option("--preview", "--dry-run", help="Show what it would do, and do nothing.")
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--step", metavar="STEP", help="Only this step and what came of it; repeatable.", show_default=False
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask about what is taken along.")]


def undo(
    run: RunId,
    step: Steps = None,
    preview: Preview = False,
    yes: Yes = False,
    why: Why = "",
    wait: Wait = True,
    request_id: RequestId = None,
) -> None:
    """Take back what a run changed, or some steps of it. What a person has edited since is left alone and shown."""
    from aios.api.v1 import api_pb2
    from aios_cli import pick
    from aios_cli.output import say
    from aios_cli.session import Session

    steps = step or []
    with Session() as session:
        client = session.client
        run_id = pick.run(client, run)
        if preview:
            _show(_previewed(session, run_id, steps, redo=False), redo=False)
            return
        if steps:
            _say_along(_previewed(session, run_id, steps, redo=False), yes)
        before = session.run(run_id).sequence
        request = api_pb2.UndoRunRequest(request_id=named(request_id), run_id=run_id, why=why, steps=steps)
        answer = client.call(client.runs.UndoRun, request)
        if answer.impossible and not steps:
            say(f"Can't be undone: {', '.join(answer.impossible)}.", "yellow")
        ended = _followed(session, answer.run, before, wait)
    _finish(ended, _show_result)


def redo(
    run: RunId,
    preview: Preview = False,
    why: Why = "",
    wait: Wait = True,
    request_id: RequestId = None,
) -> None:
    """Put back what an undo of a run took away. What a person has changed since is left alone and shown."""
    from aios.api.v1 import api_pb2
    from aios_cli import pick
    from aios_cli.session import Session

    with Session() as session:
        client = session.client
        run_id = pick.run(client, run)
        if preview:
            _show(_previewed(session, run_id, [], redo=True), redo=True)
            return
        before = session.run(run_id).sequence
        request = api_pb2.RedoRunRequest(request_id=named(request_id), run_id=run_id, why=why)
        answer = client.call(client.runs.RedoRun, request)
        ended = _followed(session, answer.run, before, wait)
    _finish(ended, _show_redone)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    command(app, "undo")(undo)
    command(app, "redo")(redo)


def _followed(session: "Session", run: "api_pb2.Run", before: int, wait: bool) -> "api_pb2.Run":
    from aios.run.v1.state_pb2 import RunState

    under_way = run.state in (RunState.RUN_STATE_UNDOING, RunState.RUN_STATE_REDOING)
    if wait and (under_way or run.sequence > before):
        return followed(session, run.run_id, after=before)
    return run


def _previewed(
    session: "Session", run_id: str, steps: list[str], *, redo: bool
) -> "api_pb2.PreviewUndoResponse":
    from aios.api.v1 import api_pb2

    client = session.client
    request = api_pb2.PreviewUndoRequest(run_id=run_id, steps=steps, redo=redo)
    return client.call(client.runs.PreviewUndo, request)


def _show(found: "api_pb2.PreviewUndoResponse", *, redo: bool) -> None:
    from aios_cli import shapes
    from aios_cli.output import console, print_json
    from aios_cli.views import undoing

    if given.json:
        print_json({"items": [shapes.undo_item(item) for item in found.items], "more": found.more})
    else:
        console().print(undoing.preview(found, redo=redo))


def _say_along(found: "api_pb2.PreviewUndoResponse", yes: bool) -> None:
    """What is taken along is said before anything is done; where a person is there, they are asked."""
    from aios.run.v1.state_pb2 import UNDO_VERDICT_IMPOSSIBLE
    from aios_cli.output import say

    final = [item.step for item in found.items if item.verdict == UNDO_VERDICT_IMPOSSIBLE]
    if final:
        say(f"Can't be undone: {', '.join(final)}.", "yellow")
    along = [item.step for item in found.items if item.along and item.step not in final]
    if not along:
        return
    say(f"It takes along what came of it: {', '.join(along)}.", "yellow")
    if not (yes or given.json) and sys.stdin.isatty():
        typer.confirm("Go on?", abort=True)


def _show_redone(run: "api_pb2.Run") -> None:
    from aios.run.v1.state_pb2 import StepState
    from aios_cli.output import say

    _show_result(run)
    left = [s.step for s in run.steps if s.state == StepState.STEP_STATE_UNDONE and s.error.code]
    if left:
        say(f"Not put back: {', '.join(left)}.", "yellow")
