"""`aios failure …`: what failed, how far it reaches, and what to do about it, for one run or for all of one cause."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios_cli.recovering import Asked
    from aios_cli.session import Session

app = group("See what failed, and have it go on.")

RunId = Annotated[
    str,
    typer.Argument(metavar="[RUN]", help="A failed run's id or its last characters; without: the only one."),
]
AllOf = Annotated[
    str,
    typer.Option("--all-of", metavar="CAUSE", help="All failures of one cause.", show_default=False),
]
Step = Annotated[
    str, typer.Option("--step", help="A step; without: the one that failed.", show_default=False)
]
Why = Annotated[str, typer.Option("--why", help="A reason, kept in the story.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before doing it to all of a cause.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Then follow the run until it ends or needs you.")
]
Budget = Annotated[
    str, typer.Option("--budget", metavar="USD", help="Let the run spend so much in all.", show_default=False)
]
RequestId = Annotated[str | None, typer.Option("--request-id", help="Makes repeating the command safe.")]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="KEY=VALUE", help="A field of the step's input; repeatable."),
]
InputJson = Annotated[
    str | None,
    typer.Option("--input-json", metavar="JSON", help="The step's whole input; @FILE or - reads it."),
]


@command(app, "list")
def list_(
    cause: Annotated[str, typer.Option("--cause", help="Only those of one cause.", show_default=False)] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 100,
) -> None:
    """List what failed and waits for you, by cause."""
    from aios_cli import shapes
    from aios_cli.output import console, print_json, say
    from aios_cli.recovering import failures, full_cause
    from aios_cli.session import Session
    from aios_cli.views import failure as view
    from aios_core.minting import now_ms

    with Session() as session:
        found = failures(session.client, full_cause(session.client, cause) if cause else "", limit)
    if given.json:
        print_json([shapes.failure(item) for item in found])
    elif found:
        console().print(view.by_cause(found, now_ms()))
    else:
        say("Nothing has failed that you have not dealt with.")


@command(app, "show")
def show(run: RunId = "") -> None:
    """Show why a run failed, what shares the cause, what was changed, and what each remedy would do."""
    from aios_cli import shapes
    from aios_cli.output import console, print_json
    from aios_cli.recovering import failure, pick
    from aios_cli.session import Session
    from aios_cli.views import failure as view
    from aios_core.minting import now_ms

    with Session() as session:
        item = failure(session.client, pick(session.client, run))
    if given.json:
        print_json(shapes.failure(item, full=True))
    else:
        console().print(view.failure(item, now_ms()))


@command(app, "retry")
def retry(
    run: RunId = "",
    step: Step = "",
    budget: Budget = "",
    why: Why = "",
    all_of: AllOf = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Try what failed again; what was done before is not repeated."""
    _recover("RETRY", run, step, why, all_of, yes, dry_run, wait, request_id, budget=budget)


