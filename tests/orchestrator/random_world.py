"""A run of a random workflow in a world that counts what stands, with a person who decides as a draw has it."""

from collections import Counter
from typing import Any, Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1.events_pb2 import RunEvent, StepScheduled
from aios.run.v1.state_pb2 import (
    APPROVAL_KIND_BUDGET,
    APPROVAL_KIND_SPIKE,
    Approval,
    ApprovalKind,
    Concurrency,
    Fork,
    Question,
    RunHead,
)
from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import MODE_EXECUTE, CacheOrigin, Mode, Outcome, Status
from aios_core.encoding import decode, encode
from aios_core.hashing import sha256
from aios_core.json_values import from_json
from aios_core.labels import OWNER
from aios_core.step_names import renamed
from aios_core.values import labeled, plain
from aios_orchestrator import plans
from aios_orchestrator.checking import check_workflow
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core import compensate
from aios_orchestrator.core.decide import Admit, Decision, Fund, Input, Settle, Tick
from aios_orchestrator.core.migrate import Migrate
from aios_orchestrator.core.money import Attempt, Cap, Charge
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.core.spending import GO_ON, STOP
from aios_orchestrator.core.spike import LEAST_RUNS, usual
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.differing import difference
from aios_orchestrator.document import Document
from aios_orchestrator.problems import Problems
from aios_orchestrator.progress import OPEN_STEP, ROUND_FAILED
from aios_orchestrator.workflow import NEEDS_A_PERSON, Workflow
from aios_orchestrator.workflow import Step as Defined
from tests.orchestrator.draws import Draws
from tests.orchestrator.runs import Driver
from tests.orchestrator.test_rounds import CHILD
from tests.orchestrator.test_spending import ACCOUNT, purse_with

Step = dict[str, Any]
Key = tuple[str, int]
OTHERS: Final = Attempt("run_other", "s", 1, 1)
USES: Final = {"child@v": CHILD, f"{CHILD.name}@{CHILD.version}": CHILD}
ROUNDS: Final = 400  # of settling, deciding and waiting until a run has to have ended
SEEN: Counter[str] = Counter()


def accepted(document: Document) -> Workflow | None:
    """The compiled workflow, or None when all that is wrong with it was told."""
    problems = Problems()
    check_workflow(document, USES, problems)
    if problems.errors:
        for error in problems.errors:
            assert error.code and error.message.startswith("w.yaml:"), error
            assert error.details.get("line"), error
        return None
    return compile_workflow(document, USES)


def plan_of(draws: Draws) -> Step:
    """A plan, mostly one that may be carried out."""
    steps: list[Step] = []
    for at in range(draws.number(0 if draws.once_in(10) else 1, 4)):
        kind = draws.one_of(["agent", "connector", "connector", "map", "gate", "refused"])
        step: Step = {"name": f"p{at}"}
        if kind == "agent":
            step |= {"agent": "x", "input": {"n": "${inputs.n}"}}
        elif kind == "map":
            inner = {"name": f"p{at}-in", "connector": "files.act", "input": {"n": "${item}"}}
            step["map"] = {"over": [1, 2], "steps": [inner]}
        elif kind == "gate":
            step["gate"] = {"title": "Go on", "expires": "2h"}
        elif kind == "refused" and draws.once_in(10):
            step["agent"] = "root"
        else:
            step |= {"connector": "files.act", "input": {"n": draws.number(1, 2)}}
        if at and draws.coin():
            step["needs"] = []
        steps.append(step)
    return {"steps": steps}


def answer_to(question: Question, draws: Draws, *, kind: bool) -> str:
    """One that it may have; it is not "stop" of a person who is kind."""
    may = [option for option in question.options if not kind or option != STOP]
    if question.pattern:
        may.append("7")
    return draws.one_of(may or ["Anything."])


