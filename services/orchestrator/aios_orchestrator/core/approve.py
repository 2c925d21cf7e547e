"""A person's decisions: bound to what was shown, valid once, until they expire."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.commands_pb2 import DecideApprovalRequest
from aios.run.v1.state_pb2 import Approval, Question
from aios.task.v1.task_pb2 import Outcome
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, RESOURCE
from aios_core.values import Leaf, Plain, Value, labeled, plain
from aios_orchestrator.core import gates, patterns, planning, rounds, spending, undo
from aios_orchestrator.core.advance import go_on
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.workflow import path_of, scope_of

MAX_ANSWER_CHARS = 1000
BY = "policy:"  # how those are named that decide as a document says


def decide(draft: Draft, request: DecideApprovalRequest, answers: Value | None) -> None:
    """Apply one decision. What is refused is recorded, and the refusal is raised (APPROVAL_…, BAD_ANSWER)."""
    with refusing(draft, request.approval_id, request.actor):
        approval = known(draft, request.approval_id)
        if _decided_so(approval, request):
            return
        _check(draft, approval, request)
        if request.decision == st.APPROVAL_STATE_APPROVED:
            planning.check_decision(draft, approval)
        given = _answers(approval, answers) if request.decision == st.APPROVAL_STATE_ANSWERED else {}
    if request.decision == st.APPROVAL_STATE_APPROVED and not _enough(draft, approval, request):
        return
    draft.emit(
        approval_decided=ev.ApprovalDecided(
            step=approval.step,
            approval_id=approval.approval_id,
            state=request.decision,
            decided_by=request.actor,
            note=request.note,
            answers=encode(labeled(given, OWNER)),
        )
    )
    _follow(draft, approval, request, given)


@contextmanager
def refusing(draft: Draft, approval_id: str, actor: str) -> Iterator[None]:
    """What is refused within it is recorded in the run's history, and with the approval."""
    try:
        yield
    except TerminalError as error:
        reason = Error(code=error.code, message=error.message)
        draft.emit(
            decision_refused=ev.DecisionRefused(approval_id=approval_id, error=reason, decided_by=actor)
        )
        raise


def known(draft: Draft, approval_id: str) -> Approval:
    """The approval of that id, which is of this run. Raises NOT_FOUND."""
    approval = draft.run.approvals.get(approval_id)
    if approval is None:
        raise TerminalError("NOT_FOUND", f"Run {draft.run.run_id} has no approval {approval_id[:80]}.")
    return approval


def _enough(draft: Draft, approval: Approval, request: DecideApprovalRequest) -> bool:
    """Whether there are as many approvers now as the gate needs."""
    if not approval.need:
        return True
    draft.emit(
        approval_assented=ev.ApprovalAssented(
            step=approval.step,
            approval_id=approval.approval_id,
            approver=request.actor,
            note=request.note,
        )
    )
    return len(draft.run.approvals[approval.approval_id].assents) >= approval.need


def _decided_so(approval: Approval, request: DecideApprovalRequest) -> bool:
    """Whether the same person already decided the same: a repeated click."""
    same = approval.state == request.decision and approval.decided_by == request.actor
    return same and request.decision != st.APPROVAL_STATE_ANSWERED


def check_open(draft: Draft, approval: Approval, actor: str, seen: bytes) -> None:
    """Raises APPROVAL_EXPIRED, APPROVAL_STALE, APPROVAL_USED or NOT_AN_APPROVER unless a person may do something about
    it now who has seen that."""
    if approval.state == st.APPROVAL_STATE_EXPIRED or (
        approval.expire_time_ms and draft.clock > approval.expire_time_ms
    ):
        raise TerminalError("APPROVAL_EXPIRED", "The time to decide is over. Start the run again.")
    if approval.state == st.APPROVAL_STATE_REPLACED:
        raise TerminalError(
            "APPROVAL_STALE",
            "This is not asked any more: something newer took its place, or what it was about goes on no further. "
            "Look at the run.",
        )
    if approval.state != st.APPROVAL_STATE_OPEN:
        by_itself = f" {approval.decided_by}: {approval.note}." if approval.decided_by.startswith(BY) else ""
        raise TerminalError("APPROVAL_USED", f"This was decided already; a decision counts once.{by_itself}")
    if seen and seen != approval.arguments_sha256:
        raise TerminalError(
            "APPROVAL_STALE", "What you saw is not what would run. Look at it again, then decide."
        )
    if approval.kind == st.APPROVAL_KIND_GATE:
        gates.check_policy(draft, approval)
    may = [*approval.approvers, *([approval.escalated_to] if approval.escalated_to else [])]
    if approval.approvers and actor not in may:
        names = ", ".join(name.removeprefix(gates.PERSON) for name in may)
        raise TerminalError("NOT_AN_APPROVER", f"This is for {names} to decide; you are {_name(actor)}.")


