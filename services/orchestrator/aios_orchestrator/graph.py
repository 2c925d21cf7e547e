"""The graph of a workflow's steps: what its document says is checked, and what running it asks is looked up once.

Each scope (the workflow itself, and the body of each map and repeat) has a graph of its own. An expression in a body
sees the steps before it there, and what the step that has the body sees. A sub-workflow was checked by itself."""

import difflib
import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import BODY_ROOTS, Mapped, references
from aios_orchestrator.workflow import Step, Workflow

_KNOWN = {"map": ("item", "index"), "repeat": ("index", "previous")}


def connect(document: Document, workflow: Workflow) -> Workflow:
    """The workflow with its graph. Raises CYCLE, BAD_EXPRESSION or BAD_RESOURCE with the place."""
    scopes: dict[str, list[Step]] = {}
    for step in workflow.steps.values():
        scopes.setdefault(step.scope, []).append(step)
    place = {name: at for at, name in enumerate(workflow.steps)}
    before: dict[str, int] = {}
    for scope, steps in scopes.items():
        before |= _before(document, scope, steps, place)
    connected = _connected(workflow, before, place)
    _Checks(document, connected).all()
    return connected


def _connected(workflow: Workflow, before: Mapping[str, int], place: Mapping[str, int]) -> Workflow:
    """With what the graph says, ready to be looked up."""
    dependents: dict[str, list[str]] = {}
    waiting: list[tuple[str, str]] = []
    for step in workflow.steps.values():
        for need in step.needs:
            dependents.setdefault(step.scope + need, []).append(step.name)
        for name in step.gate.approves if step.gate else ():
            waiting.append((step.name, step.scope + name))
    for gate, name in waiting:
        if name not in dependents.setdefault(gate, []):
            dependents[gate].append(name)
    return replace(
        workflow,
        before=before,
        ordered=tuple(workflow.steps.values()),
        place=place,
        roots=tuple(step.name for step in workflow.steps.values() if not step.needs and not step.scope),
        dependents={name: tuple(steps) for name, steps in dependents.items()},
    )


def _before(
    document: Document, scope: str, steps: Iterable[Step], place: Mapping[str, int]
) -> dict[str, int]:
    """What comes before each step of one scope, as `Workflow.before`."""
    own = {step.local: step for step in steps}
    for step in own.values():
        for need in step.needs:
            if need not in own:
                raise _no_step(document, f"{step.place}.needs", need, own)
    try:
        order = list(graphlib.TopologicalSorter({s.local: s.needs for s in own.values()}).static_order())
    except graphlib.CycleError as error:
        circle = " → ".join(map(str, error.args[1]))
        first = own[str(error.args[1][0])].place
        raise document.error(
            "CYCLE", first.rpartition("[")[0], f"steps need each other in a circle: {circle}."
        ) from None
    before: dict[str, int] = {}
    for name in order:
        done = 0
        for need in own[name].needs:
            done |= before[scope + need] | 1 << place[scope + need]
        before[scope + name] = done
    return before


