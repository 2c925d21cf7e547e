"""Gates: what a person sees before it is done, what the approval is bound to, and what happens while nobody decides.

An approval is bound to the canonical arguments of each step, to the policy under which it was asked for, to its run and
step, and to a time. Whatever of it differs when the step is to run, the step does not run.
"""

from typing import Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Approval, ModeOfStep, ProposedStep, Wording
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_core.labels import RESOURCE, Label, Trust
from aios_core.values import label_of, labeled
from aios_orchestrator.core import asking, confidence, planner, rounds
from aios_orchestrator.core.draft import Draft, target_of
from aios_orchestrator.mapping import Mapped, truth
from aios_orchestrator.model import StepRun
from aios_orchestrator.workflow import NEEDS_A_PERSON, STAYS_CLOSED, Gate, Step, path_of

PERSON: Final = "person:"
MAX_MODES: Final = 20  # steps that an approval names with how their agents worked
_VOUCHED: Final = (PERSON, "resource", "service:")  # whose words need no mark
MAX_SHOWN: Final = 1024 * 1024  # bytes of arguments that one approval shows
BY_CONFIDENCE: Final = "policy:confidence"
BY_EXPIRY: Final = "policy:expiry"
RULES: Final = (
    "gate-rules/1"  # of this module: what an approval was asked for under other rules is asked again
)


def ask(draft: Draft, step: Step) -> None:
    """Begin a gate: a person is asked, or it passes by itself where the document says so."""
    gate = _gate_of(step)
    if draft.run.mode == MODE_SIMULATE:
        draft.emit(step_skipped=ev.StepSkipped(step=step.name, why="here a person would be asked to approve"))
        return
    approval = proposal(draft, step)
    if gate.confidence is not None:
        approval.confidence.CopyFrom(confidence.weigh(draft, step, gate.confidence))
        if _grades(draft, approval) & NEEDS_A_PERSON:
            approval.confidence.passed = False
            approval.confidence.why = "a payment or a legal act always needs a person"
    asking.request(draft, step, approval, _first_due(gate, approval))
    if approval.confidence.passed:
        told = approval.confidence
        _pass(
            draft, approval, BY_CONFIDENCE, f"confidence {told.value}, at least {told.at_least} is asked for"
        )


def proposal(draft: Draft, step: Step) -> Approval:
    """The approval that a gate asks for now: what its steps would do, as a person or the document has it."""
    gate = _gate_of(step)
    approval = asking.new_approval(draft, step, st.APPROVAL_KIND_GATE, gate.title, gate.expires_ms)
    approval.modes.extend(_modes(draft))
    approval.why, approval.risk = (
        asking.words_of(draft, step, gate.why),
        asking.words_of(draft, step, gate.risk),
    )
    for field, mapped in (("title", gate.title), ("why", gate.why), ("risk", gate.risk)):
        _mark(draft, step, approval, field, mapped)
    approval.proposed.extend(_proposed(draft, step, gate))
    approval.arguments_sha256 = shown_sha256(approval)
    plan = planner.shown(draft.run, draft.workflow, approval.proposed)
    if plan is not None:
        approval.plan.CopyFrom(plan)
    approval.policy_version = policy_version(draft, step)
    approval.approvers.extend(PERSON + name for name in gate.approvers)
    approval.need = gate.need if gate.need > 1 else 0
    approval.fails_open = fails_open(draft, gate, approval)
    return approval


def shown_sha256(approval: Approval) -> bytes:
    """What a decision about an approval names: the hash of all that its steps would do."""
    return sha256(*(item.step.encode() + b"\0" + item.arguments_sha256 for item in approval.proposed))


def policy_version(draft: Draft, step: Step) -> str:
    """The policy in force for a gate, as a hash: the workflow's version, what the gate asks for, and what kind of
    effect each of its steps has on what."""
    gate, run = _gate_of(step), draft.run
    said = [RULES, run.workflow_version, step.name, *map(str, gate.policy)]
    for name in gate.approves:
        approved = draft.workflow.at(step.scope + name)
        said += [approved.name, target_of(run, approved), approved.grade]
    return sha256("\0".join(said).encode()).hex()


def approval_of(draft: Draft, step: str) -> Approval | None:
    """The approval that covers a step, if its gate was approved."""
    gate = draft.workflow.gate_of(step)
    approval = draft.run.approvals.get(draft.run.at(gate).approval_id) if gate else None
    return approval if approval is not None and approval.state == st.APPROVAL_STATE_APPROVED else None


