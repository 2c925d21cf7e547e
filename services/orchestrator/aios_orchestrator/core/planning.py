"""A plan's way: drafted, checked, approved, carried out, and revised while it is under way.

Adopting a plan is what makes its steps steps of the run: from then on they are retried, paid, approved, undone and told
of as any others. A revision keeps what has begun: its steps have to be in the new plan as they are in the old one."""

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Approval
from aios.task.v1.task_pb2 import MODE_SIMULATE, Outcome
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.json_values import loads
from aios_core.labels import Label
from aios_core.money import Micros
from aios_core.step_names import is_inside
from aios_core.values import Value, label_of, labeled, plain
from aios_orchestrator import plans
from aios_orchestrator.core import gates, migrate, planner, rounds
from aios_orchestrator.core.again import may_start
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.model import StepRun
from aios_orchestrator.plans import Plan
from aios_orchestrator.workflow import PLAN, Step, path_of

MAX_DRAFTS = 3  # answers of a planner that are looked at, one after the other


def drafted(draft: Draft, step: Step, value: Value) -> Value:
    """What a planner gave, as a plan. Raises BAD_PLAN."""
    planned = draft.workflow.at(planner.planned_by(step.name))
    plan = plans.plan_of(planned, plain(value), Micros(draft.run.cap))
    if planner.revising(draft.run, step.name):
        _compared(draft, planned, plan)
    return labeled(loads(plan.data), label_of(value))


def refuse(draft: Draft, step: Step, state: StepRun, outcome: Outcome, error: TerminalError) -> None:
    """A planner's answer is no plan: it is told why and asked once more, or the step fails."""
    reason = ev.PlanRefused(step=step.name, cost_micros=outcome.cost_micros)
    reason.error.code, reason.error.message = error.code, error.message
    if outcome.HasField("usage"):
        reason.usage.CopyFrom(outcome.usage)
    if state.refused + 1 < MAX_DRAFTS and not draft.run.stopping and rounds.goes_on(draft, step.name):
        draft.emit(plan_refused=reason)
        draft.may_start((path_of(step.name),), step.scope)
        return
    draft.emit(
        step_failed=ev.StepFailed(
            step=step.name,
            error=reason.error,
            cost_micros=outcome.cost_micros,
            attempt=state.attempt,
            contained=rounds.contained(draft, step.name),
        )
    )


def begin(draft: Draft, step: Step, guard: Label | None) -> None:
    """Adopt the plan that was approved, and begin its steps. Raises BAD_PLAN, and what `gates.check_approved` does."""
    value = rounds.labeled_input(draft, step, guard)
    _check_approved(draft, step, value)
    plan = _given(draft, step, value)
    grown = plans.with_child(draft.workflow, step.name, plan.workflow)
    dropped = [
        name for name in draft.run.steps if is_inside(name, step.name) and path_of(name) not in grown.steps
    ]
    _adopt(draft, step, plan, sorted(dropped), [])
    rounds.begin(draft, draft.workflow.at(step.name), guard)


def decided(draft: Draft, gate: str) -> None:
    """A gate was approved: if that is of a plan in the place of one that is followed, it is followed from here on."""
    if not planner.revising(draft.run, gate):
        return
    step = draft.workflow.at(planner.planned_by(gate))
    value = rounds.labeled_input(draft, step, None)
    _check_approved(draft, step, value)
    plan = _given(draft, step, value)
    move = _compared(draft, step, plan)
    _adopt(draft, step, plan, move.dropped, move.again)
    over, _ = rounds.gone_over(draft, draft.workflow.at(step.name), None)
    draft.emit(body_reopened=ev.BodyReopened(step=step.name, input=encode(over)))
    may_start(draft)


def check_decision(draft: Draft, approval: Approval) -> None:
    """Raises BAD_PLAN where an approval is of a plan that the run can't follow any more."""
    if planner.revising(draft.run, approval.step):
        step = draft.workflow.at(planner.planned_by(approval.step))
        _compared(draft, step, _given(draft, step, rounds.labeled_input(draft, step, None)))


