"""Planted defects of what has its time, and of what is made good."""

from typing import Any

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Compensation
from aios_core.errors import TerminalError
from aios_core.ids import effect_key
from aios_orchestrator.core import compensate, passing, rounds
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.model import Run, StepRun
from tests.sim.planting import replaced


def unanswered_change_taken_for_undone() -> Any:
    """A change of which no connector has said anything in its time is failed, as if it had not been made."""
    original = passing.pass_step

    def pass_step(draft: Draft, name: str) -> None:
        original(draft, name)
        step = draft.run.at(name)
        if step.late and step.state == st.STEP_STATE_DISPATCHED and draft.workflow.at(name).effect:
            rounds.fail(draft, name, TerminalError("TOTAL_TIMEOUT", "nobody answered"))

    return replaced((passing, "pass_step", pass_step))


def made_good_again_when_handed_out_again() -> Any:
    """Each time that the task of a compensation is handed out, it has another effect key."""

    def key_of(run: Run, step: StepRun, compensation: Compensation) -> str:
        return effect_key(run.run_id, step.name, compensation.number, step.dispatch)

    return replaced((compensate, "key_of", key_of))
