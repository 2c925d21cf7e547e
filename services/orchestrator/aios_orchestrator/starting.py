"""A new run as its request asks for it, before anything is decided about it."""

from aios.run.v1.commands_pb2 import StartRunRequest
from aios.task.v1.task_pb2 import MODE_EXECUTE
from aios_core.encoding import decode, encode
from aios_core.ids import run_id, slot_of
from aios_core.values import plain
from aios_orchestrator.core.decide import Start
from aios_orchestrator.model import Run
from aios_orchestrator.workflow import Workflow
from aios_runtime.telemetry import tracing


def identifier_of(request: StartRunRequest) -> str:
    """The run that a request starts, or has started."""
    return run_id(request.workspace, request.trigger, request.request_id)


def new_run(request: StartRunRequest, request_sha256: bytes, workflow: Workflow) -> tuple[Run, Start]:
    """The run without events, and its first input. Raises INVALID_ARGUMENT, naming the field of the input."""
    identifier = identifier_of(request)
    value = workflow.check_input(decode(request.input))
    key = ""
    if workflow.concurrency is not None and request.mode == MODE_EXECUTE:
        key = str(plain(workflow.concurrency.evaluate(lambda root: value if root == "inputs" else None)))
    run = Run(
        request.workspace, identifier, slot_of(identifier), workflow.name, workflow.version, request.mode
    )
    run.trigger, run.request, run.request_sha256 = request.trigger, request.request_id, request_sha256
    run.parent_traceparent = parent = request.traceparent
    run.traceparent = tracing.child(parent, identifier) if parent else tracing.new_trace(identifier)
    return run, Start(encode(value), key, request.resolution_id)
