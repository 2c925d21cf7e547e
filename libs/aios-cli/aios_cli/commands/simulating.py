"""`aios run simulate`: what a run would change, ask and cost, and the proof that nothing of it was done."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from aios_cli.commands.runs import (
    Input,
    InputJson,
    RequestId,
    Version,
    Workflow,
    followed,
    inputs_of,
    named,
)
from aios_cli.options import command, given

if TYPE_CHECKING:
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session


def simulate(
    workflow: Workflow,
    input: Input = None,
    input_json: InputJson = None,
    all_branches: Annotated[
        bool,
        typer.Option(
            "--all-branches",
            help="Walk every way that branches, conditions and persons may lead, combined where they have to do "
            "with each other.",
        ),
    ] = False,
    most: Annotated[
        int, typer.Option("--max-ways", min=1, max=100, help="With --all-branches: at most this many ways.")
    ] = 16,
    workflow_version: Version = "",
    request_id: RequestId = None,
) -> None:
    """Show what a run would change, ask and cost, and change nothing."""
    from aios.api.v1 import api_pb2
    from aios_cli import exits, exploring
    from aios_cli.compiling import applied
    from aios_cli.output import console, print_json
    from aios_cli.session import Session, exit_code
    from aios_cli.views import simulated

    with Session() as session:
        client = session.client
        request = api_pb2.SimulateRunRequest(
            request_id=named(request_id),
            workflow=workflow,
            workflow_version=workflow_version,
            input=inputs_of(session, workflow, workflow_version, input, input_json),
        )
        run = client.call(client.runs.SimulateRun, request).run
        compiled = applied(workflow, run.workflow_version)
        found = exploring.explore(
            session,
            compiled,
            run.run_id,
            partial(_followed, session),
            most=most if all_branches else 1,
            every=all_branches,
        )
    if given.json:
        print_json(simulated.shape(found))
    else:
        console().print()
        console().print(simulated.page(found))
    if not found.proof.nothing_written:
        raise typer.Exit(exits.FAILED)
    raise typer.Exit(exit_code(found.ways[0].run))


def _followed(session: "Session", run_id: str, words: str) -> "api_pb2.Run":
    """The simulation is shown as it goes; of another way only what is otherwise, since its changes are told later."""
    from aios_cli.output import say

    if not words:
        return followed(session, run_id)
    if not given.json:
        say(f"Walking: {words}", "dim")
    return session.follow(run_id, lambda answer: None, timeout=given.timeout)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "simulate")(simulate)
