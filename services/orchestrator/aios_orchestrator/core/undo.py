"""Undo of a whole run: the inverse of each change once, the last first; what a person changed since is left alone."""

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import Mode, Outcome, Status
from aios_core.errors import TerminalError
from aios_core.ids import effect_key
from aios_orchestrator.core import compensate
from aios_orchestrator.core.advance import unknown_approval
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.settle import backoff_ms
from aios_orchestrator.model import Run, StepRun

_AGAIN = (st.RUN_STATE_UNDONE, st.RUN_STATE_UNDOING)


def preview(run: Run) -> tuple[list[str], list[str]]:
    """(steps in the order in which they would be taken back, steps whose changes can't be)."""
    done = [
        s
        for s in reversed(run.changed_things())
        if s.state in (st.STEP_STATE_SUCCEEDED, st.STEP_STATE_UNDO_CONFLICT)
    ]
    return [s.name for s in done if s.undoable], [s.name for s in done if not s.undoable]


def by_itself(draft: Draft) -> None:
    """The run has failed, and its workflow has it undone then: begin, where anything was changed."""
    run = draft.run
    if not draft.workflow.undo_on_failure or run.mode != Mode.MODE_EXECUTE or not any(preview(run)):
        return
    assert run.error is not None
    request(draft, f"it failed: {run.error.message}", cause=run.error)


def request(draft: Draft, why: str, cause: Error | None = None) -> None:
    """Begin; `cause` is why the run failed, where it begins by itself. Raises RUN_CLOSED for a run that is still under
    way; one that is undone already stays as it is."""
    run = draft.run
    if run.state in _AGAIN:
        return
    if run.mode == Mode.MODE_SIMULATE:
        raise TerminalError("RUN_CLOSED", "A simulation changed nothing, so there is nothing to undo.")
    if not run.closed:
        raise TerminalError(
            "RUN_CLOSED", f"Run {run.run_id} is still under way. Cancel it first, then undo it."
        )
    steps, impossible = preview(run)
    instead = cause is None and any(run.at(name).compensates for name in steps)
    draft.emit(
        undo_requested=ev.UndoRequested(
            why=why,
            steps=steps,
            impossible=impossible,
            undo_group=run.undo_group + 1,
            cause=cause,
            consents=draft.actor if instead else "",
        )
    )
    go_on(draft)


def go_on(draft: Draft) -> None:
    """Take back the next change, or end. A change whose undo can't be known waits for a person, and all before it."""
    run = draft.run
    if run.undo_queue:
        step = run.steps[run.undo_queue[0]]
        if step.state in (st.STEP_STATE_UNDOING, st.STEP_STATE_UNKNOWN):
            return
        _schedule(draft, step, 1)
        return
    left = [s.name for s in run.changed_things() if s.state != st.STEP_STATE_UNDONE]
    draft.emit(run_undone=ev.RunUndone(left=left))


def _schedule(draft: Draft, step: StepRun, attempt: int) -> None:
    try:
        instead = compensate.of(draft, step, attempt)
    except TerminalError as error:
        wrong = Error(code=error.code, message=error.message)
        draft.emit(undo_conflicted=ev.UndoConflicted(step=step.name, error=wrong))
        go_on(draft)
        return
    draft.emit(
        undo_scheduled=ev.UndoScheduled(
            step=step.name, dispatch=step.dispatch + 1, attempt=attempt, compensation=instead
        )
    )
    draft.undoing.append(step.name)


def again(draft: Draft, step: StepRun) -> None:
    """The wait before another attempt is over."""
    _schedule(draft, step, step.attempt + 1)


def settle(draft: Draft, outcome: Outcome) -> None:
    """Apply the outcome of an undo task."""
    run = draft.run
    state = run.steps.get(outcome.step)
    if state is None or state.state != st.STEP_STATE_UNDOING:
        return
    instead = compensate.running(state)
    own = effect_key(run.run_id, state.effect_name, 0, 0).rpartition("/")[0]
    ours = compensate.is_of(run, outcome) if instead else outcome.task_id.rpartition("/")[0] == own
    if not ours:
        return
    retry = draft.workflow.at(state.name).retry
    if outcome.status == Status.STATUS_SUCCEEDED:
        draft.emit(
            step_undone=ev.StepUndone(step=state.name, summary=outcome.summary, changes=outcome.changes)
        )
    elif outcome.status == Status.STATUS_UNKNOWN:
        target = instead.target if instead else f"the undo of {draft.workflow.at(state.name).target}"
        approval = unknown_approval(draft, state, target, outcome.error.message)
        draft.emit(
            step_unknown=ev.StepUnknown(step=state.name, error=outcome.error, approval=approval, undoing=True)
        )
    elif outcome.status == Status.STATUS_FAILED and outcome.error.retryable and state.attempt < retry.limit:
        wait = backoff_ms(retry, draft.run.run_id, state.name, state.attempt, outcome.error)
        draft.emit(
            step_retry_scheduled=ev.StepRetryScheduled(
                step=state.name, error=outcome.error, attempt=state.attempt, due_ms=draft.clock + wait
            )
        )
    else:
        error = (
            outcome.error if outcome.error.code else Error(code="CONFLICT", message="It was changed since.")
        )
        draft.emit(undo_conflicted=ev.UndoConflicted(step=state.name, error=error, changes=outcome.changes))
    go_on(draft)
