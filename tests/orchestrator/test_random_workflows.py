"""Random workflows with every kind of step, and random histories of them: what is applied is accepted or explained;
what is accepted ends; an undo of any prefix leaves the world as it was, save what was said to be irreversible."""

from collections import Counter
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios.error.v1.error_pb2 import Error
from aios.run.v1.commands_pb2 import EditApprovalRequest
from aios.run.v1.state_pb2 import Approval, ApprovalKind, Fork, Recovery, RunHead, Supposed, SupposedEnd
from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import MODE_EXECUTE, Outcome, Status
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.json_values import from_json
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator import plans
from aios_orchestrator.checking import check_workflow
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core import compensate
from aios_orchestrator.core.decide import (
    Cancel,
    Decision,
    Edit,
    Fund,
    Input,
    Redispatch,
    Redo,
    Settle,
    Tick,
    Undo,
)
from aios_orchestrator.core.migrate import Migrate
from aios_orchestrator.core.money import Attempt
from aios_orchestrator.definition import KINDS, compile_workflow
from aios_orchestrator.document import Document
from aios_orchestrator.names import renamed
from aios_orchestrator.problems import Problems
from aios_orchestrator.progress import OPEN_STEP
from aios_orchestrator.workflow import Workflow
from tests.often import tries
from tests.orchestrator.random_documents import documents, other_version
from tests.orchestrator.runs import Driver
from tests.orchestrator.test_hearing import event, heard
from tests.orchestrator.test_rounds import CHILD
from tests.orchestrator.test_spending import ACCOUNT, purse_with

Data = st.DataObject
Step = dict[str, Any]
RETRY, REWIND = Recovery.RECOVERY_RETRY, Recovery.RECOVERY_REWIND
SKIP, EDIT = Recovery.RECOVERY_SKIP, Recovery.RECOVERY_EDIT
OTHERS: Final = Attempt("run_other", "s", 1, 1)
USES: Final = {"child@v": CHILD, f"{CHILD.name}@{CHILD.version}": CHILD}
COMES: Final = [
    *["nothing"] * 8,
    "money",
    "money",
    "version",
    "version",
    "lost",
    "twice",
    "redo",
    "stop",
    "restart",
]
RARE: Final = [
    "planned",
    "revised",
    "waited for money",
    "a person saw",
    "followed another version",
    "did not follow",
    "forked",
    "can't be forked so",
    "signed by several",
    "heard",
    "edited",
    "undid some",
]
ROUNDS: Final = 400  # of settling, deciding and waiting until a run has to have ended
SLOW: Final = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
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


def plan_of(data: Data) -> Step:
    """A plan, mostly one that may be carried out."""
    steps: list[Step] = []
    for at in range(data.draw(st.integers(0 if data.draw(st.integers(0, 9)) == 0 else 1, 4))):
        kind = data.draw(st.sampled_from(["agent", "connector", "connector", "map", "gate", "refused"]))
        step: Step = {"name": f"p{at}"}
        if kind == "agent":
            step |= {"agent": "x", "input": {"n": "${inputs.n}"}}
        elif kind == "map":
            inner = {"name": f"p{at}-in", "connector": "files.act", "input": {"n": "${item}"}}
            step["map"] = {"over": [1, 2], "steps": [inner]}
        elif kind == "gate":
            step["gate"] = {"title": "Go on", "expires": "2h"}
        elif kind == "refused" and data.draw(st.integers(0, 9)) == 0:
            step["agent"] = "root"
        else:
            step |= {"connector": "files.act", "input": {"n": data.draw(st.integers(1, 2))}}
        if at and data.draw(st.booleans()):
            step["needs"] = []
        steps.append(step)
    return {"steps": steps}


