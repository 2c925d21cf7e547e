"""Undo of a run, or of chosen steps of it: the inverse of each change once, the last first. And the undo of an undo:
what was taken away is put back, the first first. What a person changed since is left alone, both ways."""

from collections.abc import Collection

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Ending
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_REDO, MODE_SIMULATE, MODE_UNDO, Mode, Outcome, Status
from aios_core.errors import TerminalError
from aios_core.ids import effect_key
from aios_orchestrator.core import compensate
from aios_orchestrator.core.asking import unknown_approval
from aios_orchestrator.core.chosen import named, with_what_came_of_it
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.settle import backoff_ms
from aios_orchestrator.model import ENDED_BY_ITSELF, Run, StepRun
from aios_orchestrator.workflow import Workflow

_AGAIN = (st.RUN_STATE_UNDONE, st.RUN_STATE_UNDOING)
_STANDS = (st.STEP_STATE_SUCCEEDED, st.STEP_STATE_UNDO_CONFLICT)


def preview(run: Run, only: Collection[str] | None = None) -> tuple[list[str], list[str]]:
    """(steps in the order in which they would be taken back, steps whose changes can't be); of `only` those."""
    done = [
        s for s in reversed(run.changed_things()) if s.state in _STANDS and (only is None or s.name in only)
    ]
    return [s.name for s in done if s.undoable], [s.name for s in done if not s.undoable]


def redo_preview(run: Run) -> list[str]:
    """The steps that were taken back, in the order in which they would be put back: that of doing. What was made good
    by another action stays as it is."""
    return [s.name for s in run.changed_things() if s.state == st.STEP_STATE_UNDONE and not s.compensates]


def closure(run: Run, workflow: Workflow, chosen: Collection[str]) -> set[str] | None:
    """What an undo of chosen steps is about; None: of the whole run. Raises INVALID_ARGUMENT."""
    return with_what_came_of_it(run, workflow, named(run, workflow, chosen)) if chosen else None


def by_itself(draft: Draft) -> None:
    """The run has failed, and its workflow has it undone then: begin, where anything was changed."""
    run = draft.run
    if not draft.workflow.undo_on_failure or run.mode != MODE_EXECUTE or not any(preview(run)):
        return
    assert run.error is not None
    request(draft, f"it failed: {run.error.message}", cause=run.error)


def request(draft: Draft, why: str, chosen: Collection[str] = (), cause: Error | None = None) -> None:
    """Begin; `cause` is why the run failed, where it begins by itself. Raises RUN_CLOSED for a run that is still under
    way, INVALID_ARGUMENT and ACTION_FAILED for chosen steps that give nothing to take back; what is undone already
    stays as it is."""
    run = draft.run
    if run.state == st.RUN_STATE_UNDOING and (chosen or run.undo_chosen):
        raise TerminalError(
            "RUN_CLOSED", f"Another undo of run {run.run_id} is under way. Ask again when it has ended."
        )
    if run.state in _AGAIN:
        return
    _check(run)
    only = closure(run, draft.workflow, chosen)
    steps, impossible = preview(run, only)
    if chosen and not steps:
        _refuse_nothing(chosen, impossible)
    draft.emit(
        undo_requested=ev.UndoRequested(
            why=why,
            steps=steps,
            impossible=impossible,
            undo_group=run.undo_group + 1,
            chosen=chosen,
            ending=Ending(state=run.state, error=run.error) if run.state in ENDED_BY_ITSELF else None,
            cause=cause,
            consents=_consents(draft, steps) if cause is None else "",
        )
    )
    go_on(draft)


def _check(run: Run) -> None:
    if run.mode == MODE_SIMULATE:
        raise TerminalError("RUN_CLOSED", "A simulation changed nothing, so there is nothing to undo.")
    if run.state == st.RUN_STATE_REDOING:
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} is being put back. Undo it when that has ended.")
    if not run.closed:
        raise TerminalError(
            "RUN_CLOSED", f"Run {run.run_id} is still under way. Cancel it first, then undo it."
        )


def _consents(draft: Draft, steps: Collection[str]) -> str:
    """Who consents to what is run in the place of inverses: whoever asked for the undo."""
    return draft.actor if any(draft.run.at(name).compensates for name in steps) else ""


