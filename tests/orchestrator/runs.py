"""A run driven by hand: the pure core with a worker and a person who do as they are told."""

from collections.abc import Mapping
from typing import Any

from aios.error.v1.error_pb2 import Error
from aios.run.v1.commands_pb2 import DecideApprovalRequest
from aios.run.v1.events_pb2 import StepReused
from aios.run.v1.state_pb2 import Approval, ApprovalState, Concurrency, Fork, Recovery, RunHead
from aios.task.v1.task_pb2 import Mode, Outcome, Status
from aios_core.encoding import decode, encode
from aios_core.labels import OWNER
from aios_core.values import Plain, labeled, plain
from aios_orchestrator.codec import head_of, records_of, run_of
from aios_orchestrator.core import fork
from aios_orchestrator.core.decide import Decide, Decision, Input, Settle, Start, decide
from aios_orchestrator.core.fold import fold
from aios_orchestrator.core.money import Purse
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.core.undo import task_id, task_mode
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import parse_documents
from aios_orchestrator.model import Run
from aios_orchestrator.workflow import Workflow


def workflow(steps: str, head: str = "", name: str = "w", uses: Mapping[str, Workflow] = {}) -> Workflow:
    """A workflow of these YAML steps with the integer input `n`; `uses` are the workflows that its steps name."""
    body = "\n".join("  " + line for line in steps.strip("\n").splitlines())
    text = (
        f"apiVersion: aios/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:\n"
        "  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}\n"
        f"{head}  steps:\n{body}\n"
    )
    return compile_workflow(parse_documents(text.encode(), "w.yaml")[0], uses)


class Driver:
    """Holds one run, its whole history and the time."""

    purse: Purse | None = None

    def __init__(
        self,
        of: Workflow,
        mode: Mode = Mode.MODE_EXECUTE,
        n: int = 1,
        purse: Purse | None = None,
        run_id: str = "run_test",
        forks: "tuple[Driver, Fork] | None" = None,
        line: Concurrency | None = None,
    ) -> None:
        """With `forks` it is a fork of that run, which may not be possible: raises INVALID_ARGUMENT. In a `line` it
        waits for its turn."""
        self.workflow, self.purse = of, purse
        self.now = 1_000
        self.history: list[bytes] = []
        self.records: dict[str, bytes] = {}
        reused: tuple[StepReused, ...] = ()
        if forks is not None:
            source, asked = forks
            run_id, mode = "run_fork", Mode.MODE_SIMULATE
            fork.check(asked, of)
            reused = tuple(fork.reused(asked, source.run, source.workflow, of))
        self.run = Run("main", run_id, 7, of.name, of.version, mode)
        self.run.fork = forks[1] if forks is not None else None
        value = encode(of.check_input(labeled({"n": n}, OWNER)))
        key = "one" if line is not None else ""
        self.last = self.give(Start(value, key, reused=reused, concurrency=line, waiting=9))

    def give(self, what: Input, actor: str = "person:owner") -> Decision:
        """Decide on one input, and check that the state is the fold of the history, and what is stored of it."""
        before = self.run if self.history else None
        self.last = decide(self.run, self.workflow, what, self.now, actor, self.purse)
        self.history += self.last.events
        self.run, self.workflow = self.last.run, self.last.workflow or self.workflow
        folded = fold(self.history)
        folded.decoded = self.run.decoded
        assert folded == self.run
        changed = records_of(self.run, before, self.run.own)
        self.records = {name: data for name, data in {**self.records, **changed}.items() if data is not None}
        assert run_of(RunHead.FromString(head_of(self.run).SerializeToString()), self.records) == self.run
        return self.last

    def outcome(self, step: str, **fields: Any) -> Outcome:
        """An outcome of the step's present task; it succeeds with the step's input unless `fields` say otherwise."""
        state = self.run.at(step)
        outcome = Outcome(
            run_id=self.run.run_id,
            task_id=task_id(self.run, state),
            dispatch=state.dispatch,
            step=step,
            status=Status.STATUS_SUCCEEDED,
            output=state.input,
            worker="test",
            mode=task_mode(self.run),
            undo_token=b"token" if self.workflow.at(step).effect and not self.run.undo_queue else b"",
        )
        for name, value in fields.items():
            if name in ("error", "cached"):
                getattr(outcome, name).CopyFrom(value)
            else:
                setattr(outcome, name, value)
        return outcome

    def settle(self, step: str, **fields: Any) -> Decision:
        return self.give(Settle(self.outcome(step, **fields)))

    def fail(self, step: str, retryable: bool = False, code: str = "ACTION_FAILED") -> Decision:
        error = Error(code=code, message="It failed.", retryable=retryable)
        return self.settle(step, status=Status.STATUS_FAILED, error=error)

    def unknown(self, step: str) -> Decision:
        error = Error(code="OUTCOME_UNKNOWN", message="The power went.")
        return self.settle(step, status=Status.STATUS_UNKNOWN, error=error)

    def recover(
        self, recovery: Recovery, step: str = "", value: Plain | None = None, **fields: Any
    ) -> Decision:
        """Have the run go on; `value` None is no value."""
        given = labeled(value, OWNER) if value is not None else None
        return self.give(Recover(recovery, step, given, **fields))

    @property
    def approval(self) -> Approval:
        """The one open approval."""
        (approval,) = self.run.open_approvals()
        return approval

    def decide(
        self, decision: ApprovalState, answers: Mapping[str, Plain] | None = None, **fields: Any
    ) -> Decision:
        """Decide on the open approval, having seen what is shown."""
        approval = fields.pop("approval", None) or self.approval
        request = DecideApprovalRequest(
            approval_id=approval.approval_id,
            actor="person:owner",
            decision=decision,
            arguments_sha256=approval.arguments_sha256,
        )
        for name, value in fields.items():
            setattr(request, name, value)
        return self.give(Decide(request, labeled(dict(answers), OWNER) if answers is not None else None))

    @property
    def outputs(self) -> Plain:
        return plain(decode(self.run.outputs))
