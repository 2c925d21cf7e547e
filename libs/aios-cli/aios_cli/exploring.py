"""What a run would do on every way through its workflow: a simulation, and a fork of it for each case that another
answer of an agent, a connector or a person could lead to. Nothing that was simulated before is repeated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1.events_pb2 import StepSucceeded
from aios.run.v1.state_pb2 import RunState, Supposed
from aios.task.v1.task_pb2 import Change, Mode
from aios_cli.session import Session
from aios_core.encoding import decode
from aios_core.minting import mint
from aios_core.values import plain
from aios_orchestrator.mapping import Mapped, references
from aios_orchestrator.names import is_inside
from aios_orchestrator.workflow import Step, Workflow, path_of

MAX_WAYS: Final = 16  # ways that are simulated, unless another number is given
HISTORY: Final = 100  # earlier runs of the workflow that are looked at for what they cost
_FINAL: Final = ("irreversible", "payment", "legal")
NOT_NEEDED: Final = "not needed"  # how the reason begins of a step whose condition did not hold


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step decides on a way: the case of a branch, or whether its condition holds."""

    path: str
    take: str = ""
    supposed: Supposed.ValueType = Supposed.SUPPOSED_UNSPECIFIED

    def words(self) -> str:
        """For a person."""
        if self.take:
            return f"{self.path} takes {self.take}"
        holds = self.supposed == Supposed.SUPPOSED_HOLDS
        return f"the condition of {self.path} {'holds' if holds else 'does not hold'}"

    def change(self) -> api_pb2.ForkChange:
        return api_pb2.ForkChange(step=self.path, take=self.take, supposed=self.supposed)


@dataclass(slots=True)
class Way:
    """One way through the workflow: what was decided otherwise than in the simulation, its run, and what its steps
    change and cost (micro-dollars), those that it shares with another way too."""

    decisions: tuple[Decision, ...]
    run: api_pb2.Run
    changes: dict[str, list[Change]] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    done: dict[str, bool] = field(default_factory=dict)
    """The steps in the order in which they ended: whether they were carried out, or skipped."""
    chosen: dict[str, str] = field(default_factory=dict)
    """The cases that branches took."""
    left_out: set[str] = field(default_factory=set)
    """The steps whose condition did not hold."""

    @property
    def name(self) -> str:
        return ", ".join(decision.words() for decision in self.decisions) or "as it would go now"

    @property
    def cost(self) -> int:
        return sum(self.costs.values())

    def ran(self) -> list[str]:
        """The steps that were carried out, in the order in which they ended."""
        return [name for name, carried_out in self.done.items() if carried_out]


@dataclass(frozen=True, slots=True)
class Proof:
    """What the connectors' ledgers say of the simulated runs: (service, entries after the first was started, entries at
    the end, why it could not be asked)."""

    runs: tuple[str, ...]
    ledgers: tuple[tuple[str, int, int, str], ...]

    @property
    def nothing_written(self) -> bool:
        """Whether every ledger was asked and has nothing of these runs."""
        return all(not (before or after or error) for _, before, after, error in self.ledgers)


