"""What there is to know of a run's plans: which one is followed, whether another is asked for, what a planner is told,
and what the approval of a plan vouches for."""

from collections.abc import Iterable
from typing import Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import PlanProposal, ProposedStep, RunPlan
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import decode_trusted
from aios_core.errors import TerminalError
from aios_core.json_values import loads
from aios_core.labels import OWNER, RESOURCE, Label, Trust, meet, outside
from aios_core.step_names import home_of, is_inside
from aios_core.values import Leaf, Plain, Value, labeled, plain
from aios_orchestrator import plans
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import APPROVE, DRAFT, PLAN, Step, Workflow, scope_of

MAX_TOLD: Final = 200  # steps of which a planner is told how far they are
MAX_MESSAGE: Final = 300  # characters of why one failed
BAD_PLAN: Final = "BAD_PLAN"


def planned_by(draft_step: str) -> str:
    """The planned step of the plan that a step drafts, or a gate approves."""
    return scope_of(draft_step) + PLAN


def plan_for(run: Run, name: str) -> RunPlan | None:
    """The plan that the run follows beside a step that drafts or approves; None for any other step."""
    if not run.plans or name[len(scope_of(name)) :] not in (DRAFT, APPROVE):
        return None
    return run.plans.get(planned_by(name))


def revising(run: Run, name: str) -> bool:
    """Whether a step drafts, or approves, a plan that is to take the place of one whose steps are under way."""
    plan = plan_for(run, name)
    return plan is not None and plan.revising and _under_way(run, planned_by(name))


def held(run: Run, name: str) -> bool:
    """Whether a step is of a plan in whose place another one is asked for: it does not begin before that is decided."""
    return any(
        plan.revising and (name == planned or is_inside(name, planned)) and _under_way(run, planned)
        for planned, plan in run.plans.items()
    )


def _under_way(run: Run, planned: str) -> bool:
    """A person may have gone back to before it meanwhile: then it is as it is with a first plan."""
    return run.at(planned).state == st.STEP_STATE_RUNNING


def told(run: Run, step: Step, value: Value) -> Value:
    """What a planner works on: `value` of the document, and beside it what was wrong with its last answer
    (`problems`), and in a revision the plan that is followed (`parent`), how far its steps are (`done`), and what the
    person said (`note`)."""
    assert isinstance(value, dict)
    out = dict(value)
    state = run.at(step.name)
    if state.refused and state.error is not None:
        out["problems"] = Leaf(state.error.message, outside(f"step:{step.name}"))
    plan = plan_for(run, step.name)
    if plan is not None and revising(run, step.name):
        out["parent"] = labeled(loads(plan.plan), Label((f"plan:{plan.version}",), Trust.APPROVED))
        out["done"] = _done(run, planned_by(step.name))
        out["note"] = Leaf(plan.note, OWNER)
    return out


def _done(run: Run, planned: str) -> Value:
    own = [step for step in run.steps.values() if home_of(step.name)[0] == planned]
    told = [_state(step, planned) for step in sorted(own, key=lambda step: step.name)[:MAX_TOLD]]
    return told or Leaf([], RESOURCE)


def _state(step: StepRun, planned: str) -> Value:
    word = st.StepState.Name(step.state).removeprefix("STEP_STATE_").lower()
    out: dict[str, Value] = {
        "step": Leaf(step.name.removeprefix(f"{planned}."), RESOURCE),
        "state": Leaf(word, RESOURCE),
    }
    if step.error is not None:
        out["error"] = Leaf(step.error.message[:MAX_MESSAGE], outside(f"step:{step.name}"))
    return out


def vouched(run: Run, planned: str, label: Label) -> Label:
    """The label of what a plan itself says, `label` being that of whoever gave it: a person has seen exactly it, and
    approved it. A simulation supposes that."""
    plan = run.plans.get(planned)
    if plan is None or not (plan.approver or run.mode == MODE_SIMULATE):
        return label
    by = [Label((plan.approver,), Trust.OWNER)] if plan.approver else []
    met = meet([label, *by])
    return Label(met.origins, max(met.trust, Trust.APPROVED), met.readers)


def plan_in(arguments: Plain) -> Plain:
    """The plan among what a planned step is to be given."""
    return arguments["plan"] if isinstance(arguments, dict) and "plan" in arguments else None


def parent_of(run: Run, planned: str, data: bytes) -> bytes:
    """The plan that another one comes from: the one that is followed, or what was drafted before a person edited it.
    All are in canonical JSON; empty: there is none."""
    known = run.plans.get(planned)
    if known is not None:
        return known.plan if known.plan != data else b""
    output = run.at(scope_of(planned) + DRAFT).output
    try:
        first = plans.canonical(plain(decode_trusted(output))) if output else b""
    except TerminalError:
        return b""  # a person gave it in the place of one, and it is none
    return first if first != data else b""


def shown(run: Run, workflow: Workflow, proposed: Iterable[ProposedStep]) -> PlanProposal | None:
    """The plan that a person is to approve, as it is shown; None where it is about none."""
    for item in proposed:
        if workflow.at(item.step).kind == "planned":
            try:
                data = plans.canonical(plan_in(plain(decode_trusted(item.arguments))))
            except TerminalError:
                return None  # it is told when it is to be carried out
            return plans.proposal(data, parent_of(run, item.step, data))
    return None