class World(Driver):
    """A run in a world that counts what stands; what is to be made good stands until that was done. Its money is
    its own, or that of many: then most of what there is for all is held by others until `others_let_go`."""

    def __init__(
        self,
        document: Document,
        of: Workflow,
        *,
        shares: bool = False,
        forks: "tuple[World, Fork] | None" = None,
    ) -> None:
        self.document = document
        self.stands: Counter[str] = Counter()
        self.unsure: dict[str, bool] = {}  # of which nobody was told whether it happened: whether it did
        self.left: set[str] = set()  # of which a person did not want to know either
        self.given: list[Outcome] = []
        purse = purse_with(250_000) if shares else None
        self.others = purse.hold(OTHERS, 200_000, 0) if purse is not None else 0
        super().__init__(of, purse=purse, forks=forks)

    def give(self, what: Input, actor: str = "person:owner") -> Decision:
        """And settles what is settled, as the engine does once it is committed."""
        decision = super().give(what, actor)
        if isinstance(what, Settle):
            self.given.append(what.outcome)
        SEEN["waited for money"] += any(step.unfunded for step in self.run.lively())
        if self.purse is not None:
            for serial, cost in decision.settled:
                assert self.purse.settle(serial, cost, self.now)
            counted = {step.charge for step in self.run.steps.values() if step.charge}
            assert counted <= set(self.purse.holds), "what is handed out is held"
            (cap,) = self.purse.charge.caps
            assert self.purse.held(ACCOUNT) + self.purse.settled(ACCOUNT) <= self.purse.cap(cap)
        return decision

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

    def answer(self, name: str, status: int, data: Data) -> None:
        """A worker's answer to a step's present task; what failed did nothing."""
        state, step = self.run.at(name), self.workflow.at(name)
        back, forth = state.state == S.STEP_STATE_UNDOING, state.state == S.STEP_STATE_REDOING
        instead = compensate.running(state) if self.run.undo_queue else None
        fields: dict[str, Any] = {"status": status}
        if instead is not None:
            fields |= {"task_id": compensate.key_of(self.run, state, instead), "mode": MODE_EXECUTE}
        if status == Status.STATUS_FAILED:
            fields["error"] = Error(code="ACTION_FAILED", message="It failed.", retryable=back or forth)
        if step.grade == "irreversible" or step.grade == "payment":
            fields["undo_token"] = b""
        if step.hold and not self.run.undo_queue:
            fields["cost_micros"] = data.draw(st.sampled_from([0, 1_000, step.hold]))
        if step.planning is not None and status == Status.STATUS_SUCCEEDED:
            SEEN["planned"] += 1
            fields["output"] = encode(labeled(from_json(plan_of(data)), OWNER))
        if status == Status.STATUS_UNKNOWN:
            fields["error"] = Error(code="OUTCOME_UNKNOWN", message="No answer came.")
            self.unsure[name] = data.draw(st.booleans())
        if step.effect and (status == Status.STATUS_SUCCEEDED or self.unsure.get(name)):
            self.stands[name] += -1 if back else 1
            assert name in self.left or self.stands[name] in (0, 1), (
                f"{name} stands {self.stands[name]} times"
            )
        self.settle(name, **fields)

    def person(self, data: Data, *, kind: bool) -> None:
        """Decides on what is open; rejects now and then unless he is kind."""
        for approval in self.run.open_approvals():
            if self.run.approvals[approval.approval_id].state != A.APPROVAL_STATE_OPEN:
                continue
            rejects = not kind and data.draw(st.integers(0, 5)) == 0
            if approval.kind == ApprovalKind.APPROVAL_KIND_UNKNOWN:
                self.looks(approval, rejects=rejects)
                continue
            gate = approval.kind == ApprovalKind.APPROVAL_KIND_GATE
            agreed = A.APPROVAL_STATE_APPROVED if gate else A.APPROVAL_STATE_ANSWERED
            answers = {question.id: question.options[0] for question in approval.questions}
            decision = A.APPROVAL_STATE_REJECTED if rejects else agreed
            for signer in sorted(approval.approvers) or ["person:owner"]:
                if self.run.approvals[approval.approval_id].state == A.APPROVAL_STATE_OPEN:
                    given = None if gate or rejects else answers
                    self.decide(decision, given, approval=approval, actor=signer)
            SEEN["signed by several"] += approval.need > 1 and not rejects

    def follow(self, document: Document, names: dict[str, str], *, accept: bool) -> None:
        """Another version of the workflow, if it can."""
        to = accepted(document)
        if to is None or self.run.workflow_version == to.version:
            return
        if self.give(Migrate(to, names, accept)).refusal is not None:
            SEEN["did not follow"] += 1
            return
        SEEN["followed another version"] += 1
        self.document = document
        self.stands = Counter({renamed(name, names): times for name, times in self.stands.items()})
        self.unsure = {renamed(name, names): happened for name, happened in self.unsure.items()}
        self.left = {renamed(name, names) for name in self.left}

    def looks(self, approval: Approval, *, rejects: bool) -> None:
        """Says whether it happened, or leaves it as it is."""
        happened = self.unsure.pop(approval.step)
        if rejects:
            self.left.add(approval.step)
            self.decide(A.APPROVAL_STATE_REJECTED, approval=approval)
            return
        SEEN["a person saw"] += 1
        self.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "yes" if happened else "no"}, approval=approval)

    def open(self) -> list[str]:
        return sorted(step.name for step in self.run.lively() if step.state in OPEN_STEP and not step.due)

    def finish(self, data: Data) -> None:
        """The faults stop: everything is answered, decided and due, and others have let go of what they held."""
        self.others_let_go()
        for _ in range(ROUNDS):
            for name in self.open():
                if name in self.open():
                    self.answer(name, Status.STATUS_SUCCEEDED, data)
            self.person(data, kind=True)
            self.now += 20_000
            self.give(Tick())
            if self.run.closed:
                return
        raise AssertionError(f"it does not end: {R.Name(self.run.state)}, {sorted(self.run.live)}")


