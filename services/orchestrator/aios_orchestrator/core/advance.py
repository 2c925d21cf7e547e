"""What may go on now: steps whose needs are done start, pure ones finish at once, and a run with nothing left ends."""

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Approval, ApprovalKind, ModeOfStep, ProposedStep, Question
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_core.ids import derive
from aios_core.labels import RESOURCE, Label, meet
from aios_core.values import Leaf, Value, labeled, plain, relabeled
from aios_orchestrator.core import hearing, limits, patterns, rounds, spending
from aios_orchestrator.core.draft import Draft, target_of
from aios_orchestrator.core.keys import cache_key
from aios_orchestrator.mapping import Expression, Mapped, Path, time_of, truth
from aios_orchestrator.model import DONE_STEP, OPEN_STEP, StepRun
from aios_orchestrator.workflow import Step, path_of

MAX_QUESTIONS = 50
MAX_OPTIONS = 200
MAX_MODES = 20  # steps that an approval names with how their agents worked
MAX_WORDS = 20_000  # characters of a gate's title, why or risk


def advance(draft: Draft) -> None:
    """Start what can start, until nothing more can; then end the run if it has nothing left to wait for."""
    run = draft.run
    while (draft.next or draft.turned) and not run.closed:
        if draft.next:
            step = draft.pop()
            if not run.stopping and _ready(draft, step):
                start(draft, step)
        else:
            owner, _ = draft.turned.popitem()
            if not run.stopping:
                rounds.go_on(draft, owner)
    _end(draft)


def _ready(draft: Draft, step: Step) -> bool:
    known = draft.run.steps
    own = known.get(step.name)
    if own is not None and own.state != st.STEP_STATE_PENDING:
        return False
    for need in step.needs:
        before = known.get(step.scope + need)
        if before is None or before.state not in DONE_STEP:
            return False
    gate = draft.workflow.gate_of(step.name)
    if gate and draft.run.at(gate).state not in DONE_STEP:
        return False  # it asks once more, about this step alone
    return not step.scope or rounds.goes_on(draft, step.name)


def start(draft: Draft, step: Step) -> None:
    """Start one step that is ready; what its expressions get wrong fails the step, and so the run."""
    try:
        guard: Label | None = None
        if step.when is not None:
            wanted, guard = _wanted(draft, step, step.when)
            if not wanted:
                draft.emit(step_skipped=ev.StepSkipped(step=step.name, why=f"not needed: {step.when.text}"))
                return
        if step.kind == "transform":
            assert step.output is not None
            _succeed(draft, step, step.output.evaluate(draft.look_from(step.scope)), guard)
        elif step.kind == "branch":
            _branch(draft, step, guard)
        elif step.kind == "wait":
            _wait(draft, step)
        elif step.kind == "gate":
            _gate(draft, step)
        elif step.kind == "ask":
            _ask(draft, step)
        elif step.body is not None:
            rounds.begin(draft, step, guard)
        else:
            schedule(draft, step, guard)
    except TerminalError as error:
        rounds.fail(draft, step.name, error)


def _succeed(draft: Draft, step: Step, value: Value, guard: Label | None) -> None:
    """A step is done that only computes."""
    for label in (guard, rounds.guard_of(draft, step.scope)):
        if label is not None:
            value = relabeled(value, label)
    draft.emit(step_succeeded=ev.StepSucceeded(step=step.name, output=encode(value)))


def _wanted(draft: Draft, step: Step, when: Path | Expression) -> tuple[bool, Label]:
    """Whether a step's condition holds; or is supposed to, in a fork."""
    change = draft.run.change_of(path_of(step.name))
    if change is not None and change.supposed:
        return change.supposed == st.SUPPOSED_HOLDS, RESOURCE
    return truth(when, draft.look_from(step.scope))


def _branch(draft: Draft, step: Step, guard: Label | None) -> None:
    around = rounds.guard_of(draft, step.scope)
    labels = [label for label in (guard, around) if label is not None]
    chosen = step.otherwise
    change = draft.run.change_of(path_of(step.name))
    cases = step.cases
    if change is not None and change.take:
        chosen, cases = change.take, ()
    for name, condition in cases:
        holds, label = truth(condition, draft.look_from(step.scope))
        labels.append(label)
        if holds:
            chosen = name
            break
    draft.emit(
        step_succeeded=ev.StepSucceeded(
            step=step.name,
            output=encode({"case": Leaf(chosen, meet(labels) if labels else RESOURCE)}),
            summary=f"chose {chosen or 'nothing'}",
        )
    )


