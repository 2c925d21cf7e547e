"""What the steps of a workflow decide on a way through it: which of it could come out otherwise there, and which
decisions have to do with each other. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Supposed, SupposedEnd
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.step_names import home_of, is_inside
from aios_core.values import Plain, Value, labeled, plain
from aios_orchestrator import cel_syntax
from aios_orchestrator.core.chosen import users_of
from aios_orchestrator.mapping import Mapped, compile_expression, references
from aios_orchestrator.workflow import WORK, Step, Workflow, path_of, scope_of

_ASKS: Final = ("gate", "ask")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step decides on a way: the case of a branch, whether its condition holds, or how it ends."""

    path: str
    take: str = ""
    supposed: Supposed.ValueType = Supposed.SUPPOSED_UNSPECIFIED
    ends: SupposedEnd.ValueType = SupposedEnd.SUPPOSED_END_UNSPECIFIED

    def words(self) -> str:
        """For a person."""
        if self.take:
            return f"{self.path} takes {self.take}"
        if self.ends:
            rejected = self.ends == SupposedEnd.SUPPOSED_END_REJECTED
            return f"{self.path} {'is rejected' if rejected else 'fails'}"
        holds = self.supposed == Supposed.SUPPOSED_HOLDS
        return f"the condition of {self.path} {'holds' if holds else 'does not hold'}"

    def change(self) -> api_pb2.ForkChange:
        return api_pb2.ForkChange(step=self.path, take=self.take, supposed=self.supposed, ends=self.ends)

    def joined(self, known: "Decision") -> "Decision":
        """With what is decided of the same step already: a branch may have a condition of its own."""
        return replace(
            self,
            take=self.take or known.take,
            supposed=self.supposed or known.supposed,
            ends=self.ends or known.ends,
        )

    def turn(self, workflow: Workflow) -> tuple[int, bool]:
        """When it is decided, beside others: a step's condition before the rest of it."""
        return workflow.place[self.path], not self.supposed


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a way: the run's input; by the names of steps in the run, the cases that branches took and what
    was given by those that compute or have steps of their own; the steps that were left out; and the outermost steps
    in which an end is supposed."""

    workflow: Workflow
    inputs: Plain
    chosen: Mapping[str, str]
    gave: Mapping[str, Plain]
    left_out: frozenset[str]
    supposed: frozenset[str]

    def branches(self, name: str) -> Iterator[Decision]:
        """What a step that was reached could decide on this way, by what does not follow from the way itself."""
        step, path = self.workflow.at(name), path_of(name)
        if step.when is not None:
            holds = self._holds(step.when, name)
            for supposed in (Supposed.SUPPOSED_HOLDS, Supposed.SUPPOSED_FAILS):
                if holds is None or holds == (supposed == Supposed.SUPPOSED_HOLDS):
                    yield Decision(path, supposed=supposed)
        if name in self.left_out:
            return
        for case, condition in step.cases:
            holds = self._holds(condition, name)
            if holds is not False:
                yield Decision(path, take=case)
            if holds:
                return
        if step.otherwise:
            yield Decision(path, take=step.otherwise)

    def _holds(self, condition: Mapped, name: str) -> bool | None:
        """Whether a condition holds, whatever agents, connectors and persons answer; None: that depends on them."""
        try:
            return self._truth(cel_syntax.parse(str(getattr(condition, "text", ""))), name)
        except ValueError:
            return None

    def _truth(self, node: cel_syntax.Node, name: str) -> bool | None:
        if node.op in ("&&", "||"):
            decides = node.op == "||"
            sides = [self._truth(arg, name) for arg in node.args]
            if decides in sides:
                return decides
            return None if None in sides else not decides
        if node.op == "not":
            inner = self._truth(node.args[0], name)
            return None if inner is None else not inner
        try:
            compiled = compile_expression(node.text, "")
            found = {root: self._find(root, name) for root in references(compiled)}
            told = plain(compiled.evaluate(found.__getitem__))
        except (LookupError, TerminalError):
            return None
        return told if isinstance(told, bool) else None

    def _find(self, root: str, name: str) -> Value | None:
        """What an expression of a step sees. Raises LookupError for what could be otherwise."""
        own = scope_of(name)
        if root == "inputs" and not own:
            return labeled(self.inputs, OWNER)
        if not root.startswith("steps."):
            raise LookupError(root)
        scope, wanted = own, root.removeprefix("steps.")
        while scope and path_of(scope + wanted) not in self.workflow.steps:
            scope = scope_of(home_of(scope)[0])
        return self._given(scope + wanted)

    def _given(self, name: str) -> Value | None:
        step = self.workflow.at(name)
        if name in self.left_out:
            return None
        if name in self.chosen:
            return labeled({"case": self.chosen[name]}, OWNER)
        computed = step.kind == "transform" and step.output is not None
        if computed or name in self.supposed:
            for root in references(step.output) if computed and step.output is not None else ():
                self._find(root, name)
            return labeled(self.gave[name], OWNER)
        raise LookupError(name)


def ends(workflow: Workflow, path: str) -> Iterator[Decision]:
    """How a step could end otherwise: a person says no to what asks one; what works fails where a map goes on without
    that item and something is decided by what the map gives. Of such a map that is done to its first such step."""
    step = workflow.steps[path]
    if step.kind in _ASKS:
        yield Decision(path, ends=SupposedEnd.SUPPOSED_END_REJECTED)
        return
    owner = collector(workflow, path)
    if step.kind not in WORK or not owner:
        return
    inner = [other for other in workflow.ordered if is_inside(other.name, owner)]
    asks = any(other.kind in _ASKS and collector(workflow, other.name) == owner for other in inner)
    first = next(other.name for other in inner if other.kind in WORK)
    later = came_of(workflow, owner, users_of(workflow)) if path == first and not asks else ()
    if any(decides(workflow.steps[user]) for user in later if not is_inside(user, owner)):
        yield Decision(path, ends=SupposedEnd.SUPPOSED_END_FAILED)


def collector(workflow: Workflow, path: str) -> str:
    """The path of the map around a step that goes on without an item that fails; '' if there is none."""
    while "." in path:
        path = _around(path)
        body = workflow.steps[path].body
        if body is not None and body.collect:
            return path
    return ""


def stops(workflow: Workflow, decision: Decision) -> bool:
    """Whether nothing comes after a decision, so that it is not to be combined with others."""
    return bool(decision.ends) and not collector(workflow, decision.path)


def decides(step: Step) -> bool:
    return step.when is not None or bool(step.cases)


def by_input_alone(workflow: Workflow, step: Step, within: frozenset[str] = frozenset()) -> bool:
    """Whether what a step decides or computes follows from the run's input, so that no other answer changes it."""
    if step.scope or step.name in within:
        return False
    for tree in _deciding(step):
        for root in references(tree):
            name = root.removeprefix("steps.")
            if root in ("inputs", "run"):
                continue
            before = workflow.steps.get(name) if root != name else None
            if before is None or before.kind not in ("transform", "branch"):
                return False
            if not by_input_alone(workflow, before, within | {step.name}):
                return False
    return True


