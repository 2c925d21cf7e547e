"""A run that a request asks for, before anything has happened in it."""

from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.ids import slot_of
from aios_core.values import plain
from aios_orchestrator.items import StartItem
from aios_orchestrator.model import Run
from aios_orchestrator.workflow import Workflow
from aios_runtime.telemetry import tracing


def new_run(item: StartItem, workflow: Workflow) -> tuple[Run, bytes, str]:
    """The run, its input with defaults filled in, and the key of those whose place it takes (empty: of none).

    Raises what the workflow says of the input.
    """
    request, run_id = item.request, item.run_id
    value = workflow.check_input(decode(request.input))
    key = ""
    if workflow.concurrency is not None and request.mode == Mode.MODE_EXECUTE:
        key = str(plain(workflow.concurrency.evaluate(lambda root: value if root == "inputs" else None)))
    run = Run(request.workspace, run_id, slot_of(run_id), workflow.name, workflow.version, request.mode)
    run.trigger, run.request, run.request_sha256 = request.trigger, request.request_id, item.request_sha256
    run.parent_traceparent = parent = request.traceparent
    run.traceparent = tracing.child(parent, run_id) if parent else tracing.new_trace(run_id)
    return run, encode(value), key


def check_same(run: Run, request_sha256: bytes) -> None:
    """Raises REQUEST_ID_REUSED when what is asked for is not what the run was started with."""
    if run.request_sha256 != request_sha256:
        raise TerminalError(
            "REQUEST_ID_REUSED",
            f"Request id {run.request!r} started run {run.run_id} with other content.",
            field="request_id",
        )
