"""What each event does to a run. A run is the fold of its events, and nothing else changes one."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Limits, RunState
from aios_core.hashing import event_hash
from aios_orchestrator.core import fold_approvals
from aios_orchestrator.core.fold_after import AFTERWARDS
from aios_orchestrator.core.fold_plans import PLANS
from aios_orchestrator.due import given_up
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import Begun, Rounds


def fold(stored: Iterable[bytes]) -> Run:
    """The run whose whole history these stored events are. Raises ValueError when the chain of hashes is broken."""
    run: Run | None = None
    for data in stored:
        event = RunEvent.FromString(data)
        if run is None:
            run = born(event)
        if event.previous_hash != run.last_hash or event.sequence != run.sequence + 1:
            raise ValueError(f"event {event.sequence} of {event.run_id} does not follow the one before it")
        apply(run, event, event_hash(data))
    if run is None:
        raise ValueError("a run has at least one event")
    return run


def born(event: RunEvent) -> Run:
    """The run before its first event, which says where it belongs."""
    body = event.run_started
    return Run(event.workspace, event.run_id, body.slot, body.workflow, body.workflow_version, body.mode)


def apply(run: Run, event: RunEvent, hashed: bytes) -> None:
    """Change the run by one event; `hashed` is the hash of the event's stored bytes."""
    run.sequence, run.update_time, run.last_hash = event.sequence, event.time_ms, hashed
    _APPLY[event.WhichOneof("body")](run, event)


def _run_started(run: Run, event: RunEvent) -> None:
    body = event.run_started
    run.create_time, run.cap, run.concurrency_key = event.time_ms, body.cap_micros, body.concurrency_key
    run.trigger, run.request, run.request_sha256 = body.trigger, body.request, body.request_sha256
    run.traceparent, run.parent_traceparent = body.traceparent, body.parent_traceparent
    run.actor, run.input, run.customer = event.actor, body.input, body.customer
    run.fork = body.fork if body.HasField("fork") else None
    run.limits, run.work_mode = _limits(body), body.work_mode
    run.priority = body.priority if body.HasField("priority") else None
    if body.HasField("concurrency"):
        run.state, run.concurrency = st.RUN_STATE_QUEUED, body.concurrency


def _limits(
    body: ev.RunStarted | ev.StepScheduled | ev.ApprovalRequested | ev.WaitStarted | ev.BodyStarted,
) -> Limits | None:
    return body.limits if body.HasField("limits") else None


def _run_admitted(run: Run, event: RunEvent) -> None:
    run.state = st.RUN_STATE_RUNNING


def _run_skipped(run: Run, event: RunEvent) -> None:
    run.error = Error(code="SKIPPED", message=event.run_skipped.why)
    _close(run, event, st.RUN_STATE_SKIPPED)


def _step_reused(run: Run, event: RunEvent) -> None:
    body = event.step_reused
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_SKIPPED if body.skipped else st.STEP_STATE_SUCCEEDED)
    step.output, step.summary = body.output, body.summary
    step.start = step.end = event.time_ms


def _step_scheduled(run: Run, event: RunEvent) -> None:
    body = event.step_scheduled
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_DISPATCHED)
    step.attempt, step.attempt_group, step.dispatch = body.attempt, body.attempt_group, body.dispatch
    step.input, step.hold, step.due, step.error = body.input, body.hold_micros, 0, None
    step.charge = body.charge
    step.start, step.limits = step.start or event.time_ms, _limits(body)
    step.cache_key, step.work_mode = body.cache_key, body.work_mode
    run.held += body.hold_micros


def _step_redispatched(run: Run, event: RunEvent) -> None:
    run.step(event.step_redispatched.step).dispatch = event.step_redispatched.dispatch


def _settle(run: Run, step: StepRun, cost: int) -> None:
    run.held -= step.hold
    run.settled += cost
    step.hold = step.charge = 0
    step.cost += cost
    step.hold = step.due = 0


def _step_succeeded(run: Run, event: RunEvent) -> None:
    body = event.step_succeeded
    step = run.step(body.step)
    _settle(run, step, body.cost_micros)
    run.move(step, st.STEP_STATE_SUCCEEDED)
    step.output, step.error = body.output, None
    step.undo_token, step.compensates = body.undo_token, body.compensates
    step.undoable = bool(body.undo_token) or body.compensates
    if not step.undoable:
        step.input = b""  # it is not handed out again, and its event has it for ever
    if step.cache_key:
        step.target_version = body.target_version
        step.cached = body.cached if body.HasField("cached") else None
    step.summary, step.changes = body.summary, tuple(body.changes)
    step.usage = body.usage if body.HasField("usage") else None
    step.start, step.end = step.start or event.time_ms, event.time_ms
    if body.effect_order:
        step.effect_order = run.effects = body.effect_order


def _step_failed(run: Run, event: RunEvent) -> None:
    body = event.step_failed
    step = run.step(body.step)
    _settle(run, step, body.cost_micros)
    if step.state == st.STEP_STATE_GATED:
        fold_approvals.replaced(run, run.approvals[step.approval_id], event)
    step.error, step.end = body.error, event.time_ms
    run.move(step, st.STEP_STATE_FAILED)
    if not body.contained and not _out_of_time(run):
        run.error, run.failed = body.error, run.failed or body.step


def _step_retry_scheduled(run: Run, event: RunEvent) -> None:
    body = event.step_retry_scheduled
    step = run.step(body.step)
    undoing = step.state if step.state in (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING) else None
    _settle(run, step, body.cost_micros)
    run.move(step, undoing or st.STEP_STATE_WAITING)
    step.error, step.due, step.attempt = body.error, body.due_ms, body.attempt


