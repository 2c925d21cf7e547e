"""A run that a request asks for, before anything has happened in it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from aios.run.v1.commands_pb2 import StartRunRequest
from aios.run.v1.events_pb2 import StepReused
from aios.run.v1.state_pb2 import Concurrency
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.ids import slot_of
from aios_core.values import Value, plain
from aios_core.wording import kind_of
from aios_orchestrator.budget import MAX_CUSTOMER_CHARS
from aios_orchestrator.core import fork
from aios_orchestrator.core.decide import Start
from aios_orchestrator.items import StartItem
from aios_orchestrator.mapping import time_of
from aios_orchestrator.model import Run
from aios_orchestrator.queueing import MAX_WAITING, key_of
from aios_orchestrator.repository import Repository
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.workflow import HIGHEST, Queueing, Workflow
from aios_runtime.telemetry import tracing

ALL: Final = "*"  # the key of the runs of a workflow that names none
_FREE: Final = Queueing("allow")


async def new_run(
    item: StartItem, resources: ResourceBook, repository: Repository
) -> tuple[Run, Workflow, Start]:
    """The run, its workflow, and its first input. Raises what the workflow says of the run's input, and NOT_FOUND."""
    request = item.request
    source = await _source(request, repository)
    if source is None:
        workflow = await resources.workflow(request.workspace, request.workflow, request.workflow_version)
    else:
        version = request.workflow_version or source.workflow_version
        workflow = await resources.workflow(request.workspace, source.workflow, version)
    given = item.input
    if given is None:
        assert source is not None, "a start without an input is a fork"
        given = decode(source.input)
    value = workflow.check_input(given)
    check_deadline(workflow, value)
    key, line = _line(request, workflow, value)
    reused: tuple[StepReused, ...] = ()
    if source is not None:
        fork.check(request.fork, workflow)
        if not request.input:
            before = await resources.followed(source)
            reused = tuple(fork.reused(request.fork, source, before, workflow))
    start = Start(encode(value), key, request.resolution_id, reused)
    if line.policy in ("queue", "skip"):
        start = replace(
            start,
            concurrency=Concurrency(limit=line.limit, skip=line.policy == "skip"),
            waiting=line.waiting if line.policy == "queue" else MAX_WAITING,
        )
    if request.HasField("priority"):
        if request.priority > HIGHEST:
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"priority: from 0 to {HIGHEST}, not {request.priority}.",
                field="priority",
            )
        start = replace(start, priority=request.priority)
    run = _run(item, workflow)
    run.customer = _customer(request.customer, workflow, value)
    return run, workflow, start


def _line(request: StartRunRequest, workflow: Workflow, inputs: Value) -> tuple[str, Queueing]:
    """With which others the run counts as one, '' for none, and how many of them may be under way. What the workflow
    says goes before what the trigger says."""
    if request.mode != Mode.MODE_EXECUTE:
        return "", _FREE
    own = workflow.concurrency
    if own is not None:
        if own.key is None:
            return ALL, own
        return key_of(own, inputs), own
    if request.HasField("concurrency"):
        said = request.concurrency
        return f"{request.trigger}/{said.key}", Queueing(said.policy, None, said.limit, said.waiting)
    return "", _FREE


def _customer(said: str, workflow: Workflow, value: Value) -> str:
    """Whom the run is for: as the request says, or as the workflow reads it from the input."""
    if not said and workflow.customer is not None:
        named = plain(workflow.customer.evaluate(lambda root: value if root == "inputs" else None))
        if isinstance(named, bool) or not isinstance(named, str | int | None):
            message = f"customer: from the input it is {kind_of(named)}; it must be a text or a whole number."
            raise TerminalError("INVALID_ARGUMENT", message, field="customer")
        said = str(named) if named is not None else ""
    if len(said) > MAX_CUSTOMER_CHARS or not said.isprintable():
        message = f"customer: a name of at most {MAX_CUSTOMER_CHARS} printable characters."
        raise TerminalError("INVALID_ARGUMENT", message, field="customer")
    return said


def check_deadline(workflow: Workflow, inputs: Value) -> None:
    """Raises INVALID_ARGUMENT where the run's deadline is no time."""
    deadline = workflow.bounds.deadline if workflow.bounds is not None else None
    if deadline is None:
        return
    try:
        time_of(plain(deadline.evaluate(lambda root: inputs if root == "inputs" else None)))
    except ValueError as error:
        raise TerminalError(
            "INVALID_ARGUMENT", f"The run's deadline is no time: {error}.", field="deadline"
        ) from None


def _run(item: StartItem, workflow: Workflow) -> Run:
    request, run_id = item.request, item.run_id
    run = Run(request.workspace, run_id, slot_of(run_id), workflow.name, workflow.version, request.mode)
    run.trigger, run.request, run.request_sha256 = request.trigger, request.request_id, item.request_sha256
    run.parent_traceparent = parent = request.traceparent
    run.traceparent = tracing.child(parent, run_id) if parent else tracing.new_trace(run_id)
    run.fork = request.fork if request.HasField("fork") else None
    return run


async def _source(request: StartRunRequest, repository: Repository) -> Run | None:
    """The run that a fork begins with."""
    if not request.HasField("fork"):
        return None
    stored = await repository.view(request.workspace, request.fork.run_id)
    if stored is None:
        raise TerminalError("NOT_FOUND", f"There is no run {request.fork.run_id}.", field="run_id")
    return stored.run


def check_same(run: Run, request_sha256: bytes) -> None:
    """Raises REQUEST_ID_REUSED when what is asked for is not what the run was started with."""
    if run.request_sha256 != request_sha256:
        raise TerminalError(
            "REQUEST_ID_REUSED",
            f"Request id {run.request!r} started run {run.run_id} with other content.",
            field="request_id",
        )


async def check_room(
    repository: Repository, workspace: str, workflow: str, first: Start, here: Iterable[str]
) -> None:
    """Raises QUEUE_FULL when as many runs wait for their turn as may; `here` are those that are not committed yet."""
    key, most = first.concurrency_key, first.waiting
    waiting = {*await repository.waiting(workspace, workflow, key, most), *here}
    if len(waiting) >= most:
        shared = "" if key == ALL else f" for {key!r}"
        raise TerminalError(
            "QUEUE_FULL",
            f"{len(waiting)} runs of {workflow!r} wait for their turn{shared}, and no more may. "
            "Start it when some have ended, or let more wait by `concurrency.waiting`.",
            field="workflow",
            waiting=str(len(waiting)),
        )
