"""What events do to a run that ended, or that a person takes another way: undone, put back, reopened, migrated."""

from collections.abc import Callable, Mapping
from typing import Final

from immutables import Map

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, RunPlan, StepState
from aios_core.step_names import renamed
from aios_orchestrator.core.fold_approvals import replaced
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import rounds_of


def _undo_requested(run: Run, event: RunEvent) -> None:
    body = event.undo_requested
    run.state, run.undo_queue, run.undo_group = st.RUN_STATE_UNDOING, tuple(body.steps), body.undo_group
    run.error, run.undo_chosen = body.cause if body.HasField("cause") else None, bool(body.chosen)
    run.ending = body.ending if body.HasField("ending") else run.ending
    run.undo_by = body.consents


def _redo_requested(run: Run, event: RunEvent) -> None:
    body = event.redo_requested
    run.state, run.undo_queue, run.undo_group = st.RUN_STATE_REDOING, tuple(body.steps), body.undo_group
    run.redos += 1


def _undo_scheduled(run: Run, event: RunEvent) -> None:
    body = event.undo_scheduled
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_REDOING if body.redo else st.STEP_STATE_UNDOING)
    step.dispatch, step.attempt, step.undo_since = body.dispatch, body.attempt, body.undo_since
    step.due, step.error = 0, None
    if body.HasField("compensation"):
        step.compensation = body.compensation


def _step_undone(run: Run, event: RunEvent) -> None:
    _undo_ended(run, event.step_undone.step, st.STEP_STATE_UNDONE)
    step = run.step(event.step_undone.step)
    step.summary = event.step_undone.summary
    step.undo_token = event.step_undone.undo_token or step.undo_token


def _step_redone(run: Run, event: RunEvent) -> None:
    body = event.step_redone
    _undo_ended(run, body.step, st.STEP_STATE_SUCCEEDED)
    step = run.step(body.step)
    step.summary, step.error = body.summary, None
    step.undo_token = body.undo_token or step.undo_token


def _redo_conflicted(run: Run, event: RunEvent) -> None:
    body = event.redo_conflicted
    _undo_ended(run, body.step, st.STEP_STATE_UNDONE)
    run.step(body.step).error = body.error


def _undo_conflicted(run: Run, event: RunEvent) -> None:
    body = event.undo_conflicted
    _undo_ended(run, body.step, st.STEP_STATE_UNDO_CONFLICT)
    run.step(body.step).error = body.error


def _undo_ended(run: Run, name: str, state: StepState.ValueType) -> None:
    step = run.step(name)
    run.move(step, state)
    step.due = 0
    run.undo_queue = tuple(other for other in run.undo_queue if other != name)


def _run_undone(run: Run, event: RunEvent) -> None:
    left = bool(event.run_undone.left)
    run.state = event.run_undone.state or (st.RUN_STATE_UNDO_INCOMPLETE if left else st.RUN_STATE_UNDONE)


def _run_redone(run: Run, event: RunEvent) -> None:
    body = event.run_redone
    run.state = body.state
    run.error = body.error if body.HasField("error") else None


def _undo_accepted(run: Run, event: RunEvent) -> None:
    run.state = st.RUN_STATE_PARTLY_UNDONE


def _run_reopened(run: Run, event: RunEvent) -> None:
    body = event.run_reopened
    run.state, run.error, run.failed, run.outputs = st.RUN_STATE_RUNNING, None, "", b""
    run.cap, run.reopened = body.cap_micros or run.cap, run.reopened + 1
    run.rounds, run.decoded = Map(), {}
    if run.limits is not None and 0 < run.limits.deadline_ms <= event.time_ms:
        run.overdue = True  # a person has it go on all the same
    for name in body.bodies:
        _reopen(run, name)
    again = set(body.again)
    for step in run.changed_things():
        if step.state == st.STEP_STATE_UNDO_CONFLICT and step.name not in again:
            own = run.step(step.name)  # what it changed stands, and what needs it goes on
            own.error = None
            run.move(own, st.STEP_STATE_SUCCEEDED)
    for name in body.again:
        run.again(run.step(name))
    run.rounds = rounds_of(run.steps)
    run.effects = max((step.effect_order for step in run.steps.values()), default=0)


def _reopen(run: Run, name: str) -> StepRun:
    step = run.step(name)
    step.error, step.summary, step.end = None, "", 0
    step.limits, step.overdue = None, False
    run.move(step, st.STEP_STATE_RUNNING)
    return step


def _body_reopened(run: Run, event: RunEvent) -> None:
    step = _reopen(run, event.body_reopened.step)
    step.input, step.output = event.body_reopened.input, b""
    run.rounds = rounds_of(run.steps)  # also of what it is a part of: there its round was over


def _step_edited(run: Run, event: RunEvent) -> None:
    run.step(event.step_edited.step).edited = event.step_edited.input


def _run_migrated(run: Run, event: RunEvent) -> None:
    body = event.run_migrated
    run.workflow_version, run.cap, run.decoded = body.to_version, body.cap_micros, {}
    run.input = body.input or run.input
    for name in body.dropped:
        run.leave_out(name)
    if body.renamed:
        for name in list(run.steps):
            run.rename(name, renamed(name, body.renamed))
        for key, approval in run.approvals.items():
            if (name := renamed(approval.step, body.renamed)) != approval.step:
                moved = Approval()
                moved.CopyFrom(approval)
                moved.step = name
                run.approvals[key] = moved
        run.failed = renamed(run.failed, body.renamed)
        run.plans = {
            renamed(name, body.renamed): _renamed_plan(plan, body.renamed) for name, plan in run.plans.items()
        }
    for name in body.again:
        step = run.step(name)
        if step.state == st.STEP_STATE_GATED:
            replaced(run, run.approvals[step.approval_id], event)
        run.again(step)
    run.rounds = rounds_of(run.steps)


def _renamed_plan(plan: RunPlan, names: Mapping[str, str]) -> RunPlan:
    other = RunPlan()
    other.CopyFrom(plan)
    other.groups.clear()
    other.groups.update({renamed(step, names): group for step, group in plan.groups.items()})
    return other


AFTERWARDS: Final[Mapping[str | None, Callable[[Run, RunEvent], None]]] = {
    "undo_requested": _undo_requested,
    "redo_requested": _redo_requested,
    "undo_scheduled": _undo_scheduled,
    "step_undone": _step_undone,
    "step_redone": _step_redone,
    "redo_conflicted": _redo_conflicted,
    "undo_conflicted": _undo_conflicted,
    "run_undone": _run_undone,
    "run_redone": _run_redone,
    "undo_accepted": _undo_accepted,
    "run_reopened": _run_reopened,
    "body_reopened": _body_reopened,
    "step_edited": _step_edited,
    "run_migrated": _run_migrated,
}
