"""When something of a run is due by itself: waits, retries, and the times by which it has to be done. Pure."""

from typing import Final

from aios.run.v1 import state_pb2 as st
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import LIVE_STEP

BOUND_STEP: Final = LIVE_STEP - {st.STEP_STATE_UNDOING, st.STEP_STATE_UNKNOWN}
"""What deadlines and service levels are for; whether a change happened is asked for as long as it takes."""


def earliest(*times: int) -> int:
    """The earliest of some times, 0 being none."""
    return min((time for time in times if time), default=0)


def given_up(step: StepRun) -> bool:
    """Whether a step may not go on, since its deadline has passed."""
    return step.overdue and step.limits is not None and not step.limits.note


def retries(step: StepRun) -> bool:
    """Whether a step waits for another attempt, or a person is asked about the money for it."""
    return step.state in (st.STEP_STATE_WAITING, st.STEP_STATE_GATED) and step.attempt > 0


def rests(run: Run, step: StepRun) -> bool:
    """Whether a step waits in a run that begins nothing more: it ends with the run, and nothing of it is due."""
    return run.stopping and step.state in (st.STEP_STATE_WAITING, st.STEP_STATE_GATED)


def next_due(run: Run) -> int | None:
    """The earliest time at which something of a run is due by itself, in ms since 1970."""
    live = (run.steps[name] for name in run.live)
    dues = [due for step in live if not rests(run, step) and (due := due_of(step))]
    if run.limits is not None:
        dues += [due for due in (level_of(run), deadline_of(run)) if due]
    return min(dues) if dues else None


def due_of(step: StepRun) -> int:
    """The earliest time at which something of a step is due by itself, 0: none."""
    limits = step.limits
    if limits is None or step.state not in BOUND_STEP:
        return step.due
    return earliest(
        step.due,
        0 if step.late else limits.service_level_ms,
        0 if step.overdue else limits.deadline_ms,
        limits.give_up_ms if step.state == st.STEP_STATE_DISPATCHED else 0,
        limits.total_ms if retries(step) else 0,
    )


def level_of(run: Run) -> int:
    """When a run will be late; 0: never, or it is."""
    under_way = run.state in (st.RUN_STATE_RUNNING, st.RUN_STATE_CANCELLING)
    return run.limits.service_level_ms if run.limits is not None and under_way and not run.late else 0


def deadline_of(run: Run) -> int:
    """The deadline of a run, as long as that is to come and it is not stopping; 0: none."""
    if run.limits is None or run.overdue or run.stopping or run.state != st.RUN_STATE_RUNNING:
        return 0
    return run.limits.deadline_ms
