"""A run goes on under another version of its workflow. What it has done stays as it is and is not done again; what the
new version has otherwise is refused, unless the run can follow and a person says so."""

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import MigrationBreak
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import decode_trusted, encode
from aios_core.errors import TerminalError
from aios_core.json_values import loads
from aios_core.money import Micros
from aios_core.step_names import by_round, home_of, is_inside, renamed
from aios_orchestrator import plans
from aios_orchestrator.core.again import may_start
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.differing import OF_ATTEMPTS, differing
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import DONE_STEP, LIVE_STEP
from aios_orchestrator.workflow import Step, Workflow, path_of, scope_of

MAX_TOLD: Final = 5  # things in the way that a refusal names
MAX_RENAMED: Final = 100
_HERE: Final = frozenset({st.RUN_STATE_RUNNING, st.RUN_STATE_FAILED})
_OVER: Final = frozenset({st.STEP_STATE_FAILED, st.STEP_STATE_CANCELLED})
_FOLLOWED: Final = OF_ATTEMPTS | {"needs"}  # by what has begun, or of no matter to it
_ANOTHER: Final = frozenset({"kind", "target", "effect"})


@dataclass(frozen=True, slots=True)
class Migrate:
    """Follow another version of the workflow. `names` has paths of steps by their paths in the version before; with
    `accept` what can be followed is no reason to refuse."""

    workflow: Workflow
    names: Mapping[str, str] = field(default_factory=dict)
    accept: bool = False
    why: str = ""


@dataclass(slots=True)
class Move:
    """What it comes to: what is otherwise, the steps that are left out, those that ask anew, and the input."""

    breaks: list[MigrationBreak] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    input: bytes = b""
    cap: int = 0

    def breaks_with(self, step: str, what: str, *, final: bool = False) -> None:
        """Add what is otherwise, once."""
        found = MigrationBreak(step=step, what=what, final=final)
        if found not in self.breaks:
            self.breaks.append(found)


def migrate(draft: Draft, what: Migrate) -> None:
    """Raises RUN_CLOSED, INVALID_ARGUMENT, INCOMPATIBLE; nothing has happened then."""
    run = draft.run
    what = with_plans(run, what)
    move = plan(run, draft.workflow, what)
    if run.workflow_version == what.workflow.version:
        return
    refusing = [found for found in move.breaks if found.final or not what.accept]
    if refusing:
        raise _refusal(refusing)
    draft.emit(
        run_migrated=ev.RunMigrated(
            from_version=run.workflow_version,
            to_version=what.workflow.version,
            why=what.why,
            renamed=what.names,
            dropped=move.dropped,
            again=move.again,
            input=move.input,
            cap_micros=move.cap,
            accepted=[found.what for found in move.breaks],
        )
    )
    draft.follow(what.workflow)
    if not run.closed:
        may_start(draft)


def with_plans(run: Run, what: Migrate) -> Migrate:
    """The same, to the version with the plans that the run follows; one that may not be carried out there is left out,
    so that its steps are in the way."""
    workflow = what.workflow
    for name, known in run.plans.items():
        step = workflow.steps.get(renamed(name, what.names))
        if step is not None and step.kind == "planned":
            with suppress(TerminalError):
                made = plans.plan_of(step, loads(known.plan), Micros(max(run.cap, workflow.cap)))
                workflow = plans.with_child(workflow, step.name, made.workflow)
    return replace(what, workflow=workflow)


def _refusal(breaks: list[MigrationBreak]) -> TerminalError:
    said = " ".join(found.what for found in breaks[:MAX_TOLD])
    more = f" And {len(breaks) - MAX_TOLD} more." if len(breaks) > MAX_TOLD else ""
    can = "" if any(found.final for found in breaks) else " It could go on all the same, if you accept that."
    return TerminalError("INCOMPATIBLE", said + more + can)


def plan(run: Run, old: Workflow, what: Migrate) -> Move:
    """What it would come to. Raises RUN_CLOSED for a run that does not go on, and INVALID_ARGUMENT for another workflow
    and for names that are not there."""
    _check(run, old, what)
    move = followed(run, old, what.workflow, what.names)
    _money_and_input(move, run, old, what.workflow)
    return move


