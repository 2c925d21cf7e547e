"""`decide`: from a run, what came in, and the time, to what happened and what follows. Start reading here.

Nothing here waits, writes or looks anything up. An input that changes nothing (an outcome that was settled already, a
second decision that says the same) gives a decision without events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.commands_pb2 import DecideApprovalRequest, EditApprovalRequest
from aios.task.v1.task_pb2 import MODE_REDO, MODE_UNDO, Outcome
from aios_core.errors import AiosError, TerminalError
from aios_core.values import Value
from aios_orchestrator.core import (
    approve,
    compensate,
    editing,
    funding,
    gates,
    hearing,
    limits,
    passing,
    settle,
    undo,
)
from aios_orchestrator.core.advance import advance
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.migrate import Migrate, migrate
from aios_orchestrator.core.money import Purse
from aios_orchestrator.core.recover import Recover, recover
from aios_orchestrator.due import rests
from aios_orchestrator.model import Run
from aios_orchestrator.progress import OPEN_STEP
from aios_orchestrator.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Start:
    """Start the run. `run` is new and has no events; `input` was checked against the workflow's schema."""

    input: bytes
    concurrency_key: str
    resolution_id: str = ""
    reused: tuple[ev.StepReused, ...] = ()
    """Of a fork: the steps that it takes over from the other run."""
    concurrency: st.Concurrency | None = None
    """Set: it begins by waiting for its turn."""
    priority: int | None = None
    waiting: int = 0
    """How many may wait with it."""


@dataclass(frozen=True, slots=True)
class Admit:
    """The turn of a queued run has come; or it is left out, and `skip_why` says why."""

    skip_why: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """A worker's outcome of a task, and those of further tasks of the run that it reports with it, in their order."""

    outcome: Outcome
    more: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Decide:
    """A person's decision. `answers` is the decoded value of the request's, if it has any."""

    request: DecideApprovalRequest
    answers: Value | None


@dataclass(frozen=True, slots=True)
class Edit:
    """A person edits what an approval proposes. `arguments` is the decoded value of the request's input."""

    request: EditApprovalRequest
    arguments: Value


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop: start nothing more, wait for what is under way."""

    why: str
    superseded_by: str = ""


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the run's changes back; or those of chosen steps, and what came of them."""

    why: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Redo:
    """Put back what was undone."""

    why: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Something may be due: a wait, a retry, the expiry of an approval."""


@dataclass(frozen=True, slots=True)
class Fund:
    """There may be enough money by now for what the run asked about."""


@dataclass(frozen=True, slots=True)
class Hear:
    """An event was accepted that steps may wait for under these correlations. `event` is what expressions see."""

    event: Value
    correlations: frozenset[str]


@dataclass(frozen=True, slots=True)
class Redispatch:
    """The tasks of these steps were lost, or their leases ended: hand them out again."""

    steps: tuple[str, ...]
    why: str


Input = (
    Start
    | Admit
    | Settle
    | Decide
    | Edit
    | Cancel
    | Undo
    | Redo
    | Recover
    | Migrate
    | Tick
    | Fund
    | Hear
    | Redispatch
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The run afterwards, the stored bytes of its new events, the steps whose tasks are to be handed out, those that
    ended, the correlations of events that are waited for from now on, and the holds that are settled, with the costs.

    `refusal` is the error that the sender of the input is told; events may still record that it was refused.
    """

    run: Run
    events: tuple[bytes, ...] = ()
    dispatched: tuple[str, ...] = ()
    undoing: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    settled: tuple[tuple[int, int], ...] = ()
    refusal: AiosError | None = None
    workflow: Workflow | None = None
    """The version that the run follows from here on, where that is another one."""


def decide(
    run: Run, workflow: Workflow, what: Input, now: int, actor: str, purse: Purse | None = None
) -> Decision:
    """Decide on one input. `actor` is who or what it came from, as it stands in the events; of the purse, which may
    be changed, it takes what is handed out."""
    draft = Draft(run, workflow, now, actor, purse)
    refusal: AiosError | None = None
    try:
        _DECIDE[type(what)](draft, what)
        if draft.run.state == st.RUN_STATE_FAILED and not run.closed:
            undo.by_itself(draft)
    except AiosError as error:
        refusal = error
    dispatched = _still(draft, draft.dispatched, st.STEP_STATE_DISPATCHED)
    undoing = _still(draft, draft.undoing, st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING)
    ended, waiting = tuple(draft.ended), tuple(draft.waiting)
    moved = draft.workflow if draft.workflow is not workflow else None
    settled = tuple(draft.settled)
    return Decision(
        draft.run, tuple(draft.events), dispatched, undoing, ended, waiting, settled, refusal, moved
    )


def _still(draft: Draft, names: list[str], *states: st.StepState.ValueType) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if draft.run.at(name).state in states)


def _start(draft: Draft, what: Start) -> None:
    run = draft.run
    draft.emit(
        run_started=ev.RunStarted(
            workflow=draft.workflow.name,
            workflow_version=draft.workflow.version,
            mode=run.mode,
            input=what.input,
            trigger=run.trigger,
            request=run.request,
            resolution_id=what.resolution_id,
            cap_micros=draft.workflow.cap,
            concurrency_key=what.concurrency_key,
            traceparent=run.traceparent,
            parent_traceparent=run.parent_traceparent,
            slot=run.slot,
            request_sha256=run.request_sha256,
            fork=run.fork,
            limits=limits.of_run(draft),
            work_mode=draft.workflow.mode,
            concurrency=what.concurrency,
            priority=what.priority,
            customer=run.customer,
        )
    )
    if draft.run.queued:
        return
    for step in what.reused:
        draft.emit(step_reused=step)
    draft.may_start(draft.workflow.roots)
    advance(draft)


