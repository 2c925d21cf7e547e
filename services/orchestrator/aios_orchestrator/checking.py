"""Everything that can be known of a document before a run, all at once. This is asked of what is to be applied;
what was applied keeps running under later versions of AIOS, whatever they have learned to refuse."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_core.money import format_usd
from aios_core.values import plain
from aios_orchestrator.budget import Budget, compile_budget
from aios_orchestrator.cel_check import Say, nearest
from aios_orchestrator.cel_types import ANY, Type, of, of_constant, of_schema
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import Document
from aios_orchestrator.graph import ends_of, trees_of
from aios_orchestrator.language import checked
from aios_orchestrator.mapping import (
    Constant,
    Expression,
    Items,
    Mapped,
    Path,
    Record,
    leaves_of,
    references,
    time_of,
)
from aios_orchestrator.modes import wants_anew, word_of
from aios_orchestrator.problems import Problems
from aios_orchestrator.resolve import Intent, compile_intent
from aios_orchestrator.step_types import EVENT, StepTypes
from aios_orchestrator.timing import never_met
from aios_orchestrator.uses import bind, used, without
from aios_orchestrator.workflow import DRAFT, NEEDS_A_PERSON, STAYS_CLOSED, Step, Workflow

_CHANGES: Final = {
    "irreversible": "can't be taken back; put a gate that approves it before it, and see that it is not skipped.",
    "payment": "spends money, which a person has to approve; put a gate that approves it before it.",
    "legal": "binds the company, which a person has to approve; put a gate that approves it before it.",
}


def check_workflow(document: Document, found: Mapping[str, Workflow], problems: Problems) -> Workflow | None:
    """The workflow of a document, and all that is wrong with it in `problems`; None where it is not even readable.

    `found` are the workflows that it uses, by what it calls them; it names their versions afterwards. Of what was not
    found is told elsewhere."""
    children = bind(document, found)
    try:
        readable = checked(document, problems)
        without(readable, [ref for _, ref in used(readable) if ref not in children])
        workflow = compile_workflow(readable, children, problems)
    except TerminalError as error:
        problems.add(error)
        return None
    _Workflow(document, workflow, problems).all()
    return workflow


def check_budget(document: Document, problems: Problems) -> Budget | None:
    """Check a budget as a whole; None where it can't be compiled."""
    found: list[Budget] = []
    with problems.noting():
        found.append(compile_budget(checked(document, problems)))
    return found[0] if found else None


def check_intent(document: Document, problems: Problems) -> Intent | None:
    """The intent of a document, and all that is wrong with it in `problems`."""
    try:
        intent = compile_intent(checked(document, problems))
    except TerminalError as error:
        problems.add(error)
        return None
    parameters = of_schema(intent.parameters.source, closed=True)
    for at, rule in enumerate(intent.rules):
        place = f"spec.rules[{at}]"
        for tree, path, condition in (
            (rule.when, f"{place}.when", True),
            (rule.parameters, f"{place}.parameters", False),
        ):
            if tree is not None:
                _event(document, problems, tree, path, condition)
        _fits(
            document, problems, rule.parameters, f"{place}.parameters", intent.parameters.source, parameters
        )
    return intent


def check_meant(document: Document, intent: Intent, workflow: Workflow, problems: Problems) -> None:
    """An intent's parameters are what its workflow takes."""
    known = workflow.inputs.get("properties", {})
    names = intent.parameters.source.get("properties", {})
    for name in names:
        if name not in known:
            hint = nearest(name, known, "It takes: ")
            message = f"the workflow {workflow.name} has no input {name!r}.{hint}"
            problems.add(document.error("BAD_RESOURCE", f"spec.parameters.properties.{name}", message))
    for name in workflow.inputs.get("required", []):
        if name not in names and "default" not in known.get(name, {}):
            message = f"the workflow {workflow.name} needs the input {name!r}, which is no parameter."
            problems.add(document.error("BAD_RESOURCE", "spec.parameters", message))
    if intent.concurrency is not None and intent.concurrency.key is not None:
        _Workflow(document, workflow, problems).at_start(
            intent.concurrency.key, "spec.concurrency.key", "key"
        )