@command(app, "skip")
def skip(
    run: RunId = "",
    step: Step = "",
    value: Annotated[
        str, typer.Option("--value", metavar="JSON", help="What stands for its result.", show_default="null")
    ] = "",
    why: Why = "",
    all_of: AllOf = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Go on without the step that failed; a value that you give, or null, stands for its result."""
    from aios_cli.files import read_text
    from aios_core import json_values

    data = json_values.loads(read_text(value)) if value else None
    _recover("SKIP", run, step, why, all_of, yes, dry_run, wait, request_id, value=data)


@command(app, "edit")
def edit(
    run: RunId = "",
    step: Step = "",
    input: Input = None,
    input_json: InputJson = None,
    why: Why = "",
    all_of: AllOf = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Try what failed again with another input; what is approved at a gate is approved anew."""
    _recover("EDIT", run, step, why, all_of, yes, dry_run, wait, request_id, pairs=input, document=input_json)


@command(app, "rewind")
def rewind(
    run: RunId = "",
    to: Annotated[str, typer.Option("--to", metavar="STEP", help="The step to go back to.")] = "",
    input: Input = None,
    input_json: InputJson = None,
    why: Why = "",
    all_of: AllOf = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Go back to a step: it and what came of it run again, with another input if you give one."""
    _recover("REWIND", run, to, why, all_of, yes, dry_run, wait, request_id, pairs=input, document=input_json)


@command(app, "undo")
def undo(
    run: RunId = "",
    why: Why = "",
    all_of: AllOf = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Take back what a failed run changed; one that changed nothing is closed."""
    _recover("UNDO", run, "", why, all_of, yes, dry_run, wait, request_id)


def _recover(
    action: str,
    run: str,
    step: str,
    why: str,
    all_of: str,
    yes: bool,
    dry_run: bool,
    wait: bool,
    request_id: str | None,
    **values: Any,
) -> None:
    from aios_cli import recovering
    from aios_cli.session import Session
    from aios_core.minting import mint

    named = mint("req") if request_id is None else request_id
    with Session() as session:
        client = session.client
        asked = recovering.Asked(action, step, why, named, **values)
        if all_of:
            if run:
                raise typer.BadParameter("give a RUN or --all-of CAUSE, not both.")
            _all(session, asked, recovering.full_cause(client, all_of), yes, dry_run)
        elif dry_run:
            _show_preview(recovering.preview(client, asked, recovering.pick(client, run)))
        else:
            _one(session, asked, recovering.pick(client, run), wait)


def _one(session: "Session", asked: "Asked", run_id: str, wait: bool) -> None:
    from aios_cli import shapes
    from aios_cli.commands.runs import _finish, _show_result, followed
    from aios_cli.output import print_json, say
    from aios_cli.recovering import carry_out
    from aios_cli.words import short

    before = session.run(run_id).sequence
    answer = carry_out(session.client, asked, run_id)
    if answer.unchecked and not given.json:
        say(f"Whether it is what the step takes could not be asked: {answer.unchecked}")
    if wait:
        _finish(followed(session, run_id, after=before), _show_result)
    if given.json:
        print_json({**shapes.run(answer.run), "unchecked": answer.unchecked or None})
        return
    say("It goes on." if asked.action != "UNDO" else "It is being taken back.")
    say(f"Follow it with: aios run watch {short(run_id)}", "dim")


def _all(session: "Session", asked: "Asked", cause: str, yes: bool, dry_run: bool) -> None:
    """Show how many it is about, ask, and do it to each; one that is refused does not keep the others."""
    from aios_cli import exits, recovering
    from aios_cli.output import print_json, say

    client = session.client
    found = recovering.failures(client, cause, recovering.MAX_ALL)
    previews = [recovering.preview(client, asked, item.run_id) for item in found]
    able = [item for item in previews if not item["refused"]]
    if dry_run and given.json:
        print_json(previews)
        return
    say(f"{len(able)} of {len(previews)} runs of this cause would go on.")
    for item in previews:
        if item["refused"]:
            say(f"  {item['run_id'][-6:]}: {item['refused']}", "yellow")
    if dry_run or not able:
        return
    recovering.confirm(len(able), yes)
    done = [recovering.tried(client, asked, item["run_id"]) for item in able]
    bad = [item for item in done if item["error"]]
    if given.json:
        print_json(done)
    say(f"{len(done) - len(bad)} go on.")
    for item in bad:
        say(f"  {item['run_id'][-6:]}: {item['error']['message']}", "red")
    if bad:
        raise typer.Exit(exits.FAILED)


def _show_preview(item: dict[str, Any]) -> None:
    from aios_cli import exits
    from aios_cli.output import print_json, say

    if given.json:
        print_json(item)
    elif item["refused"]:
        say(item["refused"], "yellow")
    else:
        again = ", ".join(item["again"]) or "nothing"
        say(item["what"] or f"These would run again: {again}.")
        say("Nothing was done.", "dim")
    if item["refused"]:
        raise typer.Exit(exits.REFUSED)
