"""What a fork takes over: the steps of another run that need not be repeated."""

import difflib
from typing import Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import StepReused
from aios.run.v1.state_pb2 import Fork
from aios_core.errors import TerminalError
from aios_orchestrator.core.draft import has_done
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import WORK, Step, Workflow

_ENDS: Final = {st.SUPPOSED_END_REJECTED: ("gate", "ask"), st.SUPPOSED_END_FAILED: WORK}


def check(fork: Fork, workflow: Workflow) -> None:
    """Raises INVALID_ARGUMENT for a step that is not there, or that can't be changed in that way."""
    if fork.step:
        _known(fork.step, "step", [step.name for step in workflow.ordered if not step.scope])
    for at, change in enumerate(fork.changes):
        field = f"changes[{at}]"
        step = workflow.steps[_known(change.step, f"{field}.step", list(workflow.steps))]
        if change.take and change.take not in _cases(step):
            cases = ", ".join(_cases(step)) or "none"
            raise _wrong(f"{field}.take", f"{change.step!r} has no case {change.take!r}; there are: {cases}")
        if change.supposed and step.when is None:
            raise _wrong(f"{field}.supposed", f"{change.step!r} has no condition")
        if change.ends and step.kind not in _ENDS.get(change.ends, ()):
            raise _wrong(f"{field}.ends", f"{change.step!r} ({step.kind}) can't end so")
        worked_on = change.agent or change.model or change.prompt or change.input
        if not worked_on and (change.take or change.supposed or change.ends):
            continue
        if step.kind not in WORK:
            raise _wrong(
                f"{field}.step", f"{change.step!r} is a {step.kind}; what works on an input can be changed"
            )
        if (change.agent or change.model or change.prompt) and step.kind != "agent":
            raise _wrong(
                f"{field}.agent", f"{change.step!r} is no agent's step, so only its input can be changed"
            )
        if change.input and step.scope:
            raise _wrong(
                f"{field}.input", f"{change.step!r} is done many times, each with an input of its own"
            )


def reused(fork: Fork, source: Run, before: Workflow, after: Workflow) -> list[StepReused]:
    """The steps of the source that the fork does not repeat, in the document's order.

    Those are done there, mean the same in the fork's version of the workflow, are not what is changed or begun from,
    and need only such steps. When nothing says where to begin, there are none.
    """
    anew = {fork.step} if fork.step else set()
    anew |= {_outermost(change.step) for change in fork.changes}
    if not anew:
        return []
    found: dict[str, StepReused] = {}
    for step in after.ordered:
        if step.scope or step.name in anew or any(need not in found for need in step.needs):
            continue
        done = source.steps.get(step.name)
        if done is not None and has_done(done) and _same(step, before.steps.get(step.name)):
            found[step.name] = _taken(done, source.run_id)
    return list(found.values())


def _cases(step: Step) -> list[str]:
    return [name for name, _ in step.cases] + ([step.otherwise] if step.otherwise else [])


def _taken(done: StepRun, run_id: str) -> StepReused:
    skipped = done.state == st.STEP_STATE_SKIPPED
    return StepReused(
        step=done.name, output=done.output, skipped=skipped, summary=done.summary or f"as in {run_id}"
    )


def _same(step: Step, old: Step | None) -> bool:
    return old is not None and (old.kind, old.target) == (step.kind, step.target)


def _outermost(path: str) -> str:
    return path.partition("[")[0].partition(".")[0]


def _known(name: str, field: str, names: list[str]) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5) or names[:1]
        raise _wrong(field, f"there is no step {name!r} (did you mean {near[0]!r}?)")
    return name


def _wrong(field: str, what: str) -> TerminalError:
    return TerminalError("INVALID_ARGUMENT", f"{field}: {what}.", field=field)