def _refuse_nothing(chosen: Collection[str], impossible: Collection[str]) -> None:
    if impossible:
        raise TerminalError("ACTION_FAILED", f"Can't be taken back: {', '.join(impossible)}.", field="steps")
    raise TerminalError(
        "INVALID_ARGUMENT",
        f"steps: {', '.join(chosen)} and what came of it changed nothing that stands.",
        field="steps",
    )


def request_redo(draft: Draft, why: str) -> None:
    """Begin to put back what was undone. Raises RUN_CLOSED when nothing is."""
    run = draft.run
    if run.state == st.RUN_STATE_REDOING:
        return
    if run.state == st.RUN_STATE_UNDOING:
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} is being undone. Redo it when that has ended.")
    steps = redo_preview(run) if run.closed else []
    if not steps:
        raise TerminalError("RUN_CLOSED", f"Nothing of run {run.run_id} is undone, so nothing is put back.")
    draft.emit(redo_requested=ev.RedoRequested(why=why, steps=steps, undo_group=run.undo_group + 1))
    go_on(draft)


def retry_incomplete(draft: Draft, why: str) -> None:
    """Try again to take back what could not be. Raises ACTION_FAILED when nothing takes back what is left."""
    conflicts = [s.name for s in draft.run.changed_things() if s.state == st.STEP_STATE_UNDO_CONFLICT]
    able = [name for name in conflicts if draft.run.at(name).undoable]
    if not able:
        raise TerminalError("ACTION_FAILED", "Nothing takes back what is left. Leave it, or redo the run.")
    steps = [name for name in preview(draft.run)[0] if name in able]
    draft.emit(
        undo_requested=ev.UndoRequested(
            why=why,
            steps=steps,
            undo_group=draft.run.undo_group + 1,
            chosen=steps if draft.run.undo_chosen else (),
            consents=_consents(draft, steps),
        )
    )
    go_on(draft)


def go_on(draft: Draft) -> None:
    """Take back, or put back, the next change, or end. One of which that can't be known waits for a person, and with it
    all that come after it."""
    run = draft.run
    if run.undo_queue:
        step = run.steps[run.undo_queue[0]]
        if step.state in (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING, st.STEP_STATE_UNKNOWN):
            return
        _schedule(draft, step, 1)
    elif run.state == st.RUN_STATE_REDOING:
        _end_redo(draft)
    else:
        _end_undo(draft)


def _end_undo(draft: Draft) -> None:
    run = draft.run
    stay = [s for s in run.changed_things() if s.state != st.STEP_STATE_UNDONE]
    if run.undo_chosen and stay:
        stay = [s for s in stay if s.state == st.STEP_STATE_UNDO_CONFLICT]
        partly = st.RUN_STATE_UNSPECIFIED if stay else st.RUN_STATE_PARTLY_UNDONE
        draft.emit(run_undone=ev.RunUndone(left=[s.name for s in stay], state=partly))
    else:
        draft.emit(run_undone=ev.RunUndone(left=[s.name for s in stay]))


def still_undone(draft: Draft) -> None:
    """After a person said of something in an undone run that it had happened: then not all of it is undone."""
    if any(s.state != st.STEP_STATE_UNDONE for s in draft.run.changed_things()):
        _end_undo(draft)


def _end_redo(draft: Draft) -> None:
    run = draft.run
    changed = run.changed_things()
    left = [s.name for s in changed if s.state == st.STEP_STATE_UNDONE]
    ended = run.ending or Ending(
        state=st.RUN_STATE_SUCCEEDED if run.outputs else st.RUN_STATE_CANCELLED
    )  # of a run that was undone when that was not kept
    told = ev.RunRedone(left=left, state=ended.state)
    if left:
        told.state = st.RUN_STATE_PARTLY_UNDONE if len(left) < len(changed) else st.RUN_STATE_UNDONE
    elif ended.HasField("error"):
        told.error.CopyFrom(ended.error)
    draft.emit(run_redone=told)


def task_mode(run: Run) -> Mode.ValueType:
    """How the tasks of a run are carried out now."""
    if run.state == st.RUN_STATE_REDOING:
        return MODE_REDO
    return MODE_UNDO if run.undo_queue else run.mode