@dataclass(slots=True)
class Report:
    """What was found. `by_input` are the decisions that this input makes, `left` the ways that were not walked. Money
    in micro-dollars: `history` of earlier runs, the least, the middle and the most; `ceiling` what budgets allow."""

    workflow: Workflow
    ways: list[Way]
    by_input: list[str]
    left: list[str]
    history: list[int]
    ceiling: int
    proof: Proof

    @property
    def cost(self) -> tuple[int, int]:
        """The least and the most that a run may cost, by what was simulated and what earlier ones cost."""
        known = [way.cost for way in self.ways] + self.history
        return min(known), min(max(known), max(self.ceiling, min(known)))

    def gates(self) -> list[tuple[Step, list[str], int]]:
        """The steps that would ask a person, the ways on which they do, and how many changes stand by then at most."""
        return [
            (step, ways, most)
            for step in self.workflow.ordered
            if step.gate is not None or step.ask is not None
            for ways, most in [self._asked(step)]
            if ways
        ]

    def _asked(self, step: Step) -> tuple[list[str], int]:
        ways, most = [], 0
        for way in self.ways:
            ended = list(way.done)
            asked = [at for at, name in enumerate(ended) if path_of(name) == step.name]
            if asked and not all(ended[at] in way.left_out for at in asked):
                ways.append(way.name)
                before = ended[: asked[0]]
                most = max(most, sum(len(way.changes.get(name, ())) for name in before))
        return ways, most

    def final(self) -> list[tuple[Step, list[str]]]:
        """The steps that undo can't take back, and the ways on which they run."""
        found = []
        for step in self.workflow.ordered:
            if step.grade in _FINAL:
                ways = [way.name for way in self.ways if step.name in map(path_of, way.ran())]
                found += [(step, ways)] if ways else []
        return found


def explore(
    session: Session,
    workflow: Workflow,
    first: str,
    follow: Callable[[str], api_pb2.Run],
    *,
    most: int,
    every: bool = True,
) -> Report:
    """Walk the ways of a workflow, beginning with a simulation that was started (`first`): that alone, or `every` one,
    `most` of them in all."""
    before = count(session, [first])
    base = _walked(session, (), follow(first), None)
    ways, left = [base], []
    seen = set(_taken(workflow, base))
    todo = list(_others(workflow, base, seen)) if every else []
    while todo:
        way, decision = todo.pop(0)
        if decision in seen:
            continue
        seen.add(decision)
        if len(ways) >= most:
            left.append(decision.words())
            continue
        ways.append(_forked(session, way, decision, follow))
        seen.update(_taken(workflow, ways[-1]))
        todo += _others(workflow, ways[-1], seen)
    runs = [way.run.run_id for way in ways]
    by_input = [step.name for step in workflow.ordered if _decides(step) and by_input_alone(workflow, step)]
    proof = Proof(tuple(runs), _joined(before, count(session, runs)))
    ceiling = min(workflow.cap, max(_ceiling(workflow, way) for way in ways))
    return Report(workflow, ways, by_input, left, history(session, workflow.name), ceiling, proof)


def _forked(session: Session, way: Way, decision: Decision, follow: Callable[[str], api_pb2.Run]) -> Way:
    outermost = _outermost(decision.path)
    within = [one for one in way.decisions if _outermost(one.path) == outermost]
    request = api_pb2.ForkRunRequest(
        request_id=mint("req"),
        run_id=way.run.run_id,
        changes=[one.change() for one in _joined_by_step([*within, decision])],
    )
    forked = session.client.call(session.client.runs.ForkRun, request).run
    return _walked(session, (*way.decisions, decision), follow(forked.run_id), way)


def _joined_by_step(decisions: Sequence[Decision]) -> list[Decision]:
    """One for each step: a branch may have a condition of its own."""
    found: dict[str, Decision] = {}
    for one in decisions:
        known = found.get(one.path, Decision(one.path))
        found[one.path] = replace(known, take=one.take or known.take, supposed=one.supposed or known.supposed)
    return list(found.values())


def _walked(session: Session, decisions: tuple[Decision, ...], run: api_pb2.Run, parent: Way | None) -> Way:
    """What a run tells of its way; of the steps that it took over, what the run before it tells."""
    way = Way(decisions, run)
    for answer in session.watch(run.run_id, 0, None):
        event = answer.event
        kind = event.WhichOneof("body") or ""
        body = getattr(event, kind, None)
        if kind == "step_reused" and parent is not None:
            _take_over(way, parent, event.step_reused.step)
        elif kind == "step_succeeded":
            _succeeded(way, event.step_succeeded)
        elif kind == "step_skipped":
            way.done[event.step_skipped.step] = False
            if event.step_skipped.why.startswith(NOT_NEEDED):
                way.left_out.add(event.step_skipped.step)
        if kind in ("step_failed", "step_retry_scheduled") and body is not None:
            way.costs[body.step] = way.costs.get(body.step, 0) + body.cost_micros
    return way


