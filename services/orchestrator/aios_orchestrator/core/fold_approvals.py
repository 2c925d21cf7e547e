"""What events do to a run's approvals before they are decided."""

from typing import Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, Assent, Refusal
from aios_orchestrator.model import Run

MAX_REFUSALS: Final = 20  # that are kept with an approval


def decision_refused(run: Run, event: RunEvent) -> None:
    """Kept for the record; nothing else changes. Events of earlier versions do not say who decided."""
    body = event.decision_refused
    if body.decided_by and body.approval_id in run.approvals:
        approval = copied(run, body.approval_id)
        approval.refusals.append(Refusal(time_ms=event.time_ms, decided_by=body.decided_by, error=body.error))
        del approval.refusals[:-MAX_REFUSALS]


def approval_reminded(run: Run, event: RunEvent) -> None:
    """The person was told again."""
    body = event.approval_reminded
    copied(run, body.approval_id).reminders = body.reminders
    run.step(body.step).due = body.due_ms


def approval_escalated(run: Run, event: RunEvent) -> None:
    """Somebody else is asked as well."""
    body = event.approval_escalated
    copied(run, body.approval_id).escalated_to = body.to
    run.step(body.step).due = body.due_ms


def approval_assented(run: Run, event: RunEvent) -> None:
    """One of several approvers approved."""
    body = event.approval_assented
    assent = Assent(approver=body.approver, time_ms=event.time_ms, note=body.note)
    copied(run, body.approval_id).assents.append(assent)


def approval_edited(run: Run, event: RunEvent) -> None:
    """Another approval takes its place, of what a person made of it."""
    body = event.approval_edited
    replaced(run, run.approvals[body.approval_id], event)
    run.step(body.edited).edited = body.input
    run.approvals[body.approval.approval_id] = body.approval
    step = run.step(body.step)
    step.approval_id, step.due = body.approval.approval_id, body.due_ms or body.approval.expire_time_ms


def copied(run: Run, approval_id: str) -> Approval:
    """An approval, to be changed: a copy, already in its place."""
    approval = Approval()
    approval.CopyFrom(run.approvals[approval_id])
    run.approvals[approval_id] = approval
    return approval


def replaced(run: Run, approval: Approval, event: RunEvent) -> None:
    """It is open no more, and was not decided."""
    if approval.state == st.APPROVAL_STATE_OPEN:
        closed = Approval()
        closed.CopyFrom(approval)
        closed.state, closed.decide_time_ms = st.APPROVAL_STATE_REPLACED, event.time_ms
        run.approvals[approval.approval_id] = closed