def task_id(run: Run, step: StepRun) -> str:
    """The id of a step's task. What was put back is undone under another one than before, and so on."""
    own = effect_key(run.run_id, step.effect_name, 0, step.attempt_group)
    if not run.redos or not run.undo_queue:
        return own
    return f"{own}/{'redo' if run.state == st.RUN_STATE_REDOING else 'undo'}-{run.redos}"


def _schedule(draft: Draft, step: StepRun, attempt: int) -> None:
    try:
        instead = compensate.of(draft, step, attempt)
    except TerminalError as error:
        conflicted(draft, step.name, Error(code=error.code, message=error.message))
        go_on(draft)
        return
    draft.emit(
        undo_scheduled=ev.UndoScheduled(
            step=step.name,
            dispatch=step.dispatch + 1,
            attempt=attempt,
            redo=draft.run.state == st.RUN_STATE_REDOING,
            compensation=instead,
            undo_since=step.undo_since if _goes_on(step) else step.dispatch + 1,
        )
    )
    draft.undoing.append(step.name)


def _goes_on(step: StepRun) -> bool:
    """Whether the step's undo, or redo, is under way: another attempt of it comes, or a person said that none of it
    happened."""
    return step.state in (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING, st.STEP_STATE_PENDING)


def again(draft: Draft, step: StepRun) -> None:
    """The wait before another attempt is over."""
    _schedule(draft, step, step.attempt + 1)


def settle(draft: Draft, outcome: Outcome) -> None:
    """Apply the outcome of a task that takes back or puts back, unless it was settled by another."""
    run = draft.run
    state = run.steps.get(outcome.step)
    if state is None or state.state not in (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING):
        return
    instead = compensate.running(state)
    if instead is not None:
        ours = compensate.is_of(run, outcome)
    else:
        ours = outcome.mode == task_mode(run) and _effect(outcome.task_id) == _effect(task_id(run, state))
    if not ours or not _counts(state, outcome):
        return
    retry = draft.workflow.at(state.name).retry
    if outcome.status == Status.STATUS_SUCCEEDED:
        done(draft, state.name, outcome)
    elif outcome.status == Status.STATUS_UNKNOWN:
        what = "redo" if outcome.mode == MODE_REDO else "undo"
        target = instead.target if instead else f"the {what} of {draft.workflow.at(state.name).target}"
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
        conflicted(draft, state.name, error, outcome)
    go_on(draft)


def _counts(state: StepRun, outcome: Outcome) -> bool:
    """As with work: that it could not be done counts of the latest dispatch alone, and while a retry waits nothing
    counts but that it was done after all. That nobody knows counts of the latest alone as well: of those before, a
    person may have said meanwhile that it had not happened. What comes of an earlier undo of the step counts for
    nothing: it was done anew since."""
    if outcome.dispatch < state.undo_since:
        return False
    if outcome.status == Status.STATUS_SUCCEEDED:
        return True
    return not state.due and outcome.dispatch == state.dispatch


def done(draft: Draft, step: str, outcome: Outcome) -> None:
    """It is taken back, or put back."""
    summary, changes, token = outcome.summary, outcome.changes, outcome.undo_token
    if draft.run.state == st.RUN_STATE_REDOING:
        redone = ev.StepRedone(step=step, summary=summary, changes=changes, undo_token=token)
        draft.emit(step_redone=redone)
    else:
        undone = ev.StepUndone(step=step, summary=summary, changes=changes, undo_token=token)
        draft.emit(step_undone=undone)


def conflicted(draft: Draft, step: str, error: Error, outcome: Outcome | None = None) -> None:
    """It stays as it is."""
    changes = outcome.changes if outcome is not None else ()
    if draft.run.state == st.RUN_STATE_REDOING:
        draft.emit(redo_conflicted=ev.RedoConflicted(step=step, error=error, changes=changes))
    else:
        draft.emit(undo_conflicted=ev.UndoConflicted(step=step, error=error, changes=changes))


def _effect(task: str) -> list[str]:
    """A task id without its attempt group, of which a person starts the next by saying that nothing happened."""
    parts = task.split("/")
    return parts[:3] + parts[4:]