def _wait(draft: Draft, step: Step) -> None:
    if draft.run.mode == MODE_SIMULATE:
        draft.emit(step_skipped=ev.StepSkipped(step=step.name, why="a simulation does not wait"))
    elif step.hears is not None:
        hearing.begin(draft, step, step.hears)
    else:
        due = _until(draft, step) if step.until is not None else draft.clock + step.wait_ms
        draft.emit(
            wait_started=ev.WaitStarted(
                step=step.name, due_ms=max(due, 1), limits=limits.of_step(draft, step)
            )
        )


def _until(draft: Draft, step: Step) -> int:
    assert step.until is not None
    try:
        return time_of(plain(step.until.evaluate(draft.look_from(step.scope))))
    except ValueError as error:
        raise TerminalError(
            "BAD_OUTPUT", f"What step {step.name!r} waits until is no time: {error}."
        ) from None


def schedule(draft: Draft, step: Step, guard: Label | None = None) -> None:
    """Hold the step's money and hand its task out, or wait for the money. Raises what makes it impossible."""
    run, state = draft.run, draft.run.at(step.name)
    if run.settled + run.held + step.hold > run.cap:
        raise TerminalError(
            "BUDGET_EXCEEDED",
            f"Step {step.name!r} may cost {step.hold} micro-dollars; {run.settled + run.held} of {run.cap} are taken.",
        )
    change = run.change_of(path_of(step.name))
    data = state.input
    if not state.attempt:
        data = change.input if change is not None and change.input else encode(_input(draft, step, guard))
    gate = draft.workflow.gate_of(step.name)
    if gate and run.mode != MODE_SIMULATE and not state.attempt:
        _check_approved(draft, step, gate, data)
    scheduled = ev.StepScheduled(
        step=step.name,
        target=target_of(run, step),
        attempt=state.attempt + 1,
        attempt_group=state.attempt_group,
        dispatch=state.dispatch + 1,
        input=data,
        hold_micros=step.hold,
    )
    by = limits.of_task(draft, step)
    if by is not None:
        scheduled.limits.CopyFrom(by)
    if step.mode:
        scheduled.work_mode = step.mode
    if step.cache is not None:
        scheduled.cache_key = cache_key(draft, step, data)
    charge = spending.held(draft, step, state)
    if charge is None:
        return
    scheduled.charge = charge
    draft.emit(step_scheduled=scheduled)
    draft.dispatched.append(step.name)


def go_on(draft: Draft, step: Step) -> None:
    """Hand a step out that waited: for its next attempt, or for money."""
    if not draft.run.at(step.name).attempt:
        start(draft, step)
        return
    try:
        schedule(draft, step)
    except TerminalError as error:
        rounds.fail(draft, step.name, error)


def _input(draft: Draft, step: Step, guard: Label | None) -> Value:
    value = rounds.input_of(draft, step)
    for label in (guard, rounds.guard_of(draft, step.scope)):
        if label is not None:
            value = relabeled(value, label)
    return value


def approval_of(draft: Draft, step: str) -> Approval | None:
    """The approval that covers a step, if its gate was approved."""
    gate = draft.workflow.gate_of(step)
    approval = draft.run.approvals.get(draft.run.at(gate).approval_id) if gate else None
    return approval if approval is not None and approval.state == st.APPROVAL_STATE_APPROVED else None


def _check_approved(draft: Draft, step: Step, gate: str, data: bytes) -> None:
    """An approval counts for exactly what was shown, and only until it expires."""
    if draft.run.at(gate).state == st.STEP_STATE_SKIPPED:
        raise TerminalError(
            "APPROVAL_REQUIRED", f"Step {step.name!r} needs the approval of {gate!r}, which was skipped."
        )
    approval = approval_of(draft, step.name)
    if approval is None:
        raise TerminalError("APPROVAL_REQUIRED", f"Step {step.name!r} needs the approval of {gate!r}.")
    shown = next((proposed for proposed in approval.proposed if proposed.step == step.name), None)
    if shown is None or shown.arguments_sha256 != sha256(data):
        raise TerminalError("APPROVAL_STALE", f"What {step.name!r} would do is no longer what was approved.")
    if draft.clock > approval.expire_time_ms:
        raise TerminalError("APPROVAL_EXPIRED", f"The approval for {step.name!r} has expired.")


