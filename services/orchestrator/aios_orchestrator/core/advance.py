"""What may go on now: steps whose needs are done start, pure ones finish at once, and a run with nothing left ends."""

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import RESOURCE, Label, meet
from aios_core.values import Leaf, Value, plain, relabeled
from aios_orchestrator.core import (
    asking,
    gates,
    hearing,
    limits,
    planner,
    planning,
    rounds,
    spending,
    supposing,
)
from aios_orchestrator.core.draft import Draft, target_of
from aios_orchestrator.core.keys import cache_key
from aios_orchestrator.mapping import Expression, Path, time_of, truth
from aios_orchestrator.progress import DONE_STEP, OPEN_STEP
from aios_orchestrator.workflow import NEEDS_A_PERSON, Step, path_of


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
    if draft.run.plans and planner.held(draft.run, step.name):
        return False  # until another plan is decided
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
        if draft.run.fork is not None and supposing.ended(draft, step):
            return
        if step.kind == "transform":
            assert step.output is not None
            _succeed(draft, step, step.output.evaluate(draft.look_from(step.scope)), guard)
        elif step.kind == "branch":
            _branch(draft, step, guard)
        elif step.kind == "wait":
            _wait(draft, step)
        elif step.kind == "gate":
            gates.ask(draft, step)
        elif step.kind == "ask":
            asking.ask(draft, step)
        elif step.kind == "planned":
            planning.begin(draft, step, guard)
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
        data = (
            change.input
            if change is not None and change.input
            else encode(rounds.labeled_input(draft, step, guard))
        )
    gate = draft.workflow.gate_of(step.name)
    if (gate or step.grade in NEEDS_A_PERSON) and run.mode != MODE_SIMULATE and not state.attempt:
        gates.check_approved(draft, step, gate, data)
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
