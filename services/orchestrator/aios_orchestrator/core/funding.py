"""A run that waits for money goes on once there is enough: a cap was raised, a new period has begun, or others have
let go of what they held."""

from typing import Final

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Approval
from aios_core.money import format_usd
from aios_orchestrator.core import rounds, spending
from aios_orchestrator.core.advance import go_on
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.money import Purse
from aios_orchestrator.model import StepRun
from aios_orchestrator.workflow import Step

BY_BUDGET: Final = "policy:budget"


def fund(draft: Draft) -> None:
    """Go on with each step for which there is enough now, and close what a person was asked about it. Where there is
    not, the question stays as it is, and what waits for others waits on."""
    purse = draft.purse
    if purse is None or draft.run.state != st.RUN_STATE_RUNNING:
        return
    for asked in draft.run.open_approvals():
        approval = draft.run.approvals[asked.approval_id]  # what went on before it may have closed it
        is_open = approval.state == st.APPROVAL_STATE_OPEN and not draft.run.stopping
        if is_open and approval.kind == st.APPROVAL_KIND_BUDGET and rounds.goes_on(draft, approval.step):
            _fund(draft, purse, approval)
    for name in [step.name for step in draft.run.lively() if step.unfunded]:
        state, step = draft.run.at(name), draft.workflow.at(name)  # what went on before it may have ended it
        waits = state.unfunded and not draft.run.stopping and rounds.goes_on(draft, name)
        if waits and _enough(draft, purse, step, state):
            go_on(draft, step)


def _fund(draft: Draft, purse: Purse, approval: Approval) -> None:
    step = draft.workflow.at(approval.step)
    if not _enough(draft, purse, step, draft.run.at(step.name)):
        return
    draft.emit(
        approval_decided=ev.ApprovalDecided(
            step=step.name,
            approval_id=approval.approval_id,
            state=st.APPROVAL_STATE_ANSWERED,
            decided_by=BY_BUDGET,
            note=_why(purse, approval.account),
        )
    )
    go_on(draft, step)


def _enough(draft: Draft, purse: Purse, step: Step, state: StepRun) -> bool:
    if purse.holds_for(spending.attempt_of(draft, state)):
        return True
    return not purse.full and purse.short(step.hold) is None


def _why(purse: Purse, account: str) -> str:
    for cap in purse.charge.caps:
        if cap.account == account:
            period = account.split("/", 3)[2]
            return f"the cap of budget {cap.budget} for {period} is {format_usd(purse.cap(cap))} now"
    return "another period has begun, or another budget is in force"