def _event(document: Document, problems: Problems, tree: Mapped, path: str, condition: bool) -> None:
    types = _EventTypes()
    for leaf, place in leaves_of(tree, path):
        for root in references(leaf):
            if root != "event":
                shown = root.removeprefix("steps.") if root.startswith("steps.") else root
                message = f"there is no {shown!r} here; the rules of an intent know the event only."
                problems.add(document.error("BAD_EXPRESSION", place, message))
        found = types.of_tree(leaf, "", _teller(document, problems, place))
        if condition:
            _bool(document, problems, found, leaf, place)


class _EventTypes(StepTypes):
    """What the rules of an intent see."""

    def __init__(self) -> None:
        self._known, self._children = {}, {}

    def look(self, root: str, scope: str) -> Type | None:
        return EVENT if root == "event" else None


def _teller(document: Document, problems: Problems, place: str) -> Say:
    """Says what is wrong with an expression at a place."""

    def say(words: str) -> None:
        problems.add(document.error("BAD_EXPRESSION", place, words))

    return say


def _bool(document: Document, problems: Problems, found: Type, tree: Mapped, place: str) -> None:
    if found.never("bool"):
        text = getattr(tree, "text", "it")
        problems.add(
            document.error("BAD_EXPRESSION", place, f"{text} is {found}; a condition is true or false.")
        )


def _fits(
    document: Document,
    problems: Problems,
    tree: Mapped,
    path: str,
    schema: Mapping[str, Any],
    wanted: Type,
    types: tuple[StepTypes, str] | None = None,
) -> None:
    """A map of expressions gives what a schema asks for: no other names, none missing, of possible kinds."""
    if not isinstance(tree, Record):
        return
    given = dict(tree.entries)
    for name, item in given.items():
        if name not in wanted.fields:
            hint = nearest(name, wanted.fields, "It takes: ")
            problems.add(document.error("BAD_RESOURCE", f"{path}.{name}", f"there is no such input.{hint}"))
            continue
        found = (types[0] if types else _EventTypes()).of_tree(item, types[1] if types else "")
        if found.never(*wanted.fields[name].kinds):
            message = f"is {found}, and must be {wanted.fields[name]}."
            problems.add(document.error("BAD_RESOURCE", f"{path}.{name}", message))
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in given and "default" not in properties.get(name, {}):
            problems.add(
                document.error("BAD_RESOURCE", path, f"the input {name!r} is missing, which has to be given.")
            )