def check_edit(draft: Draft, name: str, value: Value) -> None:
    """Raises BAD_PLAN where what a person made of a plan is none that may be carried out."""
    step = draft.workflow.at(name)
    if step.kind != "planned":
        return
    plan = _given(draft, step, value)
    if draft.run.at(name).state != st.STEP_STATE_PENDING:
        _compared(draft, step, plan)


def revise(draft: Draft, owner: str, note: str) -> None:
    """Ask for another plan, for a run that is under way. Raises INVALID_ARGUMENT, RUN_CLOSED."""
    run = draft.run
    known = run.plans[f"{owner}.{PLAN}"]
    if run.mode == MODE_SIMULATE:
        raise TerminalError("RUN_CLOSED", "A simulation is not planned anew. Simulate it again.")
    if run.state != st.RUN_STATE_RUNNING or run.stopping:
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} does not go on, so it needs no other plan.")
    if known.revising:
        raise TerminalError(
            "INVALID_ARGUMENT", f"step: another plan of {owner!r} is asked for.", field="step"
        )
    if run.at(f"{owner}.{PLAN}").state != st.STEP_STATE_RUNNING:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"step: the plan of {owner!r} is carried out. To plan it anew, rewind to {owner!r}.",
            field="step",
        )
    draft.emit(plan_revision_requested=ev.PlanRevisionRequested(step=owner, note=note))
    may_start(draft)


def owner_of(draft: Draft, step: str) -> str:
    """The step of kind plan that a person means: it, or a step inside of it; the only one if none is named. Raises
    INVALID_ARGUMENT."""
    owners = sorted(name.removesuffix(f".{PLAN}") for name in draft.run.plans)
    if not owners:
        raise TerminalError("INVALID_ARGUMENT", "step: the run follows no plan yet.", field="step")
    found = [owner for owner in owners if step == owner or is_inside(step, owner)] if step else owners
    if len(found) != 1:
        raise TerminalError(
            "INVALID_ARGUMENT", f"step: name the step whose plan it is: {', '.join(owners)}.", field="step"
        )
    return found[0]


def _check_approved(draft: Draft, step: Step, value: Value) -> None:
    if draft.run.mode != MODE_SIMULATE:
        gates.check_approved(draft, step, draft.workflow.gate_of(step.name), encode(value))


def _given(draft: Draft, step: Step, value: Value) -> Plan:
    return plans.plan_of(step, planner.plan_in(plain(value)), Micros(draft.run.cap))


def _compared(draft: Draft, step: Step, plan: Plan) -> migrate.Move:
    """What another plan comes to for what has begun. Raises BAD_PLAN with all that it has otherwise."""
    new = plans.with_child(draft.workflow, step.name, plan.workflow)
    move = migrate.followed(draft.run, draft.workflow, new, {}, within=step.name)
    if move.breaks:
        raise plans.refusal(found.what.replace(f"{step.name}.", "") for found in move.breaks)
    return move


def _adopt(draft: Draft, step: Step, plan: Plan, dropped: list[str], again: list[str]) -> None:
    known = draft.run.plans.get(step.name)
    parent = planner.parent_of(draft.run, step.name, plan.data)
    approval = gates.approval_of(draft, step.name)
    if known is None or known.plan != plan.data or known.revising or dropped or again:
        draft.emit(
            plan_adopted=ev.PlanAdopted(
                step=step.name,
                plan=plan.data,
                version=plan.version,
                parent=plans.version_of(parent) if parent else "",
                dropped=dropped,
                again=again,
                steps=plan.workflow.size,
                approver=approval.decided_by if approval is not None else "",
            )
        )
    draft.follow(plans.with_child(draft.workflow, step.name, plan.workflow))
