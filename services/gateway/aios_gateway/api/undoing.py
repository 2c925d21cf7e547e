"""RunService: what a run changed is taken back, and put back; what that would do; and what the ledgers have of runs."""

import asyncio
from collections.abc import Sequence

from aios.api.v1 import api_pb2
from aios.effect.v1 import effect_pb2
from aios.run.v1 import commands_pb2, queries_pb2
from aios.run.v1.queries_pb2 import PlannedUndo
from aios.run.v1.state_pb2 import UNDO_VERDICT_CHANGED, UNDO_VERDICT_IMPOSSIBLE, UndoItem
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import check_request_id
from aios_gateway.api.runs import checked_why, given, read_run
from aios_gateway.peers import Call
from aios_runtime.bus import subjects

MAX_STEPS = 100  # that one request names
MAX_ITEMS = 10_000  # of one preview
CHECKS = 250  # effects that a connector is asked of at once
MAX_RUNS = 100  # that one count is about
CONNECTOR = subjects.connector_lane("")


async def undo_run(call: Call, request: api_pb2.UndoRunRequest) -> api_pb2.UndoRunResponse:
    command = commands_pb2.UndoRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        run_id=given(request.run_id, "run_id"),
        actor=call.identity.actor,
        why=checked_why(request.why),
        steps=_steps(request.steps),
    )
    answer = await call.command_run("undo_run", request.run_id, command, commands_pb2.UndoRunResponse)
    run = await read_run(call, request.run_id)
    return api_pb2.UndoRunResponse(run=run, steps=answer.steps, impossible=answer.impossible)


async def redo_run(call: Call, request: api_pb2.RedoRunRequest) -> api_pb2.RedoRunResponse:
    command = commands_pb2.RedoRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        run_id=given(request.run_id, "run_id"),
        actor=call.identity.actor,
        why=checked_why(request.why),
    )
    answer = await call.command_run("redo_run", request.run_id, command, commands_pb2.RedoRunResponse)
    return api_pb2.RedoRunResponse(run=await read_run(call, request.run_id), steps=answer.steps)


async def preview_undo(call: Call, request: api_pb2.PreviewUndoRequest) -> api_pb2.PreviewUndoResponse:
    """The run says what would be done in which order; whoever made a change says whether it stands."""
    question = queries_pb2.PreviewUndoRequest(
        workspace=call.workspace,
        run_id=given(request.run_id, "run_id"),
        steps=_steps(request.steps),
        redo=request.redo,
    )
    planned: list[PlannedUndo] = []
    more = True
    while more and len(planned) < MAX_ITEMS:
        question.after = len(planned)
        answer = await call.ask("run", "preview_undo", question, queries_pb2.PreviewUndoResponse)
        planned += answer.planned
        more = answer.more
    lanes: dict[str, list[PlannedUndo]] = {}
    for item in planned:
        if item.undo_token:
            lanes.setdefault(item.lane, []).append(item)
    parts = [(lane, part) for lane, items in lanes.items() for part in _parts(items)]
    await asyncio.gather(*(_check(call, lane, part, redo=request.redo) for lane, part in parts))
    items = sorted((item.item for item in planned), key=_not_at_all)
    return api_pb2.PreviewUndoResponse(items=items, more=more)


def _parts(items: list[PlannedUndo]) -> list[list[PlannedUndo]]:
    return [items[at : at + CHECKS] for at in range(0, len(items), CHECKS)]


async def _check(call: Call, lane: str, part: Sequence[PlannedUndo], *, redo: bool) -> None:
    question = effect_pb2.CheckUndoRequest(
        workspace=call.workspace, undo_tokens=[item.undo_token for item in part], redo=redo
    )
    try:
        answer = await call.ask(lane, "check_undo", question, effect_pb2.CheckUndoResponse)
    except AiosError as error:
        for planned in part:
            planned.item.why = f"{lane} does not answer: {error.message}"
        return
    for planned, found in zip(part, answer.checks, strict=True):
        planned.item.verdict, planned.item.why = found.verdict, found.why
        if found.verdict == UNDO_VERDICT_CHANGED:
            del planned.item.changes[:]
            planned.item.changes.extend(found.changes)


def _not_at_all(item: UndoItem) -> bool:
    return bool(item.verdict == UNDO_VERDICT_IMPOSSIBLE)


async def count_effects(
    call: Call, request: api_pb2.CountEffectsRequest, services: Sequence[str]
) -> api_pb2.CountEffectsResponse:
    """Asked of every connector, since a defect might have one write that no step names."""
    if not 0 < len(request.run_ids) <= MAX_RUNS:
        raise TerminalError("INVALID_ARGUMENT", f"run_ids: 1 to {MAX_RUNS} at once.", field="run_ids")
    connectors = [service for service in services if service.startswith(CONNECTOR)]
    question = effect_pb2.CountEffectsRequest(workspace=call.workspace, run_ids=request.run_ids)
    ledgers = await asyncio.gather(*(_count(call, connector, question) for connector in connectors))
    return api_pb2.CountEffectsResponse(ledgers=ledgers)


async def _count(call: Call, service: str, question: effect_pb2.CountEffectsRequest) -> api_pb2.LedgerCount:
    try:
        answer = await call.ask(service, "count_effects", question, effect_pb2.CountEffectsResponse)
    except AiosError as error:
        return api_pb2.LedgerCount(service=service, error=error.message)
    return api_pb2.LedgerCount(service=service, recorded=answer.recorded)


def _steps(steps: Sequence[str]) -> Sequence[str]:
    if len(steps) > MAX_STEPS:
        raise TerminalError("INVALID_ARGUMENT", f"steps: at most {MAX_STEPS} are named.", field="steps")
    if "" in steps:
        raise TerminalError("INVALID_ARGUMENT", "steps: a step has a name.", field="steps")
    return steps
