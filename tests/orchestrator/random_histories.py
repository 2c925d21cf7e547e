"""Random histories of random workflows, each from its draws."""

from collections import Counter
from typing import Final

from aios.run.v1.commands_pb2 import EditApprovalRequest
from aios.run.v1.state_pb2 import Fork, Recovery, Supposed, SupposedEnd
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import MODE_SIMULATE, Status
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.core.decide import (
    Admit,
    Cancel,
    Decision,
    Edit,
    Redispatch,
    Redo,
    Settle,
    Tick,
    Undo,
)
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.document import Document
from aios_orchestrator.workflow import Workflow
from tests.orchestrator.draws import Draws
from tests.orchestrator.random_documents import document as random_document
from tests.orchestrator.random_documents import other_version
from tests.orchestrator.random_views import compared, looked_at, recovered, written_down
from tests.orchestrator.random_world import SEEN, World, accepted
from tests.orchestrator.test_hearing import event, heard

RETRY, REWIND = Recovery.RECOVERY_RETRY, Recovery.RECOVERY_REWIND
SKIP, EDIT = Recovery.RECOVERY_SKIP, Recovery.RECOVERY_EDIT
# What there is of it in all, what is spent, and what others hold.
MONEY: Final = [
    None,
    (250_000, 0, 200_000),
    (250_000, 100_000, 100_000),
    (250_000, 200_000, 0),
    (10_000_000, 0, 0),
    (10_000_000, 0, 0),
]
COMES: Final = [
    *["nothing"] * 8,
    "money",
    "money",
    "cap",
    "version",
    "version",
    "lost",
    "twice",
    "redo",
    "stop",
    "restart",
    "look",
]


def lived(draws: Draws) -> None:
    """A workflow is applied, and if it is accepted, a run of it goes through a history, ends, and is undone, redone and
    undone. `Driver.give` checks after every input that state, fold of the events, and what is stored are the same."""
    document = random_document(draws)
    of = accepted(document)
    SEEN["accepted" if of is not None else "explained"] += 1
    if of is None:
        return
    SEEN.update(step.kind for step in of.ordered)
    if draws.once_in(10):
        simulated(document, of, draws)
        return
    run = World(
        document,
        of,
        comes=draws.one_of([1, 1, 2, 6]),
        money=draws.one_of(MONEY),
        queues=draws.once_in(6),
    )
    for _ in range(draws.number(0, 25)):
        answers(run, draws)
        something_else(run, draws)
        run.person(draws, kind=False)
        run.now += draws.one_of([1, 1, 2_000, 2_000, 30_000, 4_000_000])
        run.give(Tick())
        if run.run.closed and not run.run.undo_queue and draws.coin():
            SEEN["had go on"] += not again(run, draws).refusal
            if run.run.state == R.RUN_STATE_SUCCEEDED and draws.coin():
                run.give(Undo("before it goes back"))
    if not run.run.closed and draws.coin():
        run.give(Cancel("now"))
    if draws.once_in(4):
        fork(run, draws)
    run.finish(draws)
    looked_at(run)
    written_down(run, accepted(run.document) or of)
    run.give(Undo("all of it"))
    run.finish(draws)
    for name, stands in run.stands.items():
        taken_back = not stands or cant_be_undone(run, name) or name in run.left
        assert taken_back, f"{name} stands after the undo"
        assert not stands or name in run.run.steps or name in run.left, f"{name} stands, and nothing says so"
    before = Counter(run.stands)
    run.give(Redo("no, leave it"))
    run.finish(draws)
    run.give(Undo("all the same"))
    run.finish(draws)
    changed = {name for name in before | run.stands if before[name] != run.stands[name]}
    assert changed <= run.left, "the undo of an undo of an undo is the undo"


def cant_be_undone(run: World, name: str) -> bool:
    """It has no undo, or one that can't be computed from what a person saw of it."""
    step = run.run.at(name)
    computed = step.error is not None and step.error.code == "EXPRESSION_FAILED"
    return not step.undoable or (step.state == S.STEP_STATE_UNDO_CONFLICT and computed)


def again(run: World, draws: Draws) -> Decision:
    """A person has a run go on that ended: as it was, from a step on that has begun, without one that failed, or with
    another input of it."""
    begun = sorted(step.name for step in run.run.steps.values() if step.state != S.STEP_STATE_PENDING)
    failed = [name for name in begun if run.run.at(name).state == S.STEP_STATE_FAILED]
    if run.run.state == R.RUN_STATE_UNDO_INCOMPLETE and draws.coin():
        SEEN["undo did not do"] += 1
        return recovered(run, Recover(draws.one_of([RETRY, SKIP])))
    way = draws.one_of([RETRY, REWIND, SKIP, EDIT])
    if way == REWIND and begun:
        return recovered(run, Recover(REWIND, draws.one_of(begun)))
    if way in (SKIP, EDIT) and failed:
        value = labeled({"n": 4}, OWNER) if way == EDIT or draws.coin() else None
        return recovered(run, Recover(way, draws.one_of(failed), value))
    return recovered(run, Recover(RETRY))