class _Checks:
    """What expressions refer to is there, and comes before."""

    def __init__(self, document: Document, workflow: Workflow) -> None:
        self.document = document
        self.workflow = workflow

    def all(self) -> None:
        for step in self.workflow.steps.values():
            if step.place:  # others were checked with the document that they are from
                self._step(step)
        for name in _steps_read(references(self.workflow.outputs)):
            self._find(name, "", "spec.outputs")
        self._known(self.workflow.outputs, "spec.outputs", "")

    def _step(self, step: Step) -> None:
        trees: list[Mapped] = [
            tree for tree in (step.input, step.output, step.when, step.until) if tree is not None
        ]
        trees += [condition for _, condition in step.cases]
        if step.gate:
            trees += [step.gate.title, step.gate.why, step.gate.risk, *self._approved(step)]
        if step.ask:
            trees += [step.ask.title, step.ask.questions]
        if step.body is not None and step.body.over is not None:
            trees.append(step.body.over)
        for tree in trees:
            self._reads(tree, step.place, step)
        if step.body is not None and step.body.child is None:
            inside = f"{step.name}[]."
            ends: list[Mapped] = [tree for tree in (step.body.result, step.body.until) if tree is not None]
            for tree in ends:
                self._ends_round(tree, f"{step.place}.{step.kind}", inside)

    def _approved(self, step: Step) -> Iterable[Mapped]:
        assert step.gate is not None
        place = f"{step.place}.gate.approves"
        for name in step.gate.approves:
            approved = self.workflow.steps.get(step.scope + name)
            if approved is None:
                raise _no_step(self.document, place, name, self._locals(step.scope))
            if approved.body is not None:
                raise self.document.error(
                    "BAD_RESOURCE",
                    place,
                    f"{name!r} has steps of its own; put a gate before those that change something, inside of it.",
                )
            if not self._comes_before(step.name, approved.name):
                raise self.document.error(
                    "BAD_RESOURCE", place, f"{name!r} does not come after this gate (it must need it)."
                )
            if approved.input is not None:
                yield approved.input

    def _reads(self, tree: Mapped, place: str, step: Step) -> None:
        """A step reads what came before it, in its own scope or before the step whose body it is in."""
        self._known(tree, place, step.scope)
        for name in _steps_read(references(tree)):
            self._read(self._find(name, step.scope, place), place, step)

    def _read(self, seen: Step, place: str, step: Step) -> None:
        after = step
        while after.scope != seen.scope:
            after = self._owner(after.scope)
        if not self._comes_before(seen.name, after.name):
            raise self.document.error(
                "BAD_EXPRESSION",
                place,
                f"step {step.local!r} reads steps.{seen.local}, which does not come before it; add it to needs.",
            )

    def _ends_round(self, tree: Mapped, place: str, scope: str) -> None:
        """What is computed when a round is over sees all of its steps."""
        self._known(tree, place, scope)
        for name in _steps_read(references(tree)):
            seen = self._find(name, scope, place)
            if seen.scope != scope:
                self._read(seen, place, self._owner(scope))

    def _known(self, tree: Mapped, place: str, scope: str) -> None:
        known: set[str] = set()
        at = scope
        while at:
            owner = self._owner(at)
            known.update(_KNOWN[owner.kind])
            at = owner.scope
        for root in references(tree):
            if root in BODY_ROOTS and root not in known:
                where = "a repeat" if root == "previous" else "a map"
                raise self.document.error(
                    "BAD_EXPRESSION", place, f"there is no {root!r} here; only the steps of {where} know it."
                )

    def _find(self, name: str, scope: str, place: str) -> Step:
        """The step of that name that an expression in a scope sees: the names of all scopes around it differ."""
        at = scope
        while True:
            found = self.workflow.steps.get(at + name)
            if found is not None and found.scope == at:
                return found
            if not at:
                raise _no_step(self.document, place, name, self._seen(scope))
            at = self._owner(at).scope

    def _owner(self, scope: str) -> Step:
        return self.workflow.steps[scope.removesuffix(".").removesuffix("[]")]

    def _comes_before(self, first: str, then: str) -> bool:
        return bool(self.workflow.before[then] >> self.workflow.place[first] & 1)

    def _locals(self, scope: str) -> list[str]:
        return [step.local for step in self.workflow.steps.values() if step.scope == scope]

    def _seen(self, scope: str) -> list[str]:
        names = self._locals(scope)
        while scope:
            scope = self._owner(scope).scope
            names += self._locals(scope)
        return names


def _steps_read(roots: Iterable[str]) -> Iterable[str]:
    for root in roots:
        if root.startswith("steps."):
            yield root.removeprefix("steps.")


def _no_step(document: Document, path: str, name: str, steps: Iterable[str]) -> TerminalError:
    near = difflib.get_close_matches(name, list(steps), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return document.error("BAD_EXPRESSION", path, f"there is no step {name!r}.{hint}")