def check_approved(draft: Draft, step: Step, gate: str, data: bytes) -> None:
    """An approval counts for exactly what was shown, under the policy of then, and only until it expires."""
    if not gate:
        raise TerminalError(
            "APPROVAL_REQUIRED", f"Step {step.name!r} is a {step.grade} act, which a person has to approve."
        )
    if draft.run.at(gate).state == st.STEP_STATE_SKIPPED:
        raise TerminalError(
            "APPROVAL_REQUIRED", f"Step {step.name!r} needs the approval of {gate!r}, which was skipped."
        )
    approval = approval_of(draft, step.name)
    if approval is None:
        raise TerminalError("APPROVAL_REQUIRED", f"Step {step.name!r} needs the approval of {gate!r}.")
    if step.grade in NEEDS_A_PERSON and not approval.decided_by.startswith(PERSON):
        raise TerminalError(
            "APPROVAL_REQUIRED",
            f"Step {step.name!r} is a {step.grade} act, which a person has to approve; "
            f"{approval.decided_by} did.",
        )
    shown = next((proposed for proposed in approval.proposed if proposed.step == step.name), None)
    if shown is None or shown.arguments_sha256 != sha256(data):
        raise TerminalError("APPROVAL_STALE", f"What {step.name!r} would do is no longer what was approved.")
    check_policy(draft, approval)
    if draft.clock > approval.expire_time_ms:
        raise TerminalError("APPROVAL_EXPIRED", f"The approval for {step.name!r} has expired.")


def check_policy(draft: Draft, approval: Approval) -> None:
    """Raises APPROVAL_STALE where the policy is no longer that under which the approval was asked for. Earlier versions
    bound approvals to the workflow's version alone."""
    now = policy_version(draft, draft.workflow.at(approval.step))
    if approval.policy_version not in (now, draft.run.workflow_version):
        raise TerminalError(
            "APPROVAL_STALE", "The policy for it has changed since it was asked for. Start the run again."
        )


def fails_open(draft: Draft, gate: Gate, approval: Approval) -> bool:
    """Whether it counts as approved when nobody decides: never for what can't be taken back."""
    return gate.fails_open and not _grades(draft, approval) & STAYS_CLOSED


def due(draft: Draft, state: StepRun) -> None:
    """Something of an open approval is due: a reminder, its escalation, or its end."""
    approval = draft.run.approvals[state.approval_id]
    gate = draft.workflow.at(state.name).gate
    if gate is None or draft.clock >= approval.expire_time_ms:
        expire(draft, state)
        return
    asked = approval.expire_time_ms - gate.expires_ms
    reminders = sum(asked + after <= draft.clock for after in gate.remind)
    if gate.escalate_to and not approval.escalated_to and asked + gate.escalate_ms <= draft.clock:
        to = PERSON + gate.escalate_to
        following = _due_after(gate, approval, approval.reminders, escalated=True)
        draft.emit(
            approval_escalated=ev.ApprovalEscalated(
                step=state.name, approval_id=approval.approval_id, to=to, due_ms=following
            )
        )
        approval = draft.run.approvals[state.approval_id]
    if reminders > approval.reminders:
        following = _due_after(gate, approval, reminders, escalated=bool(approval.escalated_to))
        draft.emit(
            approval_reminded=ev.ApprovalReminded(
                step=state.name, approval_id=approval.approval_id, reminders=reminders, due_ms=following
            )
        )


def expire(draft: Draft, state: StepRun) -> None:
    """Nobody decided in time: it fails closed, or passes where the document says so, and undo is possible."""
    approval = draft.run.approvals[state.approval_id]
    gate = draft.workflow.at(state.name).gate
    if gate is not None and fails_open(draft, gate, approval):
        valid_until = draft.clock + gate.expires_ms
        _pass(draft, approval, BY_EXPIRY, "nobody decided in time, and the gate fails open", valid_until)
        return
    draft.emit(
        approval_decided=ev.ApprovalDecided(
            step=state.name, approval_id=state.approval_id, state=st.APPROVAL_STATE_EXPIRED
        )
    )
    if draft.run.at(state.name).state == st.STEP_STATE_GATED:
        give_up(draft, state.name, "APPROVAL_EXPIRED", "nobody decided in time")