def answers(run: World, draws: Draws) -> None:
    """A worker says how a task went, or several at once."""
    status = Status.STATUS_SUCCEEDED
    names = draws.some_of(run.open(), draws.one_of([1, 1, 1, 3]))
    if names and draws.once_in(6):
        silent = all(run.workflow.at(name).effect for name in names) and draws.coin()
        status = Status.STATUS_UNKNOWN if silent else Status.STATUS_FAILED
    if draws.once_in(8):
        run.flying += [run.told(name, status, draws) for name in names]
        return
    SEEN["told together"] += len(names) > 1
    run.answer(draws, *names, status=status)


def simulated(document: Document, of: Workflow, draws: Draws) -> None:
    """Nobody is asked, and nothing changes."""
    run = World(document, of, mode=MODE_SIMULATE)
    run.finish(draws)
    assert not run.run.approvals and not run.run.changed_things()
    assert +run.stands == Counter()
    assert run.give(Undo("it")).refusal is not None
    looked_at(run)
    SEEN["simulated"] += run.run.state == R.RUN_STATE_SUCCEEDED


def something_else(run: World, draws: Draws) -> None:
    """What comes in beside answers and decisions, if something does."""
    changed = sorted(step.name for step in run.run.changed_things())
    comes = [*COMES, *["plan"] * 6 * bool(run.run.plans), *["undo"] * 3 * bool(changed)]
    comes += ["late"] * 4 * bool(run.flying)
    comes += ["event"] * 6 * any(step.awaits for step in run.run.lively())
    comes += ["turn", "turn", "left out"] * 4 * run.run.queued
    comes += ["edit"] * 4 * any(approval.proposed for approval in run.run.open_approvals())
    what = draws.one_of(comes)
    if what == "plan":
        owner = draws.one_of(sorted(run.run.plans)).removesuffix(".plan")
        SEEN["revised"] += not run.recover(Recovery.RECOVERY_REPLAN, owner).refusal
    elif what == "money":
        run.others_let_go()
    elif what == "cap":
        run.raise_cap()
    elif what in ("turn", "left out"):
        SEEN[what] += 1
        run.give(Admit("others go before it" if what == "left out" else ""))
    elif what == "version":
        run.follow(*other_version(draws, run.document), accept=draws.coin())
    elif what == "lost" and run.open():
        run.give(Redispatch(tuple(run.open()), "its lease ended"))
    elif what == "late":
        run.arrives(draws)
    elif what == "twice" and run.given:
        before = run.run.last_hash
        run.give(Settle(draws.one_of(run.given)))
        assert run.run.last_hash == before, "what was said before is known"
    elif what == "event":
        for step in list(run.run.lively()):
            if step.awaits:
                run.give(heard(run, event({"n": draws.one_of([1, 3])}, kind="it.came")))
                SEEN["heard"] += run.run.at(step.name).state == S.STEP_STATE_SUCCEEDED
    elif what == "edit":
        edit(run, draws)
    elif what == "undo":
        steps = tuple(draws.some_of(changed, 2))
        SEEN["undid some"] += not run.give(Undo("that", steps)).refusal and bool(steps)
    elif what == "look":
        looked_at(run)
    elif what == "restart":
        run.restart()
    elif what == "redo":
        run.give(Redo("after all"))
    elif what == "stop" and not run.run.closed:
        run.give(Cancel("enough"))


def edit(run: World, draws: Draws) -> None:
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


def fork(run: World, draws: Draws) -> None:
    """Tries the run again from somewhere, some of it otherwise. That may be refused, and changes nothing."""
    of = accepted(run.document)
    assert of is not None
    places = ["", *(step.name for step in of.ordered if not step.scope)]
    asked = Fork(run_id=run.run.run_id, step=draws.one_of(places))
    for _ in range(draws.number(0, 2)):
        change = asked.changes.add(step=draws.one_of(sorted(of.steps)))
        what = draws.one_of(["input", "agent", "take", "supposed", "ends"])
        value = {
            "input": encode(labeled({"n": 5}, OWNER)),
            "agent": "y",
            "take": draws.one_of(["one", "two", "none"]),
            "supposed": draws.one_of([Supposed.SUPPOSED_HOLDS, Supposed.SUPPOSED_FAILS]),
            "ends": draws.one_of([SupposedEnd.SUPPOSED_END_REJECTED, SupposedEnd.SUPPOSED_END_FAILED]),
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
    other.finish(draws)
    assert not other.run.changed_things(), "a fork changes nothing"
    looked_at(other)
    compared(run, other)
