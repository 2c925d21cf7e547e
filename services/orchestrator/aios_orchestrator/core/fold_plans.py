"""What events do to a run's plans."""

from collections.abc import Callable, Mapping
from typing import Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import RunPlan
from aios_orchestrator.core.fold_approvals import replaced
from aios_orchestrator.model import Run
from aios_orchestrator.progress import Begun, rounds_of
from aios_orchestrator.workflow import APPROVE, DRAFT, PLAN


def _plan_adopted(run: Run, event: RunEvent) -> None:
    body = event.plan_adopted
    known = run.plans.get(body.step)
    groups = dict(known.groups) if known is not None else {}
    for name in body.dropped:
        groups[name] = run.at(name).attempt_group
        run.leave_out(name)
    for name in body.again:
        step = run.step(name)
        if step.state == st.STEP_STATE_GATED:
            replaced(run, run.approvals[step.approval_id], event)
        run.again(step)
    _keep(
        run,
        body.step,
        RunPlan(
            plan=body.plan,
            version=body.version,
            parent=body.parent,
            groups=groups,
            approver=body.approver,
        ),
    )
    if run.at(body.step).state == st.STEP_STATE_RUNNING:
        run.step(body.step).body = Begun(1, body.steps, 1)
    run.rounds, run.decoded = rounds_of(run.steps), {}


def _plan_refused(run: Run, event: RunEvent) -> None:
    body = event.plan_refused
    step = run.step(body.step)
    run.held -= step.hold
    run.settled += body.cost_micros
    step.cost += body.cost_micros
    step.hold = step.charge = 0
    refused = step.refused + 1
    run.again(step)
    step.refused, step.error = refused, body.error


def _plan_revision_requested(run: Run, event: RunEvent) -> None:
    body = event.plan_revision_requested
    home = f"{body.step}."
    plan = RunPlan()
    plan.CopyFrom(run.plans[home + PLAN])
    draft, planned = run.step(home + DRAFT), run.step(home + PLAN)
    plan.revising, plan.note, plan.drafted, plan.edited = True, body.note, draft.output, planned.edited
    _keep(run, planned.name, plan)
    planned.edited = b""
    run.again(draft)
    run.again(run.step(home + APPROVE))
    run.decoded = {}


def _plan_revision_dropped(run: Run, event: RunEvent) -> None:
    home = f"{event.plan_revision_dropped.step}."
    plan = RunPlan()
    plan.CopyFrom(run.plans[home + PLAN])
    draft, approve = run.step(home + DRAFT), run.step(home + APPROVE)
    draft.output, run.step(home + PLAN).edited = plan.drafted, plan.edited
    if approve.state == st.STEP_STATE_GATED:
        replaced(run, run.approvals[approve.approval_id], event)
    for step in (draft, approve):
        step.error, step.due, step.end, step.refused, step.input = None, 0, event.time_ms, 0, b""
        run.move(step, st.STEP_STATE_SUCCEEDED)
    for name in ("note", "drafted", "edited", "revising"):
        plan.ClearField(name)
    _keep(run, home + PLAN, plan)
    run.rounds, run.decoded = rounds_of(run.steps), {}


def _keep(run: Run, planned: str, plan: RunPlan) -> None:
    run.plans = {**run.plans, planned: plan}


PLANS: Final[Mapping[str | None, Callable[[Run, RunEvent], None]]] = {
    "plan_adopted": _plan_adopted,
    "plan_refused": _plan_refused,
    "plan_revision_requested": _plan_revision_requested,
    "plan_revision_dropped": _plan_revision_dropped,
}
