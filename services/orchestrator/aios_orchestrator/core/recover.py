"""A run that ended goes on, as a person says: what failed once more, without it, with another input, or from an earlier
step on. What was done before is not repeated, and nothing is done twice that may have happened."""

import difflib
from dataclasses import dataclass
from typing import Final

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Recovery
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.step_names import by_round
from aios_core.values import Value, follow, labeled, plain
from aios_orchestrator.core import planning, rounds
from aios_orchestrator.core.again import Again, gates_to_ask, may_start
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.core.editing import bound
from aios_orchestrator.core.trees import trees
from aios_orchestrator.mapping import paths, truth
from aios_orchestrator.workflow import WORK, Step, Workflow, path_of, scope_of

MAX_TOLD: Final = 10  # steps that a refusal names
_WITH_INPUT: Final = (*WORK, "workflow")
_RETRY, _SKIP = st.RECOVERY_RETRY, st.RECOVERY_SKIP
_EDIT, _REWIND = st.RECOVERY_EDIT, st.RECOVERY_REWIND
_REPLAN = st.RECOVERY_REPLAN


@dataclass(frozen=True, slots=True)
class Recover:
    """Have a run go on that ended. `step` is the one that failed if it is empty; `value` is its input, or what stands
    for its result; `cap` (micro-dollars, 0: as before) is what the run may spend in all."""

    recovery: Recovery.ValueType
    step: str = ""
    value: Value | None = None
    cap: int = 0
    why: str = ""


def recover(draft: Draft, what: Recover) -> None:
    """Reopen the run. Raises NOT_FAILED, RUN_CLOSED, EFFECTS_STAND, OUTCOME_UNKNOWN, INVALID_ARGUMENT, BAD_PLAN; the
    draft is of no use then."""
    if what.recovery == _REPLAN:
        _replan(draft, what)
        return
    _check_run(draft, what)
    name = what.step or draft.run.failed
    step = _step(draft, what, name)
    _check_value(draft, what, step)
    again = _again(draft, what, name)
    _check(draft, what, name, again)
    _reopen(draft, what, name, again)
    if what.recovery == _REWIND:
        for other in sorted(again.steps, key=by_round):
            if other != name and draft.run.at(other).edited:  # it was made for what came before it then
                draft.emit(step_edited=ev.StepEdited(step=other))
    if step is not None and what.recovery == _SKIP:
        why = what.why or "a person goes on without it"
        given = plain(what.value) if what.value is not None else None
        output = encode(labeled(given, OWNER)) if given is not None else b""
        draft.emit(step_skipped=ev.StepSkipped(step=name, why=why, output=output))
    elif step is not None and what.value is not None:
        draft.emit(step_edited=ev.StepEdited(step=name, input=_edited(draft, step, what.value)))
    may_start(draft)


def _replan(draft: Draft, what: Recover) -> None:
    """Have a run planned anew, with what is finished kept; one that failed goes on by that."""
    if what.value is not None:
        raise TerminalError("INVALID_ARGUMENT", "value: the planner gives the plan.", field="value")
    owner = planning.owner_of(draft, what.step)
    if draft.run.state == st.RUN_STATE_FAILED:
        _check_run(draft, what)
        again = _again(draft, what, draft.run.failed)
        _check(draft, what, draft.run.failed, again)
        _reopen(draft, what, draft.run.failed, again)
    planning.revise(draft, owner, what.why)


def _check_run(draft: Draft, what: Recover) -> None:
    run = draft.run
    if not what.recovery:
        raise TerminalError("INVALID_ARGUMENT", "recovery is missing.", field="recovery")
    if run.mode == MODE_SIMULATE:
        raise TerminalError("RUN_CLOSED", "A simulation changed nothing. Simulate it again.")
    if not run.closed:
        raise TerminalError("NOT_FAILED", f"Run {run.run_id} is still under way.")
    if run.state in (st.RUN_STATE_CANCELLED, st.RUN_STATE_SKIPPED) or run.superseded_by:
        was = "skipped" if run.state == st.RUN_STATE_SKIPPED else "cancelled"
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} was {was}. Start a new one.")
    if what.recovery != _REWIND and run.state != st.RUN_STATE_FAILED:
        if run.state == st.RUN_STATE_SUCCEEDED:
            raise TerminalError(
                "NOT_FAILED", f"Run {run.run_id} succeeded. To run a step again, rewind to it."
            )
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} was undone. Rewind it to run it again.")
    if what.cap and what.cap < max(run.cap, run.settled):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"cap_micros: the run may spend {run.cap} micro-dollars now; give more.",
            field="cap_micros",
        )


def _step(draft: Draft, what: Recover, name: str) -> Step | None:
    """The step that it is about; None where only what the run gives could not be computed, and that is tried again."""
    run = draft.run
    if not name:
        if what.recovery == _RETRY:
            return None
        raise TerminalError("INVALID_ARGUMENT", "step: name the step.", field="step")
    known = run.steps.get(name)
    if known is None or known.state == st.STEP_STATE_PENDING:
        if name in draft.workflow.steps:
            raise TerminalError("INVALID_ARGUMENT", f"step: {name!r} has not begun.", field="step")
        near = difflib.get_close_matches(name, list(run.steps), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TerminalError(
            "INVALID_ARGUMENT", f"step: the run has no step {name[:80]!r}.{hint}", field="step"
        )
    step = draft.workflow.at(name)
    if what.recovery != _REWIND and known.state != st.STEP_STATE_FAILED:
        raise TerminalError("NOT_FAILED", f"Step {name!r} did not fail. To run it again, rewind to it.")
    if what.recovery == _SKIP and step.kind == "gate":
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"step: {name!r} is a gate; what it approves needs its approval.",
            field="step",
        )
    return step