def followed(run: Run, old: Workflow, new: Workflow, names: Mapping[str, str], within: str = "") -> Move:
    """What another workflow comes to for the steps of a run; or for those of a plan `within` a planned step, of which
    what stands for nothing can be left out."""
    move, reached = Move(), set[str]()
    # Of the steps of rounds there are thousands in a run, and one in the document.
    otherwise = cache(lambda path, home: frozenset(differing(old.steps[path], new.steps[home], renaming)))
    renaming = _renaming(names)
    for step in _sorted(run, within):
        path = path_of(step.name)
        home = renamed(path, names)
        if home in new.steps:
            if _begun(run, step):
                _compare(move, step, old.steps[path], new.steps[home], otherwise(path, home))
        elif _idle(step, within) and not _inside_begun(run, step.name, within):
            move.dropped.append(step.name)
            continue
        else:
            move.breaks_with(path, _gone(path, old, new, hint=not within), final=True)
        if _begun(run, step):
            reached.add(home)
        first = path_of(step.effect_name)
        if first != home and first in new.steps:
            move.breaks_with(
                first,
                f"{first} was the name of {home} in this run: its effects are kept under it.",
                final=True,
            )
    for name in sorted(set(new.steps) - {renamed(path, names) for path in old.steps}):
        after = sorted(step for step in new.dependents.get(name, ()) if step in reached)
        if after:
            move.breaks_with(
                name, f"{name} comes before {', '.join(after)}, which had begun: it would run after that."
            )
    move.again = list(_asking(move, run, old, new, names, within))
    return move


def _sorted(run: Run, within: str) -> list[StepRun]:
    steps = run.steps.values()
    own = (step for step in steps if is_inside(step.name, within)) if within else steps
    return sorted(own, key=lambda step: by_round(step.name))


def _check(run: Run, old: Workflow, what: Migrate) -> None:
    new = what.workflow
    if run.mode == MODE_SIMULATE:
        raise TerminalError("RUN_CLOSED", "A simulation stays what it is. Simulate the other version.")
    if run.state not in _HERE:
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} does not go on, so it stays as it is.")
    if run.workflow != new.name:
        raise TerminalError(
            "INVALID_ARGUMENT", f"workflow: the run is one of {run.workflow!r}.", field="workflow"
        )
    if len(what.names) > MAX_RENAMED:
        raise TerminalError(
            "INVALID_ARGUMENT", f"renamed: at most {MAX_RENAMED} names at once.", field="renamed"
        )
    for name, to in what.names.items():
        _check_name(run, old, new, name, to)


def _check_name(run: Run, old: Workflow, new: Workflow, name: str, to: str) -> None:
    wrong = ""
    if name not in old.steps:
        near = difflib.get_close_matches(name, old.steps, n=1, cutoff=0.5)
        wrong = f"the run's version has no step {name[:80]!r}" + (
            f" (did you mean {near[0]!r}?)" if near else ""
        )
    elif to not in new.steps:
        near = difflib.get_close_matches(to, new.steps, n=1, cutoff=0.5)
        wrong = f"the new version has no step {to[:80]!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    elif scope_of(name) != scope_of(to):
        wrong = f"{to!r} is not in the same place as {name!r}; a step keeps its place"
    elif name in new.steps:
        wrong = f"the new version has {name!r} as well, so it is no other name of it"
    elif to in old.steps:
        wrong = f"{to!r} is another step of the run's version"
    elif any(
        path_of(live) == name or is_inside(path_of(live), name)
        for live in run.live
        if run.steps[live].state != st.STEP_STATE_RUNNING
    ):
        wrong = f"{name!r} is under way; it can have another name once it has ended"
    if wrong:
        raise TerminalError("INVALID_ARGUMENT", f"renamed.{name[:80]}: {wrong}.", field="renamed")


def _idle(step: StepRun, within: str) -> bool:
    """Whether it did nothing, and nothing is known of it that must be kept. Of a plan it is known what was left out:
    what comes under the same name later is other work."""
    if step.state == st.STEP_STATE_PENDING:
        return bool(within) or (not step.dispatch and step.attempt_group == 1 and not step.approval_id)
    return step.state == st.STEP_STATE_SKIPPED and not step.output and not step.dispatch


def _begun(run: Run, step: StepRun) -> bool:
    """Whether what it is under the earlier version counts for it, whatever comes."""
    if step.state in _OVER:
        return step.body is not None or (step.error is not None and step.error.code == "OUTCOME_UNKNOWN")
    return step.state != st.STEP_STATE_PENDING or bool(step.approval_id)


def _inside_begun(run: Run, name: str, within: str) -> bool:
    """Whether it is in rounds that are not over: how far they are is counted in steps."""
    owner, _ = home_of(name)
    while owner != within:
        if run.at(owner).state != st.STEP_STATE_SUCCEEDED:
            return True
        owner, _ = home_of(owner)
    return False


def _gone(path: str, old: Workflow, new: Workflow, *, hint: bool) -> str:
    was = old.steps[path]
    alike = [
        step.name
        for step in new.ordered
        if step.name not in old.steps
        and (step.scope, step.kind, step.target) == (was.scope, was.kind, was.target)
    ]
    near = difflib.get_close_matches(path, alike, n=1) or alike[:1]
    say = f" If it is {near[0]!r} now, say so: --rename {path}={near[0]}." if near and hint else ""
    return f"{path} is not there any more, and it has begun: what it did would belong to nothing.{say}"