class _Workflow:
    """What is known of a compiled workflow."""

    def __init__(self, document: Document, workflow: Workflow, problems: Problems) -> None:
        self.document = document
        self.workflow = workflow
        self.problems = problems
        self.types = StepTypes(workflow)

    def all(self) -> None:
        if not self.workflow.ordered:
            return  # steps in a circle, which is told
        for step in self.workflow.ordered:
            if step.place:
                self._step(step)
        self._tree(self.workflow.outputs, "spec.outputs", "")
        bounds, concurrency = self.workflow.bounds, self.workflow.concurrency
        for tree, path, what in (
            (concurrency.key if concurrency is not None else None, "spec.concurrency.key", "key"),
            (self.workflow.customer, "spec.customer", "customer"),
            (bounds.deadline if bounds is not None else None, "spec.deadline", "deadline"),
        ):
            if tree is not None:
                self.at_start(tree, path, what)

    def at_start(self, tree: Mapped, path: str, what: str) -> None:
        """What is computed when a run starts, from its inputs."""
        for leaf, place in leaves_of(tree, path):
            if any(root != "inputs" for root in references(leaf)):
                words = f"{what} is computed when it starts, from inputs alone."
                self._say("BAD_EXPRESSION", place, words)
        found = self._tree(tree, path, "")
        if path == "spec.deadline" and found.never("text"):
            self._say("BAD_EXPRESSION", path, f"this is {found}; a deadline is a time, which is text.")

    def _say(self, code: str, path: str, message: str) -> None:
        self.problems.add(self.document.error(code, path, message))

    def _step(self, step: Step) -> None:
        found = dict(self._trees(step))
        for name, wanted, words in (
            ("map.over", "list", "a map goes over a list"),
            ("wait.until", "text", "it waits until a time, which is text"),
            ("deadline", "text", "a deadline is a time, which is text"),
            ("ask.questions", "list", "questions are a list"),
            ("compensate.input", "map", "an action's input is a map"),
            *((("input", "map", "a workflow's input is a map"),) if step.kind == "workflow" else ()),
        ):
            type_ = found.get(f"{step.place}.{name}")
            if type_ is not None and type_.never(wanted):
                self._say("BAD_EXPRESSION", f"{step.place}.{name}", f"this is {type_}; {words}.")
        sure = found.get(f"{step.place}.gate.confidence.of")
        if sure is not None and sure.never("int", "double", "text"):
            place = f"{step.place}.gate.confidence.of"
            self._say("BAD_EXPRESSION", place, f"this is {sure}; a confidence is a number from 0 to 1.")
        self._never(step)
        self._effects(step)
        if step.kind == "workflow" and step.own.child is not None and step.input is not None:
            child = step.own.child
            wanted_inputs = of_schema(child.inputs, closed=True)
            tree = step.input if isinstance(step.input, Record) else None
            if tree is None and isinstance(step.input, Constant):
                tree = Record(())
            if tree is not None:
                place = f"{step.place}.input"
                _fits(
                    self.document,
                    self.problems,
                    tree,
                    place,
                    child.inputs,
                    wanted_inputs,
                    (self.types, step.scope),
                )
        hold = self.workflow.steps[f"{step.name}.{DRAFT}"].hold if step.kind == "plan" else step.hold
        if hold > self.workflow.cap:
            cap = format_usd(self.workflow.cap)
            self._say(
                "BAD_RESOURCE",
                f"{step.place}.budget",
                f"is {format_usd(hold)}, more than the cap of the run, {cap}.",
            )
        if step.cache is not None and wants_anew(step):
            words = f"does not go with mode {word_of(step.mode)}, in which each answer is to be another one."
            self._say("BAD_RESOURCE", f"{step.place}.cache", words)
        for field, words in never_met(step):
            self._say("BAD_RESOURCE", f"{step.place}.{field}", words)
        if step.retry.backoff_ms > step.retry.cap_ms:
            self._say(
                "BAD_RESOURCE",
                f"{step.place}.retry.backoff",
                "is longer than max_backoff (1m without it), the longest wait.",
            )

    def _trees(self, step: Step) -> Iterator[tuple[str, Type]]:
        """The type of everything that a step computes, by its place."""
        for tree, path in trees_of(step):
            found = self._tree(tree, path, step.scope)
            yield path, found
            if path.endswith((".when", ".wait.match")) or ".branch.cases." in path:
                _bool(self.document, self.problems, found, tree, path)
        if step.compensate is not None:
            place = f"{step.place}.compensate.input"
            yield place, self._tree(step.compensate.input, place, step.scope)
        for tree, path in ends_of(step):
            found = self._tree(tree, path, f"{step.name}[].")
            if path.endswith(".until"):
                _bool(self.document, self.problems, found, tree, path)

    def _tree(self, tree: Mapped, path: str, scope: str) -> Type:
        types = self.types.with_event() if path.endswith(".wait.match") else self.types
        found = ANY
        for leaf, place in leaves_of(tree, path):
            if isinstance(leaf, Constant):
                found = of_constant(plain(leaf.value))
                continue
            if "event" in references(leaf) and types is self.types:
                message = "there is no 'event' here; the rules of an intent know it, and give it as inputs."
                self._say("BAD_EXPRESSION", place, message)
            found = types.of_tree(leaf, scope, _teller(self.document, self.problems, place))
        return of("map") if isinstance(tree, Record) else of("list") if isinstance(tree, Items) else found

    def _never(self, step: Step) -> None:
        """Steps and cases that can't be reached."""
        place = step.place
        if step.when is not None and _constant(step.when) is False:
            self._say("BAD_RESOURCE", f"{place}.when", f"never holds, so {step.local!r} is never reached.")
        for at, (name, condition) in enumerate(step.cases):
            held = _constant(condition)
            if held is False:
                self._say(
                    "BAD_RESOURCE",
                    f"{place}.branch.cases.{name}",
                    f"never holds, so the case {name!r} is never reached.",
                )
            elif held is True and at + 1 < len(step.cases):
                later = step.cases[at + 1][0]
                self._say(
                    "BAD_RESOURCE",
                    f"{place}.branch.cases.{later}",
                    f"is never reached: {name!r} before it always holds.",
                )
        if (
            step.kind == "repeat"
            and step.own.until is not None
            and _constant(step.own.until) is False
            and not step.own.lenient
        ):
            self._say(
                "BAD_RESOURCE",
                f"{place}.repeat.until",
                "never holds, so it always fails at its limit; at_limit: go-on goes on.",
            )
        if step.until is not None and isinstance(step.until, Constant):
            try:
                time_of(plain(step.until.value))
            except ValueError as error:
                self._say("BAD_RESOURCE", f"{place}.wait.until", f"{error}.")

    def _effects(self, step: Step) -> None:
        """A person decides on what can't be taken back, and each change has one gate."""
        gate = self.workflow.approved_by.get(step.name)
        if step.grade in _CHANGES:
            skipped = gate is not None and self.workflow.steps[gate].when
            if gate is None:
                self._say(
                    "APPROVAL_REQUIRED", f"{step.place}.effect", f"{step.local!r} {_CHANGES[step.grade]}"
                )
            elif skipped and (step.when is None or skipped.text != step.when.text):
                local = self.workflow.steps[gate].local
                message = (
                    f"its gate {local!r} may be skipped (when {skipped.text}); give both the same `when`."
                )
                self._say("APPROVAL_REQUIRED", f"{step.place}.effect", message)
        self._gate(step)
        for at, name in enumerate(step.gate.approves if step.gate else ()):
            other = self.workflow.approved_by.get(step.scope + name)
            if other is not None and other != step.name:
                place, gate = f"{step.place}.gate.approves[{at}]", self.workflow.steps[other].local
                self._say(
                    "BAD_RESOURCE", place, f"{name!r} has the gate {gate!r} already; a step has one gate."
                )

    def _gate(self, step: Step) -> None:
        """What a gate lets pass without a person can be taken back, and is neither a payment nor a legal act."""
        gate = step.gate
        for name in gate.approves if gate is not None else ():
            approved = self.workflow.steps.get(step.scope + name)
            if gate is None or approved is None:
                continue
            if gate.fails_open and approved.grade in STAYS_CLOSED:
                message = f"{name!r} is {approved.grade}, so nobody's silence may approve it; leave out `fails: open`."
                self._say("APPROVAL_REQUIRED", f"{step.place}.gate.fails", message)
            if gate.confidence is not None and approved.grade in NEEDS_A_PERSON:
                message = (
                    f"{name!r} is {approved.grade}, which always needs a person; leave out `confidence`."
                )
                self._say("APPROVAL_REQUIRED", f"{step.place}.gate.confidence", message)


def _constant(tree: Path | Expression) -> Any:
    """What a condition always is; None where it depends on something."""
    if isinstance(tree, Path) or tree.roots:
        return None
    try:
        return plain(tree.evaluate(lambda root: None))
    except TerminalError:
        return None
