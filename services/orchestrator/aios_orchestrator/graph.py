"""The graph of a workflow's steps: what its document says is checked, and what running it asks is looked up once."""

import difflib
import graphlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Mapped, references
from aios_orchestrator.workflow import Step, Workflow


def connect(document: Document, workflow: Workflow) -> Workflow:
    """The workflow with its graph. Raises CYCLE, BAD_EXPRESSION or BAD_RESOURCE with the place."""
    return _connected(workflow, _check_graph(document, workflow))


def _connected(workflow: Workflow, before: Mapping[str, int]) -> Workflow:
    """With what the graph says, ready to be looked up."""
    dependents: dict[str, list[str]] = {}
    for step in workflow.steps.values():
        for need in step.needs:
            dependents.setdefault(need, []).append(step.name)
    return replace(
        workflow,
        before=before,
        ordered=tuple(workflow.steps.values()),
        place={name: at for at, name in enumerate(workflow.steps)},
        roots=tuple(step.name for step in workflow.steps.values() if not step.needs),
        dependents={name: tuple(steps) for name, steps in dependents.items()},
    )


def _check_graph(document: Document, workflow: Workflow) -> dict[str, int]:
    """Returns what comes before each step, as `Workflow.before`."""
    for at, step in enumerate(workflow.steps.values()):
        for need in step.needs:
            if need not in workflow.steps:
                raise _no_step(document, f"spec.steps[{at}].needs", need, workflow.steps)
    try:
        order = list(
            graphlib.TopologicalSorter({s.name: s.needs for s in workflow.steps.values()}).static_order()
        )
    except graphlib.CycleError as error:
        circle = " → ".join(map(str, error.args[1]))
        raise document.error("CYCLE", "spec.steps", f"steps need each other in a circle: {circle}.") from None
    place = {name: at for at, name in enumerate(workflow.steps)}
    before: dict[str, int] = {}
    for name in order:
        before[name] = 0
        for need in workflow.steps[name].needs:
            before[name] |= before[need] | 1 << place[need]
    for at, step in enumerate(workflow.steps.values()):
        _check_references(
            document, workflow, f"spec.steps[{at}]", step, lambda a, b: bool(before[b] >> place[a] & 1)
        )
    for name in _steps_read(references(workflow.outputs)):
        if name not in workflow.steps:
            raise _no_step(document, "spec.outputs", name, workflow.steps)
    return before


def _check_references(
    document: Document, workflow: Workflow, path: str, step: Step, before: Callable[[str, str], bool]
) -> None:
    trees: list[Mapped] = [tree for tree in (step.input, step.output, step.when) if tree is not None]
    trees += [condition for _, condition in step.cases]
    if step.gate:
        trees += [step.gate.title, step.gate.why, step.gate.risk]
        for name in step.gate.approves:
            if name not in workflow.steps:
                raise _no_step(document, f"{path}.gate.approves", name, workflow.steps)
            approved = workflow.steps[name]
            if not before(step.name, name):
                raise document.error(
                    "BAD_RESOURCE",
                    f"{path}.gate.approves",
                    f"{name!r} does not come after this gate (it must need it).",
                )
            if approved.input is not None:
                trees.append(approved.input)
    if step.ask:
        trees += [step.ask.title, step.ask.questions]
    for tree in trees:
        for name in _steps_read(references(tree)):
            if name not in workflow.steps:
                raise _no_step(document, path, name, workflow.steps)
            if not before(name, step.name):
                raise document.error(
                    "BAD_EXPRESSION",
                    path,
                    f"step {step.name!r} reads steps.{name}, which does not come before it; add it to needs.",
                )


def _steps_read(roots: Iterable[str]) -> Iterable[str]:
    for root in roots:
        if root.startswith("steps."):
            yield root.removeprefix("steps.")


def _no_step(document: Document, path: str, name: str, steps: Iterable[str]) -> TerminalError:
    near = difflib.get_close_matches(name, list(steps), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return document.error("BAD_EXPRESSION", path, f"there is no step {name!r}.{hint}")
