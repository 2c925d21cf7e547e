"""What each event does to a run. A run is the fold of its events, and nothing else changes one."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from immutables import Map

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, RunState, StepState
from aios_core.hashing import event_hash
from aios_orchestrator.core import fold_approvals
from aios_orchestrator.model import Begun, Rounds, Run, StepRun, renamed, rounds_of


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
    run.create_time = event.time_ms
    run.cap, run.concurrency_key = body.cap_micros, body.concurrency_key
    run.trigger, run.request, run.request_sha256 = body.trigger, body.request, body.request_sha256
    run.traceparent, run.actor, run.input = body.traceparent, event.actor, body.input
    run.parent_traceparent = body.parent_traceparent
    run.fork = body.fork if body.HasField("fork") else None


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
    step.start = step.start or event.time_ms
    run.held += body.hold_micros


def _step_redispatched(run: Run, event: RunEvent) -> None:
    run.step(event.step_redispatched.step).dispatch = event.step_redispatched.dispatch


def _settle(run: Run, step: StepRun, cost: int) -> None:
    run.held -= step.hold
    run.settled += cost
    step.hold = 0
    step.cost += cost
    step.due = 0


def _step_succeeded(run: Run, event: RunEvent) -> None:
    body = event.step_succeeded
    step = run.step(body.step)
    _settle(run, step, body.cost_micros)
    run.move(step, st.STEP_STATE_SUCCEEDED)
    step.output, step.error = body.output, None
    step.undo_token, step.undoable = body.undo_token, bool(body.undo_token)
    if not step.undoable:
        step.input = b""  # it is not handed out again, and its event has it for ever
    step.summary, step.changes = body.summary, tuple(body.changes)
    step.usage = body.usage if body.HasField("usage") else None
    step.end = event.time_ms
    step.start = step.start or event.time_ms
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
    if not body.contained:
        run.error, run.failed = body.error, run.failed or body.step


def _step_retry_scheduled(run: Run, event: RunEvent) -> None:
    body = event.step_retry_scheduled
    step = run.step(body.step)
    undoing = step.state if step.state in (st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING) else None
    _settle(run, step, body.cost_micros)
    run.move(step, undoing or st.STEP_STATE_WAITING)
    step.error, step.due, step.attempt = body.error, body.due_ms, body.attempt


def _step_skipped(run: Run, event: RunEvent) -> None:
    step = run.step(event.step_skipped.step)
    run.move(step, st.STEP_STATE_SKIPPED)
    step.summary, step.end = event.step_skipped.why, event.time_ms
    step.output = event.step_skipped.output


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
    step = run.step(event.wait_started.step)
    run.move(step, st.STEP_STATE_WAITING)
    step.due, step.start = event.wait_started.due_ms, event.time_ms
    step.awaits = event.wait_started.awaits


def _body_started(run: Run, event: RunEvent) -> None:
    body = event.body_started
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_RUNNING)
    step.input, step.start, step.body = body.input, event.time_ms, Begun(body.rounds, body.steps)
    run.rounds = run.rounds.set(step.name, Rounds())


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


def _undo_requested(run: Run, event: RunEvent) -> None:
    body = event.undo_requested
    run.state, run.undo_queue, run.undo_group = st.RUN_STATE_UNDOING, tuple(body.steps), body.undo_group
    run.error, run.undo_chosen = None, bool(body.chosen)
    run.ending = body.ending if body.HasField("ending") else run.ending


def _redo_requested(run: Run, event: RunEvent) -> None:
    body = event.redo_requested
    run.state, run.undo_queue, run.undo_group = st.RUN_STATE_REDOING, tuple(body.steps), body.undo_group
    run.redos += 1


def _undo_scheduled(run: Run, event: RunEvent) -> None:
    body = event.undo_scheduled
    step = run.step(body.step)
    run.move(step, st.STEP_STATE_REDOING if body.redo else st.STEP_STATE_UNDOING)
    step.dispatch, step.attempt = body.dispatch, body.attempt
    step.due, step.error = 0, None


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
    run.move(step, st.STEP_STATE_RUNNING)
    return step


def _body_reopened(run: Run, event: RunEvent) -> None:
    step = _reopen(run, event.body_reopened.step)
    step.input, step.output = event.body_reopened.input, b""
    run.rounds = run.rounds.set(step.name, rounds_of(run.steps)[step.name])


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
    for name in body.again:
        step = run.step(name)
        if step.state == st.STEP_STATE_GATED:
            fold_approvals.replaced(run, run.approvals[step.approval_id], event)
        run.again(step)
    run.rounds = rounds_of(run.steps)


_APPLY: dict[str | None, Callable[[Run, RunEvent], None]] = {
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
    "undo_requested": _undo_requested,
    "undo_scheduled": _undo_scheduled,
    "step_undone": _step_undone,
    "undo_conflicted": _undo_conflicted,
    "run_undone": _run_undone,
    "redo_requested": _redo_requested,
    "step_redone": _step_redone,
    "redo_conflicted": _redo_conflicted,
    "run_redone": _run_redone,
    "undo_accepted": _undo_accepted,
    "decision_refused": fold_approvals.decision_refused,
    "run_reopened": _run_reopened,
    "step_edited": _step_edited,
    "body_reopened": _body_reopened,
    "run_migrated": _run_migrated,
    "approval_reminded": fold_approvals.approval_reminded,
    "approval_escalated": fold_approvals.approval_escalated,
    "approval_assented": fold_approvals.approval_assented,
    "approval_edited": fold_approvals.approval_edited,
}
