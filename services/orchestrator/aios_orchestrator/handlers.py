"""Who calls the engine: commands and outcomes from the bus. Each is decoded, submitted, answered, acknowledged."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, ClassVar, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1 import commands_pb2 as pb
from aios.run.v1.queries_pb2 import RunView
from aios.task.v1.task_pb2 import MODE_EXECUTE, Outcome, ReportOutcomes
from aios_core.encoding import decode
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_core.ids import check_request_id
from aios_orchestrator.codec import head_of
from aios_orchestrator.core import undo
from aios_orchestrator.core.decide import Cancel, Decide, Settle, Undo
from aios_orchestrator.engine import Answer, Engine, Item, StartItem
from aios_orchestrator.resources import ResourceBook
from aios_runtime.bus.port import Bus, Delivery
from aios_runtime.bus.replies import error_to_proto

M = TypeVar("M", bound=Proto)
RETRY_S = 1.0
MAX_STARTS = 100  # runs in one command
MAX_VIEWS = 100 * 1024  # bytes of inputs in one answer
Handle = Callable[[bytes], Any]


def parse(kind: type[M], data: bytes) -> M:
    """The message, or UNDECODABLE."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise TerminalError("UNDECODABLE", f"This is not a {kind.DESCRIPTOR.full_name}.") from None


class Handlers:
    """The orchestrator's command handlers."""

    def __init__(self, bus: Bus, engine: Engine, resources: ResourceBook) -> None:
        self._bus = bus
        self._engine = engine
        self._resources = resources

    async def outcomes(self, deliveries: Sequence[Delivery]) -> None:
        """`report_outcomes`: many outcomes in one commit; acknowledged once it stands."""
        items: list[Item | StartItem] = []
        good: list[Delivery] = []
        for delivery in deliveries:
            try:
                report = parse(ReportOutcomes, delivery.data)
            except TerminalError as error:
                await delivery.dead(error)
                continue
            good.append(delivery)
            workspace = delivery.subject.split(".")[5]
            items += _settled(workspace, report.outcomes)
        try:
            if items:
                await self._engine.submit(items)
        except RetryableError as error:
            await asyncio.gather(*(delivery.retry(error.retry_after or RETRY_S) for delivery in good))
            return
        await asyncio.gather(*(delivery.ack() for delivery in good))

    async def commands(self, deliveries: Sequence[Delivery]) -> None:
        """Clients' commands: each is answered on its reply inbox, then acknowledged."""
        await asyncio.gather(*(self._command(delivery) for delivery in deliveries))

    async def _command(self, delivery: Delivery) -> None:
        name = delivery.subject.split(".")[4]
        try:
            answer = await self._HANDLE[name](self, delivery.data)
        except RetryableError as error:
            if error.code not in ("DISK_FULL", "CONFLICT"):
                await delivery.retry(error.retry_after or RETRY_S)
                return
            await self._bus.reply(delivery, error)
        except KeyError:
            await delivery.dead(TerminalError("UNDECODABLE", f"There is no command {name!r}."))
            return
        except TerminalError as error:
            await self._bus.reply(delivery, error)
            if error.code == "UNDECODABLE":
                await delivery.dead(error)
                return
        else:
            await self._bus.reply(delivery, answer.SerializeToString())
        await delivery.ack()

    async def start_run(self, data: bytes) -> Proto:
        (answer,) = await self._engine.submit([_start(parse(pb.StartRunRequest, data))])
        return _started(answer, MAX_VIEWS)

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
                result.started.CopyFrom(_started(next(answers), MAX_VIEWS // len(requests)))
            except AiosError as error:
                result.error.CopyFrom(error_to_proto(error))
        return response

    async def cancel_run(self, data: bytes) -> Proto:
        request = parse(pb.CancelRunRequest, data)
        run = await self._one(request, Cancel(request.why or "cancelled", request.superseded_by), request.why)
        return pb.CancelRunResponse(state=run.state)

    async def undo_run(self, data: bytes) -> Proto:
        request = parse(pb.UndoRunRequest, data)
        run = await self._one(request, Undo(request.why), request.why)
        steps, impossible = undo.preview(run)
        return pb.UndoRunResponse(state=run.state, steps=list(run.undo_queue) or steps, impossible=impossible)

    async def decide_approval(self, data: bytes) -> Proto:
        request = parse(pb.DecideApprovalRequest, data)
        answers = decode(request.answers) if request.answers else None
        run = await self._one(
            request, Decide(request, answers), request.SerializeToString(deterministic=True).hex()
        )
        return pb.DecideApprovalResponse(approval=run.approvals[request.approval_id])

    async def _one(self, request: Any, what: Cancel | Undo | Decide, content: str) -> Any:
        check_request_id(request.request_id)
        hashed = sha256(type(what).__name__.encode(), content.encode())
        item = Item(request.workspace, request.run_id, what, request.actor, request.request_id, hashed)
        (answer,) = await self._engine.submit([item])
        return _run(answer)

    async def apply_resources(self, data: bytes) -> Proto:
        return await self._resources.apply(parse(ApplyResourcesRequest, data))

    _HANDLE: ClassVar = {
        "start_run": start_run,
        "start_runs": start_runs,
        "cancel_run": cancel_run,
        "undo_run": undo_run,
        "decide_approval": decide_approval,
        "apply_resources": apply_resources,
    }


def _settled(workspace: str, outcomes: Sequence[Outcome]) -> Iterable[Item]:
    """One input for outcomes that follow each other and are of one run and worker."""
    for (run, worker), group in groupby(outcomes, key=lambda outcome: (outcome.run_id, outcome.worker)):
        first, *more = group
        yield Item(workspace, run, Settle(first, tuple(more)), f"service:{worker or 'worker'}")


def _start(request: pb.StartRunRequest) -> StartItem:
    check_request_id(request.request_id)
    decode(request.input)
    request.mode = request.mode or MODE_EXECUTE
    content = sha256(
        request.workflow.encode(), request.workflow_version.encode(), request.input, bytes([request.mode])
    )
    return StartItem(request, content)


def _started(answer: Answer, room: int) -> pb.StartRunResponse:
    run = _run(answer)
    view = RunView(head=head_of(run), input=run.input if len(run.input) < room else b"")
    return pb.StartRunResponse(run_id=run.run_id, duplicate=answer.duplicate, run=view)


def _run(answer: Answer) -> Any:
    if answer.refusal is not None:
        raise answer.refusal
    assert answer.run is not None
    return answer.run
