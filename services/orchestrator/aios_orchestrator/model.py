"""What the orchestrator knows of a run while it decides. The stored form is in `codec`, the events are the contract.

A run has thousands of steps and takes thousands of decisions, so that nothing here goes through all of them: `Map` is a
persistent map, a copy of which costs nothing, and what a decision asks of all steps is counted as they change.

Times are milliseconds since 1970 in UTC, money is micro-dollars.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from immutables import Map

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import (
    Approval,
    Compensation,
    Concurrency,
    Ending,
    Fork,
    Limits,
    RunPlan,
    RunState,
    StepChange,
    StepState,
)
from aios.task.v1.task_pb2 import CacheOrigin, Change, Mode, Usage, WorkMode
from aios_core.hashing import GENESIS
from aios_core.step_names import by_round, home_of
from aios_core.values import Value
from aios_orchestrator.progress import DONE_STEP, LIVE_STEP, Begun, Rounds
from aios_runtime.run_states import ENDED

ENDED_BY_ITSELF: Final = frozenset({st.RUN_STATE_SUCCEEDED, st.RUN_STATE_FAILED, st.RUN_STATE_CANCELLED})
MAX_DECODED: Final = 256  # values of one run that are kept decoded


class _Copied:
    """A shallow copy in one go; `dataclasses.replace` takes every field through the constructor."""

    def copy(self) -> Self:
        """An object of its own that can be changed without changing this one."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other


@dataclass
class StepRun(_Copied):
    """One step of one run."""

    name: str
    state: StepState.ValueType = st.STEP_STATE_PENDING
    attempt: int = 0
    attempt_group: int = 1
    dispatch: int = 0
    hold: int = 0
    charge: int = 0
    """The serial number of its hold in the workspace's accounts; 0: it has none."""
    unfunded: bool = False
    """It waits for money that others hold."""
    undo_since: int = 0
    """The first dispatch of its present undo, or redo."""
    cost: int = 0
    due: int = 0
    start: int = 0
    end: int = 0
    approval_id: str = ""
    awaits: str = ""
    effect_order: int = 0
    undoable: bool = False
    error: Error | None = None
    input: bytes = b""
    output: bytes = b""
    undo_token: bytes = b""
    compensates: bool = False
    compensation: Compensation | None = None
    summary: str = ""
    changes: tuple[Change, ...] = ()
    usage: Usage | None = None
    body: Begun | None = None
    edited: bytes = b""
    """The input that a person gave."""
    keyed_as: str = ""
    """The name under which its effects are keyed, if it got another one since."""
    work_mode: WorkMode.ValueType = WorkMode.WORK_MODE_UNSPECIFIED
    cache_key: bytes = b""
    target_version: str = ""
    cached: CacheOrigin | None = None
    """Where its answer was given first, if it is one that was kept."""
    refused: int = 0
    """Of one that drafts a plan: how many of its answers were refused, one after the other."""
    limits: Limits | None = None
    """What it has to be done by; it is `overdue` once its deadline has passed, `late` after its service level."""
    overdue: bool = False
    late: bool = False

    @property
    def effect_name(self) -> str:
        """What its effects are keyed by; a migration that gives it another name does not make them other effects."""
        return self.keyed_as or self.name

    @property
    def begun(self) -> Begun:
        """What it has begun; only for a step with steps of its own."""
        assert self.body is not None, f"{self.name} has no body"
        return self.body


_GONE: Final = StepRun("")  # in `Run.own`, of a step that was left out


