"""What the events of a run say of its steps: how each stands now, what it gave, changed, cost and took. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import StepState
from aios.task.v1.task_pb2 import Change
from aios_core.step_names import renamed

UNDER_WAY: Final = (
    st.STEP_STATE_DISPATCHED,
    st.STEP_STATE_WAITING,
    st.STEP_STATE_GATED,
    st.STEP_STATE_RUNNING,
)
BACK: Final = (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING)
_PLANNED: Final = ("draft", "approve")  # of a step of kind plan, before what it planned


@dataclass(slots=True)
class Facts:
    """What a step gave, changed, cost and took in one run. Times in milliseconds, money in micro-dollars."""

    state: StepState.ValueType = st.STEP_STATE_PENDING
    target: str = ""
    output: bytes = b""
    changes: list[Change] = field(default_factory=list)
    cost: int = 0
    held: int = 0
    """For the attempt that is at work: what is lost with it has cost that."""
    before: bytes = b""
    """What it gave before another plan was asked for."""
    began: int = 0
    ended: int = 0
    reused: bool = False
    error: Error | None = None

    def again(self) -> None:
        """It has not begun any more; what it has cost, it has cost."""
        self.state, self.output, self.changes, self.error = st.STEP_STATE_PENDING, b"", [], None
        self.began, self.ended, self.reused = 0, 0, False

    def failed(self, state: StepState.ValueType, error: Error, now: int) -> None:
        """It failed, or nobody knows, or it could not be taken back."""
        self.state, self.error, self.ended = state, error, now


def facts(events: Iterable[RunEvent]) -> dict[str, Facts]:
    """By step, in the order in which they began. One that goes back to before its beginning stays in the list."""
    found: dict[str, Facts] = {}
    for event in events:
        kind = event.WhichOneof("body") or ""
        body: Any = getattr(event, kind, None)
        if kind in ("run_succeeded", "run_failed", "run_cancelled"):
            _closed(found, event.time_ms)
        elif kind in ("run_reopened", "run_migrated", "plan_adopted", "plan_revision_requested"):
            found = _taken_up(found, kind, body)
        elif kind == "plan_revision_dropped":
            for own in _PLANNED:
                _kept(found[f"{body.step}.{own}"], event.time_ms)
        elif kind in _TELL:
            step = found.setdefault(body.step, Facts())
            step.cost += getattr(body, "cost_micros", 0)
            _TELL[kind](step, body, event.time_ms)
    return found


def _begins(step: Facts, state: StepState.ValueType, now: int) -> None:
    step.state, step.began = state, step.began or now


def _scheduled(step: Facts, body: Any, now: int) -> None:
    _begins(step, st.STEP_STATE_DISPATCHED, now)
    step.target, step.held, step.error = body.target, body.hold_micros, None


def _waits(step: Facts, _: Any, now: int) -> None:
    _begins(step, st.STEP_STATE_WAITING, now)


def _asked(step: Facts, _: Any, now: int) -> None:
    _begins(step, st.STEP_STATE_GATED, now)


def _body_started(step: Facts, _: Any, now: int) -> None:
    _begins(step, st.STEP_STATE_RUNNING, now)


def _body_reopened(step: Facts, _: Any, now: int) -> None:
    step.again()
    _begins(step, st.STEP_STATE_RUNNING, now)


def _succeeded(step: Facts, body: Any, now: int) -> None:
    _begins(step, st.STEP_STATE_SUCCEEDED, now)
    step.output, step.changes = body.output, list(getattr(body, "changes", ()))
    step.ended, step.error, step.reused = now, None, False


def _skipped(step: Facts, body: Any, now: int) -> None:
    _begins(step, st.STEP_STATE_SKIPPED, now)
    step.output, step.ended = body.output, now


def _reused(step: Facts, body: Any, now: int) -> None:
    (_skipped if body.skipped else _succeeded)(step, body, now)
    step.reused = True


def _failed(step: Facts, body: Any, now: int) -> None:
    step.failed(st.STEP_STATE_FAILED, body.error, now)


def _retried(step: Facts, body: Any, _: int) -> None:
    step.state, step.error = step.state if step.state in BACK else st.STEP_STATE_WAITING, body.error


def _unknown(step: Facts, body: Any, now: int) -> None:
    step.cost += 0 if body.undoing else step.held
    step.failed(st.STEP_STATE_UNKNOWN, body.error, now)


def _decided(step: Facts, *_: Any) -> None:
    """Of what nobody knew; what follows is another event."""
    step.state = st.STEP_STATE_PENDING if step.state == st.STEP_STATE_UNKNOWN else step.state


def _undo_scheduled(step: Facts, body: Any, _: int) -> None:
    step.state, step.error = BACK[body.redo], None


def _undone(step: Facts, *_: Any) -> None:
    step.state, step.error = st.STEP_STATE_UNDONE, None


def _redone(step: Facts, *_: Any) -> None:
    step.state, step.error = st.STEP_STATE_SUCCEEDED, None


def _undo_conflicted(step: Facts, body: Any, now: int) -> None:
    step.failed(st.STEP_STATE_UNDO_CONFLICT, body.error, now)


def _redo_conflicted(step: Facts, body: Any, now: int) -> None:
    step.failed(st.STEP_STATE_UNDONE, body.error, now)


def _refused(step: Facts, *_: Any) -> None:
    step.again()


_TELL: Final[Mapping[str, Callable[[Facts, Any, int], None]]] = {
    "step_scheduled": _scheduled,
    "wait_started": _waits,
    "approval_requested": _asked,
    "body_started": _body_started,
    "body_reopened": _body_reopened,
    "step_succeeded": _succeeded,
    "step_skipped": _skipped,
    "step_reused": _reused,
    "step_failed": _failed,
    "step_retry_scheduled": _retried,
    "step_unknown": _unknown,
    "approval_decided": _decided,
    "undo_scheduled": _undo_scheduled,
    "step_undone": _undone,
    "step_redone": _redone,
    "undo_conflicted": _undo_conflicted,
    "redo_conflicted": _redo_conflicted,
    "plan_refused": _refused,
}


def _kept(step: Facts, now: int) -> None:
    """Another plan was asked for, and did not come: the one that there is stays."""
    step.state, step.output, step.error, step.ended = st.STEP_STATE_SUCCEEDED, step.before, None, now


def _closed(found: Mapping[str, Facts], now: int) -> None:
    """The run has ended: what was under way is no more."""
    for step in found.values():
        if step.state in UNDER_WAY:
            step.state, step.ended = st.STEP_STATE_CANCELLED, now


def _taken_up(found: dict[str, Facts], kind: str, body: Any) -> dict[str, Facts]:
    """The run goes on otherwise than it did: some steps have not begun any more, have another name, or are left out."""
    for name in getattr(body, "dropped", ()):
        found.pop(name, None)
    if kind == "run_migrated":
        found = {renamed(name, body.renamed): step for name, step in found.items()}
    if kind == "run_reopened":
        for step in found.values():
            if step.state == st.STEP_STATE_UNDO_CONFLICT:
                step.state, step.error = st.STEP_STATE_SUCCEEDED, None
        for name in body.bodies:
            step = found.setdefault(name, Facts())
            step.state, step.error, step.ended = st.STEP_STATE_RUNNING, None, 0
    again = getattr(body, "again", ())
    if kind == "plan_revision_requested":
        again = [f"{body.step}.{own}" for own in _PLANNED]
        found[again[0]].before = found[again[0]].output
    for name in again:
        if name in found:
            found[name].again()
    return found
