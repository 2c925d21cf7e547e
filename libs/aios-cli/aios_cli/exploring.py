"""What a run would do on every way through its workflow: a simulation, and a fork of it, or of such a fork, wherever
another answer of an agent, a connector or a person leads another way. What comes before that is not repeated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aios.api.v1 import api_pb2
from aios.run.v1.events_pb2 import StepSucceeded
from aios.run.v1.state_pb2 import RunState, Supposed
from aios.task.v1.task_pb2 import Change, Mode
from aios_cli.decisions import Decision, Seen, by_input_alone, decides, ends, groups, stops
from aios_cli.session import Session
from aios_cli.shapes import plain_of
from aios_core.encoding import decode
from aios_core.minting import mint
from aios_core.step_names import home_of, is_inside
from aios_core.values import Plain, plain
from aios_orchestrator.workflow import Step, Workflow, path_of

MAX_WAYS: Final = 16  # ways that are simulated, unless another number is given
HISTORY: Final = 100  # earlier runs of the workflow that are looked at for what they cost
_KEPT: Final = ("transform", "map", "repeat", "workflow")
_FINAL: Final = ("irreversible", "payment", "legal")
Follow = Callable[[str, str], api_pb2.Run]
NOT_NEEDED: Final = "not needed"  # how the reason begins of a step whose condition did not hold


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
    plans: dict[str, str] = field(default_factory=dict)
    """The versions of the plans that were followed, by their steps."""
    gave: dict[str, Plain] = field(default_factory=dict)
    """What steps gave that compute, or have steps of their own."""

    @property
    def name(self) -> str:
        """What is otherwise on it than it would go now."""
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
    """What was found. `by_input` are the steps whose decisions this input makes; `taken` has each decision that was met
    with the number of ways on which it was taken, 0 where there were too many ways; `combinations` is how many
    combinations were met that were not walked, each of which may lead to more; `apart` are the groups of steps that
    decide without having to do with each other, of which no combinations are walked. Money in micro-dollars: `history`
    of earlier runs, the least first."""

    workflow: Workflow
    ways: list[Way]
    by_input: list[str]
    taken: dict[Decision, int]
    combinations: int
    apart: list[list[str]]
    history: list[int]
    proof: Proof

    @property
    def left(self) -> list[str]:
        """The decisions that no way took."""
        return [decision.words() for decision, ways in self.taken.items() if not ways]

    @property
    def ceiling(self) -> int:
        """What the budgets allow; those of what is planned are not known before."""
        if any(step.kind == "plan" for step in self.workflow.ordered):
            return self.workflow.cap
        return min(self.workflow.cap, self._range(lambda way: _ceiling(self.workflow, way))[1])

    @property
    def cost(self) -> tuple[int, int]:
        """The least and the most that a run may cost, by what was simulated and what earlier ones cost."""
        low, high = self._range(lambda way: way.cost)
        low, high = min([low, *self.history]), max([high, *self.history])
        return low, min(high, max(self.ceiling, low))

    def _range(self, cost: Callable[[Way], int]) -> tuple[int, int]:
        """Of the ways and of what follows from them: what differs by one group of decisions adds to what differs by
        another one."""
        base, numbers = cost(self.ways[0]), groups(self.workflow)
        differs: dict[int, list[int]] = {}
        for way in self.ways[1:]:
            if not stops(self.workflow, way.decisions[-1]):
                differs.setdefault(numbers[way.decisions[0].path], [0]).append(cost(way) - base)
        low = base + sum(map(min, differs.values()))
        return min([low, *map(cost, self.ways)]), base + sum(map(max, differs.values()))

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
    follow: Follow,
    *,
    most: int,
    every: bool = True,
) -> Report:
    """Walk the ways of a workflow, beginning with a simulation that was started (`first`): that alone, or `every` one,
    `most` of them in all. `follow` waits for the end of a run; it is told what is otherwise in it, in words."""
    before = count(session, [first])
    search = _Search(workflow, _walked(session, workflow, (), follow(first, ""), None), every)
    while len(search.ways) < most and (following := search.following()) is not None:
        way, decision = following
        search.met(_forked(session, workflow, way, decision, follow))
    ways = search.ways
    runs = [way.run.run_id for way in ways]
    by_input = [step.name for step in workflow.ordered if decides(step) and by_input_alone(workflow, step)]
    return Report(
        workflow,
        ways,
        by_input,
        search.taken,
        search.combinations(),
        search.apart(),
        history(session, workflow.name),
        Proof(tuple(runs), _joined(before, count(session, runs))),
    )


class _Search:
    """The ways through a workflow. Each is met once: it goes as another one up to a decision, which comes out
    otherwise, and then as it would go by itself. First come the decisions that no way has taken yet."""

    def __init__(self, workflow: Workflow, base: Way, every: bool) -> None:
        self.workflow, self.every = workflow, every
        self.groups = groups(workflow)
        self.ways: list[Way] = []
        self.taken: dict[Decision, int] = {}
        self.todo: list[tuple[Way, Decision]] = []
        self.met(base)

    def met(self, way: Way) -> None:
        """A way that was walked."""
        self.ways.append(way)
        decided = {one for name in way.done for one in _taken(self.workflow, way, name)}
        decided |= {one for one in way.decisions if one.ends}
        for one in sorted(decided, key=self._turn):
            if by_input_alone(self.workflow, self.workflow.steps[one.path]) and not one.ends:
                continue
            self.taken[one] = self.taken.get(one, 0) + 1
        if not self.every or (way.decisions and stops(self.workflow, way.decisions[-1])):
            return
        for one in sorted(set(self._otherwise(way)) - decided, key=self._turn):
            self.taken.setdefault(one, 0)
            if not way.decisions or one.turn(self.workflow) > way.decisions[-1].turn(self.workflow):
                self.todo.append((way, one))

    def following(self) -> tuple[Way, Decision] | None:
        """What is to be walked next: of a way, a decision that comes out otherwise."""
        self.todo = [(way, one) for way, one in self.todo if self._matters(way, one)]
        if not self.todo:
            return None
        found = min(self.todo, key=lambda item: (self.taken[item[1]] > 0, bool(item[1].ends)))
        self.todo.remove(found)
        return found

    def combinations(self) -> int:
        """How many ways are left besides those that take a decision for the first time."""
        left = [one for way, one in self.todo if self._combines(way, one)]
        return len(left) - len({one for one in left if not self.taken[one]})

    def apart(self) -> list[list[str]]:
        """The groups of steps whose decisions were met, where there are several."""
        found: dict[int, dict[str, None]] = {}
        for one in self.taken:
            if one.path in self.groups and not stops(self.workflow, one):
                found.setdefault(self.groups[one.path], {})[one.path] = None
        place = self.workflow.place
        return [sorted(names, key=place.__getitem__) for names in found.values()] if len(found) > 1 else []

    def _turn(self, one: Decision) -> tuple[tuple[int, bool], str]:
        return one.turn(self.workflow), one.words()

    def _matters(self, way: Way, one: Decision) -> bool:
        """Whether a decision on a way leads to what no other way shows."""
        return not self.taken[one] or self._combines(way, one)

    def _combines(self, way: Way, one: Decision) -> bool:
        """Whether a decision has to do with those of a way, and goes on."""
        if stops(self.workflow, one):
            return False
        return not way.decisions or self.groups[way.decisions[0].path] == self.groups[one.path]

    def _otherwise(self, way: Way) -> Iterator[Decision]:
        """What the steps of a way could have decided, but for what follows from what came before."""
        seen = Seen(
            self.workflow,
            plain_of(way.run.input),
            way.chosen,
            way.gave,
            frozenset(way.left_out),
            frozenset(_outermost(one.path) for one in way.decisions if one.ends),
        )
        for name in way.done:
            step = self.workflow.steps[path_of(name)]
            if decides(step) and not by_input_alone(self.workflow, step):
                yield from seen.branches(name)
        for path in {path_of(name) for name in way.done if name not in way.left_out}:
            yield from ends(self.workflow, path)


def _forked(session: Session, workflow: Workflow, way: Way, decision: Decision, follow: Follow) -> Way:
    """Walk another way. What comes before the decision is taken over; what was decided in the same body is again."""
    outermost = _outermost(decision.path)
    again: dict[str, Decision] = {}
    for one in (*way.decisions, decision):
        if _outermost(one.path) == outermost:
            again[one.path] = one.joined(again.get(one.path, Decision(one.path)))
    request = api_pb2.ForkRunRequest(
        request_id=mint("req"), run_id=way.run.run_id, changes=[one.change() for one in again.values()]
    )
    forked = session.client.call(session.client.runs.ForkRun, request).run
    decisions = (*way.decisions, decision)
    run = follow(forked.run_id, ", ".join(one.words() for one in decisions))
    return _walked(session, workflow, decisions, run, way)


def _walked(
    session: Session,
    workflow: Workflow,
    decisions: tuple[Decision, ...],
    run: api_pb2.Run,
    parent: Way | None,
) -> Way:
    """What a run tells of its way; of the steps that it took over, what the run before it tells."""
    way = Way(decisions, run)
    for answer in session.watch(run.run_id, 0, None):
        event = answer.event
        kind = event.WhichOneof("body") or ""
        body = getattr(event, kind, None)
        if kind == "plan_adopted":
            way.plans[event.plan_adopted.step] = event.plan_adopted.version
        elif (planned := _planned(workflow, getattr(body, "step", ""))) is not None:
            _in_plan(way, planned, kind, body)
            continue
        if kind == "step_reused" and parent is not None:
            _take_over(way, parent, event.step_reused.step)
        elif kind == "step_succeeded":
            _succeeded(workflow, way, event.step_succeeded)
        elif kind == "step_skipped":
            way.done[event.step_skipped.step] = False
            if event.step_skipped.why.startswith(NOT_NEEDED):
                way.left_out.add(event.step_skipped.step)
        if kind in ("step_failed", "step_retry_scheduled") and body is not None:
            way.costs[body.step] = way.costs.get(body.step, 0) + body.cost_micros
    return way


def _planned(workflow: Workflow, step: str) -> str | None:
    """The planned step that a step is inside of which the workflow itself does not have."""
    inside = False
    while step and path_of(step) not in workflow.steps:
        step, inside = home_of(step)[0], True
    return step if step and inside else None


def _in_plan(way: Way, planned: str, kind: str, body: Any) -> None:
    """What the steps of a plan change and cost counts as what carrying it out does."""
    if kind in ("step_succeeded", "step_failed", "step_retry_scheduled"):
        way.costs[planned] = way.costs.get(planned, 0) + body.cost_micros
    if kind == "step_succeeded":
        way.changes.setdefault(planned, []).extend(body.changes)


def _succeeded(workflow: Workflow, way: Way, told: StepSucceeded) -> None:
    way.done[told.step] = True
    way.changes.setdefault(told.step, []).extend(told.changes)
    way.costs[told.step] = way.costs.get(told.step, 0) + told.cost_micros
    output = plain(decode(told.output)) if told.output else None
    case = output.get("case") if isinstance(output, dict) else None
    if workflow.at(told.step).kind == "branch" and isinstance(case, str):
        way.chosen[told.step] = case
    if workflow.at(told.step).kind in _KEPT:
        way.gave[told.step] = output


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
            if name in parent.gave:
                way.gave[name] = parent.gave[name]


def _taken(workflow: Workflow, way: Way, name: str) -> Iterator[Decision]:
    """What a step decided on a way."""
    known, path = workflow.at(name), path_of(name)
    if known.when is not None:
        holds = name not in way.left_out
        yield Decision(path, supposed=Supposed.SUPPOSED_HOLDS if holds else Supposed.SUPPOSED_FAILS)
    if known.kind == "branch" and way.chosen.get(name):
        yield Decision(path, take=way.chosen[name])


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
