"""`aios plan …`: the plans of a run: what was offered, what is followed, and another one where that is wanted."""

from typing import TYPE_CHECKING, Annotated

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios.api.v1.api_pb2 import PlanVersion
    from aios_cli.client import Client

app = group("See what an agent has planned, and have it planned anew.")

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its last characters.")]
Step = Annotated[
    str, typer.Option("--step", help="The step with the plan, where there are several.", show_default=False)
]
RequestId = Annotated[str | None, typer.Option("--request-id", help="Makes repeating the command safe.")]
Note = Annotated[
    str, typer.Option("--note", help="What the planner is told, kept in the story.", show_default=False)
]


@command(app, "list")
def list_(run: Run) -> None:
    """List the versions of a run's plans, as they came."""
    from aios_cli.output import console, print_json, say
    from aios_cli.session import Session
    from aios_cli.views import plan as view
    from aios_core.minting import now_ms

    with Session() as session:
        found = _versions(session.client, run, "")
    if given.json:
        print_json([view.shape(item) for item in found])
    elif found:
        console().print(view.listing(found, now_ms()))
    else:
        say("Nothing was planned in this run.")


@command(app, "show")
def show(
    run: Run,
    step: Step = "",
    version: Annotated[
        str, typer.Option("--version", help="Without it the one that is followed, or the last.")
    ] = "",
) -> None:
    """Show a plan, as it would be or is carried out."""
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_cli.views import plan as view

    with Session() as session:
        item = _one(_versions(session.client, run, step), version)
    if given.json:
        print_json(view.shape(item))
        return
    say(view.heading(item), "dim")
    typer.echo(item.text.rstrip("\n"))


@command(app, "diff")
def diff(
    run: Run,
    first: Annotated[
        str, typer.Argument(metavar="[A]", help="A version; without it, the parent of B.", show_default=False)
    ] = "",
    second: Annotated[
        str, typer.Argument(metavar="[B]", help="A version; without it, the last.", show_default=False)
    ] = "",
    step: Step = "",
) -> None:
    """Show in which lines two versions of a plan differ."""
    from aios_cli.output import console, print_json, say
    from aios_cli.session import Session
    from aios_cli.views import approval as view
    from aios_orchestrator import plans

    with Session() as session:
        found = _versions(session.client, run, step)
    then = _one(found, second) if second else _last(found)
    before = _one(found, first or then.parent) if first or then.parent else None
    lines = plans.diff(before.text if before is not None else "", then.text).splitlines()
    if given.json:
        one = before.version if before is not None else None
        print_json({"from_version": one, "to_version": then.version, "diff": lines})
    elif lines:
        for line in lines:
            console().print(view.diff_line(line))
    else:
        say("They are the same.")


@command(app, "revise")
def revise(run: Run, step: Step = "", note: Note = "", request_id: RequestId = None) -> None:
    """Ask for another plan. What is finished stays, and nothing more begins until you have decided on it."""
    from aios_cli import pick, shapes
    from aios_cli.output import hint, print_json, say
    from aios_cli.recovering import Asked, carry_out
    from aios_cli.session import Session
    from aios_cli.words import short
    from aios_core.minting import mint

    asked = Asked("REPLAN", step, note, mint("req") if request_id is None else request_id)
    with Session() as session:
        revised = carry_out(session.client, asked, pick.run(session.client, run)).run
    if given.json:
        print_json(shapes.run(revised))
        return
    say(
        "Another plan is asked for, and nothing more of this one begins until you decide. "
        "If you reject the other, the run goes on by this one."
    )
    hint(f"aios run watch {short(revised.run_id)}")


@command(app, "edit")
def edit(
    run: Run,
    file: Annotated[
        str,
        typer.Option("--file", "-f", help="Your plan in YAML or JSON; - reads it. Without it, your editor."),
    ] = "",
    step: Step = "",
    note: Note = "",
    request_id: RequestId = None,
) -> None:
    """Make another plan of the one that waits for your approval. Yours needs an approval of its own."""
    from aios.api.v1 import api_pb2
    from aios_cli import editing, inputs, shapes
    from aios_cli.files import read_text
    from aios_cli.output import hint, print_json, say
    from aios_cli.session import Session
    from aios_cli.views import approval as view
    from aios_cli.words import short
    from aios_core.encoding import decode_trusted
    from aios_core.minting import mint
    from aios_core.values import plain

    with Session() as session:
        client = session.client
        waiting = [item for item in _versions(client, run, step) if item.state == "proposed"]
        name = _last(waiting, "No plan of this run waits for your approval.").approval_id
        item = client.call(
            client.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=name)
        ).approval
        text = (
            read_text(f"@{file}" if file != "-" else file)
            if file
            else editing.changed_text(item.plan.text, "plan.yaml")
        )
        (proposed,) = item.proposed
        before = plain(decode_trusted(proposed.arguments))
        arguments = {**(before if isinstance(before, dict) else {}), "plan": text}
        request = api_pb2.EditApprovalRequest(
            request_id=mint("req") if request_id is None else request_id,
            approval_id=item.approval_id,
            step=proposed.step,
            arguments=inputs.to_value(arguments),
            arguments_sha256=item.arguments_sha256,
            note=note,
        )
        new = client.call(client.approvals.EditApproval, request).approval
    if given.json:
        print_json(shapes.approval(new))
        return
    say(f"Changed. Approval {short(new.approval_id)} takes its place: look at it, then decide.")
    hint(view.next_steps(new))


def _versions(client: "Client", run: str, step: str) -> "list[PlanVersion]":
    from aios.api.v1 import api_pb2
    from aios_cli import pick

    request = api_pb2.ListPlansRequest(run_id=pick.run(client, run))
    found = list(client.call(client.runs.ListPlans, request).plans)
    return [item for item in found if item.step == step] if step else found


def _one(found: "list[PlanVersion]", version: str) -> "PlanVersion":
    """The version that begins so; without one that which is followed, or the last."""
    from aios_core.errors import TerminalError

    if not version:
        followed = [item for item in found if item.state == "followed"]
        return _last(followed or [item for item in found if item.version])
    fits = {item.version: item for item in found if item.version.startswith(version)}
    if len(fits) != 1:
        known = ", ".join(dict.fromkeys(item.version[:8] for item in found if item.version)) or "none"
        what = f"fits {len(fits)} versions" if fits else "is no version of a plan of this run"
        raise TerminalError("NOT_FOUND", f"{version!r} {what}; there are: {known}.", field="version")
    return next(iter(fits.values()))


def _last(found: "list[PlanVersion]", otherwise: str = "Nothing was planned in this run.") -> "PlanVersion":
    from aios_core.errors import TerminalError

    able = [item for item in found if item.version]
    if not able:
        raise TerminalError("NOT_FOUND", otherwise, field="run")
    return able[-1]
