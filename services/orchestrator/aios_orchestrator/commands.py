"""What the orchestrator does on a command, for runs that this process decides for: decoded, submitted, answered."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, ClassVar, Final, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest, ChangeScheduleRequest
from aios.run.v1 import commands_pb2 as pb
from aios.run.v1.queries_pb2 import RunView
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_SIMULATE, Outcome
from aios_core.encoding import decode
from aios_core.errors import AiosError, TerminalError
from aios_core.hashing import sha256
from aios_core.ids import check_request_id, run_id
from aios_orchestrator.codec import head_of
from aios_orchestrator.core import undo
from aios_orchestrator.core.decide import Admit, Cancel, Decide, Edit, Fund, Hear, Redo, Settle, Undo
from aios_orchestrator.core.migrate import Migrate
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.correlation import event_value
from aios_orchestrator.engine import Engine
from aios_orchestrator.items import Answer, Item, StartItem
from aios_orchestrator.paging import slim_run
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.schedules import Schedules
from aios_runtime.bus.replies import error_to_proto

M = TypeVar("M", bound=Proto)
MAX_STARTS: Final = 100  # runs in one command
MAX_INPUTS: Final = 100 * 1024  # bytes of inputs in one answer
MAX_HEADS: Final = 130 * 1024  # bytes of the rest of what it tells of runs


def parse(kind: type[M], data: bytes) -> M:
    """The message, or UNDECODABLE."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise TerminalError("UNDECODABLE", f"This is not a {kind.DESCRIPTOR.full_name}.") from None


class Commands:
    """Carries out commands with the engine."""

    schedules: Schedules

    def __init__(self, engine: Engine, resources: ResourceBook) -> None:
        self._engine = engine
        self._resources = resources

    async def carry_out(self, name: str, data: bytes) -> Proto:
        """The answer to a command. Raises UNDECODABLE, or what the decision refuses."""
        handle = self._HANDLE.get(name)
        if handle is None:
            raise TerminalError("UNDECODABLE", f"There is no command {name!r}.")
        answer: Proto = await handle(self, data)
        return answer

    async def settle(self, outcomes: Iterable[tuple[str, Sequence[Outcome]]]) -> list[AiosError | None]:
        """Settle outcomes, each lot with its workspace, in one commit. Returns of each lot why nothing could be decided
        on a part of it, if so."""
        lots = [list(_settled(workspace, some)) for workspace, some in outcomes]
        items = [item for lot in lots for item in lot]
        answers = iter(await self._engine.submit(items) if items else ())
        return [undecided([next(answers) for _ in lot]) for lot in lots]

    async def start_run(self, data: bytes) -> Proto:
        (answer,) = await self._engine.submit([_start(parse(pb.StartRunRequest, data))])
        return _started(answer, 1)

    async def start_runs(self, data: bytes) -> Proto:
        """Many in one commit; what is wrong with one is its own answer."""
        requests = parse(pb.StartRunsRequest, data).starts
        if not 0 < len(requests) <= MAX_STARTS:
            raise TerminalError(
                "INVALID_ARGUMENT", f"starts: 1 to {MAX_STARTS} at once, not {len(requests)}."
            )
        items: list[StartItem] = []
        refused: dict[int, AiosError] = {}
        for at, request in enumerate(requests):
            try:
                items.append(_start(request))
            except TerminalError as error:
                refused[at] = error
        answers = iter(await self._engine.submit(items) if items else ())
        response = pb.StartRunsResponse()
        for at in range(len(requests)):
            result = response.results.add()
            try:
                if at in refused:
                    raise refused[at]
                result.started.CopyFrom(_started(next(answers), len(requests)))
            except AiosError as error:
                result.error.CopyFrom(error_to_proto(error))
        return response

    async def cancel_run(self, data: bytes) -> Proto:
        request = parse(pb.CancelRunRequest, data)
        run = await self._one(request, Cancel(request.why or "cancelled", request.superseded_by), request.why)
        return pb.CancelRunResponse(state=run.state)

    async def undo_run(self, data: bytes) -> Proto:
        request = parse(pb.UndoRunRequest, data)
        what = Undo(request.why, tuple(request.steps))
        content = "\0".join((request.why, *request.steps)) if request.steps else request.why
        run = await self._one(request, what, content)
        if request.steps:
            return pb.UndoRunResponse(state=run.state, steps=run.undo_queue)
        steps, impossible = undo.preview(run)
        return pb.UndoRunResponse(state=run.state, steps=list(run.undo_queue) or steps, impossible=impossible)

    async def redo_run(self, data: bytes) -> Proto:
        request = parse(pb.RedoRunRequest, data)
        run = await self._one(request, Redo(request.why), request.why)
        return pb.RedoRunResponse(state=run.state, steps=run.undo_queue)

    async def recover_run(self, data: bytes) -> Proto:
        request = parse(pb.RecoverRunRequest, data)
        content = pb.RecoverRunRequest()
        content.CopyFrom(request)
        content.actor = ""
        run = await self._one(
            request, recovery_of(request), content.SerializeToString(deterministic=True).hex()
        )
        return pb.RecoverRunResponse(state=run.state)

    async def migrate_run(self, data: bytes) -> Proto:
        request = parse(pb.MigrateRunRequest, data)
        content = pb.MigrateRunRequest()
        content.CopyFrom(request)
        content.actor = ""
        what = await migration_of(request, self._resources)
        run = await self._one(request, what, content.SerializeToString(deterministic=True).hex())
        return pb.MigrateRunResponse(state=run.state, to_version=run.workflow_version)

    async def admit_run(self, data: bytes) -> Proto:
        request = parse(pb.AdmitRunRequest, data)
        item = Item(request.workspace, request.run_id, Admit(request.skip_why), "service:orchestrator")
        (answer,) = await self._engine.submit([item])
        return pb.AdmitRunResponse(state=_run(answer).state)

    async def fund_run(self, data: bytes) -> Proto:
        request = parse(pb.FundRunRequest, data)
        item = Item(request.workspace, request.run_id, Fund(), "service:orchestrator")
        (answer,) = await self._engine.submit([item])
        return pb.FundRunResponse(state=_run(answer).state)

    async def decide_approval(self, data: bytes) -> Proto:
        request = parse(pb.DecideApprovalRequest, data)
        answers = decode(request.answers) if request.answers else None
        run = await self._one(
            request, Decide(request, answers), request.SerializeToString(deterministic=True).hex()
        )
        return pb.DecideApprovalResponse(approval=run.approvals[request.approval_id])

    async def edit_approval(self, data: bytes) -> Proto:
        request = parse(pb.EditApprovalRequest, data)
        what = Edit(request, decode(request.input))
        run = await self._one(request, what, request.SerializeToString(deterministic=True).hex())
        found = run.approvals[request.approval_id]
        edited = {approval.edited_from: approval for approval in run.approvals.values()}
        return pb.EditApprovalResponse(approval=edited.get(found.approval_id, found))

    async def _one(
        self, request: Any, what: Cancel | Undo | Redo | Decide | Edit | Recover | Migrate, content: str
    ) -> Any:
        check_request_id(request.request_id)
        hashed = sha256(type(what).__name__.encode(), content.encode())
        item = Item(request.workspace, request.run_id, what, request.actor, request.request_id, hashed)
        (answer,) = await self._engine.submit([item])
        return _run(answer)

    async def hear_event(self, data: bytes) -> Proto:
        request = parse(pb.HearEventRequest, data)
        event = request.event
        hear = Hear(event_value(event), frozenset(event.correlations))
        actor = f"event:{event.event_source}"
        runs = request.run_ids
        items = [Item(request.workspace, run, hear, actor, once=event.id) for run in runs]
        if (defect := undecided(await self._engine.submit(items))) is not None:
            raise defect
        return pb.HearEventResponse()

    async def apply_resources(self, data: bytes) -> Proto:
        return await self._resources.apply(parse(ApplyResourcesRequest, data))

    async def change_schedule(self, data: bytes) -> Proto:
        return await self.schedules.change(parse(ChangeScheduleRequest, data))

    _HANDLE: ClassVar[dict[str, Callable[..., Any]]] = {
        "start_run": start_run,
        "start_runs": start_runs,
        "cancel_run": cancel_run,
        "undo_run": undo_run,
        "redo_run": redo_run,
        "recover_run": recover_run,
        "migrate_run": migrate_run,
        "decide_approval": decide_approval,
        "admit_run": admit_run,
        "fund_run": fund_run,
        "edit_approval": edit_approval,
        "hear_event": hear_event,
        "apply_resources": apply_resources,
        "change_schedule": change_schedule,
    }


