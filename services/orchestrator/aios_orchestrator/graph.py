"""The graph of a workflow's steps: what its document says is checked, and what running it asks is looked up once.

Each scope (the workflow itself, and the body of each map and repeat) has a graph of its own. An expression in a body
sees the steps before it there, and what the step that has the body sees. A sub-workflow was checked by itself."""

import difflib
import graphlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import BODY_ROOTS, Mapped, leaves_of, references
from aios_orchestrator.problems import Problems
from aios_orchestrator.workflow import Step, Workflow

_KNOWN = {"map": ("item", "index"), "repeat": ("index", "previous")}
_NOWHERE = Document("", {})


def connect(document: Document, workflow: Workflow, problems: Problems | None = None) -> Workflow:
    """The workflow with its graph. Raises CYCLE, BAD_EXPRESSION or BAD_RESOURCE with the place, or keeps all that is
    wrong in `problems`."""
    try:
        return _connect(document, workflow, problems)
    except TerminalError as error:
        if problems is None:
            raise
        problems.add(error)
        return workflow


def _connect(document: Document, workflow: Workflow, problems: Problems | None) -> Workflow:
    connected = with_graph(workflow, document, problems)
    _Checks(document, connected, problems).all()
    return connected


def with_graph(
    workflow: Workflow, document: Document = _NOWHERE, problems: Problems | None = None
) -> Workflow:
    """The workflow with its graph, without a look at what its expressions refer to. Raises as `connect` does."""
    scopes: dict[str, list[Step]] = {}
    for step in workflow.steps.values():
        scopes.setdefault(step.scope, []).append(step)
    place = {name: at for at, name in enumerate(workflow.steps)}
    before: dict[str, int] = {}
    for scope, steps in scopes.items():
        before |= _before(document, scope, steps, place, problems)
    return _connected(workflow, before, place)


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
    document: Document,
    scope: str,
    steps: Iterable[Step],
    place: Mapping[str, int],
    problems: Problems | None,
) -> dict[str, int]:
    """What comes before each step of one scope, as `Workflow.before`."""
    own = {step.local: step for step in steps}
    for step in own.values():
        for need in step.needs:
            if need not in own:
                error = _no_step(document, f"{step.place}.needs", need, own)
                if problems is None:
                    raise error
                problems.add(error)
    needs = {name: [need for need in step.needs if need in own] for name, step in own.items()}
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        circle = " → ".join(map(str, error.args[1]))
        first = own[str(error.args[1][0])].place
        raise document.error(
            "CYCLE", f"{first}.needs", f"steps need each other in a circle: {circle}."
        ) from None
    before: dict[str, int] = {}
    for name in order:
        done = 0
        for need in needs[name]:
            done |= before[scope + need] | 1 << place[scope + need]
        before[scope + name] = done
    return before


class _Checks:
    """What expressions refer to is there, and comes before."""

    def __init__(self, document: Document, workflow: Workflow, problems: Problems | None) -> None:
        self.document = document
        self.workflow = workflow
        self.problems = problems

    def all(self) -> None:
        for step in self.workflow.steps.values():
            if step.place:  # others were checked with the document that they are from
                self._step(step)
        for leaf, place in leaves_of(self.workflow.outputs, "spec.outputs"):
            with self._noting():
                for name in _steps_read(references(leaf)):
                    self._find(name, "", place)
                self._known(leaf, place, "")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        if self.problems is None:
            yield
        else:
            with self.problems.noting():
                yield

    def _step(self, step: Step) -> None:
        for tree, path in trees_of(step):
            for leaf, place in leaves_of(tree, path):
                with self._noting():
                    self._reads(leaf, place, step)
        for at, name in enumerate(step.gate.approves if step.gate else ()):
            with self._noting():
                for tree in self._approved(step, name, f"{step.place}.gate.approves[{at}]"):
                    self._reads(tree, step.place, step)
        if step.compensate is not None:
            for leaf, place in leaves_of(step.compensate.input, f"{step.place}.compensate.input"):
                with self._noting():
                    self._reads(leaf, place, step, after=True)
        for tree, path in ends_of(step):
            for leaf, place in leaves_of(tree, path):
                with self._noting():
                    self._ends_round(leaf, place, f"{step.name}[].")

    def _approved(self, step: Step, name: str, place: str) -> Iterable[Mapped]:
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

    def _reads(self, tree: Mapped, place: str, step: Step, *, after: bool = False) -> None:
        """A step reads what came before it, in its own scope or before the step whose body it is in; `after` it was
        done also what it gave."""
        self._known(tree, place, step.scope)
        for name in _steps_read(references(tree)):
            seen = self._find(name, step.scope, place)
            if not (after and seen is step):
                self._read(seen, place, step)

    def _read(self, seen: Step, place: str, step: Step) -> None:
        after = step
        while after.scope != seen.scope:
            after = self._owner(after.scope)
        if seen is step:
            raise self.document.error(
                "BAD_EXPRESSION",
                place,
                f"step {step.local!r} reads what it gives itself, which is not there yet.",
            )
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


def trees_of(step: Step) -> Iterator[tuple[Mapped, str]]:
    """Everything that is computed before a step begins, with its place in the document."""
    at = step.place
    parts: list[tuple[Mapped | None, str]] = [
        (step.when, "when"), (step.input, "plan" if step.kind == "plan" else "input"),
        (step.output, "transform"), (step.until, "wait.until"),
        (step.bounds.deadline if step.bounds is not None else None, "deadline"),
        (step.cache.key if step.cache is not None else None, "cache.key"),
        *((condition, f"branch.cases.{name}") for name, condition in step.cases),
    ]  # fmt: skip
    if step.hears is not None:
        parts.append((step.hears.match, "wait.match"))
    if step.gate:
        parts += [(step.gate.title, "gate.title"), (step.gate.why, "gate.why"), (step.gate.risk, "gate.risk")]
        if step.gate.confidence is not None:
            parts.append((step.gate.confidence.of, "gate.confidence.of"))
    if step.ask:
        parts += [(step.ask.title, "ask.title"), (step.ask.questions, "ask.questions")]
    if step.body is not None:
        parts.append((step.body.over, "map.over"))
    yield from ((tree, f"{at}.{name}") for tree, name in parts if tree is not None)


def ends_of(step: Step) -> Iterator[tuple[Mapped, str]]:
    """Everything that is computed when a round of a step is over, with its place in the document."""
    if step.body is not None and step.body.child is None:
        at = f"{step.place}.{step.kind}"
        yield step.body.result, f"{at}.result"
        if step.body.until is not None:
            yield step.body.until, f"{at}.until"


def _steps_read(roots: Iterable[str]) -> Iterable[str]:
    for root in roots:
        if root.startswith("steps."):
            yield root.removeprefix("steps.")


def _no_step(document: Document, path: str, name: str, steps: Iterable[str]) -> TerminalError:
    near = difflib.get_close_matches(name, list(steps), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return document.error("BAD_EXPRESSION", path, f"there is no step {name!r}.{hint}")
