"""A workflow as the core runs it."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from aios.task.v1.task_pb2 import WorkMode
from aios_core.errors import TerminalError
from aios_core.json_values import from_json, to_json
from aios_core.labels import RESOURCE
from aios_core.money import Micros, usd
from aios_core.values import Leaf, Value, labeled, plain
from aios_orchestrator.core.spike import Spike
from aios_orchestrator.mapping import Expression, Mapped, Path
from aios_runtime.schemas import Schema

DEFAULT_CAP: Final = usd("1.00")
NOTHING: Final = Micros(0)
HIGHEST: Final = 9  # priority; 0 is the lowest
PRIORITY: Final = 5  # of what does not say how urgent it is, from 0 to 9
DEFAULT_TIMEOUT_MS: Final = 300_000
MAX_MET: Final = 4096  # steps of rounds that are kept made
NEEDS_A_PERSON: Final = frozenset({"payment", "legal"})  # whatever a gate says of itself
STAYS_CLOSED: Final = NEEDS_A_PERSON | {"irreversible"}  # when nobody decides

ONCE: Final = frozenset({"workflow", "plan", "planned"})  # kinds whose steps are gone through one time
WORK: Final = ("agent", "connector", "memory")  # kinds of steps that are handed out
DRAFT: Final = "draft"  # of the three steps of one of kind plan: the one that drafts it,
APPROVE: Final = "approve"  # the gate before it,
PLAN: Final = "plan"  # and the one whose steps are those of the plan
_ROUND: Final = re.compile(r"\[\d+\]")


def path_of(name: str) -> str:
    """The path in the document of a step of a run: `each[3].write` is `each[].write`."""
    return _ROUND.sub("[]", name) if "[" in name else name


def scope_of(name: str) -> str:
    """What stands before a step's own name: `each[3].` of `each[3].write`, '' of `write`."""
    return name[: name.rfind(".") + 1]


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempts in all, and the wait before the second one in ms; it doubles up to `cap_ms`, give or take `jitter`
    percent. A failure with one of the codes of `never` is final whatever it says of itself."""

    limit: int = 5
    backoff_ms: int = 1000
    cap_ms: int = 60_000
    jitter: int = 20
    never: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a step or a run has to be done by, in ms from its beginning; 0: nothing is said.

    `queued_ms` is the time in which a worker has to begin, from each hand-out; `total_ms` that of all attempts and the
    waits between. `deadline` gives the time of a deadline that is not so and so long after the beginning. With `note`
    a deadline that passes stops nothing. `service_level_ms` never does."""

    queued_ms: int = 0
    total_ms: int = 0
    deadline_ms: int = 0
    deadline: Mapped | None = None
    note: bool = False
    service_level_ms: int = 0

    @property
    def at_all(self) -> bool:
        """Whether there is a deadline or a service level."""
        return bool(self.deadline_ms or self.service_level_ms) or self.deadline is not None


