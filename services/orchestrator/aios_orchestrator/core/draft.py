"""A decision in the making: events are stamped into the chain and applied to a private copy of the run as they come."""

from collections.abc import Iterable
from heapq import heappush
from typing import Any, Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios_core.encoding import decode_trusted
from aios_core.hashing import event_hash
from aios_core.labels import RESOURCE
from aios_core.values import Value, labeled
from aios_orchestrator.core.fold import apply
from aios_orchestrator.model import DONE_STEP, Run
from aios_orchestrator.workflow import Workflow

SCHEMA: Final = 1  # of RunEvent
SEMANTICS: Final = 1  # of what its fields mean


class Draft:
    """Collects what one decision does: `events` (stored bytes, in order), `dispatched` and `undoing` (step names whose
    tasks are to be put on the bus), `ended` (steps that succeeded, were skipped or failed), `next` (places of the steps
    that may be ready now: a heap).

    `now` stamps the events and never goes back within a run; `clock` is what the clock shows, and what becomes due is
    reckoned by it: after a clock was wrong and is set right, a run must not wait until the wrong time comes."""

    def __init__(self, run: Run, workflow: Workflow, now: int, actor: str) -> None:
        self.run = run.copy()
        self.workflow = workflow
        self.clock, self.now = now, max(now, run.update_time)
        self.actor = actor
        self.events: list[bytes] = []
        self.dispatched: list[str] = []
        self.undoing: list[str] = []
        self.ended: list[str] = []
        self.next: list[int] = []

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
        for name, ended in body.items():
            if name in _ENDS:
                self.ended.append(ended.step)
                if name != "step_failed":
                    self.may_start(self.workflow.dependents.get(ended.step, ()))

    def may_start(self, steps: Iterable[str]) -> None:
        """Have `advance` look at these steps."""
        for name in steps:
            heappush(self.next, self.workflow.place[name])

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
        step = run.at(root.removeprefix("steps."))
        done = step.state in DONE_STEP or step.state in _AFTER_DONE
        return _decoded(run, step.name, step.output) if done and step.output else None
    return None


def _decoded(run: Run, key: str, data: bytes) -> Value:
    value = run.decoded.get(key)
    if value is None:
        value = decode_trusted(data)
        run.remember(key, value)
    return value


_ENDS: Final = frozenset({"step_succeeded", "step_skipped", "step_failed"})
_AFTER_DONE: Final = frozenset({st.STEP_STATE_UNDOING, st.STEP_STATE_UNDONE, st.STEP_STATE_UNDO_CONFLICT})
