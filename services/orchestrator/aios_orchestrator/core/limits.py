"""What a step or a run has to be done by, as times of its own: computed once when it begins, kept in its events.

What happens when such a time has come is decided in `passing`."""

from typing import Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1.state_pb2 import Limits
from aios_core.errors import TerminalError
from aios_core.values import plain
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.delivery import GRACE_MS
from aios_orchestrator.due import earliest, given_up
from aios_orchestrator.mapping import Lookup, time_of
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import Bounds, Step

CUT_SHORT: Final = frozenset({"STEP_TIMEOUT", "QUEUE_TIMEOUT"})
"""What a worker says of a task for which there was no time."""


def of_run(draft: Draft) -> Limits | None:
    """What a run that begins has to be done by; None where its workflow says nothing."""
    bounds = draft.workflow.bounds
    return _begun(draft, "the run", bounds, draft.look) if bounds is not None else None


def of_step(draft: Draft, step: Step, look: Lookup | None = None) -> Limits | None:
    """What a step that begins has to be done by; None where nothing is said. `look` is what the bounds of a
    sub-workflow see, which hold where the step has none of its own. Raises DEADLINE_EXCEEDED, BAD_OUTPUT."""
    bounds = step.bounds
    if bounds is None and look is not None and step.own.child is not None:
        bounds = step.own.child.bounds
    if bounds is None or not bounds.at_all:
        return None
    if step.bounds is not None or look is None:
        look = draft.look_from(step.scope)
    limits = _begun(draft, f"step {step.name!r}", bounds, look)
    if limits.deadline_ms and not limits.note and limits.deadline_ms <= draft.clock:
        raise TerminalError(
            "DEADLINE_EXCEEDED", f"The deadline of step {step.name!r} passed before it began."
        )
    return limits


def _begun(draft: Draft, what: str, bounds: Bounds, look: Lookup) -> Limits:
    deadline = draft.clock + bounds.deadline_ms if bounds.deadline_ms else 0
    if bounds.deadline is not None:
        try:
            deadline = max(time_of(plain(bounds.deadline.evaluate(look))), 1)
        except ValueError as error:
            raise TerminalError("BAD_OUTPUT", f"The deadline of {what} is no time: {error}.") from None
    level = bounds.service_level_ms
    return Limits(
        deadline_ms=deadline,
        note=bounds.note and bool(deadline),
        service_level_ms=draft.clock + level if level else 0,
    )


def of_task(draft: Draft, step: Step) -> Limits | None:
    """What a step that is handed out now has to be done by. Raises DEADLINE_EXCEEDED, TOTAL_TIMEOUT where its time is
    over, BAD_OUTPUT."""
    run, bounds = draft.run, step.bounds
    if bounds is None and run.limits is None:
        return None
    state = run.at(step.name)
    limits = Limits()
    if state.limits is None:
        begun = of_step(draft, step)
        if begun is not None:
            limits.CopyFrom(begun)
        limits.total_ms = draft.clock + bounds.total_ms if bounds is not None and bounds.total_ms else 0
    else:
        limits.CopyFrom(state.limits)
        over = spent(run, state, draft.clock)
        if over is not None:
            raise TerminalError(over.code, over.message)
    queued = draft.clock + bounds.queued_ms if bounds is not None and bounds.queued_ms else 0
    cut = earliest(cut_of(limits, state.overdue), cut_of(run.limits, run.overdue))
    if step.effect:
        limits.start_by_ms = 0 if step.kind == "memory" else earliest(queued, cut)
        begun_by = limits.start_by_ms + step.timeout_ms if limits.start_by_ms else 0
        noticed = earliest(begun_by, limits.total_ms)  # nobody has answered by then who should have
        limits.service_level_ms = earliest(limits.service_level_ms, noticed + GRACE_MS if noticed else 0)
    else:
        limits.start_by_ms = queued
        end = earliest(queued + step.timeout_ms if queued else 0, limits.total_ms, cut)
        limits.give_up_ms = end + GRACE_MS if end else 0
    return limits


def cut_of(limits: Limits | None, overdue: bool) -> int:
    """The deadline that stops a step or run, if there is one still; 0: none."""
    return limits.deadline_ms if limits is not None and not limits.note and not overdue else 0


def spent(run: Run, state: StepRun, at: int, last: Error | None = None) -> Error | None:
    """Why no attempt of a step may go on, or begin, at a time; None: it may. `last` is why the one before failed."""
    limits = state.limits
    told = f" The last attempt failed: {last.code}: {last.message}" if last is not None else ""
    if limits is None:
        return None
    if limits.total_ms and at >= limits.total_ms:
        return Error(
            code="TOTAL_TIMEOUT",
            message=f"Step {state.name!r} could not be done in the time for all its attempts.{told}",
        )
    if given_up(state) or 0 < cut_of(limits, state.overdue) <= at:
        return Error(
            code="DEADLINE_EXCEEDED", message=f"Step {state.name!r} could not be done by its deadline.{told}"
        )
    if 0 < cut_of(run.limits, run.overdue) <= at:
        return Error(
            code="DEADLINE_EXCEEDED",
            message=f"Step {state.name!r} could not be done by the deadline of its run.{told}",
        )
    return None