def _admit(draft: Draft, what: Admit) -> None:
    if not draft.run.queued:
        return
    if what.skip_why:
        draft.emit(run_skipped=ev.RunSkipped(why=what.skip_why))
        return
    draft.emit(run_admitted=ev.RunAdmitted())
    draft.may_start(draft.workflow.roots)
    advance(draft)


def _settle(draft: Draft, what: Settle) -> None:
    for outcome in (what.outcome, *what.more):
        taken_back = outcome.mode in (MODE_UNDO, MODE_REDO)
        if taken_back or (draft.run.undo_queue and compensate.is_of(draft.run, outcome)):
            undo.settle(draft, outcome)
        else:
            settle.settle(draft, outcome)
            if not draft.run.undo_queue:
                advance(draft)


def _decide(draft: Draft, what: Decide) -> None:
    approve.decide(draft, what.request, what.answers)
    if draft.run.state in _TAKING_BACK:
        undo.go_on(draft)
    elif draft.run.state == st.RUN_STATE_UNDONE:
        undo.still_undone(draft)
    else:
        advance(draft)


def _edit(draft: Draft, what: Edit) -> None:
    editing.edit(draft, what.request, what.arguments)


def _cancel(draft: Draft, what: Cancel) -> None:
    run = draft.run
    if run.state == st.RUN_STATE_CANCELLING or run.state == st.RUN_STATE_CANCELLED:
        return
    if run.closed or run.state in _TAKING_BACK:
        raise TerminalError(
            "RUN_CLOSED", f"Run {run.run_id} is not under way, so there is nothing to cancel."
        )
    draft.emit(cancel_requested=ev.CancelRequested(why=what.why, superseded_by=what.superseded_by))
    advance(draft)


def _undo(draft: Draft, what: Undo) -> None:
    undo.request(draft, what.why, what.steps)


def _redo(draft: Draft, what: Redo) -> None:
    undo.request_redo(draft, what.why)


def _recover(draft: Draft, what: Recover) -> None:
    if draft.run.state == st.RUN_STATE_UNDO_INCOMPLETE and what.recovery in (
        st.RECOVERY_RETRY,
        st.RECOVERY_SKIP,
    ):
        _recover_undo(draft, what)
        return
    whole = Draft(draft.run, draft.workflow, draft.clock, draft.actor, draft.purse)
    recover(whole, what)  # what is refused half-way leaves nothing
    vars(draft).update(vars(whole))
    advance(draft)


def _migrate(draft: Draft, what: Migrate) -> None:
    migrate(draft, what)
    if not draft.run.closed:
        advance(draft)


def _recover_undo(draft: Draft, what: Recover) -> None:
    if what.step or what.value is not None:
        raise TerminalError(
            "INVALID_ARGUMENT", "step, value: an undo is tried again, or left as it is, as a whole."
        )
    if what.recovery == st.RECOVERY_RETRY:
        undo.retry_incomplete(draft, what.why)
    else:
        draft.emit(undo_accepted=ev.UndoAccepted(why=what.why))


def _tick(draft: Draft, what: Tick) -> None:
    if draft.run.state != st.RUN_STATE_UNDOING:
        passing.pass_run(draft)
    for step in draft.run.lively():
        if rests(draft.run, step):
            continue
        if step.limits is not None:
            passing.pass_step(draft, step.name)
            step = draft.run.at(step.name)
        if not step.due or step.due > draft.clock:
            continue
        if step.state == st.STEP_STATE_GATED:
            gates.due(draft, step)
        elif step.state == st.STEP_STATE_WAITING:
            settle.due(draft, step)
        elif step.state in _OUT_BACK:
            undo.again(draft, step)
    if draft.run.state not in _TAKING_BACK and not draft.run.closed:
        advance(draft)


def _fund(draft: Draft, what: Fund) -> None:
    funding.fund(draft)
    if not draft.run.closed and draft.run.state not in _TAKING_BACK:
        advance(draft)


def _hear(draft: Draft, what: Hear) -> None:
    if not draft.run.stopping and draft.run.state == st.RUN_STATE_RUNNING:
        hearing.hear(draft, what.event, what.correlations)
        advance(draft)


def _redispatch(draft: Draft, what: Redispatch) -> None:
    for name in what.steps:
        step = draft.run.at(name)
        if step.state not in OPEN_STEP or step.due:
            continue
        draft.emit(step_redispatched=ev.StepRedispatched(step=name, dispatch=step.dispatch + 1, why=what.why))
        (draft.undoing if step.state in _OUT_BACK else draft.dispatched).append(name)


_TAKING_BACK = (st.RUN_STATE_UNDOING, st.RUN_STATE_REDOING)
_OUT_BACK = (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING)
_DECIDE: dict[type, Callable[[Draft, Any], None]] = {
    Start: _start,
    Admit: _admit,
    Settle: _settle,
    Decide: _decide,
    Edit: _edit,
    Cancel: _cancel,
    Undo: _undo,
    Redo: _redo,
    Recover: _recover,
    Migrate: _migrate,
    Tick: _tick,
    Fund: _fund,
    Hear: _hear,
    Redispatch: _redispatch,
}


def error_of(error: AiosError) -> Error:
    """An error as it stands in events."""
    return Error(code=error.code, message=error.message, retryable=error.retryable, details=error.details)
