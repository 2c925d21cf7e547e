"""`aios run fork` and `aios run diff`: a run again from a step with something changed, and two runs side by side."""

from typing import TYPE_CHECKING, Annotated

import typer

from aios_cli.commands.runs import Input, InputJson, RequestId, RunId, Version
from aios_cli.options import command, given

if TYPE_CHECKING:
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session

Changed = list[str] | None


def add_to(app: typer.Typer) -> None:
    """Make them commands of `aios run`."""
    command(app, "fork")(fork)
    command(app, "diff")(diff)


def fork(
    run: RunId,
    step: Annotated[
        str,
        typer.Option(
            "--from", metavar="STEP", help="Do this step and what follows anew.", show_default=False
        ),
    ] = "",
    agent: Annotated[
        Changed, typer.Option("--agent", metavar="STEP=AGENT", help="Another agent; repeatable.")
    ] = None,
    model: Annotated[
        Changed, typer.Option("--model", metavar="STEP=MODEL", help="Another model; repeatable.")
    ] = None,
    prompt: Annotated[
        Changed,
        typer.Option(
            "--prompt",
            metavar="STEP=TEXT",
            help="Another prompt, in which {{field}} is of the step's input; @FILE.",
        ),
    ] = None,
    step_input: Annotated[
        Changed, typer.Option("--step-input", metavar="STEP=JSON", help="Another input of a step; @FILE.")
    ] = None,
    input: Input = None,
    input_json: InputJson = None,
    workflow_version: Version = "",
    request_id: RequestId = None,
) -> None:
    """Try a run again from a step, with something changed: nothing is written, and the two are shown side by side."""
    from aios.api.v1 import api_pb2
    from aios_cli import pick, shapes
    from aios_cli.commands.runs import followed, inputs_of, named
    from aios_cli.output import print_json
    from aios_cli.session import Session, exit_code

    with Session() as session:
        client = session.client
        run_id = pick.run(client, run)
        request = api_pb2.ForkRunRequest(
            request_id=named(request_id),
            run_id=run_id,
            step=step,
            workflow_version=workflow_version,
            changes=_changes(agent, model, prompt, step_input),
        )
        if input or input_json is not None:
            workflow = session.run(run_id).workflow
            request.input.CopyFrom(inputs_of(session, workflow, workflow_version, input, input_json))
        answer = client.call(client.runs.ForkRun, request)
        ended = followed(session, answer.run.run_id)
        diff = _diff(session, run_id, ended.run_id)
    if given.json:
        print_json({**shapes.run(ended), "duplicate": answer.duplicate, "diff": shapes.diff(diff)})
    else:
        _show(diff)
    raise typer.Exit(exit_code(ended))


def diff(
    run: RunId,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another run, such as a fork of it.")],
) -> None:
    """Two runs side by side: what their steps gave, changed, cost and took."""
    from aios_cli import pick, shapes
    from aios_cli.output import print_json
    from aios_cli.session import Session

    with Session() as session:
        answer = _diff(session, pick.run(session.client, run), pick.run(session.client, other))
    if given.json:
        print_json(shapes.diff(answer))
    else:
        _show(answer)


def _diff(session: "Session", run: str, other: str) -> "api_pb2.DiffRunsResponse":
    from aios.api.v1 import api_pb2

    request = api_pb2.DiffRunsRequest(run_id=run, other_run_id=other)
    answer: api_pb2.DiffRunsResponse = session.client.call(session.client.runs.DiffRuns, request)
    return answer


def _show(answer: "api_pb2.DiffRunsResponse") -> None:
    from aios_cli.output import console
    from aios_cli.views.diff import side_by_side

    console().print(side_by_side(answer))


def _changes(
    agents: Changed, models: Changed, prompts: Changed, inputs: Changed
) -> "list[api_pb2.ForkChange]":
    """What is to be different, one for each step."""
    from aios.api.v1 import api_pb2
    from aios_cli.files import read_text
    from aios_cli.inputs import to_value
    from aios_core import json_values

    found: dict[str, api_pb2.ForkChange] = {}
    for option, field, given_texts in (
        ("--agent", "agent", agents),
        ("--model", "model", models),
        ("--prompt", "prompt", prompts),
        ("--step-input", "input", inputs),
    ):
        for text in given_texts or ():
            step, equals, value = text.partition("=")
            if not (step and equals and value):
                raise typer.BadParameter(f"{option} {text!r} must be STEP=…, such as draft=….")
            change = found.setdefault(step, api_pb2.ForkChange(step=step))
            if field == "input":
                change.input.CopyFrom(to_value(json_values.loads(read_text(value))))
            else:
                setattr(change, field, read_text(value) if field == "prompt" else value)
    return list(found.values())
