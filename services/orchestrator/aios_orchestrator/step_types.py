"""What each step of a workflow gives, and what the expressions of each see, so far as it is known before a run."""

from collections.abc import Mapping
from copy import copy
from typing import Final

from aios_core.values import plain
from aios_orchestrator import cel_syntax
from aios_orchestrator.cel_check import Checker, Say, field_of
from aios_orchestrator.cel_types import (
    ANY,
    BOOL,
    INT,
    NULL,
    TEXT,
    Type,
    either,
    kept,
    list_of,
    of_constant,
    of_schema,
    record,
)
from aios_orchestrator.mapping import Constant, Expression, Items, Mapped, Path, Record, Text
from aios_orchestrator.workflow import Step, Workflow

_RUN: Final = record({"id": TEXT, "workflow": TEXT, "trigger": TEXT})
EVENT: Final = record({"type": TEXT, "source": TEXT, "id": TEXT, "subject": TEXT, "data": ANY})
_APPROVED: Final = record({"approved": BOOL, "by": TEXT, "note": TEXT})
_QUESTION: Final = record({"id": TEXT, "text": TEXT, "answer": ANY}, closed=False)
_ERRORS: Final = record({"index": INT, "step": TEXT, "code": TEXT, "message": TEXT})
_VERSIONS: Final = record({"versions": list_of(ANY)})
_OWN: Final = {"map": ("item", "index"), "repeat": ("index", "previous")}


def _quiet(words: str) -> None:
    pass


class StepTypes:
    """The types of one workflow; what its steps give is found once."""

    def __init__(self, workflow: Workflow, children: "dict[str, StepTypes] | None" = None) -> None:
        self._workflow = workflow
        self._children = children if children is not None else {}
        self._known: dict[str, Type] = {}
        self._inputs = of_schema(workflow.inputs, closed=True)
        self._seen: Mapping[str, Type] = {}

    def with_event(self) -> "StepTypes":
        """What a condition on an event sees: the event besides."""
        other = copy(self)
        other._seen = {"event": EVENT}
        return other

    def of_tree(self, tree: Mapped, scope: str, say: Say = _quiet) -> Type:
        """The type of what a tree gives in a scope, as later expressions see it."""
        match tree:
            case Constant():
                return of_constant(plain(tree.value))
            case Path():
                return self._path(tree, scope, say)
            case Expression():
                try:
                    node = cel_syntax.parse(tree.text)
                except ValueError:
                    return ANY
                return kept(Checker(lambda root: self.look(root, scope), say).type_of(node))
            case Record():
                return record({key: self.of_tree(item, scope, say) for key, item in tree.entries})
            case Items():
                items = [self.of_tree(item, scope, say) for item in tree.items]
                return list_of(either(items) if items else ANY)
            case Text():
                for part in tree.parts:
                    if not isinstance(part, str):
                        self.of_tree(part, scope, say)
                return TEXT

    def _path(self, path: Path, scope: str, say: Say) -> Type:
        found, text = self.look(path.root, scope), path.root
        if path.root == "steps":
            say("steps needs a step's name, such as steps.read.")
        for part in path.parts:
            if found is None:
                return ANY
            found = field_of(found, part, text, say, lenient=True)
            text = f"{text}.{part}"
        return found or ANY

    def outputs(self) -> Type:
        """What the whole workflow gives."""
        return self.of_tree(self._workflow.outputs, "")

    def look(self, root: str, scope: str) -> Type | None:
        """The type of what expressions in a scope see under a root; None where there is no such thing."""
        if root in self._seen:
            return self._seen[root]
        if root == "inputs":
            return self._inputs
        if root == "run":
            return _RUN
        at = scope
        while True:
            if root.startswith("steps."):
                step = self._step(at, root.removeprefix("steps."))
                if step is not None:
                    return self.output(step)
            if not at:
                return None
            owner = self._workflow.steps[at.removesuffix(".").removesuffix("[]")]
            if root in _OWN.get(owner.kind, ()):
                return self._own(owner, root)
            at = owner.scope

    def _step(self, scope: str, name: str) -> Step | None:
        """A CEL expression may say `a_b` of a step `a-b`."""
        for each in (name, name.replace("_", "-")):
            step = self._workflow.steps.get(scope + each)
            if step is not None and step.scope == scope:
                return step
        return None

    def _own(self, owner: Step, root: str) -> Type:
        if root == "index":
            return INT
        if root == "item":
            assert owner.own.over is not None
            over = self.of_tree(owner.own.over, owner.scope)
            return (over.item or ANY) if over.only("list") else ANY
        key = f"{owner.name} previous"
        if key not in self._known:
            self._known[key] = ANY  # what a turn gives may come from the one before
            self._known[key] = self._result(owner).or_null()
        return self._known[key]

    def output(self, step: Step) -> Type:
        """What a step gives; null too where it may be skipped."""
        if step.name not in self._known:
            self._known[step.name] = ANY  # where steps need each other in a circle
            found = self._given(step)
            self._known[step.name] = found.or_null() if step.when is not None else found
        return self._known[step.name]

    def _given(self, step: Step) -> Type:
        match step.kind:
            case "transform" if step.output is not None:
                return self.of_tree(step.output, step.scope)
            case "branch":
                names = [name for name, _ in step.cases] + [step.otherwise]
                return record({"case": of_texts(names)})
            case "wait" if step.hears is not None:
                return record({"event": EVENT.or_null() if step.hears.lenient else EVENT, "timed_out": BOOL})
            case "wait":
                return NULL
            case "gate":
                return _APPROVED.or_null()
            case "ask":
                return record({"answers": ANY, "answered": list_of(_QUESTION)})
            case "map":
                results = list_of(self._result(step).or_null() if step.own.collect else self._result(step))
                return record({"results": results, "failed": INT, "errors": list_of(_ERRORS)})
            case "repeat":
                return record({"result": self._result(step), "turns": INT, "done": BOOL})
            case "workflow":
                return self._child(step).outputs()
            case "plan":
                return of_schema(step.gives.source) if step.gives is not None else ANY
            case "memory":
                return _VERSIONS if step.effect else self._read(step)
        # A step that changes something may have been confirmed by a person, who gives something else.
        return of_schema(step.gives.source) if step.gives is not None and not step.effect else ANY

    def _read(self, step: Step) -> Type:
        """A memory.read gives what its reads are called."""
        if step.gives is not None:
            return of_schema(step.gives.source)
        reads = dict(step.input.entries).get("reads") if isinstance(step.input, Record) else None
        fields: dict[str, Type] = {}
        for item in reads.items if isinstance(reads, Items) else ():
            entries: Mapping[str, Mapped] = dict(item.entries) if isinstance(item, Record) else {}
            name = entries.get("name")
            if not isinstance(name, Constant):
                return ANY
            fields[str(plain(name.value))] = ANY
        return record(fields) if fields else ANY

    def _result(self, owner: Step) -> Type:
        return self.of_tree(owner.own.result, f"{owner.name}[].")

    def _child(self, step: Step) -> "StepTypes":
        child = step.own.child
        assert child is not None
        key = f"{child.name}@{child.version}"
        if key not in self._children:
            self._children[key] = StepTypes(child, self._children)
        return self._children[key]


def of_texts(names: list[str]) -> Type:
    """One of some texts."""
    return either(map(of_constant, names))
