"""A decision in the making: events are stamped into the chain and applied to a private copy of the run as they come."""

from typing import Any, Final

from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import StepState
from aios_core.encoding import decode_trusted
from aios_core.hashing import event_hash
from aios_core.labels import RESOURCE
from aios_core.values import Value, labeled
from aios_orchestrator.core.fold import apply
from aios_orchestrator.definition import Workflow
from aios_orchestrator.model import DONE_STEP, Run

SCHEMA: Final = 1  # of RunEvent
SEMANTICS: Final = 1  # of what its fields mean


class Draft:
    """Collects what one decision does: `events` (stored bytes, in order), `dispatched` and `undoing` (step names whose
    tasks are to be put on the bus), `cancelled_runs` (runs whose place this one takes)."""

    def __init__(self, run: Run, workflow: Workflow, now: int, actor: str) -> None:
        self.run = run.copy()
        self.workflow = workflow
        self.now = max(now, run.update_time)
        self.actor = actor
        self.events: list[bytes] = []
        self.dispatched: list[str] = []
        self.undoing: list[str] = []

    def emit(self, **body: Any) -> None:
        """Add one event; the keyword names its body, such as `step_skipped=StepSkipped(…)`."""
        run = self.run
        event = RunEvent(
            schema=SCHEMA,
            semantics=SEMANTICS,
            workspace=run.workspace,
            run_id=run.run_id,
            sequence=run.sequence + 1,
            time_ms=self.now,
            actor=self.actor,
            previous_hash=run.last_hash,
            **body,
        )
        stored = event.SerializeToString()
        apply(run, event, event_hash(stored))
        self.events.append(stored)

    def look(self, root: str) -> Value | None:
        """What an expression sees under a root."""
        return look(self.run, root)


def look(run: Run, root: str) -> Value | None:
    """What an expression sees of a run under a root; a step that was skipped, or failed, is None."""
    if root == "inputs":
        return _decoded(run, "", run.input)
    if root == "run":
        return labeled({"id": run.run_id, "workflow": run.workflow, "trigger": run.trigger}, RESOURCE)
    if root.startswith("steps."):
        step = run.steps[root.removeprefix("steps.")]
        done = step.state in DONE_STEP or step.state in _AFTER_DONE
        return _decoded(run, step.name, step.output) if done and step.output else None
    return None


def _decoded(run: Run, key: str, data: bytes) -> Value:
    value = run.decoded.get(key)
    if value is None:
        value = run.decoded[key] = decode_trusted(data)
    return value


_AFTER_DONE = frozenset(
    {StepState.STEP_STATE_UNDOING, StepState.STEP_STATE_UNDONE, StepState.STEP_STATE_UNDO_CONFLICT}
)
