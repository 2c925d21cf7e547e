"""Steps that follow another one whatever it gives, so that a worker may go on with them without asking.

The steps of one run then travel together: one task out, one report of many outcomes back. Nothing is decided by it:
the orchestrator goes through the same transitions as ever, makes each input itself, and takes the outcome of a step
that was done ahead only if it was done on that very input.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from aios.task.v1.task_pb2 import Ahead, Hole
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import RESOURCE
from aios_core.values import Leaf, Value
from aios_orchestrator.mapping import Items, Lookup, Mapped, Path, Record, references
from aios_orchestrator.workflow import Step, Workflow

MAX_STEPS: Final = 64  # steps ahead of one task
MAX_LOOKED: Final = 128  # steps of the document after one that are looked at
MAX_BYTES: Final = 16 * 1024  # of their inputs together
MAX_WORKFLOWS: Final = 256  # versions whose chains are remembered


class Planner:
    """What may be done ahead with each step. Chains that need nothing of the run are prepared once for all runs."""

    def __init__(self) -> None:
        self._chains: OrderedDict[str, dict[str, tuple[Step, ...]]] = OrderedDict()
        self._fixed: dict[tuple[str, str], Sequence[Ahead]] = {}

    def ahead(self, workflow: Workflow, first: str, look: Lookup) -> Sequence[Ahead]:
        """The steps after `first`, as far as their inputs can be prepared from what `look` gives."""
        key = (workflow.version, first)
        fixed = self._fixed.get(key)
        if fixed is not None:
            return fixed
        chain = self._of(workflow).get(first)
        if not chain:
            return ()
        asked: list[str] = []

        def noted(root: str) -> "Value | None":
            asked.append(root)
            return look(root)

        prepared = _prepare_chain(chain, first, noted)
        if not asked:
            self._fixed[key] = prepared
        return prepared

    def _of(self, workflow: Workflow) -> Mapping[str, tuple[Step, ...]]:
        chains = self._chains.get(workflow.version)
        if chains is None:
            chains = self._chains[workflow.version] = followers(workflow)
            if len(self._chains) > MAX_WORKFLOWS:
                gone, _ = self._chains.popitem(last=False)
                self._fixed = {key: value for key, value in self._fixed.items() if key[0] != gone}
        return chains


def followers(workflow: Workflow) -> dict[str, tuple[Step, ...]]:
    """For each agent step those that may be done ahead with it, in their order; steps with none are left out.

    A follower is an agent step that nothing stands before: no condition, no gate, no money, no other branch of the
    graph.
    """
    chains = {}
    for at, step in enumerate(workflow.ordered):
        if step.kind != "agent" or step.scope:
            continue
        done = workflow.before[step.name] | 1 << at
        chain: list[Step] = []
        for other in workflow.ordered[at + 1 : at + 1 + MAX_LOOKED]:
            if _free(workflow, other) and all(done >> workflow.place[need] & 1 for need in other.needs):
                chain.append(other)
                done |= 1 << workflow.place[other.name]
                if len(chain) == MAX_STEPS:
                    break
        if chain:
            chains[step.name] = tuple(chain)
    return chains


def _free(workflow: Workflow, step: Step) -> bool:
    alone = (
        step.kind == "agent" and not step.scope and step.when is None and not step.hold and step.cache is None
    )
    return alone and bool(step.needs) and step.name not in workflow.approved_by


def _prepare_chain(chain: Sequence[Step], first: str, look: Lookup) -> Sequence[Ahead]:
    later = {f"steps.{first}"}
    prepared: list[Ahead] = []
    size = 0
    for step in chain:
        holes: list[Hole] = []
        try:
            value = _prepare(step.input, look, later, (), holes) if step.input else Leaf({}, RESOURCE)
            data = encode(value) if value is not None else b""
        except TerminalError:
            break  # the run will fail there, by its own decision
        size += len(data)
        if not data or size > MAX_BYTES:
            break
        prepared.append(Ahead(step=step.name, target=step.target, input=data, holes=holes))
        later.add(f"steps.{step.name}")
    return prepared


def _prepare(
    node: Mapped, look: Lookup, later: set[str], at: tuple[str, ...], holes: list[Hole]
) -> "Value | None":
    """The value of an expression tree with null where a later output goes; None when it computes with one."""
    if isinstance(node, Path) and node.root in later:
        holes.append(Hole(at=at, step=node.root.removeprefix("steps."), path=node.parts))
        return Leaf(None, RESOURCE)
    if later.isdisjoint(references(node)):
        return node.evaluate(look)
    if isinstance(node, Record):
        entries = {key: _prepare(item, look, later, (*at, key), holes) for key, item in node.entries}
        known = {key: item for key, item in entries.items() if item is not None}
        return known if len(known) == len(entries) else None
    if isinstance(node, Items):
        items = [
            _prepare(item, look, later, (*at, str(index)), holes) for index, item in enumerate(node.items)
        ]
        some = [item for item in items if item is not None]
        return some if len(some) == len(items) else None
    return None