def again(run: World, data: Data) -> Decision:
    """A person has a run go on that ended: as it was, from a step on that has begun, without one that failed, or with
    another input of it."""
    begun = sorted(step.name for step in run.run.steps.values() if step.state != S.STEP_STATE_PENDING)
    failed = [name for name in begun if run.run.at(name).state == S.STEP_STATE_FAILED]
    way = data.draw(st.sampled_from([RETRY, REWIND, SKIP, EDIT]))
    if way == REWIND and begun:
        return run.recover(REWIND, data.draw(st.sampled_from(begun)))
    if way in (SKIP, EDIT) and failed:
        value = {"n": 4} if way == EDIT or data.draw(st.booleans()) else None
        return run.recover(way, data.draw(st.sampled_from(failed)), value)
    return run.recover(RETRY)


def something_else(run: World, data: Data) -> None:
    """What comes in beside answers and decisions, if something does."""
    changed = sorted(step.name for step in run.run.changed_things())
    comes = [*COMES, *["plan"] * 6 * bool(run.run.plans), *["undo"] * 3 * bool(changed)]
    comes += ["event"] * 6 * any(step.awaits for step in run.run.lively())
    comes += ["edit"] * 4 * any(approval.proposed for approval in run.run.open_approvals())
    what = data.draw(st.sampled_from(comes))
    if what == "plan":
        owner = data.draw(st.sampled_from(sorted(run.run.plans))).removesuffix(".plan")
        SEEN["revised"] += not run.recover(Recovery.RECOVERY_REPLAN, owner).refusal
    elif what == "money":
        run.others_let_go()
    elif what == "version":
        run.follow(*other_version(data, run.document), accept=data.draw(st.booleans()))
    elif what == "lost" and run.open():
        run.give(Redispatch(tuple(run.open()), "its lease ended"))
    elif what == "twice" and run.given:
        before = run.run.last_hash
        run.give(Settle(data.draw(st.sampled_from(run.given))))
        assert run.run.last_hash == before, "what was said before is known"
    elif what == "event":
        for step in list(run.run.lively()):
            if step.awaits:
                run.give(heard(run, event(kind="it.came")))
                SEEN["heard"] += run.run.at(step.name).state == S.STEP_STATE_SUCCEEDED
    elif what == "edit":
        edit(run, data)
    elif what == "undo":
        steps = tuple(data.draw(st.lists(st.sampled_from(changed), max_size=2, unique=True)))
        SEEN["undid some"] += not run.give(Undo("that", steps)).refusal and bool(steps)
    elif what == "restart":
        run.restart()
    elif what == "redo":
        run.give(Redo("after all"))
    elif what == "stop" and not run.run.closed:
        run.give(Cancel("enough"))


def edit(run: World, data: Data) -> None:
    """Has what an approval proposes otherwise."""
    for approval in run.run.open_approvals():
        for proposed in approval.proposed[:1]:
            request = EditApprovalRequest(
                approval_id=approval.approval_id,
                actor="person:owner",
                step=proposed.step,
                arguments_sha256=approval.arguments_sha256,
            )
            SEEN["edited"] += not run.give(Edit(request, labeled({"n": 8}, OWNER))).refusal
            return


