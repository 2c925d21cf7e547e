"""RunService: start, watch, stop, take back, and the story of runs."""

import asyncio
from collections.abc import AsyncIterator

from aios.api.v1 import api_pb2
from aios.run.v1 import commands_pb2, queries_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios.task.v1.task_pb2 import Mode
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import check_name, check_request_id
from aios_gateway import story, values, views
from aios_gateway.peers import Call
from aios_gateway.settings import STORY_MAX_EVENTS, STORY_PAGE_EVENTS
from aios_gateway.starter import Starter
from aios_gateway.watch import Watches
from aios_runtime.bus.replies import error_to_proto

MANUAL = "manual"
MAX_WHY_CHARS = 2000
MAX_STARTS = 1000  # in one StartRuns


async def start_run(
    call: Call, request: api_pb2.StartRunRequest, starter: Starter
) -> api_pb2.StartRunResponse:
    return await _started(call, await _start(call, request, Mode.MODE_EXECUTE, starter))


async def start_runs(
    call: Call, request: api_pb2.StartRunsRequest, starter: Starter
) -> api_pb2.StartRunsResponse:
    """Each start is answered by itself; together they travel in few commands."""
    if not 0 < len(request.requests) <= MAX_STARTS:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"requests: 1 to {MAX_STARTS} at once, not {len(request.requests)}.",
            field="requests",
        )
    commands: list[commands_pb2.StartRunRequest] = []
    results: list[AiosError | None] = []
    for start in request.requests:
        try:
            commands.append(_command(call, start, Mode.MODE_EXECUTE))
            results.append(None)
        except AiosError as error:
            results.append(error)
    answers = iter(await starter.start(call, commands) if commands else ())
    told = [next(answers) if result is None else result for result in results]
    # Of few there is something to be read; a task for each of the others would cost as much as its start.
    read = iter(await asyncio.gather(*(_read(call, answer) for answer in told if _in_part(answer))))
    return api_pb2.StartRunsResponse(
        results=[next(read) if _in_part(answer) else _result(answer) for answer in told]
    )


Answer = commands_pb2.StartRunResponse | AiosError


def _in_part(answer: Answer) -> bool:
    """Whether the run was there before, or has a large input: what came with the answer is not all of it."""
    return not isinstance(answer, AiosError) and (answer.duplicate or not answer.run.input)


async def _read(call: Call, answer: Answer) -> api_pb2.StartRunResult:
    assert not isinstance(answer, AiosError), "a refusal has nothing to be read"
    try:
        return api_pb2.StartRunResult(started=await _started(call, answer))
    except AiosError as error:
        return _result(error)


def _result(answer: Answer) -> api_pb2.StartRunResult:
    if isinstance(answer, AiosError):
        return api_pb2.StartRunResult(error=error_to_proto(answer))
    return api_pb2.StartRunResult(started=api_pb2.StartRunResponse(run=views.run_in_full(answer.run)))


async def _started(call: Call, answer: commands_pb2.StartRunResponse) -> api_pb2.StartRunResponse:
    if _in_part(answer):
        run = await read_run(call, answer.run_id)
    else:
        run = views.run_in_full(answer.run)
    return api_pb2.StartRunResponse(run=run, duplicate=answer.duplicate)


async def simulate_run(
    call: Call, request: api_pb2.SimulateRunRequest, starter: Starter
) -> api_pb2.SimulateRunResponse:
    answer = await _start(call, request, Mode.MODE_SIMULATE, starter)
    return api_pb2.SimulateRunResponse(run=await read_run(call, answer.run_id))


async def get_run(call: Call, request: api_pb2.GetRunRequest) -> api_pb2.GetRunResponse:
    return api_pb2.GetRunResponse(run=await read_run(call, request.run_id))


async def list_runs(call: Call, request: api_pb2.ListRunsRequest) -> api_pb2.ListRunsResponse:
    answer = await call.ask(
        "run",
        "list_runs",
        queries_pb2.ListRunsRequest(
            workspace=call.workspace,
            workflow=request.workflow,
            states=request.states,
            page_size=request.page_size,
            page_token=request.page_token,
            needs_person=request.needs_person,
            late=request.late,
        ),
        queries_pb2.ListRunsResponse,
    )
    runs = [views.run_of(head) for head in answer.runs]
    return api_pb2.ListRunsResponse(runs=runs, next_page_token=answer.next_page_token)


