"""Defects of the core, each with a seed whose random history finds it: the histories are themselves tested."""

from collections.abc import Mapping
from typing import Any, Final

from aios.task.v1.task_pb2 import Outcome, Status
from aios_orchestrator import drawing, due
from aios_orchestrator.core import decide, spending, undo
from aios_orchestrator.model import Run, StepRun
from tests.sim.planted import undone_in_the_order_of_doing
from tests.sim.planting import replaced


def waits_go_on_in_what_stops() -> Any:
    """What waits for another attempt, or for money, gets it although the run was stopped meanwhile."""

    def rests(run: Run, step: StepRun) -> bool:
        return False

    return replaced((due, "rests", rests), (decide, "rests", rests))


def asked_again_what_was_said() -> Any:
    """That nobody knew of an undo counts again when it is told again, after a person has looked."""

    def counts(state: StepRun, outcome: Outcome) -> bool:
        if outcome.dispatch < state.undo_since or outcome.status == Status.STATUS_SUCCEEDED:
            return outcome.dispatch >= state.undo_since
        return not state.due and (
            outcome.status == Status.STATUS_UNKNOWN or outcome.dispatch == state.dispatch
        )

    return replaced((undo, "_counts", counts))


def what_costs_too_much_goes_on() -> Any:
    """Nobody is asked whether a run may go on that has cost much more than others."""
    return replaced((spending, "_spikes", lambda *_: False))


def undone_steps_left_out() -> Any:
    """An undo takes back all but the first change."""
    original = undo.preview

    def preview(run: Run, only: Any = None) -> tuple[list[str], list[str]]:
        steps, impossible = original(run, only)
        return steps[:-1] or steps, impossible

    return replaced((undo, "preview", preview))


def drawn_without_what_is_planned() -> Any:
    """A picture of a workflow is made of its steps as they stand, and fails where a plan has none yet."""

    def inner(scopes: Mapping[str, Any], step: Any) -> Any:
        return scopes[step.inside] if step.body is not None else ()

    return replaced((drawing, "_inner", inner))


DEFECTS: Final = {
    waits_go_on_in_what_stops: 994,
    asked_again_what_was_said: 4587,
    what_costs_too_much_goes_on: 42,
    undone_steps_left_out: 6,
    undone_in_the_order_of_doing: 6,
    drawn_without_what_is_planned: 0,
}