def recovery_of(request: pb.RecoverRunRequest) -> Recover:
    """What a request asks of a run that ended."""
    value = decode(request.value) if request.value else None
    return Recover(request.recovery, request.step, value, request.cap_micros, request.why)


async def migration_of(request: pb.MigrateRunRequest, resources: ResourceBook) -> Migrate:
    """What a request asks of a run. Raises NOT_FOUND for a version that is not there."""
    if not request.version:
        await resources.refresh()
    workflow = await resources.workflow(request.workspace, request.workflow, request.version)
    return Migrate(workflow, dict(request.renamed), request.accept, request.why)


def undecided(answers: Iterable[Answer]) -> AiosError | None:
    """Why on one of these nothing could be decided; None where all were."""
    return next((answer.refusal for answer in answers if answer.undecided), None)


def _settled(workspace: str, outcomes: Sequence[Outcome]) -> Iterable[Item]:
    """One input for outcomes that follow each other and are of one run and worker."""
    for (run, worker), group in groupby(outcomes, key=lambda outcome: (outcome.run_id, outcome.worker)):
        first, *more = group
        yield Item(workspace, run, Settle(first, tuple(more)), f"service:{worker or 'worker'}")


def _start(request: pb.StartRunRequest) -> StartItem:
    if not request.resolution_id:  # otherwise it is made of the event's own id and source
        check_request_id(request.request_id)
    said = [request.workflow.encode(), request.workflow_version.encode(), request.input]
    if request.HasField("fork"):
        request.mode = MODE_SIMULATE
        said.append(request.fork.SerializeToString(deterministic=True))
        for change in request.fork.changes:
            if change.input:
                decode(change.input)
    else:
        request.mode = request.mode or MODE_EXECUTE
    given = decode(request.input) if request.input or not request.HasField("fork") else None
    said += [b"customer", request.customer.encode()] if request.customer else []
    content = sha256(*said, bytes([request.mode]))
    run = run_id(request.workspace, request.trigger, request.request_id)
    return StartItem(run, request, content, given)


def _started(answer: Answer, starts: int) -> pb.StartRunResponse:
    """As one of so many starts that one answer tells of."""
    run = _run(answer)
    view = RunView(input=run.input if len(run.input) < MAX_INPUTS // starts else b"")
    if answer.head:
        view.head.ParseFromString(answer.head)
    else:
        view.head.CopyFrom(head_of(run))
    slim_run(view.head, MAX_HEADS // starts)
    return pb.StartRunResponse(run_id=run.run_id, duplicate=answer.duplicate, run=view)


def _run(answer: Answer) -> Any:
    if answer.refusal is not None:
        raise answer.refusal
    assert answer.run is not None
    return answer.run