def _step_skipped(run: Run, event: RunEvent) -> None:
    body = event.step_skipped
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_SKIPPED)
    step.summary, step.end, step.output = body.why, event.time_ms, body.output


def _step_unknown(run: Run, event: RunEvent) -> None:
    body = event.step_unknown
    step = run.step(body.step)
    if not body.undoing:
        _settle(run, step, step.hold)
    run.move(step, st.STEP_STATE_UNKNOWN)
    step.error, step.due = body.error, 0
    step.approval_id = body.approval.approval_id
    run.approvals[body.approval.approval_id] = body.approval


def _approval_requested(run: Run, event: RunEvent) -> None:
    body = event.approval_requested
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_GATED)
    step.approval_id = body.approval.approval_id
    step.due, step.start = body.due_ms or body.approval.expire_time_ms, step.start or event.time_ms
    step.limits = _limits(body)
    run.approvals[body.approval.approval_id] = body.approval


def _approval_decided(run: Run, event: RunEvent) -> None:
    body = event.approval_decided
    approval = fold_approvals.copied(run, body.approval_id)
    approval.state, approval.decided_by, approval.note = body.state, body.decided_by, body.note
    approval.decide_time_ms, approval.answers = event.time_ms, body.answers
    approval.expire_time_ms = body.valid_until_ms or approval.expire_time_ms
    run.approvals[body.approval_id] = approval
    step = run.step(body.step)
    step.due = 0
    if step.state == st.STEP_STATE_UNKNOWN:
        # What follows is decided by the next event: it succeeded, or a new attempt group starts.
        run.move(step, st.STEP_STATE_PENDING)
        step.attempt = 0
        step.attempt_group += 1


def _wait_started(run: Run, event: RunEvent) -> None:
    body = event.wait_started
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_WAITING)
    step.due, step.start = body.due_ms, event.time_ms
    step.awaits, step.unfunded, step.limits = body.awaits, body.unfunded, _limits(body)


def _body_started(run: Run, event: RunEvent) -> None:
    body = event.body_started
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_RUNNING)
    step.input, step.start, step.body = body.input, event.time_ms, Begun(body.rounds, body.steps)
    run.rounds, step.limits = run.rounds.set(step.name, Rounds()), _limits(body)


def _rounds_started(run: Run, event: RunEvent) -> None:
    step = run.step(event.rounds_started.step)
    step.body = replace(step.begun, begun=event.rounds_started.begun)
    step.output = event.rounds_started.carried


def _run_succeeded(run: Run, event: RunEvent) -> None:
    run.outputs = event.run_succeeded.outputs
    _close(run, event, st.RUN_STATE_SUCCEEDED)


def _run_failed(run: Run, event: RunEvent) -> None:
    run.error = event.run_failed.error
    _close(run, event, st.RUN_STATE_FAILED)


def _cancel_requested(run: Run, event: RunEvent) -> None:
    run.state = st.RUN_STATE_CANCELLING
    run.superseded_by = event.cancel_requested.superseded_by


def _run_cancelled(run: Run, event: RunEvent) -> None:
    _close(run, event, st.RUN_STATE_CANCELLED)


def _close(run: Run, event: RunEvent, state: RunState.ValueType) -> None:
    run.state = state
    for step in run.lively():
        if step.state != st.STEP_STATE_UNKNOWN:
            own = run.step(step.name)
            run.move(own, st.STEP_STATE_CANCELLED)
            own.due, own.end = 0, event.time_ms
    for approval in run.open_approvals():
        if run.steps[approval.step].state != st.STEP_STATE_UNKNOWN:
            fold_approvals.replaced(run, approval, event)


def _deadline_passed(run: Run, event: RunEvent) -> None:
    body = event.deadline_passed
    if body.step:
        run.step(body.step).overdue = True
    else:
        run.overdue = True
    if body.stops:
        run.error, run.failed = body.error, run.failed or body.step


def _out_of_time(run: Run) -> bool:
    """Whether a deadline has stopped the run: what fails after that is not why."""
    return run.error is not None and (run.overdue if not run.failed else given_up(run.at(run.failed)))


def _became_late(run: Run, event: RunEvent) -> None:
    run.late_time = run.late_time or event.time_ms
    if event.became_late.step:
        run.step(event.became_late.step).late = True
    else:
        run.late = True


_APPLY: dict[str | None, Callable[[Run, RunEvent], None]] = {
    **AFTERWARDS,
    **PLANS,
    "run_started": _run_started,
    "step_scheduled": _step_scheduled,
    "step_redispatched": _step_redispatched,
    "step_succeeded": _step_succeeded,
    "step_failed": _step_failed,
    "step_retry_scheduled": _step_retry_scheduled,
    "step_skipped": _step_skipped,
    "step_reused": _step_reused,
    "step_unknown": _step_unknown,
    "approval_requested": _approval_requested,
    "approval_decided": _approval_decided,
    "wait_started": _wait_started,
    "body_started": _body_started,
    "rounds_started": _rounds_started,
    "run_succeeded": _run_succeeded,
    "run_failed": _run_failed,
    "cancel_requested": _cancel_requested,
    "run_cancelled": _run_cancelled,
    "deadline_passed": _deadline_passed,
    "became_late": _became_late,
    "run_admitted": _run_admitted,
    "run_skipped": _run_skipped,
    "decision_refused": fold_approvals.decision_refused,
    "approval_reminded": fold_approvals.approval_reminded,
    "approval_escalated": fold_approvals.approval_escalated,
    "approval_assented": fold_approvals.approval_assented,
    "approval_edited": fold_approvals.approval_edited,
}