def _compare(move: Move, step: StepRun, old: Step, new: Step, fields: frozenset[str]) -> None:
    """What of it is otherwise, for a step that has begun; `fields` are those in which the two differ."""
    other = set(fields - _FOLLOWED)
    if step.state in DONE_STEP and not step.effect_order:
        other -= {"gives"}
    if other & _ANOTHER:
        move.breaks_with(
            old.name, f"{old.name} is another thing now, and it has begun as the earlier one.", final=True
        )
    elif "body" in other and step.state != st.STEP_STATE_SUCCEEDED and _other_rounds(old, new):
        move.breaks_with(
            old.name, f"the steps inside of {old.name} are others now, and it has begun.", final=True
        )
    elif "gate" in other and step.state == st.STEP_STATE_GATED:
        return  # it asks anew
    elif other:
        what = ", ".join(sorted(other))
        move.breaks_with(
            old.name, f"{old.name} has another {what} now: what it did, or does, is by the earlier."
        )


def _other_rounds(old: Step, new: Step) -> bool:
    """Whether the rounds that have begun would lack steps, or have too many."""
    one, two = old.body, new.body
    if one is None or two is None:
        return True
    if (one.child is None) != (two.child is None) or (
        one.child is not None and two.child is not None and one.child.version != two.child.version
    ):
        return True
    return one.size != two.size


def _renaming(names: Mapping[str, str]) -> Any:
    """Has texts of the earlier version name steps as the new one does."""
    if not names:
        return lambda text: text
    own = {name[name.rfind(".") + 1 :]: to[to.rfind(".") + 1 :] for name, to in names.items()}
    pattern = re.compile(r"\bsteps\.(" + "|".join(map(re.escape, own)) + r")(?![A-Za-z0-9_-])")
    return lambda text: own.get(text, pattern.sub(lambda found: f"steps.{own[found[1]]}", text))


def _asking(
    move: Move, run: Run, old: Workflow, new: Workflow, names: Mapping[str, str], within: str
) -> Iterator[str]:
    """The gates whose approval is open, or given and not used: it was for what the earlier version would do."""
    for step in _sorted(run, within):
        path = path_of(step.name)
        home = renamed(path, names)
        if home not in new.steps or old.steps[path].kind not in ("gate", "ask"):
            continue
        name = renamed(step.name, names)
        if old.steps[path].kind == "ask":
            if step.state == st.STEP_STATE_GATED and (
                set(differing(old.steps[path], new.steps[home], _renaming(names))) - _FOLLOWED
            ):
                yield name
        elif step.state == st.STEP_STATE_GATED:
            yield name
        elif step.state == st.STEP_STATE_SUCCEEDED and _unused(run, old.steps[path], step.name):
            _check_in_use(move, run, old.steps[path], step.name)
            yield name


def _approved(run: Run, gate: Step, name: str) -> list[StepRun]:
    """The steps that a gate of the run approves."""
    assert gate.gate is not None
    scope = scope_of(name)
    return [run.at(scope + step[len(scope_of(step)) :]) for step in gate.gate.approves]


def _unused(run: Run, gate: Step, name: str) -> bool:
    """Whether something that it approves has not begun by it. A plan that failed in the middle has: it goes on where it
    was, and does not wait for an approval once more."""
    return any(
        step.state not in DONE_STEP
        and step.state not in LIVE_STEP
        and not step.effect_order
        and step.body is None
        for step in _approved(run, gate, name)
    )


def _check_in_use(move: Move, run: Run, gate: Step, name: str) -> None:
    """What is under way by an approval goes on by it, so that it can't be asked for anew meanwhile."""
    live = [step.name for step in _approved(run, gate, name) if step.state in LIVE_STEP]
    if live:
        move.breaks_with(
            gate.name,
            f"{name} has to be asked for anew, and {', '.join(live)} is under way by it: wait until that has ended.",
            final=True,
        )


def _money_and_input(move: Move, run: Run, old: Workflow, new: Workflow) -> None:
    move.cap = new.cap if run.cap == old.cap else run.cap  # what a person gave stays
    if move.cap < run.held + run.settled:
        move.breaks_with("", "the cap is below what the run has spent already.", final=True)
    try:
        filled = encode(new.check_input(decode_trusted(run.input)))
    except TerminalError as error:
        move.breaks_with(
            "", f"the run's input is not what the new version takes: {error.message}", final=True
        )
    else:
        move.input = filled if filled != run.input else b""
