"""Defects of plans."""

from typing import Any

from aios_core.encoding import decode_trusted
from aios_core.values import Value, plain
from aios_orchestrator import codec
from aios_orchestrator.core import migrate, planning
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.plans import Plan
from aios_orchestrator.workflow import Step, path_of
from tests.sim.planting import replaced


def another_plan_forgets_what_is_finished() -> Any:
    """Another plan is taken as it comes, whatever it leaves out."""

    def compared(draft: Draft, step: Step, plan: Plan) -> migrate.Move:
        new = planning.plans.with_child(draft.workflow, step.name, plan.workflow)
        inside = [name for name in draft.run.steps if planning.is_inside(name, step.name)]
        return migrate.Move(dropped=[name for name in inside if path_of(name) not in new.steps])

    return replaced((planning, "_compared", compared))


def edited_plan_is_not_what_is_followed() -> Any:
    """What a person made of a plan is shown and approved, and what was drafted is followed."""
    original = planning._given

    def given(draft: Draft, step: Step, value: Value) -> Plan:
        drafted = draft.run.at(f"{step.scope}draft").output
        data: Any = plain(value)
        if drafted and draft.run.at(step.name).edited:
            data = {**data, "plan": plain(decode_trusted(drafted))}
            return planning.plans.plan_of(step, data["plan"], draft.run.cap)  # type: ignore[arg-type]
        return original(draft, step, value)

    return replaced((planning, "_given", given))


def a_plan_is_forgotten_by_a_restart() -> Any:
    """Whoever takes a run over does not read which plans it follows."""
    original = codec._read_records

    def read(run: Any, records: Any) -> None:
        original(run, records)
        run.plans = {}

    return replaced((codec, "_read_records", read))


PLANS = {
    another_plan_forgets_what_is_finished: 23,
    edited_plan_is_not_what_is_followed: 7,
    a_plan_is_forgotten_by_a_restart: 1,
}
