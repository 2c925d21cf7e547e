"""`aios run …`: start, follow, stop and take back runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session

app = group("Start, follow, stop and undo runs.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its last characters.")]
Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")]
Input = Annotated[
    list[str] | None, typer.Option("--input", "-i", metavar="KEY=VALUE", help="An input; repeatable.")
]
InputJson = Annotated[
    str | None,
    typer.Option("--input-json", metavar="JSON", help="All inputs as one JSON object; @FILE or - reads it."),
]
Version = Annotated[
    str, typer.Option("--workflow-version", help="A version other than the newest.", show_default=False)
]
Customer = Annotated[
    str,
    typer.Option("--customer", help="Whom it is for, if not whom the workflow names.", show_default=False),
]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", help="Makes repeating the command safe: the same id gives the same answer."),
]
Why = Annotated[str, typer.Option("--why", help="A reason, kept in the story.", show_default=False)]
Priority = Annotated[
    int | None,
    typer.Option(
        "--priority",
        min=0,
        max=9,
        help="How urgent its tasks are, 9 first; as the workflow says without it.",
        show_default=False,
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the run ends or needs a person.")]


@command(app, "start")
def start(
    workflow: Workflow,
    input: Input = None,
    input_json: InputJson = None,
    wait: Wait = False,
    workflow_version: Version = "",
    priority: Priority = None,
    request_id: RequestId = None,
    customer: Customer = "",
) -> None:
    """Start a workflow."""
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session

    with Session() as session:
        client = session.client
        request = api_pb2.StartRunRequest(
            request_id=named(request_id),
            workflow=workflow,
            workflow_version=workflow_version,
            input=inputs_of(session, workflow, workflow_version, input, input_json),
            priority=priority,
            customer=customer,
        )
        answer = client.call(client.runs.StartRun, request)
        if wait:
            _follow_to_the_end(session, answer.run.run_id)
        _show_started(answer.run, answer.duplicate)


@command(app, "list")
def list_(
    workflow: Annotated[
        str, typer.Option("--workflow", help="Only runs of this workflow.", show_default=False)
    ] = "",
    needs_me: Annotated[bool, typer.Option("--needs-me", help="Only runs that wait for a person.")] = False,
    late: Annotated[bool, typer.Option("--late", help="Only runs that are late, or were.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="At most this many, the newest first.")
    ] = 20,
) -> None:
    """List runs, the newest first."""
    from aios_cli import shapes
    from aios_cli.output import console, print_json, say
    from aios_cli.session import Session
    from aios_cli.views.runs import table
    from aios_core.minting import now_ms

    with Session() as session:
        runs = _listed(session, workflow, needs_me, late, limit)
    if given.json:
        print_json([shapes.run(run, full=False) for run in runs])
    elif runs:
        console().print(table(runs, now_ms()))
    else:
        say(
            "No runs yet. Start one with `aios run start WORKFLOW`; see `aios resource list --kind Workflow`."
        )


@command(app, "show")
def show(run: RunId) -> None:
    """Tell the story of a run: who did what and why, what changed, what it cost."""
    from aios.api.v1 import api_pb2
    from aios_cli import pick, shapes
    from aios_cli.output import console, print_json
    from aios_cli.session import Session
    from aios_cli.views import story
    from aios_cli.views.runs import result

    with Session() as session:
        client = session.client
        request = api_pb2.GetTimelineRequest(run_id=pick.run(client, run))
        answer = client.call(client.runs.GetTimeline, request)
    if given.json:
        print_json({**shapes.run(answer.run), "timeline": [shapes.entry(entry) for entry in answer.entries]})
        return
    console().print(story.story(answer.run, answer.entries))
    console().print(result(answer.run))


@command(app, "watch")
def watch(
    run: RunId,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this event of the run.")] = 0,
) -> None:
    """Follow a run live until it ends or needs a person. With --json: one JSON object a line."""
    import json

    from aios_cli import exits, pick, shapes
    from aios_cli.session import Session, exit_code

    with Session() as session:
        run_id = pick.run(session.client, run)
        if not given.json:
            _finish(followed(session, run_id, after=after), _show_result)

        def show_line(entry: "api_pb2.TimelineEntry") -> None:
            print(json.dumps(shapes.entry(entry), ensure_ascii=False), flush=True)

        ended = session.follow(run_id, show_line, after=after, timeout=given.timeout)
    if code := exit_code(ended):
        raise typer.Exit(code)
    raise typer.Exit(exits.OK)


@command(app, "cancel")
def cancel(run: RunId, why: Why = "", wait: Wait = True, request_id: RequestId = None) -> None:
    """Stop a run: what was done stays, nothing more is begun."""
    from aios.api.v1 import api_pb2
    from aios.run.v1.state_pb2 import RunState
    from aios_cli import exits, pick
    from aios_cli.session import Session

    with Session() as session:
        client = session.client
        run_id = pick.run(client, run)
        request = api_pb2.CancelRunRequest(request_id=named(request_id), run_id=run_id, why=why)
        answer = client.call(client.runs.CancelRun, request).run
        if wait and answer.state == RunState.RUN_STATE_CANCELLING:
            answer = followed(session, run_id, after=answer.sequence, until_person=False)
    _finish(answer, _show_result, exits.OK if answer.state == RunState.RUN_STATE_CANCELLED else None)


@command(app, "rewind")
def rewind(
    run: RunId,
    to: Annotated[str, typer.Option("--to", metavar="STEP", help="The step to go back to.")],
    input: Input = None,
    input_json: InputJson = None,
    why: Why = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run again.")] = False,
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Go back to a step of a run that ended: it and what came of it run again, nothing else."""
    from aios_cli.commands import failures

    failures.rewind(
        run=run,
        to=to,
        input=input,
        input_json=input_json,
        why=why,
        dry_run=dry_run,
        wait=wait,
        request_id=request_id,
    )


