"""What the orchestrator knows of a run while it decides. The stored form is in `codec`, the events are the contract.

Times are milliseconds since 1970 in UTC, money is micro-dollars.
"""

from dataclasses import dataclass, field, replace

from aios.error.v1.error_pb2 import Error
from aios.run.v1.state_pb2 import Approval, RunState, StepState
from aios.task.v1.task_pb2 import Change, Mode, Usage
from aios_core.hashing import GENESIS
from aios_core.values import Value

TERMINAL_RUN = frozenset(
    {
        RunState.RUN_STATE_SUCCEEDED,
        RunState.RUN_STATE_FAILED,
        RunState.RUN_STATE_CANCELLED,
        RunState.RUN_STATE_UNDONE,
        RunState.RUN_STATE_UNDO_INCOMPLETE,
    }
)
DONE_STEP = frozenset({StepState.STEP_STATE_SUCCEEDED, StepState.STEP_STATE_SKIPPED})
OPEN_STEP = frozenset({StepState.STEP_STATE_DISPATCHED, StepState.STEP_STATE_UNDOING})


@dataclass(slots=True)
class StepRun:
    """One step of one run. `first_dispatch` is the first dispatch of the present attempt."""

    name: str
    state: StepState.ValueType = StepState.STEP_STATE_PENDING
    attempt: int = 0
    attempt_group: int = 1
    dispatch: int = 0
    hold: int = 0
    cost: int = 0
    due: int = 0
    start: int = 0
    end: int = 0
    approval_id: str = ""
    effect_order: int = 0
    undoable: bool = False
    error: Error | None = None
    input: bytes = b""
    output: bytes = b""
    undo_token: bytes = b""
    summary: str = ""
    changes: tuple[Change, ...] = ()
    usage: Usage | None = None


@dataclass(slots=True)
class Run:
    """A run: its bounded head, and the values and approvals that `decide` reads."""

    workspace: str
    run_id: str
    slot: int
    workflow: str
    workflow_version: str
    mode: Mode.ValueType
    state: RunState.ValueType = RunState.RUN_STATE_RUNNING
    create_time: int = 0
    update_time: int = 0
    sequence: int = 0
    last_hash: bytes = GENESIS
    cap: int = 0
    held: int = 0
    settled: int = 0
    effects: int = 0
    concurrency_key: str = ""
    trigger: str = ""
    request: str = ""
    request_sha256: bytes = b""
    traceparent: str = ""
    parent_traceparent: str = ""
    actor: str = ""
    superseded_by: str = ""
    undo_queue: tuple[str, ...] = ()
    undo_group: int = 0
    error: Error | None = None
    input: bytes = b""
    outputs: bytes = b""
    steps: dict[str, StepRun] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    decoded: dict[str, Value] = field(default_factory=dict)
    """Values decoded so far, by step name ('' is the run's input): a cache of this object alone."""

    def copy(self) -> "Run":
        """A run that can be changed without changing this one; steps are copied when they change."""
        other = replace(self)
        other.steps = dict(self.steps)
        other.approvals = dict(self.approvals)
        return other

    def step(self, name: str) -> StepRun:
        """A private copy of a step, already in its place."""
        own = replace(self.steps[name])
        self.steps[name] = own
        return own

    @property
    def closed(self) -> bool:
        """Whether it has ended and nothing goes on in it."""
        return self.state in TERMINAL_RUN

    @property
    def stopping(self) -> bool:
        """Whether no further step may start: it failed or is being cancelled, and open outcomes are awaited."""
        return self.error is not None or self.state == RunState.RUN_STATE_CANCELLING

    def open_approvals(self) -> list[Approval]:
        """What waits for a person."""
        return [approval for approval in self.approvals.values() if approval.state == 1]

    def next_due(self) -> int | None:
        """The earliest time at which something is due by itself."""
        dues = [step.due for step in self.steps.values() if step.due]
        return min(dues) if dues else None
