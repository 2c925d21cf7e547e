"""Steps with steps of their own: the items of a map, the turns of a repeat, a sub-workflow.

All of them are steps of the one run, so that its history, its undo, its budget and its approvals are theirs. A round
fails when a step of it fails and nothing of it is under way any more; what that means for the run depends on the maps
around it."""

from typing import Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios_core.encoding import decode_trusted, encode
from aios_core.errors import TerminalError
from aios_core.json_values import to_json
from aios_core.labels import RESOURCE, Label, meet, outside
from aios_core.step_names import home_of, is_inside
from aios_core.values import Leaf, Value, label_of, plain, relabeled
from aios_core.wording import counted, kind_of
from aios_orchestrator.core import limits, planner
from aios_orchestrator.core.again import may_start
from aios_orchestrator.core.draft import Draft, guard_of_round, look_from, round_of
from aios_orchestrator.due import given_up
from aios_orchestrator.mapping import truth
from aios_orchestrator.model import Run
from aios_orchestrator.progress import ROUND_FAILED
from aios_orchestrator.workflow import APPROVE, DRAFT, Step, Workflow, path_of

MAX_ITEMS: Final = 10_000  # of a map
MAX_ROUND_STEPS: Final = 50_000  # steps of all the rounds of one map or repeat
MAX_RUN_STEPS: Final = 100_000  # steps of a run, those of all its rounds among them
MAX_ERRORS: Final = 100  # failures of a map that are told with their words
MAX_MESSAGE: Final = 300  # characters of one
STOPPED: Final = "What it is a part of goes on no further."  # where nothing of that failed


def begin(draft: Draft, step: Step, guard: Label | None) -> None:
    """Begin the step's rounds. Raises what makes that impossible."""
    over, count = gone_over(draft, step, guard)
    by = limits.of_step(draft, step, lambda root: over["inputs"] if root == "inputs" else None)
    draft.emit(
        body_started=ev.BodyStarted(
            step=step.name, input=encode(over), rounds=count, steps=step.own.size, limits=by
        )
    )
    draft.turned[step.name] = None


def gone_over(draft: Draft, step: Step, guard: Label | None) -> tuple[dict[str, Value], int]:
    """What a step with steps of its own goes over, and in how many rounds at most."""
    body = step.own
    look = draft.look_from(step.scope)
    labels = [label for label in (guard, guard_of(draft, step.scope)) if label is not None]
    over: dict[str, Value] = {}
    count = body.limit
    if body.over is not None:
        items = body.over.evaluate(look)
        listed = [] if isinstance(items, Leaf) and items.data == [] else items
        if not isinstance(listed, list):
            raise TerminalError(
                "BAD_OUTPUT",
                f"What map {step.name!r} goes over is {kind_of(plain(items))}; it must be a list.",
            )
        count = len(listed)
        labels.append(label_of(items))
        over["items"] = items
    elif body.child is not None:
        given = input_of(draft, step)
        if step.kind == "planned":
            assert isinstance(given, dict), "a plan comes with what its steps see"
            labels.append(planner.vouched(draft.run, step.name, label_of(given["plan"])))
            given = given["inputs"]
        over["inputs"] = body.child.check_input(given)
    if count > MAX_ITEMS or count * body.size > MAX_ROUND_STEPS:
        raise TerminalError(
            "TOO_LARGE",
            f"Step {step.name!r} would have {count} rounds of {body.size} steps; at most {MAX_ITEMS} rounds and"
            f" {MAX_ROUND_STEPS} steps are allowed.",
        )
    if _others(draft.run, step) + count * body.size > MAX_RUN_STEPS:
        raise TerminalError(
            "TOO_LARGE", f"With step {step.name!r} the run would have more than {MAX_RUN_STEPS} steps."
        )
    label = meet(labels)
    for name, value in over.items():
        over[name] = relabeled(value, label)
    over["guard"] = Leaf(None, label)
    return over, count


def input_of(draft: Draft, step: Step) -> Value:
    """What a step works on: what a person gave, or else what the document computes. Raises what makes it impossible."""
    edited = draft.run.at(step.name).edited
    if edited:
        return decode_trusted(edited)
    return step.input.evaluate(draft.look_from(step.scope)) if step.input is not None else Leaf({}, RESOURCE)


def labeled_input(draft: Draft, step: Step, guard: Label | None) -> Value:
    """What a step works on, as it is handed out: it depends on its condition too, and on the rounds that it is in."""
    value = input_of(draft, step)
    if step.planning is not None and step.kind == "agent":
        value = planner.told(draft.run, step, value)
    for label in (guard, guard_of(draft, step.scope)):
        if label is not None:
            value = relabeled(value, label)
    return value