def _succeeded(way: Way, told: StepSucceeded) -> None:
    way.done[told.step] = True
    way.changes[told.step] = list(told.changes)
    way.costs[told.step] = way.costs.get(told.step, 0) + told.cost_micros
    output = plain(decode(told.output)) if told.output else None
    case = output.get("case") if isinstance(output, dict) else None
    if isinstance(case, str):
        way.chosen[told.step] = case


def _take_over(way: Way, parent: Way, step: str) -> None:
    """A step that was not repeated, with its own steps."""
    for name, carried_out in parent.done.items():
        if name == step or is_inside(name, step):
            way.done[name] = carried_out
            way.changes[name] = parent.changes.get(name, [])
            way.costs[name] = parent.costs.get(name, 0)
            if name in parent.left_out:
                way.left_out.add(name)
            if name in parent.chosen:
                way.chosen[name] = parent.chosen[name]


def _taken(workflow: Workflow, way: Way) -> Iterator[Decision]:
    """What was decided on a way."""
    for name in way.done:
        known, path = workflow.at(name), path_of(name)
        if known.when is not None:
            holds = name not in way.left_out
            yield Decision(path, supposed=Supposed.SUPPOSED_HOLDS if holds else Supposed.SUPPOSED_FAILS)
        if known.kind == "branch" and way.chosen.get(name):
            yield Decision(path, take=way.chosen[name])


def _others(workflow: Workflow, way: Way, seen: set[Decision]) -> Iterator[tuple[Way, Decision]]:
    """What else the steps of a way could have decided, and what nobody has walked."""
    for name in dict.fromkeys(map(path_of, way.done)):
        step = workflow.steps[name]
        if not _decides(step) or by_input_alone(workflow, step):
            continue
        for decision in _possible(step):
            if decision not in seen:
                yield way, decision


def _possible(step: Step) -> Iterator[Decision]:
    if step.when is not None:
        yield Decision(step.name, supposed=Supposed.SUPPOSED_HOLDS)
        yield Decision(step.name, supposed=Supposed.SUPPOSED_FAILS)
    for case, _ in step.cases:
        yield Decision(step.name, take=case)
    if step.otherwise:
        yield Decision(step.name, take=step.otherwise)


def _decides(step: Step) -> bool:
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


def _outermost(path: str) -> str:
    return path.partition("[")[0].partition(".")[0]


def _ceiling(workflow: Workflow, way: Way) -> int:
    """What the budgets of the steps of a way allow, each with all of its attempts."""
    return sum(workflow.at(name).hold * workflow.at(name).retry.limit for name in way.ran())


def history(session: Session, workflow: str) -> list[int]:
    """What earlier runs of a workflow cost that were carried out, the least first."""
    request = api_pb2.ListRunsRequest(
        workflow=workflow, states=[RunState.RUN_STATE_SUCCEEDED], page_size=HISTORY
    )
    runs = session.client.call(session.client.runs.ListRuns, request).runs
    return sorted(run.cost_micros for run in runs if run.mode == Mode.MODE_EXECUTE)


def count(session: Session, runs: Sequence[str]) -> Mapping[str, tuple[int, str]]:
    """How many effects each connector's ledger has of runs, and why one could not be asked."""
    request = api_pb2.CountEffectsRequest(run_ids=runs)
    answer = session.client.call(session.client.runs.CountEffects, request)
    return {ledger.service: (ledger.recorded, ledger.error) for ledger in answer.ledgers}


def _joined(
    before: Mapping[str, tuple[int, str]], after: Mapping[str, tuple[int, str]]
) -> tuple[tuple[str, int, int, str], ...]:
    return tuple(
        (service, before.get(service, (0, ""))[0], recorded, error)
        for service, (recorded, error) in sorted(after.items())
    )
