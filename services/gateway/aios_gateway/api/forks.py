"""RunService: forks of runs, and two runs side by side."""

import asyncio

from aios.api.v1 import api_pb2
from aios.run.v1.commands_pb2 import StartRunRequest
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Fork, StepChange
from aios.task.v1.task_pb2 import Mode
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import check_request_id
from aios_gateway import diff, values
from aios_gateway.api.runs import all_events, read_run
from aios_gateway.facts import facts
from aios_gateway.peers import Call
from aios_gateway.starter import Starter

FORK = "fork"  # the trigger of forks
MAX_CHANGES = 100
MAX_PROMPT_CHARS = 50_000


async def fork_run(call: Call, request: api_pb2.ForkRunRequest, starter: Starter) -> api_pb2.ForkRunResponse:
    if not request.run_id:
        raise TerminalError("INVALID_ARGUMENT", "run_id is missing.", field="run_id")
    if len(request.changes) > MAX_CHANGES:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"changes: {len(request.changes)}, at most {MAX_CHANGES} are taken.",
            field="changes",
        )
    if request.HasField("input") and request.step:
        raise TerminalError(
            "INVALID_ARGUMENT",
            "input: with another input of the run all of its steps are done anew. Leave out the step to begin from, or"
            " change the input of a step.",
            field="input",
        )
    command = StartRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        workflow_version=request.workflow_version,
        input=values.canonical(request.input, "input") if request.HasField("input") else b"",
        mode=Mode.MODE_SIMULATE,
        actor=call.identity.actor,
        trigger=FORK,
        traceparent=call.traceparent,
        fork=Fork(
            run_id=request.run_id,
            step=request.step,
            changes=[_change(at, change) for at, change in enumerate(request.changes)],
        ),
    )
    (answer,) = await starter.start(call, [command])
    if isinstance(answer, AiosError):
        raise answer
    return api_pb2.ForkRunResponse(run=await read_run(call, answer.run_id), duplicate=answer.duplicate)


def _change(at: int, change: api_pb2.ForkChange) -> StepChange:
    field = f"changes[{at}]"
    decided = change.take or change.supposed or change.ends
    if not (change.agent or change.model or change.prompt or change.HasField("input") or decided):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field}: says nothing; give an agent, a model, a prompt, an input, or what is decided.",
            field=field,
        )
    if len(change.prompt) > MAX_PROMPT_CHARS:
        raise TerminalError(
            "TOO_LARGE",
            f"{field}.prompt has {len(change.prompt)} characters; at most {MAX_PROMPT_CHARS} are taken.",
            field=f"{field}.prompt",
        )
    data = values.canonical(change.input, f"{field}.input") if change.HasField("input") else b""
    return StepChange(
        step=change.step,
        agent=change.agent,
        model=change.model,
        prompt=change.prompt,
        input=data,
        take=change.take,
        supposed=change.supposed,
        ends=change.ends,
    )


async def diff_runs(call: Call, request: api_pb2.DiffRunsRequest) -> api_pb2.DiffRunsResponse:
    for field in ("run_id", "other_run_id"):
        if not getattr(request, field):
            raise TerminalError("INVALID_ARGUMENT", f"{field} is missing.", field=field)
    (one, events), (other, others) = await asyncio.gather(
        _read(call, request.run_id), _read(call, request.other_run_id)
    )
    steps, cut = diff.steps(facts(events), facts(others))
    return api_pb2.DiffRunsResponse(run=one, other=other, steps=steps, cut=cut)


async def _read(call: Call, run: str) -> tuple[api_pb2.Run, list[RunEvent]]:
    return await read_run(call, run), await all_events(call, run)