class World(Driver):
    """A run in a world that counts what stands; what is to be made good stands until that was done. Its money is its
    own, or that of many: of `money`, what there is, what is spent and what others hold until `others_let_go`. Of what
    is asked, a person looks at one in `comes` at a time."""

    def __init__(
        self,
        document: Document,
        of: Workflow,
        *,
        comes: int = 1,
        money: tuple[int, int, int] | None = None,
        queues: bool = False,
        mode: Mode = MODE_EXECUTE,
        forks: "tuple[World, Fork] | None" = None,
    ) -> None:
        self.document, self.comes = document, comes
        self.stands: Counter[str] = Counter()
        # What is asked for again is not done again; nor is what was refused, when its task comes again.
        self.did: set[Key] = set()
        self.refused: dict[tuple[Key, int], Outcome] = {}
        self.unsure: dict[str, Key] = {}  # of which nobody was told whether it happened
        self.flying: list[Outcome] = []  # what workers said that has not come yet
        self.left: set[str] = set()  # of which a person did not want to know either
        self.given: list[Outcome] = []
        self.times: dict[tuple[str, str, int], tuple[int, int]] = {}  # by which a step has to be done
        cap, spent, held = money or (0, 0, 0)
        purse = purse_with(cap, spent) if money is not None else None
        if purse is not None:
            purse.costs[of.name] = [1_000] * LEAST_RUNS
        self.others = purse.hold(OTHERS, held, 0) if purse is not None and held else 0
        line = Concurrency(limit=1) if queues else None
        super().__init__(of, mode, purse=purse, forks=forks, line=line)

    def give(self, what: Input, actor: str = "person:owner") -> Decision:
        """And settles what is settled, as the engine does once it is committed."""
        stops = bool(self.history) and self.run.stopping and not isinstance(what, Recover)
        spent = self.run.settled if self.history else 0
        decision = super().give(what, actor)
        begun = []
        for event in map(RunEvent.FromString, decision.events):
            stops |= event.HasField("cancel_requested")
            stops |= event.HasField("step_failed") and not event.step_failed.contained
            if event.HasField("step_scheduled"):
                assert not stops, f"the run stops, and {event.step_scheduled.step} begins"
                begun.append(event.step_scheduled.step)
                self._check_approved(event.step_scheduled)
            orders = [self.run.at(name).effect_order for name in event.undo_requested.steps]
            assert orders == sorted(orders, reverse=True), "what was done last is taken back first"
        if isinstance(what, Settle):
            self.given += [what.outcome, *what.more]
        self._check_times()
        assert self.run.error is None or self.run.error.code != ROUND_FAILED, (
            "a run fails by what failed first"
        )
        SEEN["waited for money"] += any(step.unfunded for step in self.run.lively())
        if self.purse is not None:
            for serial, cost in decision.settled:
                assert self.purse.settle(serial, cost, self.now)
            self._check_spike(spent, begun)
            counted = {step.charge for step in self.run.steps.values() if step.charge}
            assert counted <= set(self.purse.holds), "what is handed out is held"
            (cap,) = self.purse.charge.caps
            assert self.purse.held(ACCOUNT) + self.purse.settled(ACCOUNT) <= self.purse.cap(cap)
        return decision

    def _check_times(self) -> None:
        """What a step has to be done by was said when it began; nothing but another beginning puts it off."""
        for step in self.run.lively():
            if step.attempt and step.limits is not None:
                by = step.limits.deadline_ms, step.limits.total_ms
                key = self.run.workflow_version, step.name, step.attempt_group
                assert self.times.setdefault(key, by) == by, f"{step.name} has another time now"

    def _check_approved(self, told: StepScheduled) -> None:
        """What a gate is for is done as it was shown, and by a person's word where nothing takes it back."""
        gate = self.workflow.gate_of(told.step)
        if not gate or self.run.mode != MODE_EXECUTE or told.attempt > 1:
            return
        approval = self.run.approvals[self.run.at(gate).approval_id]
        assert approval.state == A.APPROVAL_STATE_APPROVED, told.step
        shown = {item.step: item.arguments_sha256 for item in approval.proposed}
        assert shown[told.step] == sha256(told.input), told.step
        if self.workflow.at(told.step).grade in NEEDS_A_PERSON:
            assert approval.decided_by.startswith("person:"), told.step
        SEEN["done as approved"] += 1

    def _check_spike(self, spent: int, begun: list[str]) -> None:
        """What has cost too much before goes on only when a person has said so."""
        spike, purse = self.workflow.spike, self.purse
        paid = [name for name in begun if self.workflow.at(name).hold]
        if spike is None or purse is None or not paid or self.run.mode != MODE_EXECUTE:
            return
        bound = usual(purse.costs[self.run.workflow], spike)
        if bound is not None and spent > bound:
            asked = [item for item in self.run.approvals.values() if item.kind == APPROVAL_KIND_SPIKE]
            told = [plain(decode(item.answers)) for item in asked if item.state == A.APPROVAL_STATE_ANSWERED]
            assert {"allow": GO_ON} in told, f"{paid} were not asked about"
            SEEN["cost too much"] += 1

    def restart(self) -> None:
        """What is stored is read, as by another process."""
        of = accepted(self.document)
        assert of is not None
        self.workflow = plans.grown(of, {name: plan.plan for name, plan in self.run.plans.items()})
        self.run = run_of(RunHead.FromString(head_of(self.run).SerializeToString()), self.records)

    def others_let_go(self) -> None:
        if self.purse is not None:
            self.purse.settle(self.others, 0, self.now)
        self.give(Fund())

    def raise_cap(self) -> None:
        """A person sets another cap for what all share."""
        if self.purse is not None:
            self.purse.charge = Charge((ACCOUNT,), (Cap(ACCOUNT, "b", 10_000_000),))
        self.give(Fund())

    def answer(self, draws: Draws, *names: str, status: int = Status.STATUS_SUCCEEDED) -> None:
        """A worker's answers to the present tasks of steps, told together."""
        outcomes = [self.told(name, status, draws) for name in names]
        if not outcomes:
            return
        self.give(Settle(outcomes[0], tuple(outcomes[1:])))

    def told(self, name: str, status: int, draws: Draws) -> Outcome:
        """What a worker says of a step's present task; what failed did nothing."""
        state, step = self.run.at(name), self.workflow.at(name)
        back = state.state == S.STEP_STATE_UNDOING
        instead = compensate.running(state) if self.run.undo_queue else None
        fields: dict[str, Any] = {}
        if instead is not None:
            fields |= {"task_id": compensate.key_of(self.run, state, instead), "mode": MODE_EXECUTE}
        if step.grade == "irreversible" or step.grade == "payment":
            fields["undo_token"] = b""
        if step.hold and not self.run.undo_queue:
            fields["cost_micros"] = draws.one_of([0, 1_000, step.hold, step.hold])
        key = self._key(self.outcome(name, **fields))
        told = key, self.run.at(name).dispatch
        if told in self.refused:
            return self.refused[told]
        if key in self.did:
            status = Status.STATUS_SUCCEEDED
        happens = status == Status.STATUS_SUCCEEDED
        if status == Status.STATUS_FAILED:
            code = draws.one_of(["ACTION_FAILED", "ACTION_FAILED", "STEP_TIMEOUT", "NEVER"])
            fields["error"] = Error(code=code, message="It failed.", retryable=draws.coin())
        elif status == Status.STATUS_UNKNOWN:
            fields["error"] = Error(code="OUTCOME_UNKNOWN", message="No answer came.")
            self.unsure[name], happens = key, draws.coin()
        else:
            fields |= self._result(step, draws)
        if happens and step.effect and self.run.mode == MODE_EXECUTE and key not in self.did:
            self.did.add(key)
            self.stands[name] += -1 if back else 1
            assert name in self.left or self.stands[name] in (0, 1), (
                f"{name} stands {self.stands[name]} times"
            )
        outcome = self.outcome(name, status=status, **fields)
        if status == Status.STATUS_FAILED:
            self.refused[told] = outcome
        return outcome

    @staticmethod
    def _key(outcome: Outcome) -> Key:
        return outcome.task_id, outcome.mode

    def arrives(self, draws: Draws) -> None:
        """What a worker said long ago, whatever has become of the step."""
        SEEN["came late"] += 1
        self.give(Settle(self.flying.pop(draws.below(len(self.flying)))))

    def _result(self, step: Defined, draws: Draws) -> dict[str, Any]:
        """What a task gave: a plan, what nobody can read, what is not what the document says, an earlier answer."""
        if step.planning is not None:
            SEEN["planned"] += 1
            return {"output": encode(labeled(from_json(plan_of(draws)), OWNER))}
        odd = draws.number(0, 19)
        if odd == 0 and not step.effect:
            return {"output": b"\xff"}
        if odd < 4 and step.gives is not None:
            return {"output": encode(labeled({"n": "none"}, OWNER))}
        if odd < 10 and self.run.at(step.name).cache_key:
            SEEN["answered before"] += 1
            return {"cached": CacheOrigin(run_id="run_before", step=step.name, time_ms=1)}
        return {}

    def person(self, draws: Draws, *, kind: bool) -> None:
        """Decides on what is open; is not there or rejects now and then unless he is kind."""
        for approval in self.run.open_approvals():
            if self.run.approvals[approval.approval_id].state != A.APPROVAL_STATE_OPEN:
                continue
            if not kind and not draws.once_in(self.comes):
                continue
            rejects = not kind and draws.once_in(6)
            if approval.kind == ApprovalKind.APPROVAL_KIND_UNKNOWN:
                self.looks(approval, rejects=rejects)
                continue
            gate = approval.kind == ApprovalKind.APPROVAL_KIND_GATE
            agreed = A.APPROVAL_STATE_APPROVED if gate else A.APPROVAL_STATE_ANSWERED
            answers = {question.id: answer_to(question, draws, kind=kind) for question in approval.questions}
            SEEN["asked about money"] += approval.kind in (APPROVAL_KIND_BUDGET, APPROVAL_KIND_SPIKE)
            decision = A.APPROVAL_STATE_REJECTED if rejects else agreed
            for signer in sorted(approval.approvers) or ["person:owner"]:
                if self.run.approvals[approval.approval_id].state == A.APPROVAL_STATE_OPEN:
                    given = None if gate or rejects else answers
                    self.decide(decision, given, approval=approval, actor=signer)
            refusal = self.last.refusal
            if (
                kind and refusal is not None and refusal.code == "BAD_PLAN"
            ):  # what it was for has begun otherwise since
                self.decide(A.APPROVAL_STATE_REJECTED, approval=approval, actor=signer)
            SEEN["signed by several"] += approval.need > 1 and not rejects

    def follow(self, document: Document, names: dict[str, str], *, accept: bool) -> None:
        """Another version of the workflow, if it can."""
        to = accepted(document)
        if to is None or self.run.workflow_version == to.version:
            return
        of = accepted(self.document)
        assert of is not None
        said = difference(of, to)
        assert list(said.lines())
        refusal = self.give(Migrate(to, names, accept)).refusal
        if refusal is not None:
            SEEN["did not follow"] += 1
            assert said.breaks or names or refusal.code != "INCOMPATIBLE", refusal
            return
        SEEN["followed another version"] += 1
        self.document = document
        self.stands = Counter({renamed(name, names): times for name, times in self.stands.items()})
        self.unsure = {renamed(name, names): key for name, key in self.unsure.items()}
        self.left = {renamed(name, names) for name in self.left}

    def looks(self, approval: Approval, *, rejects: bool) -> None:
        """Says whether it happened, or leaves it as it is."""
        happened = self.unsure.pop(approval.step) in self.did
        if rejects:
            self.left.add(approval.step)
            self.decide(A.APPROVAL_STATE_REJECTED, approval=approval)
            return
        SEEN["a person saw"] += 1
        self.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "yes" if happened else "no"}, approval=approval)

    def open(self) -> list[str]:
        return sorted(step.name for step in self.run.lively() if step.state in OPEN_STEP and not step.due)

    def finish(self, draws: Draws) -> None:
        """The faults stop: everything is answered, decided and due, and others have let go of what they held."""
        self.others_let_go()
        while self.flying:
            self.arrives(draws)
        for _ in range(ROUNDS):
            if self.run.queued:
                self.give(Admit())
            for name in self.open():
                if name in self.open():
                    self.answer(draws, name)
            self.person(draws, kind=True)
            self.now += 20_000
            self.give(Tick())
            if self.run.closed:
                return
        raise AssertionError(f"it does not end: {R.Name(self.run.state)}, {sorted(self.run.live)}")