def _others(run: Run, step: Step) -> int:
    """Steps of the run that are not of the step's rounds; there are some of those if it was gone through before."""
    if run.at(step.name).attempt_group == 1:
        return len(run.steps)
    return sum(not is_inside(name, step.name) for name in run.steps)


def guard_of(draft: Draft, scope: str) -> Label | None:
    """What it depends on that a scope is gone through at all; None outside of all bodies."""
    if not scope:
        return None
    known = draft.guards.get(scope)
    if known is None:
        owner, index = home_of(scope)
        known = draft.guards[scope] = guard_of_round(draft.run, draft.workflow.at(owner), index)
    return known


def goes_on(draft: Draft, name: str) -> bool:
    """Whether steps of the round that a step is in may start: it has not failed, nor has what is around it."""
    while "." in name:
        owner, index = home_of(name)
        rounds = draft.run.rounds.get(owner)
        if rounds is None or index in rounds.failed or given_up(draft.run.at(owner)):
            return False
        if rounds.failed and not draft.workflow.at(owner).own.collect:
            return False
        name = owner
    return True


def go_on(draft: Draft, name: str) -> None:
    """Something in a step's rounds has ended: begin further rounds, or end the step."""
    rounds = draft.run.rounds.get(name)
    if rounds is None:
        return
    step, state = draft.workflow.at(name), draft.run.at(name)
    body, begun = step.own, state.begun
    around = goes_on(draft, name)
    if around and rounds.failed and _keeps_plan(draft, step):
        return
    if not around or given_up(state) or (rounds.failed and not body.collect):
        _end_early(draft, step, around)
        return
    if draft.run.plans and planner.held(draft.run, name):
        return
    for index in rounds.failed:
        if index in rounds.open:
            _leave_round(draft, round_of(step, index))
    rounds = draft.run.rounds[name]
    try:
        if step.kind == "repeat" and begun.begun and rounds.ended == begun.begun:
            _turned(draft, step, begun.begun)
            return
        at_once = body.at_once if step.kind == "map" else 1
        more = min(at_once - (begun.begun - rounds.ended), begun.rounds - begun.begun)
        if more > 0:
            _start_rounds(draft, step, begun.begun, more)
        elif rounds.ended == begun.rounds:
            _finish(draft, step)
    except TerminalError as error:
        fail(draft, name, error)


def _keeps_plan(draft: Draft, step: Step) -> bool:
    """Whether only the draft or the approval of another plan failed: then the run goes on by the one that it has."""
    if step.kind != "plan" or not planner.revising(draft.run, f"{step.name}.{DRAFT}"):
        return False
    asked = (draft.run.at(f"{step.name}.{local}") for local in (DRAFT, APPROVE))
    failed = next((own for own in asked if own.state == st.STEP_STATE_FAILED), None)
    if failed is None:
        return False
    draft.emit(plan_revision_dropped=ev.PlanRevisionDropped(step=step.name, error=failed.error))
    may_start(draft)
    return True


def _end_early(draft: Draft, step: Step, around: bool) -> None:
    """No round goes on: one of them failed, or what is around the step does not go on. When nothing of them is under
    way any more, the step fails."""
    for index in draft.run.rounds[step.name].open:
        _leave_round(draft, round_of(step, index))
    rounds = draft.run.rounds[step.name]
    if any(of.live for of in rounds.open.values()):
        return
    state = draft.run.at(step.name)
    over = limits.spent(draft.run, state, draft.clock) if around and given_up(state) else None
    if over is not None:
        fail(draft, step.name, TerminalError(over.code, over.message))
    elif around:
        _fail_with(draft, step, min(rounds.failed.values())[1])
    else:
        leave(draft, step.name)


def _leave_round(draft: Draft, scope: str) -> None:
    """Nothing begins in a round any more: what waits in it for a time or a person waits no more, what is handed out is
    awaited, and what has rounds of its own ends them."""
    for step in draft.run.lively():
        if not step.name.startswith(scope):
            continue
        if step.state in (st.STEP_STATE_GATED, st.STEP_STATE_WAITING):
            leave(draft, step.name)
        elif step.state == st.STEP_STATE_RUNNING:
            draft.turned[step.name] = None


def leave(draft: Draft, name: str) -> None:
    """A step is given up since another one of its round, or of one around it, failed, or what it is a part of goes on
    no further for another reason. It is never why a run fails."""
    words = "Another step of the same round failed." if _failed_around(draft, name) else STOPPED
    error = Error(code=ROUND_FAILED, message=words)
    draft.emit(step_failed=ev.StepFailed(step=name, error=error, contained=True))


def _failed_around(draft: Draft, name: str) -> bool:
    while "." in name:
        name, _ = home_of(name)
        rounds = draft.run.rounds.get(name)
        if rounds is not None and rounds.failed:
            return True
    return False