def fork(run: World, data: Data) -> None:
    """Tries the run again from somewhere, some of it otherwise. That may be refused, and changes nothing."""
    of = accepted(run.document)
    assert of is not None
    places = ["", *(step.name for step in of.ordered if not step.scope)]
    asked = Fork(run_id=run.run.run_id, step=data.draw(st.sampled_from(places)))
    for _ in range(data.draw(st.integers(0, 2))):
        change = asked.changes.add(step=data.draw(st.sampled_from(sorted(of.steps))))
        what = data.draw(st.sampled_from(["input", "agent", "take", "supposed", "ends"]))
        value = {
            "input": encode(labeled({"n": 5}, OWNER)),
            "agent": "y",
            "take": data.draw(st.sampled_from(["one", "two", "none"])),
            "supposed": data.draw(st.sampled_from([Supposed.SUPPOSED_HOLDS, Supposed.SUPPOSED_FAILS])),
            "ends": data.draw(
                st.sampled_from([SupposedEnd.SUPPOSED_END_REJECTED, SupposedEnd.SUPPOSED_END_FAILED])
            ),
        }[what]
        setattr(change, what, value)
    try:
        other = World(run.document, of, forks=(run, asked))
    except TerminalError as error:
        if error.code != "INVALID_ARGUMENT" or not error.details["field"].startswith("changes["):
            raise
        SEEN["can't be forked so"] += 1
        return
    SEEN["forked"] += 1
    other.finish(data)
    assert not other.run.changed_things(), "a fork changes nothing"


@pytest.mark.feature("D1", "D2", "D6", "D9", "D10")
@settings(max_examples=tries(300), deadline=None, suppress_health_check=SLOW)
@given(document=documents(), data=st.data())
def test_what_is_accepted_ends_and_its_undo_leaves_the_world_as_it_was(
    document: Document, data: Data
) -> None:
    """`Driver.give` checks after every input that state, fold of the events, and what is stored are the same."""
    of = accepted(document)
    SEEN["accepted" if of is not None else "explained"] += 1
    if of is None:
        return
    SEEN.update(step.kind for step in of.ordered)
    run = World(document, of, shares=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(0, 25))):
        for name in run.open()[:1]:
            fails = data.draw(st.integers(0, 5)) == 0
            silent = fails and run.workflow.at(name).effect and data.draw(st.booleans())
            status = Status.STATUS_UNKNOWN if silent else Status.STATUS_FAILED
            run.answer(name, status if fails else Status.STATUS_SUCCEEDED, data)
        something_else(run, data)
        run.person(data, kind=False)
        run.now += data.draw(st.sampled_from([1, 1, 2_000, 2_000, 30_000, 4_000_000]))
        run.give(Tick())
        if run.run.closed and not run.run.undo_queue and data.draw(st.booleans()):
            SEEN["had go on"] += not again(run, data).refusal
            if run.run.state == R.RUN_STATE_SUCCEEDED and data.draw(st.booleans()):
                run.give(Undo("before it goes back"))
    if not run.run.closed and data.draw(st.booleans()):
        run.give(Cancel("now"))
    if data.draw(st.integers(0, 3)) == 0:
        fork(run, data)
    run.finish(data)
    run.give(Undo("all of it"))
    run.finish(data)
    for name, stands in run.stands.items():
        taken_back = not stands or not run.run.at(name).undoable or name in run.left
        assert taken_back, f"{name} stands after the undo"
        assert not stands or name in run.run.steps or name in run.left, f"{name} stands, and nothing says so"
    before = Counter(run.stands)
    run.give(Redo("no, leave it"))
    run.finish(data)
    run.give(Undo("all the same"))
    run.finish(data)
    changed = {name for name in before | run.stands if before[name] != run.stands[name]}
    assert changed <= run.left, "the undo of an undo of an undo is the undo"


@pytest.mark.feature("D1")
def test_every_kind_was_met_and_both_verdicts() -> None:
    """Of the property above, which ran before in this process; alone there is nothing to look at."""
    if not SEEN:
        pytest.skip("the property test did not run in this process")
    assert set(KINDS) <= set(SEEN) and SEEN["accepted"] > 10 and SEEN["explained"] > 0
    # The rarer ones are met one more, one less often; were they out of reach, many would be.
    missed = [what for what in RARE if not SEEN[what]]
    assert len(missed) <= len(RARE) // 2, missed