def named(request_id: str | None) -> str:
    """The request id that was given, even an empty one: that is for the server to refuse."""
    from aios_core.minting import mint

    return mint("req") if request_id is None else request_id


def inputs_of(
    session: "Session", workflow: str, version: str, pairs: list[str] | None, document: str | None
) -> Any:
    """The inputs, typed by the workflow's own schema. Raises NOT_FOUND for a workflow that isn't there."""
    from aios.api.v1 import api_pb2
    from aios_cli import inputs
    from aios_cli.files import read_text
    from aios_core import json_values

    client = session.client
    schema: Any = {}
    if pairs:
        request = api_pb2.GetResourceRequest(kind="Workflow", name=workflow, version=version)
        resource = client.call(client.resources.GetResource, request).resource
        found: Any = json_values.to_json(json_values.loads(resource.document))
        schema = found.get("spec", {}).get("inputs", {})
    return inputs.read(pairs or [], read_text(document) if document is not None else None, schema)


def _listed(
    session: "Session", workflow: str, needs_person: bool, late: bool, limit: int
) -> "list[api_pb2.Run]":
    from aios.api.v1 import api_pb2

    request = api_pb2.ListRunsRequest(
        workflow=workflow, needs_person=needs_person, late=late, page_size=min(limit, 100)
    )
    return session.listed(session.client.runs.ListRuns, request, "runs", limit)


def followed(session: "Session", run_id: str, *, after: int = 0, until_person: bool = True) -> "api_pb2.Run":
    """Show the run's story as it happens (nothing with --json), and return how it stands then."""
    from aios_cli.live import Live
    from aios_core.errors import AiosError

    with Live(quiet=given.json) as live:
        try:
            return session.follow(
                run_id, live.show, after=after, until_person=until_person, timeout=given.timeout
            )
        except AiosError as error:
            error.details.setdefault("run_id", run_id)
            raise


def _follow_to_the_end(session: "Session", run_id: str) -> None:
    _finish(followed(session, run_id), _show_result)


def _finish(run: "api_pb2.Run", show_it: Any, code: int | None = None) -> None:
    """Print how the run stands and leave with the exit code that says so."""
    from aios_cli import shapes
    from aios_cli.output import print_json
    from aios_cli.session import exit_code

    if given.json:
        print_json(shapes.run(run))
    else:
        show_it(run)
    raise typer.Exit(exit_code(run) if code is None else code)


def _show_started(run: "api_pb2.Run", duplicate: bool) -> None:
    from aios_cli import shapes
    from aios_cli.output import print_json, say
    from aios_cli.words import short

    if given.json:
        print_json({**shapes.run(run), "duplicate": duplicate})
        return
    say(f"{'This was started before' if duplicate else 'Started'}: run {short(run.run_id)}.")
    say(f"Follow it with: aios run watch {short(run.run_id)}", "dim")


def _show_result(run: "api_pb2.Run") -> None:
    from aios_cli.output import console
    from aios_cli.views import story
    from aios_cli.views.runs import result

    console().print()
    console().print(story.heading(run))
    console().print(story.footing(run))
    console().print(result(run))
