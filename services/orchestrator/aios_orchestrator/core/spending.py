"""Whether a step may spend: its money is held, or the step waits for what others hold, or a person is asked."""

from collections.abc import Mapping

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Approval, ApprovalKind, Question
from aios.task.v1.task_pb2 import MODE_EXECUTE
from aios_core.encoding import decode
from aios_core.hashing import sha256
from aios_core.ids import derive
from aios_core.money import format_usd, usd
from aios_core.values import plain
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.money import Attempt, Purse, Short
from aios_orchestrator.core.spike import usual
from aios_orchestrator.model import StepRun
from aios_orchestrator.workflow import Step

OWN_MS = 200  # until the money is free that an earlier step of the run held
# Between two looks of a run by itself whether others have let go of what they held, or a person has answered: each wait
# is twice as long as the one before, since each look is an event. As a rule it is told earlier that there is enough.
OTHERS_MS, LONGEST_MS = 5_000, 60_000
ONCE, GO_ON, STOP = "once", "go on", "stop"
AMOUNT = r"\d{1,9}(\.\d{1,6})?"


def held(draft: Draft, step: Step, state: StepRun) -> int | None:
    """The serial number of the hold of the step's next attempt, 0 when it needs none. None: it can't be handed out
    now, and what it waits for is decided."""
    purse = draft.purse
    if purse is None or not step.hold:
        return 0
    attempt = attempt_of(draft, state)
    if not purse.holds_for(attempt):
        if _spikes(draft, step, state, purse):
            return None
        lacking = purse.short(step.hold)
        if lacking is not None and lacking.for_good(step.hold):
            _ask(draft, step, lacking)
            return None
        if lacking is not None or purse.full:
            if draft.settled:
                _wait(draft, step, OWN_MS)
            else:
                _wait(draft, step, _longer(state), unfunded=True)
            return None
    return purse.hold(attempt, step.hold, draft.clock)


def attempt_of(draft: Draft, state: StepRun) -> Attempt:
    """The next attempt of a step."""
    return Attempt(draft.run.run_id, state.name, state.attempt_group, state.attempt + 1)


def allow(purse: Purse, attempt: Attempt, hold: int, answer: str, now_ms: int) -> None:
    """What a person said to the question: this step once, or an amount up to which may be spent."""
    if not purse.holds_for(attempt):
        purse.allow(hold, now_ms, 0 if answer == ONCE else usd(answer))


def _wait(draft: Draft, step: Step, wait_ms: int, *, unfunded: bool = False) -> None:
    due, by = draft.clock + wait_ms, draft.run.at(step.name).limits  # which go on if it has begun
    draft.emit(wait_started=ev.WaitStarted(step=step.name, due_ms=due, unfunded=unfunded, limits=by))


def _longer(state: StepRun) -> int:
    """How long a step waits that may have waited before."""
    before = state.due - state.start if state.state == st.STEP_STATE_WAITING and state.due else 0
    return min(max(2 * before, OTHERS_MS), LONGEST_MS)


def _spikes(draft: Draft, step: Step, state: StepRun, purse: Purse) -> bool:
    """Whether the run has cost so much more than others that a person says first whether it goes on. Until somebody has
    said that it does, whatever is to be paid for waits, or asks: also where the question was closed without an answer,
    and where it was stopped and somebody has it go on."""
    run, spike = draft.run, draft.workflow.spike
    if spike is None or run.mode != MODE_EXECUTE:
        return False
    questions = [item for item in run.approvals.values() if item.kind == st.APPROVAL_KIND_SPIKE]
    if any(map(_goes_on, questions)):
        return False
    if any(item.state == st.APPROVAL_STATE_OPEN for item in questions):
        _wait(draft, step, _longer(state))
        return True
    bound = usual(purse.costs.get(run.workflow, ()), spike)
    if bound is None or run.settled <= bound:
        return False
    title = f"This run of {run.workflow} costs more than usual"
    why = f"It has cost {format_usd(run.settled)} so far; those before it cost up to {format_usd(bound)}."
    question = Question(id="allow", text="May it go on?", why=why, options=[GO_ON, STOP])
    _request(draft, step, st.APPROVAL_KIND_SPIKE, title, why, question)
    return True


def _goes_on(approval: Approval) -> bool:
    """Whether a person has said that the run goes on, whatever it has cost."""
    if approval.state != st.APPROVAL_STATE_ANSWERED:
        return False
    answers = plain(decode(approval.answers))
    return isinstance(answers, Mapping) and answers.get("allow") == GO_ON


def _ask(draft: Draft, step: Step, lacking: Short) -> None:
    _, _, period, who = lacking.account.split("/", 3)
    whose = "" if who == "all" else f" of {who}"
    question = Question(
        id="allow",
        text="May it go on?",
        why=f"An amount in US dollars sets the cap{whose} for {period}.",
        options=[ONCE, STOP],
        pattern=AMOUNT,
    )
    why = (
        f"The step may cost {format_usd(step.hold)}; of {format_usd(lacking.cap)} for {period}, "
        f"{format_usd(lacking.settled)} are spent and {format_usd(lacking.held)} held."
    )
    title = f"Budget {lacking.budget}{whose} has not enough left for {step.name}"
    _request(draft, step, st.APPROVAL_KIND_BUDGET, title, why, question, lacking.account)


def _request(
    draft: Draft,
    step: Step,
    kind: ApprovalKind.ValueType,
    title: str,
    why: str,
    question: Question,
    account: str = "",
) -> None:
    run = draft.run
    approval = Approval(
        approval_id=derive("apr", run.run_id, step.name, str(run.sequence)),
        workspace=run.workspace,
        run_id=run.run_id,
        workflow=run.workflow,
        step=step.name,
        kind=kind,
        state=st.APPROVAL_STATE_OPEN,
        title=title,
        why=why,
        questions=[question],
        arguments_sha256=sha256(question.SerializeToString(deterministic=True)),
        policy_version=run.workflow_version,
        create_time_ms=draft.now,
        nonce=derive("nonce", run.run_id, step.name, run.last_hash.hex()),
        traceparent=run.traceparent,
        account=account,
    )
    by = run.at(step.name).limits
    draft.emit(approval_requested=ev.ApprovalRequested(step=step.name, approval=approval, limits=by))
