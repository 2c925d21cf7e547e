"""A person edits what an approval proposes: what would run is another thing then, so another approval is asked for.

The one before counts no more. What was proposed first stays with the new one, so that the correction can be seen, and
learned from."""

from typing import Final

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.commands_pb2 import EditApprovalRequest
from aios.run.v1.state_pb2 import Approval, ProposedStep
from aios_core.encoding import decode_trusted, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import Leaf, Plain, Value, labeled, plain
from aios_orchestrator.core import approve, gates, planning
from aios_orchestrator.core.draft import Draft

MAX_EDITS: Final = 50  # of one proposal


def edit(draft: Draft, request: EditApprovalRequest, given: Value) -> None:
    """Replace the approval by one of what the person gave. What is refused is recorded (APPROVAL_…, NOT_AN_APPROVER,
    INVALID_ARGUMENT)."""
    with approve.refusing(draft, request.approval_id, request.actor):
        approval = approve.known(draft, request.approval_id)
        _check(draft, approval, request)
        before = _proposed(approval, request.step)
        old = decode_trusted(before.arguments)
        now = bound(old, plain(given))
        _same_shape(plain(old), plain(now))
        planning.check_edit(draft, before.step, now)
        if encode(now) == before.arguments:
            raise TerminalError("INVALID_ARGUMENT", "arguments: nothing differs from what is proposed.")
        edited = encode(now)
        first = before.original or before.arguments
        new = _renewed(draft, approval, before.step, edited, first, request.actor)
    draft.emit(
        approval_edited=ev.ApprovalEdited(
            step=approval.step,
            approval_id=approval.approval_id,
            approval=new,
            edited=before.step,
            input=edited,
            edited_by=request.actor,
            note=request.note,
            due_ms=gates.edited_due(draft, new),
        )
    )


def bound(before: Value | None, now: Plain) -> Value:
    """What a person gave. What was left as it was keeps its label, wherever it came from."""
    if isinstance(now, dict) and now:
        old = before if isinstance(before, dict) else {}
        return {key: bound(old.get(key), item) for key, item in now.items()}
    if isinstance(now, list) and now:
        items = before if isinstance(before, list) and len(before) == len(now) else [None] * len(now)
        return [bound(old, item) for old, item in zip(items, now, strict=True)]
    same = isinstance(before, Leaf) and type(before.data) is type(now) and before.data == now
    return before if same and before is not None else labeled(now, OWNER)


def _check(draft: Draft, approval: Approval, request: EditApprovalRequest) -> None:
    approve.check_open(draft, approval, request.actor, request.arguments_sha256)
    if not request.arguments_sha256:
        raise TerminalError(
            "INVALID_ARGUMENT", "arguments_sha256: an edit names what was seen.", field="arguments_sha256"
        )
    if approval.kind != st.APPROVAL_KIND_GATE:
        raise TerminalError("INVALID_ARGUMENT", "approval_id: questions are answered, not edited.")
    edits = sum(bool(other.edited_from) for other in draft.run.approvals.values())
    if edits >= MAX_EDITS:
        raise TerminalError("INVALID_ARGUMENT", f"What a run proposes is edited at most {MAX_EDITS} times.")


def _proposed(approval: Approval, step: str) -> ProposedStep:
    names = [item.step for item in approval.proposed]
    if not step and len(names) != 1:
        raise TerminalError("INVALID_ARGUMENT", f"step: say which of {', '.join(names)}.", field="step")
    found = next((item for item in approval.proposed if item.step == (step or item.step)), None)
    if found is None:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"step: {step[:80]!r} is not proposed here; it is one of {', '.join(names)}.",
            field="step",
        )
    return found


def _same_shape(before: Plain, now: Plain) -> None:
    """Its fields are those that the workflow gives: another name would be a misspelling, and nothing would use it."""
    if isinstance(before, dict) and not isinstance(now, dict):
        raise TerminalError("INVALID_ARGUMENT", "arguments: they are a map of fields.", field="arguments")
    if isinstance(before, dict) and isinstance(now, dict):
        strange = [name for name in now if name not in before]
        missing = [name for name in before if name not in now]
        if strange or missing:
            what = f"there is no {strange[0][:80]!r}" if strange else f"{missing[0]!r} is missing"
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"arguments: {what}; the fields are {', '.join(before)}.",
                field=f"arguments.{(strange or missing)[0][:80]}",
            )


def _renewed(
    draft: Draft, approval: Approval, step: str, edited: bytes, first: bytes, actor: str
) -> Approval:
    """A new approval of the same gate, bound to the edited arguments; nobody has approved it yet."""
    afterwards = Draft(draft.run, draft.workflow, draft.clock, draft.actor)
    afterwards.run.step(step).edited = edited
    new = gates.proposal(afterwards, draft.workflow.at(approval.step))
    before = {item.step: item for item in approval.proposed}
    for item in new.proposed:
        old = before.get(item.step)
        if item.step == step:
            item.original, item.edited_by = first, actor
        elif old is not None and old.original:
            item.original, item.edited_by = old.original, old.edited_by
    new.edited_from = approval.approval_id
    return new
