"""Outcomes of tasks: success, failure with or without another attempt, and what nobody can know."""

import hashlib

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import (
    MODE_EXECUTE,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    Outcome,
)
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_core.ids import effect_key
from aios_core.json_values import to_json
from aios_core.values import Value, label_of, plain, relabeled
from aios_orchestrator.core import hearing, limits, planning, rounds
from aios_orchestrator.core.advance import go_on
from aios_orchestrator.core.asking import unknown_approval
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.model import StepRun
from aios_orchestrator.workflow import Retry, Step


def settle(draft: Draft, outcome: Outcome) -> None:
    """Apply an outcome, unless the step was settled by another: what comes again changes nothing."""
    state = draft.run.steps.get(outcome.step)
    if state is None or draft.run.closed or not _awaited(draft, state, outcome):
        return
    step = draft.workflow.at(state.name)
    if outcome.status == STATUS_SUCCEEDED:
        _succeeded(draft, step, state, outcome)
    elif outcome.status == STATUS_UNKNOWN:
        approval = unknown_approval(draft, state, step.target, outcome.error.message)
        draft.emit(step_unknown=ev.StepUnknown(step=step.name, error=outcome.error, approval=approval))
    else:
        failed(draft, step, state, outcome)


def _awaited(draft: Draft, state: StepRun, outcome: Outcome) -> bool:
    """A success or an UNKNOWN of any dispatch of this attempt group counts; a failure only of the latest dispatch.

    What a worker did ahead counts if it did it on the very input that is decided here.
    """
    if outcome.task_id != effect_key(draft.run.run_id, state.effect_name, 0, state.attempt_group):
        return False
    if outcome.ahead_sha256 and outcome.ahead_sha256 != sha256(state.input):
        return False
    if state.state == st.STEP_STATE_DISPATCHED:
        return outcome.status != STATUS_FAILED or outcome.dispatch == state.dispatch
    waits_for_retry = state.state == st.STEP_STATE_WAITING and state.attempt > 0
    return waits_for_retry and outcome.status == STATUS_SUCCEEDED


def _succeeded(draft: Draft, step: Step, state: StepRun, outcome: Outcome) -> None:
    try:
        value = decode(outcome.output)
    except TerminalError as error:
        code = error.code if error.code == "TOO_LARGE" else "BAD_OUTPUT"
        why = f"The result of {step.target} can't be read: {error.message}"
        rounds.fail(draft, step.name, TerminalError(code, why))
        return
    if step.planning is not None:
        try:
            value = planning.drafted(draft, step, value)
            outcome.output = encode(value)
        except TerminalError as error:
            planning.refuse(draft, step, state, outcome, error)
            return
    wrong = _broken(step, value)
    if wrong is not None:
        draft.emit(
            step_failed=ev.StepFailed(
                step=step.name,
                error=wrong,
                cost_micros=outcome.cost_micros,
                attempt=state.attempt,
                contained=rounds.contained(draft, step.name),
            )
        )
        return
    output, cached = outcome.output, outcome.cached if outcome.HasField("cached") else None
    if cached is not None:  # it depends on what is asked now as well as on what was asked then
        value = relabeled(value, label_of(decode(state.input)))
        output = encode(value)
    draft.run.remember(step.name, value)
    real = step.effect and draft.run.mode == MODE_EXECUTE
    done = ev.StepSucceeded(
        step=step.name,
        output=output,
        cost_micros=outcome.cost_micros,
        usage=outcome.usage if outcome.HasField("usage") else None,
        undo_token=outcome.undo_token if real else b"",
        summary=outcome.summary,
        changes=outcome.changes,
        worker=outcome.worker,
        effect_order=draft.run.effects + 1 if real else 0,
    )
    if state.cache_key:
        done.target_version = outcome.target_version
    if cached is not None:
        done.cached.CopyFrom(cached)
    if real and step.compensate is not None:
        done.compensates = True
    draft.emit(step_succeeded=done)


def _broken(step: Step, value: Value) -> Error | None:
    """Why a result is not what the document says that the step gives. What changed something has changed it, whatever
    it says of it; that stays a success, so that it can be taken back."""
    if step.gives is None or step.effect:
        return None
    found = step.gives.problem(to_json(plain(value)))
    if found is None:
        return None
    where = f"{found[0]}: " if found[0] else ""
    return Error(
        code="BAD_OUTPUT", message=f"What {step.target} gave is not what `gives` says: {where}{found[1]}."
    )


def failed(draft: Draft, step: Step, state: StepRun, outcome: Outcome) -> None:
    """An attempt failed: another one after a wait, if there may be one, or the step fails."""
    error = outcome.error
    goes_on = not draft.run.stopping and (not step.scope or rounds.goes_on(draft, step.name))
    final = not outcome.error.retryable or outcome.error.code in step.retry.never
    again, wait = not final and state.attempt < step.retry.limit and goes_on, 0
    if again:
        wait = backoff_ms(step.retry, draft.run.run_id, step.name, state.attempt, outcome.error)
    if again or error.code in limits.CUT_SHORT:
        over = limits.spent(draft.run, state, draft.clock + wait, error)
        again, error = again and over is None, over or error
    if again:
        draft.emit(
            step_retry_scheduled=ev.StepRetryScheduled(
                step=step.name,
                error=outcome.error,
                cost_micros=outcome.cost_micros,
                attempt=state.attempt,
                due_ms=draft.clock + wait,
            )
        )
        return
    draft.emit(
        step_failed=ev.StepFailed(
            step=step.name,
            error=error,
            cost_micros=outcome.cost_micros,
            attempt=state.attempt,
            contained=rounds.contained(draft, step.name),
        )
    )


def backoff_ms(retry: Retry, run_id: str, step: str, attempt: int, error: Error) -> int:
    """Doubling waits, spread by the jitter as run, step and attempt decide, never shorter than the failing side
    asks."""
    wait = min(retry.backoff_ms << min(attempt - 1, 20), retry.cap_ms)
    spread = int.from_bytes(hashlib.sha256(f"{run_id}/{step}/{attempt}".encode()).digest()[:2], "big")
    percent = 100 - retry.jitter + spread * 2 * retry.jitter // 65536
    return max(wait * percent // 100, int(error.retry_after * 1000), 1)


def due(draft: Draft, state: StepRun) -> None:
    """A step's time has come: a wait is over, or a retry starts."""
    step = draft.workflow.at(state.name)
    if step.hears is not None:
        hearing.time_out(draft, step, step.hears)
        return
    if step.kind == "wait":
        draft.emit(step_succeeded=ev.StepSucceeded(step=step.name, output=_NOTHING, summary="waited"))
        return
    go_on(draft, step)


_NOTHING = (
    b"\x0a\x02\x08\x01\x12\x0c\x0a\x08resource\x10\x28"  # the canonical null of a resource's own constant
)
