"""What a person is asked: an approval as it begins, the questions of an `ask`, and whether something has happened."""

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Approval, ApprovalKind, Question
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import encode
from aios_core.hashing import sha256
from aios_core.ids import derive
from aios_core.labels import RESOURCE
from aios_core.values import labeled, plain
from aios_core.wording import counted
from aios_orchestrator.core import limits, questions
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.mapping import Mapped, as_text
from aios_orchestrator.model import StepRun
from aios_orchestrator.workflow import Step

MAX_WORDS = 20_000  # characters of a gate's title, why or risk


def ask(draft: Draft, step: Step) -> None:
    """Put the questions of a step to a person."""
    assert step.ask is not None
    asked = plain(step.ask.questions.evaluate(draft.look_from(step.scope)))
    if draft.run.mode == MODE_SIMULATE:
        value = labeled({"answers": {}, "answered": []}, RESOURCE)
        draft.emit(
            step_succeeded=ev.StepSucceeded(
                step=step.name, output=encode(value), summary="here a person would be asked"
            )
        )
        return
    approval = new_approval(draft, step, st.APPROVAL_KIND_QUESTION, step.ask.title, step.ask.expires_ms)
    approval.questions.extend(questions.read(step.name, asked))
    approval.arguments_sha256 = sha256(
        *(question.SerializeToString(deterministic=True) for question in approval.questions)
    )
    request(draft, step, approval)


def request(draft: Draft, step: Step, approval: Approval, due_ms: int = 0) -> None:
    """Ask; `due_ms` is when something of it is due by itself before it expires."""
    by = limits.of_step(draft, step)
    draft.emit(
        approval_requested=ev.ApprovalRequested(step=step.name, approval=approval, limits=by, due_ms=due_ms)
    )


def new_approval(
    draft: Draft, step: Step, kind: ApprovalKind.ValueType, title: Mapped, expires_ms: int
) -> Approval:
    """An open approval of a step, without what is asked."""
    run = draft.run
    return Approval(
        approval_id=derive("apr", run.run_id, step.name, str(run.sequence)),
        workspace=run.workspace,
        run_id=run.run_id,
        workflow=run.workflow,
        step=step.name,
        kind=kind,
        state=st.APPROVAL_STATE_OPEN,
        title=words_of(draft, step, title),
        policy_version=run.workflow_version,
        create_time_ms=draft.now,
        expire_time_ms=draft.clock + expires_ms,
        nonce=derive("nonce", run.run_id, step.name, run.last_hash.hex()),
        traceparent=run.traceparent,
    )


def unknown_approval(draft: Draft, state: StepRun, target: str, message: str) -> Approval:
    """The question whether a change happened that nobody but a person can answer."""
    run = draft.run
    return Approval(
        approval_id=derive("apr", run.run_id, state.name, str(run.sequence)),
        workspace=run.workspace,
        run_id=run.run_id,
        workflow=run.workflow,
        step=state.name,
        kind=st.APPROVAL_KIND_UNKNOWN,
        state=st.APPROVAL_STATE_OPEN,
        title=f"Could not confirm {target} ({state.name}): please check",
        why=message,
        questions=[
            Question(id="happened", text="Did it happen?", why=message, options=["yes", "no"]),
        ],
        arguments_sha256=sha256(state.input),
        policy_version=run.workflow_version,
        create_time_ms=draft.now,
        nonce=derive("nonce", run.run_id, state.name, run.last_hash.hex()),
        traceparent=run.traceparent,
    )


def words_of(draft: Draft, step: Step, mapped: Mapped) -> str:
    """What an expression gives, as a person reads it."""
    words = as_text(plain(mapped.evaluate(draft.look_from(step.scope))))
    left = len(words) - MAX_WORDS
    return f"{words[:MAX_WORDS]} … ({counted(left, 'character')} more)" if left > 0 else words