@dataclass
class Run(_Copied):
    """A run: its bounded head, and the values and approvals that `decide` reads.

    `steps` has the steps that have begun, `live` the names of those that have not ended; `done` counts those outside
    of bodies that succeeded or were skipped, `failed` is the first that failed the run; `rounds` tells of the bodies
    that are gone through, by their step. `overdue`: its deadline has passed, or a person had it go on after that;
    `late_time` is when it, or a step of it, became late (0: neither has)."""

    workspace: str
    run_id: str
    slot: int
    workflow: str
    workflow_version: str
    mode: Mode.ValueType
    state: RunState.ValueType = st.RUN_STATE_RUNNING
    create_time: int = 0
    update_time: int = 0
    sequence: int = 0
    last_hash: bytes = GENESIS
    cap: int = 0
    held: int = 0
    settled: int = 0
    effects: int = 0
    concurrency_key: str = ""
    customer: str = ""
    trigger: str = ""
    request: str = ""
    request_sha256: bytes = b""
    traceparent: str = ""
    parent_traceparent: str = ""
    actor: str = ""
    superseded_by: str = ""
    fork: Fork | None = None
    concurrency: Concurrency | None = None
    priority: int | None = None
    """What the start said; None: what the workflow says."""
    undo_queue: tuple[str, ...] = ()
    undo_group: int = 0
    undo_by: str = ""
    reopened: int = 0
    redos: int = 0
    undo_chosen: bool = False
    ending: Ending | None = None
    error: Error | None = None
    input: bytes = b""
    outputs: bytes = b""
    steps: "Map[str, StepRun]" = field(default_factory=Map)
    live: "Map[str, None]" = field(default_factory=Map)
    rounds: "Map[str, Rounds]" = field(default_factory=Map)
    done: int = 0
    failed: str = ""
    limits: Limits | None = None
    """What it has to be done by, where anything is said of it."""
    overdue: bool = False
    late: bool = False
    late_time: int = 0
    work_mode: WorkMode.ValueType = WorkMode.WORK_MODE_UNSPECIFIED
    approvals: dict[str, Approval] = field(default_factory=dict)
    plans: Mapping[str, RunPlan] = field(default_factory=dict)
    """The plans that it follows, by their planned steps; neither they nor the map are ever changed."""
    own: dict[str, StepRun] = field(default_factory=dict, compare=False)
    """The steps that changed since this object was copied from another."""
    decoded: dict[str, Value] = field(default_factory=dict, compare=False)
    """Values decoded so far, by step name ('' is the run's input): a cache."""

    def copy(self) -> Self:
        """A run that can be changed without changing this one; steps are copied when they change."""
        other = super().copy()
        other.own = {}
        other.approvals = dict(self.approvals)
        return other

    def at(self, name: str) -> StepRun:
        """A step, to be read; one that has not begun is pending, or never comes any more."""
        step = self.steps.get(name)
        if step is None:
            step = self._fresh(name)
            step.state = st.STEP_STATE_CANCELLED if self.closed else st.STEP_STATE_PENDING
        return step

    def step(self, name: str) -> StepRun:
        """A step, to be changed: a private copy, already in its place. Change its state with `move`."""
        own = self.own.get(name)
        if own is None or own is _GONE:
            known = self.steps.get(name)
            own = self.own[name] = self._fresh(name) if known is None else known.copy()
            self.steps = self.steps.set(name, own)
        return own

    def _fresh(self, name: str) -> StepRun:
        """A step that has not begun; one of that name that an earlier plan had did other work."""
        step = StepRun(name)
        for plan in self.plans.values():
            step.attempt_group = max(step.attempt_group, plan.groups.get(name, 0) + 1)
        return step

    def leave_out(self, name: str) -> None:
        """Forget a step that did nothing."""
        self.move(self.step(name), st.STEP_STATE_PENDING)
        self.steps = self.steps.delete(name)
        self.own[name] = _GONE

    def rename(self, name: str, to: str) -> None:
        """Give a step that has begun another name; its effects stay keyed by the first that it had."""
        if name == to:
            return
        step = self.step(name).copy()
        step.name, step.keyed_as = to, step.effect_name
        self.steps = self.steps.delete(name).set(to, step)
        self.own[to] = step
        if name in self.live:
            self.live = self.live.delete(name).set(to, None)

    def again(self, step: StepRun) -> None:
        """A step that `step` returned has not begun any more. What it does next is another attempt group."""
        fresh = StepRun(
            step.name, attempt_group=step.attempt_group + 1, dispatch=step.dispatch, cost=step.cost
        )
        fresh.edited, fresh.state, fresh.keyed_as = step.edited, step.state, step.keyed_as
        step.__dict__.update(fresh.__dict__)
        self.move(step, st.STEP_STATE_PENDING)

    def move(self, step: StepRun, state: StepState.ValueType) -> None:
        """Change the state of a step that `step` returned, and what is counted."""
        before, step.state, step.unfunded = step.state, state, False
        if "." in step.name:
            self._round_moved(step, before)
        else:
            self.done += (state in DONE_STEP) - (before in DONE_STEP)
        if before == st.STEP_STATE_RUNNING and step.name in self.rounds:
            self.rounds = self.rounds.delete(step.name)
        if state in LIVE_STEP:
            if before not in LIVE_STEP:
                self.live = self.live.set(step.name, None)
        elif before in LIVE_STEP:
            self.live = self.live.delete(step.name)

    def _round_moved(self, step: StepRun, before: StepState.ValueType) -> None:
        owner, index = home_of(step.name)
        rounds = self.rounds.get(owner)
        if rounds is not None:
            steps = self.steps[owner].begun.steps
            self.rounds = self.rounds.set(owner, rounds.moved(step, index, before, steps))

    def remember(self, name: str, value: Value) -> None:
        """Keep a decoded value of a step's output, or of the input under ''; of many those asked for last."""
        self.decoded.pop(name, None)
        if len(self.decoded) >= MAX_DECODED:
            del self.decoded[next(iter(self.decoded))]
        self.decoded[name] = value

    @property
    def closed(self) -> bool:
        """Whether it has ended and nothing goes on in it."""
        return self.state in ENDED

    @property
    def queued(self) -> bool:
        """Whether it waits for its turn."""
        return self.state == st.RUN_STATE_QUEUED

    @property
    def stopping(self) -> bool:
        """Whether no further step may start: it failed or is being cancelled, and open outcomes are awaited."""
        return self.error is not None or self.state == st.RUN_STATE_CANCELLING

    def lively(self) -> list[StepRun]:
        """The steps that have begun and not ended, by name."""
        return [self.steps[name] for name in sorted(self.live)]

    def change_of(self, path: str) -> StepChange | None:
        """In a fork: what is to be different in the steps of a path of the workflow."""
        changes = self.fork.changes if self.fork is not None else ()
        return next((change for change in changes if change.step == path), None)

    def changed_things(self) -> list[StepRun]:
        """The steps that changed something, in the order in which they did."""
        return sorted((s for s in self.steps.values() if s.effect_order), key=lambda s: s.effect_order)

    def open_approvals(self) -> list[Approval]:
        """What waits for a person, what was asked first before the rest."""
        still_open = [a for a in self.approvals.values() if a.state == st.APPROVAL_STATE_OPEN]
        return sorted(still_open, key=lambda a: (a.create_time_ms, by_round(a.step)))

    @property
    def unfunded(self) -> bool:
        """Whether it waits for money: others hold it, or a person was asked about it."""
        asks = any(approval.kind == st.APPROVAL_KIND_BUDGET for approval in self.open_approvals())
        return asks or any(self.steps[name].unfunded for name in self.live)

    def awaited(self) -> set[str]:
        """The correlations of the events that its steps wait for."""
        waiting = (self.steps[name] for name in self.live)
        return {step.awaits for step in waiting if step.awaits and step.state == st.STEP_STATE_WAITING}