@dataclass(frozen=True, slots=True)
class Asked:
    """The confidence at which a gate passes by itself: an expression that gives it, and the least that will do."""

    of: Mapped
    at_least: Decimal


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate shows: expressions for its words, and the steps that it approves.

    It expires after `expires_ms`, and is told again after each time of `remind`, of `escalate_ms` to `escalate_to` as
    well. `need` of the `approvers` (names; none: whoever may approve) have to approve."""

    title: Mapped
    why: Mapped
    risk: Mapped
    approves: tuple[str, ...]
    expires_ms: int
    fails_open: bool = False
    confidence: Asked | None = None
    remind: tuple[int, ...] = ()
    escalate_ms: int = 0
    escalate_to: str = ""
    approvers: tuple[str, ...] = ()
    need: int = 1

    @property
    def policy(self) -> tuple[object, ...]:
        """What of it decides who has to approve what, and until when."""
        sure = self.confidence.at_least if self.confidence is not None else ""
        who = (",".join(self.approvers), self.need, self.escalate_to, self.escalate_ms)
        return (self.approves, self.expires_ms, self.fails_open, sure, *who)


@dataclass(frozen=True, slots=True)
class Ask:
    """Questions to a person: an expression that gives a list of {id, text, why, options, pattern}."""

    title: Mapped
    questions: Mapped
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Hears:
    """The event that a step waits for: of `event_type`, and so that `match` holds. `side` is the event's side of the
    equation by which the two find each other, `key` the run's. Without an event in `timeout_ms` (0: for ever) the step
    fails, or goes on if it is `lenient`."""

    event_type: str
    match: Path | Expression | None = None
    side: str = ""
    key: Path | Expression | None = None
    timeout_ms: int = 0
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What a step goes through in rounds: the items of a map, the turns of a repeat, or a sub-workflow once.

    `over` gives a map's list, `at_once` of which are under way; with `collect` it goes on when one fails. A repeat
    ends when `until` holds after a turn, or after `limit` turns, which is a failure unless it is `lenient`. `result`
    is what a round gives, in words of the round's own steps."""

    result: Mapped
    size: int
    """Steps in a round; those of their own bodies not counted."""
    roots: tuple[str, ...] = ()
    """The steps with which a round begins, by their own names."""
    over: Mapped | None = None
    at_once: int = 1
    collect: bool = False
    until: Path | Expression | None = None
    limit: int = 1
    lenient: bool = False
    child: "Workflow | None" = None


@dataclass(frozen=True, slots=True)
class Planning:
    """What a plan may be: which agents, which actions with what they do to the world, which operations of memory and
    which workflows it may use, how many steps it has at most, and the names of what these see under `inputs`."""

    agents: tuple[str, ...]
    actions: Mapping[str, str]
    memory: tuple[str, ...]
    workflows: "Mapping[str, Workflow]"
    """By `name@version`."""
    most: int
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        said = (self.agents, dict(self.actions), self.memory, tuple(self.workflows), self.most, self.inputs)
        return repr(said)


@dataclass(frozen=True, slots=True)
class Cache:
    """For how long an answer may be given again, and what it is kept under: the whole input without `key`."""

    ttl_ms: int
    key: Mapped | None = None


@dataclass(frozen=True, slots=True)
class Compensate:
    """The action that undo runs in the place of a step's recorded inverse; `input` sees the step's own result too."""

    target: str
    lane: str
    input: Mapped


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `target` is an agent's name, `connector.action` or `memory.operation`; `lane` where its tasks go.

    A step of a body has the path of its place in the name: `each[].write` in the document, `each[3].write` in a run;
    `scope` is what stands before its own name (`each[3].`). `needs` and a gate's `approves` are of the same scope.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    when: Path | Expression | None = None
    target: str = ""
    lane: str = ""
    input: Mapped | None = None
    retry: Retry = Retry()
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    bounds: Bounds | None = None
    mode: WorkMode.ValueType = WorkMode.WORK_MODE_UNSPECIFIED
    hold: Micros = NOTHING
    priority: int | None = None
    """How urgent its tasks are; None: as the workflow says."""
    effect: bool = False
    grade: str = "read"
    """How far what it does can be taken back: `read`, `write`, `irreversible`, `payment`, `legal`."""
    compensate: Compensate | None = None
    cache: Cache | None = None
    gives: Schema | None = None
    """What its result has to be, where the document says so."""
    gate: Gate | None = None
    ask: Ask | None = None
    cases: tuple[tuple[str, Path | Expression], ...] = ()
    otherwise: str = ""
    output: Mapped | None = None
    wait_ms: int = 0
    until: Mapped | None = None
    """The time until which a step waits, in RFC 3339; the length of another wait is `wait_ms`."""
    hears: Hears | None = None
    scope: str = ""
    body: Body | None = None
    planning: Planning | None = None
    """Of a step that drafts a plan, and of one that carries it out."""
    by_order: bool = False
    """The document says nothing of what it needs: it comes after the step that stands before it."""
    place: str = ""
    """Where it stands in the document, such as `spec.steps[2].map.steps[0]`."""

    @property
    def own(self) -> Body:
        """Its body; only for a step that has one."""
        assert self.body is not None, f"{self.name} has no body"
        return self.body

    @property
    def local(self) -> str:
        """Its own name."""
        return self.name[len(self.scope) :]

    @property
    def once(self) -> bool:
        """Whether its steps are gone through one time, as those of a sub-workflow are."""
        return self.kind in ONCE

    @property
    def inside(self) -> str:
        """The scope of its own steps in the document."""
        return f"{self.name}." if self.once else f"{self.name}[]."