def give_up(draft: Draft, step: str, code: str, why: str) -> None:
    """What was to be approved won't be: the item of a map that collects failures fails, any other run is cancelled."""
    if rounds.contained(draft, step):
        error = Error(code=code, message=why)
        draft.emit(step_failed=ev.StepFailed(step=step, error=error, contained=True))
    else:
        draft.emit(cancel_requested=ev.CancelRequested(why=why))


def edited_due(draft: Draft, approval: Approval) -> int:
    """When something of an approval is due that takes the place of another one."""
    return _first_due(_gate_of(draft.workflow.at(approval.step)), approval)


def _gate_of(step: Step) -> Gate:
    assert step.gate is not None, f"{step.name} is no gate"
    return step.gate


def _pass(draft: Draft, approval: Approval, by: str, why: str, valid_until: int = 0) -> None:
    """The gate passes by itself, as its document says."""
    draft.emit(
        approval_decided=ev.ApprovalDecided(
            step=approval.step,
            approval_id=approval.approval_id,
            state=st.APPROVAL_STATE_APPROVED,
            decided_by=by,
            note=why,
            valid_until_ms=valid_until,
        )
    )
    output = encode(labeled({"approved": True, "by": by, "note": why}, RESOURCE))
    draft.emit(step_succeeded=ev.StepSucceeded(step=approval.step, output=output, summary=f"passed: {why}"))


def _proposed(draft: Draft, step: Step, gate: Gate) -> list[ProposedStep]:
    proposed = []
    for name in gate.approves:
        approved = draft.workflow.at(step.scope + name)
        if draft.run.at(approved.name).state != st.STEP_STATE_PENDING and not (
            approved.kind == "planned" and planner.revising(draft.run, step.name)
        ):
            continue  # it was done under an earlier approval
        arguments = encode(rounds.labeled_input(draft, approved, _guard(draft, approved)))
        proposed.append(
            ProposedStep(
                step=approved.name,
                target=approved.target,
                arguments=arguments,
                arguments_sha256=sha256(arguments),
            )
        )
    shown = sum(len(item.arguments) for item in proposed)
    if shown > MAX_SHOWN:
        raise TerminalError(
            "TOO_LARGE",
            f"What gate {step.name!r} approves takes {shown} bytes; at most {MAX_SHOWN} are shown at once. Have what "
            "is large as artifacts, or several gates.",
        )
    return proposed


def _modes(draft: Draft) -> list[ModeOfStep]:
    """How the agents have worked from which comes what is asked."""
    if not draft.workflow.has_modes:
        return []
    worked = (step for step in draft.run.steps.values() if step.work_mode and step.end)
    place = draft.workflow.place
    some = sorted(worked, key=lambda step: (step.end, place[path_of(step.name)], step.name))[-MAX_MODES:]
    return [ModeOfStep(step=step.name, work_mode=step.work_mode) for step in some]


def _guard(draft: Draft, step: Step) -> Label | None:
    return truth(step.when, draft.look_from(step.scope))[1] if step.when is not None else None


def _mark(draft: Draft, step: Step, approval: Approval, field: str, mapped: Mapped) -> None:
    """Words that nobody vouches for are marked as such: they say what a model or a stranger wants to be believed."""
    label = label_of(mapped.evaluate(draft.look_from(step.scope)))
    if label.trust <= Trust.UNTRUSTED and getattr(approval, field):
        # Who is vouched for is no reason for the mark.
        said = [origin for origin in label.origins if not origin.startswith(_VOUCHED)]
        approval.wordings.append(Wording(field=field, origins=said or label.origins))


def _grades(draft: Draft, approval: Approval) -> set[str]:
    return {draft.workflow.at(item.step).grade for item in approval.proposed}


def _first_due(gate: Gate, approval: Approval) -> int:
    """0 where only its expiry is due."""
    if not gate.remind and not gate.escalate_to:
        return 0
    return _due_after(gate, approval, 0, escalated=False)


def _due_after(gate: Gate, approval: Approval, reminders: int, *, escalated: bool) -> int:
    asked = approval.expire_time_ms - gate.expires_ms
    dues = [asked + after for after in gate.remind[reminders : reminders + 1]]
    if gate.escalate_to and not escalated:
        dues.append(asked + gate.escalate_ms)
    return min([*dues, approval.expire_time_ms])