def _check_value(draft: Draft, what: Recover, step: Step | None) -> None:
    given = what.value
    if step is not None and step.planning is not None and what.recovery == _SKIP:
        if given is None or plain(given) is None:
            raise TerminalError(
                "INVALID_ARGUMENT", "value: give the plan that stands for the planner's.", field="value"
            )
        planning.drafted(draft, step, given)
        return
    if given is None:
        if what.recovery == _EDIT:
            raise TerminalError("INVALID_ARGUMENT", "value: give the step's new input.", field="value")
        return
    if what.recovery == _RETRY or step is None:
        raise TerminalError("INVALID_ARGUMENT", "value: a retry takes none; edit the input.", field="value")
    if what.recovery == _SKIP:
        if plain(given) is not None:
            _check_read(draft.workflow, step, given)
        return
    if step.kind not in _WITH_INPUT:
        raise TerminalError(
            "INVALID_ARGUMENT", f"value: a step of kind {step.kind} has no input.", field="value"
        )
    if step.body is not None and step.body.child is not None:
        step.body.child.check_input(given)


def _edited(draft: Draft, step: Step, given: Value) -> bytes:
    try:
        before: Value | None = rounds.input_of(draft, step)
    except TerminalError:
        before = None  # it could not be computed: that may be why it failed
    return encode(bound(before, plain(given)))


def _check_read(workflow: Workflow, step: Step, value: Value) -> None:
    """What stands for a step's result has the fields that others read of it."""
    home = path_of(step.scope)
    read = [
        (other.name, tree)
        for other in workflow.ordered
        if other.name.startswith(home)
        for tree in trees(other)
    ]
    read += [("outputs", workflow.outputs)] if not home else []
    for reader, tree in read:
        for path in paths(tree):
            if path.root != f"steps.{step.local}":
                continue
            try:
                follow(value, path.parts)
            except KeyError:
                raise TerminalError(
                    "INVALID_ARGUMENT",
                    f"value: {reader!r} reads {path.text}, which it does not have.",
                    field="value",
                ) from None


def _again(draft: Draft, what: Recover, name: str) -> Again:
    again = Again(draft)
    again.stopped()
    if name and (
        what.recovery == _REWIND or (what.recovery == _EDIT and draft.run.at(name).body is not None)
    ):
        again.back_to(name)
    elif name:
        again.around(name)
    if what.recovery == _SKIP:
        again.without(name)
    for gate in gates_to_ask(draft, again.steps, name if what.value is not None else ""):
        again.steps[gate] = None
    return again


def _check(draft: Draft, what: Recover, name: str, again: Again) -> None:
    """Nothing may be done twice."""
    run = draft.run
    unknown, standing, undone = [], [], []
    for step in run.steps.values():
        if step.name not in again.steps:
            undone += [step.name] if step.state == st.STEP_STATE_UNDONE else []
        elif step.effect_order and step.state in (st.STEP_STATE_SUCCEEDED, st.STEP_STATE_UNDO_CONFLICT):
            standing.append(step.name)
        elif step.state == st.STEP_STATE_UNKNOWN or (
            step.error is not None
            and step.error.code == "OUTCOME_UNKNOWN"
            and not (step.name == name and what.recovery == _SKIP)
        ):
            unknown.append(step.name)
    if unknown:
        raise TerminalError(
            "OUTCOME_UNKNOWN",
            f"Whether it happened is not known of {_told(unknown)}, so it is not done again. "
            "Answer the question where one is open; else skip the step, or undo the run.",
            steps=_told(unknown),
        )
    if standing:
        raise TerminalError(
            "EFFECTS_STAND",
            f"These would run again, and what they changed stands: {_told(standing)}. Undo the run first.",
            steps=_told(standing),
        )
    if undone:
        raise TerminalError(
            "EFFECTS_STAND",
            f"The run was undone, so it has to run again from these on: {_told(undone)}. Rewind to an earlier step.",
            steps=_told(undone),
        )


def _told(names: list[str]) -> str:
    some = sorted(names, key=by_round)[:MAX_TOLD]
    return ", ".join(some) + (f" and {len(names) - len(some)} more" if len(names) > len(some) else "")


def _reopen(draft: Draft, what: Recover, name: str, again: Again) -> None:
    run = draft.run
    done = [owner for owner in again.bodies if run.at(owner).state == st.STEP_STATE_SUCCEEDED]
    draft.emit(
        run_reopened=ev.RunReopened(
            why=what.why,
            recovery=what.recovery,
            step=name,
            again=sorted(again.steps, key=by_round),
            bodies=sorted((owner for owner in again.bodies if owner not in done), key=by_round),
            cap_micros=what.cap,
        )
    )
    draft.guards.clear()
    for owner in sorted(done, key=lambda owner: (scope_of(owner).count("."), by_round(owner))):
        step = draft.workflow.at(owner)
        guard = truth(step.when, draft.look_from(step.scope))[1] if step.when is not None else None
        over, _ = rounds.gone_over(draft, step, guard)
        draft.emit(body_reopened=ev.BodyReopened(step=owner, input=encode(over)))