def _name(actor: str) -> str:
    return actor.removeprefix(gates.PERSON)


def _check(draft: Draft, approval: Approval, request: DecideApprovalRequest) -> None:
    check_open(draft, approval, request.actor, request.arguments_sha256)
    gate = approval.kind == st.APPROVAL_KIND_GATE
    if request.decision == st.APPROVAL_STATE_APPROVED and not request.arguments_sha256:
        raise TerminalError(
            "INVALID_ARGUMENT", "arguments_sha256: an approval names what was seen.", field="arguments_sha256"
        )
    assented = any(assent.approver == request.actor for assent in approval.assents)
    if assented and request.decision == st.APPROVAL_STATE_APPROVED:
        raise TerminalError(
            "APPROVED_ALREADY",
            f"You have approved it, and each approver counts once; {approval.need} have to, "
            f"{len(approval.assents)} did.",
        )
    allowed = (
        (st.APPROVAL_STATE_APPROVED, st.APPROVAL_STATE_REJECTED)
        if gate
        else (st.APPROVAL_STATE_ANSWERED, st.APPROVAL_STATE_REJECTED)
    )
    if request.decision not in allowed:
        what = "approved or rejected" if gate else "answered or rejected"
        raise TerminalError("INVALID_ARGUMENT", f"decision: this can be {what}.", field="decision")


def _answers(approval: Approval, answers: Value | None) -> dict[str, Plain]:
    data = plain(answers) if answers is not None else {}
    if not isinstance(data, Mapping):
        raise TerminalError(
            "BAD_ANSWER", "answers must be a map from a question's id to its answer.", field="answers"
        )
    known = {question.id: question for question in approval.questions}
    for name in data:
        if name not in known:
            raise TerminalError(
                "BAD_ANSWER", f"There is no question {name!r}; they are: {', '.join(known)}.", field=name
            )
    return {name: _answer(question, data.get(name)) for name, question in known.items()}


def _answer(question: Question, given: Plain) -> str:
    if given is None or given == "":
        raise TerminalError(
            "BAD_ANSWER", f"{question.text} has no answer yet (question {question.id!r}).", field=question.id
        )
    text = {True: "yes", False: "no"}.get(given, str(given)) if isinstance(given, bool) else str(given)
    if len(text) > MAX_ANSWER_CHARS:
        raise TerminalError(
            "BAD_ANSWER", f"An answer has at most {MAX_ANSWER_CHARS} characters.", field=question.id
        )
    if text in question.options:
        return text
    matching = [option for option in question.options if option.casefold() == text.strip().casefold()]
    if len(matching) == 1:
        return matching[0]
    if question.pattern and patterns.matches(question.pattern, text.strip()):
        return text.strip()
    if not question.options and not question.pattern:
        return text
    raise TerminalError(
        "BAD_ANSWER",
        f"{text[:80]!r} does not answer {question.text!r}; choose one of: {', '.join(question.options[:20])}.",
        field=question.id,
    )


def _follow(
    draft: Draft, approval: Approval, request: DecideApprovalRequest, given: Mapping[str, Plain]
) -> None:
    step = approval.step
    if approval.kind == st.APPROVAL_KIND_UNKNOWN:
        _follow_unknown(draft, approval, request, given)
    elif approval.kind in (st.APPROVAL_KIND_BUDGET, st.APPROVAL_KIND_SPIKE):
        _follow_budget(draft, approval, request, given)
    elif request.decision == st.APPROVAL_STATE_REJECTED:
        why = f"rejected: {request.note}" if request.note else "rejected by a person"
        gates.give_up(draft, step, "REJECTED", why)
    elif approval.kind == st.APPROVAL_KIND_GATE:
        output = encode(labeled({"approved": True, "by": request.actor, "note": request.note}, OWNER))
        draft.emit(
            step_succeeded=ev.StepSucceeded(step=step, output=output, summary=f"approved by {request.actor}")
        )
        planning.decided(draft, step)
    else:
        answered = _answered(draft, approval, given)
        value: Value = {"answers": labeled(dict(given), OWNER), "answered": answered}
        draft.emit(
            step_succeeded=ev.StepSucceeded(
                step=step, output=encode(value), summary=f"answered by {request.actor}"
            )
        )


