"""Which steps an undo of chosen steps takes back: they, and what came of them."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from aios_core.errors import TerminalError
from aios_core.step_names import home_of, is_inside
from aios_orchestrator.core.trees import trees
from aios_orchestrator.mapping import references
from aios_orchestrator.model import Run
from aios_orchestrator.workflow import Step, Workflow, path_of, scope_of


def named(run: Run, workflow: Workflow, chosen: Iterable[str]) -> list[str]:
    """The steps of a run that a person means, each by its name in the run (`each[3].write`) or its path in the document
    (`each[].write`, which is that of every round). Raises INVALID_ARGUMENT with the nearest name."""
    found: dict[str, None] = {}
    for name in chosen:
        fits = [name] if name in run.steps else [own for own in run.steps if path_of(own) == name]
        if not fits:
            raise _unknown(run, workflow, name)
        found.update(dict.fromkeys(fits))
    return list(found)


def _unknown(run: Run, workflow: Workflow, name: str) -> TerminalError:
    if name in workflow.steps:
        return TerminalError("INVALID_ARGUMENT", f"steps: {name!r} did not begin in this run.", field="steps")
    near = difflib.get_close_matches(name, [*workflow.steps, *run.steps], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return TerminalError(
        "INVALID_ARGUMENT", f"steps: the run has no step {name[:80]!r}.{hint}", field="steps"
    )


def with_what_came_of_it(run: Run, workflow: Workflow, names: Iterable[str]) -> set[str]:
    """These steps of a run, their own steps, and whatever used one of them: in its input, in a condition, by a gate, or
    because the document says that it needs it. That a step only comes later in the document is no use of it."""
    users = users_of(workflow)
    places: dict[str, list[str]] = defaultdict(list)
    for name in run.steps:
        places[path_of(name)].append(name)
    taken: set[str] = set()
    followed: set[str] = set()
    todo = [(name, True) for name in names]
    while todo:
        name, whole = todo.pop()
        if whole and name not in taken:
            taken.add(name)
            state = run.steps.get(name)
            if state is not None and state.body is not None:
                todo += [(inner, True) for inner in run.steps if is_inside(inner, name)]
        if name in followed:
            continue
        followed.add(name)
        scope = scope_of(name)
        for path in users[path_of(name)]:
            todo += [(user, True) for user in places[path] if user.startswith(scope)]
        todo += _around(run, workflow, name)
    return taken


def _around(run: Run, workflow: Workflow, name: str) -> list[tuple[str, bool]]:
    """What a step is a part of, whose result came of it too; and the later turns of a repeat."""
    owner, index = home_of(name)
    if not owner:
        return []
    later = []
    if workflow.at(owner).kind == "repeat":
        inner = ((other, home_of(other)) for other in run.steps)
        later = [(other, True) for other, home in inner if home[0] == owner and home[1] > index]
    return [(owner, False), *later]


def users_of(workflow: Workflow) -> Mapping[str, list[str]]:
    """By the path of a step, the paths of those that use it: of its own scope, or of bodies there. That a step only
    comes later in the document is no use."""
    users: dict[str, list[str]] = defaultdict(list)
    for step in workflow.ordered:
        needs = () if step.by_order else step.needs
        gate = workflow.approved_by.get(step.name)
        used = {step.scope + need for need in needs} | ({gate} if gate else set())
        used |= {_seen(workflow, step, name) for name in _read(step)}
        for path in sorted(used):
            users[path].append(step.name)
    return users


def _read(step: Step) -> set[str]:
    waits = (step.hears.match, step.hears.key) if step.hears is not None else ()
    read = [*trees(step), *(tree for tree in waits if tree is not None)]
    roots = (root for tree in read for root in references(tree))
    return {root.removeprefix("steps.") for root in roots if root.startswith("steps.")}


def _seen(workflow: Workflow, step: Step, name: str) -> str:
    """The path of the step that an expression of another one calls by its own name: the nearest around it. A body's
    result is put together from the body's own steps."""
    if step.body is not None and step.inside + name in workflow.steps:
        return step.inside + name
    scope = step.scope
    while scope and scope + name not in workflow.steps:
        scope = scope_of(scope.rstrip(".").removesuffix("[]"))
    return scope + name