def _start_rounds(draft: Draft, step: Step, first: int, count: int, carried: bytes = b"") -> None:
    draft.emit(rounds_started=ev.RoundsStarted(step=step.name, begun=first + count, carried=carried))
    paths = [path_of(round_of(step, 0)) + local for local in step.own.roots]
    for index in range(first, first + count):
        draft.may_start(paths, round_of(step, index))


def _turned(draft: Draft, step: Step, turns: int) -> None:
    """A turn of a repeat is over."""
    body = step.own
    assert body.until is not None
    scope = round_of(step, turns - 1)
    done, label = truth(body.until, draft.look_from(scope))
    guard = guard_of(draft, scope)
    label = meet([label, *([guard] if guard is not None else [])])
    if not done and turns < body.limit:
        result = relabeled(body.result.evaluate(draft.look_from(scope)), label)
        carried = encode({"guard": Leaf(None, label), "result": result})
        _start_rounds(draft, step, turns, 1, carried)
        return
    if not done and not body.lenient:
        raise TerminalError(
            "REPEAT_LIMIT",
            f"Step {step.name!r} took {turns} turns and its condition {body.until.text!r} still does not hold.",
        )
    result = relabeled(body.result.evaluate(draft.look_from(scope)), label)
    value: Value = {"result": result, "turns": Leaf(turns, label), "done": Leaf(done, label)}
    draft.emit(
        step_succeeded=ev.StepSucceeded(
            step=step.name, output=encode(value), summary=f"finished {step.name}: {counted(turns, 'turn')}"
        )
    )


def _finish(draft: Draft, step: Step) -> None:
    """All rounds of a map, or the one of a sub-workflow, are over."""
    body, run = step.own, draft.run
    label = guard_of_round(run, step, 0)
    if step.once:
        value = relabeled(body.result.evaluate(draft.look_from(round_of(step, 0))), label)
        if step.kind == "plan" and step.gives is not None:
            step.gives.check(to_json(plain(value)), f"what the plan of {step.name!r} gives", "BAD_OUTPUT")
        draft.emit(step_succeeded=ev.StepSucceeded(step=step.name, output=encode(value)))
        return
    failed, count = run.rounds[step.name].failed, run.at(step.name).begun.rounds
    results = [
        Leaf(None, label) if index in failed else _result(run, draft.workflow, step, index, label)
        for index in range(count)
    ]
    # What failed, and the words of it, are said by workers and by what they talked to.
    told = meet((label, outside(f"step:{step.name}"))) if failed else label
    errors = [_error(run, index, failed[index][1], told) for index in sorted(failed)[:MAX_ERRORS]]
    value = {
        "results": results or Leaf([], label),
        "failed": Leaf(len(failed), told),
        "errors": errors or Leaf([], label),
    }
    words = f"finished {step.name}: {counted(count, 'item')}"
    words += f", {len(failed)} of them failed" if failed else ""
    try:
        output = encode(value)
    except TerminalError as error:
        raise TerminalError(
            error.code,
            f"What the {count} items of map {step.name!r} gave does not fit; have `result` give less of each.",
        ) from None
    draft.emit(step_succeeded=ev.StepSucceeded(step=step.name, output=output, summary=words))


def _result(run: Run, workflow: Workflow, step: Step, index: int, label: Label) -> Value:
    """What an item of a map gave."""
    return relabeled(step.own.result.evaluate(look_from(run, workflow, round_of(step, index))), label)


def _error(run: Run, index: int, failed: str, label: Label) -> Value:
    """Why an item of a map gave nothing."""
    error = run.at(failed).error or Error()
    return {
        "index": Leaf(index, label),
        "step": Leaf(failed, label),
        "code": Leaf(error.code, label),
        "message": Leaf(error.message[:MAX_MESSAGE], label),
    }


def _fail_with(draft: Draft, step: Step, failed: str) -> None:
    """A round failed, and so does the step that it is a round of."""
    error = draft.run.at(failed).error or Error()
    draft.emit(step_failed=ev.StepFailed(step=step.name, error=error, contained=contained(draft, step.name)))


def fail(draft: Draft, name: str, error: TerminalError) -> None:
    """The step fails for good, and the run with it unless a map around it goes on without."""
    reason = Error(code=error.code, message=error.message, details=error.details)
    draft.emit(
        step_failed=ev.StepFailed(
            step=name,
            error=reason,
            attempt=draft.run.at(name).attempt,
            contained=contained(draft, name),
        )
    )


def contained(draft: Draft, name: str) -> bool:
    """Whether a map around the step collects failures; or it is only of another plan than the one that is followed."""
    if planner.revising(draft.run, name):
        return True
    while "." in name:
        name, _ = home_of(name)
        body = draft.workflow.at(name).body
        if body is not None and body.collect:
            return True
    return False