def _answered(draft: Draft, approval: Approval, given: Mapping[str, Plain]) -> Value:
    """The questions as they were asked, whole, each with its answer."""
    ask = draft.workflow.at(approval.step).ask
    assert ask is not None
    asked = ask.questions.evaluate(draft.look_from(scope_of(approval.step)))
    out: list[Value] = []
    for item, question in zip(asked if isinstance(asked, list) else [], approval.questions, strict=True):
        if isinstance(item, dict):
            out.append({**item, "answer": Leaf(given[question.id], OWNER)})
    return out or Leaf([], RESOURCE)


def _follow_unknown(
    draft: Draft, approval: Approval, request: DecideApprovalRequest, given: Mapping[str, Plain]
) -> None:
    """It happened: go on as after a success. It did not: a new attempt group, which only a person may start."""
    step, undoing = approval.step, approval.step in draft.run.undo_queue
    if request.decision == st.APPROVAL_STATE_REJECTED:
        error = Error(code="OUTCOME_UNKNOWN", message=request.note or "Left as it is by a person.")
        if undoing:
            undo.conflicted(draft, step, error)
        else:
            draft.emit(
                step_failed=ev.StepFailed(step=step, error=error, contained=rounds.contained(draft, step))
            )
    elif given.get("happened") == "yes":
        if undoing:
            redo = draft.run.state == st.RUN_STATE_REDOING
            saw = f"a person saw that it was {'put' if redo else 'taken'} back"
            undo.done(draft, step, Outcome(summary=saw))
        else:
            output = encode(labeled({"confirmed_by": request.actor}, OWNER))
            draft.emit(
                step_succeeded=ev.StepSucceeded(
                    step=step,
                    output=output,
                    summary="a person saw that it happened",
                    effect_order=draft.run.effects + 1,
                    compensates=draft.workflow.at(step).compensate is not None,
                )
            )
    elif undoing or rounds.goes_on(draft, step):
        draft.may_start((path_of(step),), scope_of(step))
    else:
        rounds.leave(draft, step)


def _follow_budget(
    draft: Draft, approval: Approval, request: DecideApprovalRequest, given: Mapping[str, Plain]
) -> None:
    """More may be spent, by this step alone or up to an amount; or the step is given up."""
    step = approval.step
    answer = str(given.get("allow", spending.STOP))
    if answer == spending.STOP:
        why = (
            f"a person stopped the spending: {request.note}"
            if request.note
            else "a person stopped the spending"
        )
        if approval.kind == st.APPROVAL_KIND_SPIKE:  # the whole run was asked about
            draft.emit(cancel_requested=ev.CancelRequested(why=why))
        else:
            gates.give_up(draft, step, "BUDGET_EXCEEDED", why)
    elif not rounds.goes_on(draft, step):
        rounds.leave(draft, step)
    elif draft.purse is not None and not draft.run.stopping:
        definition, state = draft.workflow.at(step), draft.run.at(step)
        attempt = spending.attempt_of(draft, state)
        if answer != spending.GO_ON:
            spending.allow(draft.purse, attempt, definition.hold, answer, draft.clock)
        go_on(draft, definition)
        if approval.kind == st.APPROVAL_KIND_SPIKE:
            _rest_goes_on(draft)


def _rest_goes_on(draft: Draft) -> None:
    """What else was to be paid for has waited for the answer, and does not wait until it looks by itself."""
    for name in [state.name for state in draft.run.lively()]:
        state, step = draft.run.at(name), draft.workflow.at(name)  # what went on before it may have ended it
        waits = state.state == st.STEP_STATE_WAITING and not state.attempt and not state.unfunded
        if waits and step.hold and not draft.run.stopping and rounds.goes_on(draft, name):
            go_on(draft, step)