async def cancel_run(call: Call, request: api_pb2.CancelRunRequest) -> api_pb2.CancelRunResponse:
    command = commands_pb2.CancelRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        run_id=given(request.run_id, "run_id"),
        actor=call.identity.actor,
        why=checked_why(request.why),
    )
    await call.command_run("cancel_run", request.run_id, command, commands_pb2.CancelRunResponse)
    return api_pb2.CancelRunResponse(run=await read_run(call, request.run_id))


async def get_timeline(call: Call, request: api_pb2.GetTimelineRequest) -> api_pb2.GetTimelineResponse:
    view = await _view(call, request.run_id)
    events = await all_events(call, request.run_id)
    return api_pb2.GetTimelineResponse(run=_in_full(view, events), entries=story.tell(events))


async def watch_run(
    call: Call, request: api_pb2.WatchRunRequest, watches: Watches
) -> AsyncIterator[api_pb2.WatchRunResponse]:
    """Events after a sequence, each with its line of the story; the lines need the earlier events, so all are read."""
    await _view(call, request.run_id)
    telling = story.Story()

    async def read(after: int) -> list[RunEvent]:
        return await read_events(call.renewed(), request.run_id, after)

    async for event in watches.watch(call.workspace, request.run_id, 0, request.follow, read):
        entry = telling.tell(event)
        if event.sequence > request.after_sequence:
            yield api_pb2.WatchRunResponse(event=event, entry=entry)


async def read_run(call: Call, run: str) -> api_pb2.Run:
    """One run in full. Raises NOT_FOUND."""
    view = await _view(call, run)
    if view.head.mode != Mode.MODE_SIMULATE:
        return views.run_in_full(view)
    return _in_full(view, await all_events(call, run))


async def read_events(call: Call, run: str, after: int) -> list[RunEvent]:
    """A page of a run's events after a sequence."""
    answer = await call.ask(
        "run",
        "read_run_events",
        queries_pb2.ReadRunEventsRequest(
            workspace=call.workspace, run_id=run, after_sequence=after, limit=STORY_PAGE_EVENTS
        ),
        queries_pb2.ReadRunEventsResponse,
    )
    return [RunEvent.FromString(stored) for stored in answer.events]


def _in_full(view: queries_pb2.RunView, events: list[RunEvent]) -> api_pb2.Run:
    simulated = view.head.mode == Mode.MODE_SIMULATE
    return views.run_in_full(view, views.predicted_changes(events) if simulated else ())


async def _start(
    call: Call,
    request: api_pb2.StartRunRequest | api_pb2.SimulateRunRequest,
    mode: Mode.ValueType,
    starter: Starter,
) -> commands_pb2.StartRunResponse:
    (answer,) = await starter.start(call, [_command(call, request, mode)])
    if isinstance(answer, AiosError):
        raise answer
    return answer


def _command(
    call: Call, request: api_pb2.StartRunRequest | api_pb2.SimulateRunRequest, mode: Mode.ValueType
) -> commands_pb2.StartRunRequest:
    return commands_pb2.StartRunRequest(
        customer=request.customer if isinstance(request, api_pb2.StartRunRequest) else "",
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        workflow=check_name(request.workflow, "workflow"),
        workflow_version=request.workflow_version,
        input=values.canonical(request.input, "input"),
        mode=mode,
        actor=call.identity.actor,
        trigger=MANUAL,
        traceparent=call.traceparent,
        priority=_priority(request),
    )


def _priority(request: api_pb2.StartRunRequest | api_pb2.SimulateRunRequest) -> int | None:
    if isinstance(request, api_pb2.SimulateRunRequest) or not request.HasField("priority"):
        return None
    return request.priority


async def _view(call: Call, run: str) -> queries_pb2.RunView:
    request = queries_pb2.GetRunRequest(workspace=call.workspace, run_id=given(run, "run_id"))
    answer = await call.ask("run", "get_run", request, queries_pb2.GetRunResponse)
    return answer.run


async def all_events(call: Call, run: str) -> list[RunEvent]:
    """Those of a run from the first, as many as a story has."""
    events: list[RunEvent] = []
    while page := await read_events(call, run, events[-1].sequence if events else 0):
        events += page
        if len(events) >= STORY_MAX_EVENTS:
            break
    return events


def given(text: str, field: str) -> str:
    """A field that has to be there. Raises INVALID_ARGUMENT."""
    if not text:
        raise TerminalError("INVALID_ARGUMENT", f"{field} is missing.", field=field)
    return text


def checked_why(text: str) -> str:
    """A reason, of bounded length. Raises INVALID_ARGUMENT."""
    if len(text) > MAX_WHY_CHARS:
        raise TerminalError("INVALID_ARGUMENT", f"why has more than {MAX_WHY_CHARS} characters.", field="why")
    return text
