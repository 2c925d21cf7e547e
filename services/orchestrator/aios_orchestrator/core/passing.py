"""What happens when the time has come by which a step or a run had to be done.

A worker stops in time by itself; what is decided here is what no worker can: that nobody has taken a task, that no
further attempt fits, that a person, an event or a round comes too late. A change that may have begun is never taken for
one that was not made: its outcome is awaited, and the step is late.
"""

from typing import Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import STATUS_FAILED, Outcome
from aios_core.errors import TerminalError
from aios_core.step_names import is_inside
from aios_orchestrator.core import rounds, settle
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.limits import spent
from aios_orchestrator.due import BOUND_STEP, deadline_of, level_of, retries
from aios_orchestrator.model import StepRun

_LEVEL: Final = "it takes longer than its service level"
_UNANSWERED: Final = (
    "no connector has answered; a change is never taken for undone, so its outcome is awaited"
)


def pass_run(draft: Draft) -> None:
    """What the run itself has to be done by."""
    run, limits = draft.run, draft.run.limits
    if limits is None:
        return
    if 0 < level_of(run) <= draft.clock:
        draft.emit(became_late=ev.BecameLate(due_ms=limits.service_level_ms, why=_LEVEL))
    if 0 < deadline_of(run) <= draft.clock:
        error = None
        if not limits.note:
            error = Error(code="DEADLINE_EXCEEDED", message="The run was not done by its deadline.")
        stops = error is not None
        draft.emit(
            deadline_passed=ev.DeadlinePassed(deadline_ms=limits.deadline_ms, error=error, stops=stops)
        )
        if stops:
            _expire_in(draft, "")


def pass_step(draft: Draft, name: str) -> None:
    """What a step has to be done by."""
    step = draft.run.at(name)
    limits = step.limits
    if limits is None or step.state not in BOUND_STEP:
        return
    if limits.service_level_ms and not step.late and limits.service_level_ms <= draft.clock:
        open_write = step.state == st.STEP_STATE_DISPATCHED and draft.workflow.at(name).effect
        unasked = open_write and not _level_of(draft, step)
        why = _UNANSWERED if unasked else _LEVEL
        draft.emit(became_late=ev.BecameLate(step=name, due_ms=limits.service_level_ms, why=why))
    if limits.deadline_ms and not step.overdue and limits.deadline_ms <= draft.clock:
        _pass_deadline(draft, step)
    step = draft.run.at(name)
    if step.state == st.STEP_STATE_DISPATCHED and 0 < limits.give_up_ms <= draft.clock:
        _give_up(draft, step)
    elif retries(step) and 0 < limits.total_ms <= draft.clock:
        if step.state == st.STEP_STATE_GATED:
            _expire(draft, step.name, step.approval_id)
        _fail(draft, step, spent(draft.run, step, draft.clock, step.error))


def _level_of(draft: Draft, step: StepRun) -> bool:
    """Whether the document says by when a step is late."""
    bounds = draft.workflow.at(step.name).bounds
    return bounds is not None and bool(bounds.service_level_ms)


def _pass_deadline(draft: Draft, step: StepRun) -> None:
    """What waits fails now; rounds end; what is handed out is awaited, and not tried again."""
    assert step.limits is not None
    error = None
    if not step.limits.note:
        error = Error(code="DEADLINE_EXCEEDED", message=f"Step {step.name!r} was not done by its deadline.")
    deadline, rounds_end = step.limits.deadline_ms, error is not None and step.state == st.STEP_STATE_RUNNING
    stops = rounds_end and not rounds.contained(draft, step.name)
    draft.emit(
        deadline_passed=ev.DeadlinePassed(step=step.name, deadline_ms=deadline, error=error, stops=stops)
    )
    if error is None:
        return
    if step.state == st.STEP_STATE_GATED:
        _expire(draft, step.name, step.approval_id)
        _fail(draft, step, error)
    elif step.state == st.STEP_STATE_WAITING:
        _fail(draft, step, error)
    elif rounds_end:
        _expire_in(draft, step.name)
        draft.turned[step.name] = None


def _expire_in(draft: Draft, owner: str) -> None:
    """Nobody is asked any more for what is in the rounds of a step, or in the run ('')."""
    for approval in draft.run.open_approvals():
        inside = not owner or is_inside(approval.step, owner)
        if inside and approval.kind != st.APPROVAL_KIND_UNKNOWN:
            _expire(draft, approval.step, approval.approval_id)


def _expire(draft: Draft, step: str, approval_id: str) -> None:
    draft.emit(
        approval_decided=ev.ApprovalDecided(
            step=step, approval_id=approval_id, state=st.APPROVAL_STATE_EXPIRED
        )
    )


def _fail(draft: Draft, step: StepRun, error: Error | None) -> None:
    assert error is not None
    rounds.fail(draft, step.name, TerminalError(error.code, error.message))


def _give_up(draft: Draft, step: StepRun) -> None:
    """Nobody has answered, and nothing was changed: another attempt, if one may be. A success that comes all the same
    counts as long as it is awaited."""
    message = (
        f"Nobody has answered for step {step.name!r} in the time in which its task was to be taken and done."
    )
    lost = Outcome(status=STATUS_FAILED, dispatch=step.dispatch)
    lost.error.CopyFrom(Error(code="QUEUE_TIMEOUT", message=message, retryable=True))
    settle.failed(draft, draft.workflow.at(step.name), step, lost)