def _deciding(step: Step) -> Iterator[Mapped]:
    """What a step decides by, or computes; not what it works on."""
    yield from (tree for tree in (step.when, step.output) if tree is not None)
    yield from (condition for _, condition in step.cases)


def came_of(workflow: Workflow, path: str, users: Mapping[str, list[str]]) -> frozenset[str]:
    """The paths of the steps that use what a step gives or whether it runs, of those that use them, and so on; `users`
    has who uses whom."""
    found: set[str] = set()
    todo = list(users[path])
    while "." in path:
        path = _around(path)
        todo += users[path]
    while todo:
        user = todo.pop()
        if user not in found:
            found.add(user)
            todo += [*users[user], *(other for other in workflow.steps if is_inside(other, user))]
            todo += [_around(user)] if "." in user else []
    return frozenset(found)


def _around(path: str) -> str:
    """The path of the step in whose body a step is."""
    return scope_of(path).removesuffix(".").removesuffix("[]")


def groups(workflow: Workflow) -> dict[str, int]:
    """The steps that decide anything, each with the number of its group: something uses what comes of two that are in
    one, directly or by others between them. How one comes out changes nothing of what another group does."""
    users = users_of(workflow)
    reach: list[tuple[set[str], set[str]]] = []
    for step in workflow.ordered:
        if not decides(step) and all(stops(workflow, end) for end in ends(workflow, step.name)):
            continue
        own, used = {step.name}, {step.name, *came_of(workflow, step.name, users)}
        apart = []
        for names, others in reach:
            if used & others:
                own, used = own | names, used | others
            else:
                apart.append((names, others))
        reach = [*apart, (own, used)]
    return {name: at for at, (names, _) in enumerate(reach) for name in names}