@dataclass(frozen=True, slots=True)
class Queueing:
    """Which runs are under way at once: of those with the same key (None: all) at most `limit`. What comes above that
    waits for its turn, at most `waiting` of them (`queue`), is left out (`skip`), or takes the place of the others
    (`replace`)."""

    policy: str
    key: Mapped | None = None
    limit: int = 1
    waiting: int = 100


@dataclass(frozen=True, slots=True)
class Workflow:
    """A compiled version of a workflow."""

    name: str
    version: str
    schema: Schema
    inputs: Mapping[str, Any]
    outputs: Mapped
    steps: Mapping[str, Step]
    cap: Micros = DEFAULT_CAP
    concurrency: Queueing | None = None
    priority: int = PRIORITY
    bounds: Bounds | None = None
    mode: WorkMode.ValueType = WorkMode.WORK_MODE_UNSPECIFIED
    keeps: bool = False
    """Answers of some step of it are kept."""
    has_modes: bool = False
    """Some agent of it is to work in a mode."""
    undo_on_failure: bool = False
    """A run that fails is undone by itself."""
    approved_by: Mapping[str, str] = field(default_factory=dict)
    """The gate that approves a step, by the step's path."""
    before: Mapping[str, int] = field(default_factory=dict)
    """All steps of the same scope that have ended when a step starts, by its path: a set of places, a bit each."""
    ordered: tuple[Step, ...] = ()
    place: Mapping[str, int] = field(default_factory=dict)
    """Where a step stands in `ordered`, the document's order."""
    roots: tuple[str, ...] = ()
    dependents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The steps that need a step, by its path; those that a gate approves are among those that need it."""
    size: int = 0
    """Steps that are in no body."""
    met: dict[str, Step] = field(default_factory=dict, compare=False, repr=False)
    """Steps of rounds that were asked for lately, by their names in a run: a cache."""
    spends: bool = False
    """Whether an attempt of any of its steps may cost something."""
    customer: Mapped | None = None
    """Whom a run is for, computed from its input."""
    spike: Spike | None = None

    def at(self, name: str) -> Step:
        """A step of a run, by its name there: `write`, or `each[3].write` in the fourth round of `each`."""
        step = self.steps.get(name) or self.met.get(name)
        if step is not None:
            return step
        if len(self.met) >= MAX_MET:
            self.met.clear()
        step = self.met[name] = replace(self.steps[path_of(name)], name=name, scope=scope_of(name))
        return step

    def gate_of(self, name: str) -> str:
        """The gate of a run that approves a step of the run; '' when none has to."""
        gate = self.approved_by.get(name, "")
        if gate or "[" not in name:
            return gate
        gate = self.approved_by.get(path_of(name), "")
        return scope_of(name) + gate[len(scope_of(gate)) :] if gate else ""

    def check_input(self, value: Value) -> Value:
        """The run's input, checked against the schema, defaults filled in. Raises INVALID_ARGUMENT naming the field."""
        data = to_json(plain(value))
        properties = self.inputs.get("properties", {})
        unknown = [name for name in data if name not in properties] if isinstance(data, dict) else []
        if unknown:
            near = difflib.get_close_matches(unknown[0], properties, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(properties) or 'nothing'}."
            )
            raise TerminalError(
                "INVALID_ARGUMENT", f"input.{unknown[0]}: there is no such input; {hint}", field=unknown[0]
            )
        self.schema.check(data, "input")
        filled: dict[str, Value] = dict(value) if isinstance(value, dict) else {}
        for name, schema in properties.items():
            if name not in filled and "default" in schema:
                filled[name] = labeled(from_json(schema["default"]), RESOURCE)
        return filled or Leaf({}, RESOURCE)