def _gate(draft: Draft, step: Step) -> None:
    assert step.gate is not None
    if draft.run.mode == MODE_SIMULATE:
        draft.emit(step_skipped=ev.StepSkipped(step=step.name, why="here a person would be asked to approve"))
        return
    proposed = []
    for name in step.gate.approves:
        approved = draft.workflow.at(step.scope + name)
        if draft.run.at(approved.name).state != st.STEP_STATE_PENDING:
            continue  # it was done under an earlier approval
        arguments = encode(_input(draft, approved, _guard(draft, approved)))
        proposed.append(
            ProposedStep(
                step=approved.name,
                target=approved.target,
                arguments=arguments,
                arguments_sha256=sha256(arguments),
            )
        )
    approval = _approval(draft, step, st.APPROVAL_KIND_GATE, step.gate.title, step.gate.expires_ms)
    approval.modes.extend(_modes(draft))
    approval.why, approval.risk = _words(draft, step, step.gate.why), _words(draft, step, step.gate.risk)
    approval.proposed.extend(proposed)
    approval.arguments_sha256 = sha256(
        *(item.step.encode() + b"\0" + item.arguments_sha256 for item in proposed)
    )
    _request(draft, step, approval)


def _modes(draft: Draft) -> list[ModeOfStep]:
    """How the agents have worked from which comes what is asked."""
    if not draft.workflow.has_modes:
        return []
    worked = (step for step in draft.run.steps.values() if step.work_mode and step.end)
    place = draft.workflow.place
    some = sorted(worked, key=lambda step: (step.end, place[path_of(step.name)], step.name))[-MAX_MODES:]
    return [ModeOfStep(step=step.name, work_mode=step.work_mode) for step in some]


def _request(draft: Draft, step: Step, approval: Approval) -> None:
    by = limits.of_step(draft, step)
    draft.emit(approval_requested=ev.ApprovalRequested(step=step.name, approval=approval, limits=by))


def _guard(draft: Draft, step: Step) -> Label | None:
    return truth(step.when, draft.look_from(step.scope))[1] if step.when is not None else None


def _ask(draft: Draft, step: Step) -> None:
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
    approval = _approval(draft, step, st.APPROVAL_KIND_QUESTION, step.ask.title, step.ask.expires_ms)
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_QUESTIONS:
        raise TerminalError(
            "BAD_OUTPUT", f"The questions of step {step.name!r} must be a list of 1 to {MAX_QUESTIONS}."
        )
    for item in asked:
        if not isinstance(item, dict) or not item.get("id") or not item.get("text"):
            raise TerminalError("BAD_OUTPUT", f"Each question of step {step.name!r} needs an id and a text.")
        patterns.check(str(item.get("pattern") or ""), str(item["id"]))
        options = item.get("options") or []
        assert isinstance(options, list)
        approval.questions.append(
            Question(
                id=str(item["id"]),
                text=str(item["text"]),
                why=str(item.get("why") or ""),
                options=[str(option) for option in options[:MAX_OPTIONS]],
                pattern=str(item.get("pattern") or ""),
            )
        )
    approval.arguments_sha256 = sha256(
        *(question.SerializeToString(deterministic=True) for question in approval.questions)
    )
    _request(draft, step, approval)


def _approval(
    draft: Draft, step: Step, kind: ApprovalKind.ValueType, title: Mapped, expires_ms: int
) -> Approval:
    run = draft.run
    return Approval(
        approval_id=derive("apr", run.run_id, step.name, str(run.sequence)),
        workspace=run.workspace,
        run_id=run.run_id,
        workflow=run.workflow,
        step=step.name,
        kind=kind,
        state=st.APPROVAL_STATE_OPEN,
        title=_words(draft, step, title),
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


def _words(draft: Draft, step: Step, mapped: Mapped) -> str:
    data = plain(mapped.evaluate(draft.look_from(step.scope)))
    return ("" if data is None else str(data))[:MAX_WORDS]


def _end(draft: Draft) -> None:
    run = draft.run
    if run.closed:
        return
    if run.stopping:
        if any(run.steps[name].state in OPEN_STEP for name in run.live):
            return
        if run.error is not None:
            draft.emit(run_failed=ev.RunFailed(error=run.error, step=run.failed))
        else:
            draft.emit(run_cancelled=ev.RunCancelled())
    elif run.done == draft.workflow.size:
        try:
            outputs = encode(draft.workflow.outputs.evaluate(draft.look))
        except TerminalError as error:
            draft.emit(run_failed=ev.RunFailed(error=Error(code=error.code, message=error.message)))
            return
        draft.emit(run_succeeded=ev.RunSucceeded(outputs=outputs))
