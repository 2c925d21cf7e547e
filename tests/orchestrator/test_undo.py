"""Undo of chosen steps, the undo of an undo, and what an undo that was incomplete leads to."""

import pytest

from aios.run.v1 import state_pb2 as pb
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState, Recovery, RunState, StepState
from aios.task.v1.task_pb2 import MODE_REDO, MODE_UNDO, Mode, Status
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator import failures, undo_plan
from aios_orchestrator.codec import task_of
from aios_orchestrator.core.chosen import with_what_came_of_it
from aios_orchestrator.core.decide import Cancel, Redispatch, Redo, Settle, Tick, Undo
from aios_orchestrator.core.fold import fold
from aios_orchestrator.core.undo import redo_preview
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState
pytestmark = pytest.mark.feature("D6")

GRAPH = workflow("""
- {name: base, connector: x.write, effect: write, input: {n: "${inputs.n}"}}
- {name: other, connector: x.write, effect: write, input: {n: 2}}
- {name: think, agent: a, needs: [base], input: {from: "${steps.base.n}"}}
- {name: follow, connector: x.write, effect: write, needs: [think], input: {n: "${steps.think.from}"}}
- {name: maybe, connector: x.write, effect: write, when: "steps.base.n == 1", input: {n: 3}}
- {name: last, connector: x.write, effect: write, input: {n: 4}}
""")
NESTED = workflow("""
- {name: base, connector: x.write, effect: write, input: {n: "${inputs.n}"}}
- name: each
  map:
    over: ["${inputs.n}", 7]
    steps:
      - {name: put, connector: x.write, effect: write, input: {n: "${item}", of: "${steps.base.n}"}}
      - {name: mark, connector: x.write, effect: write, input: {n: "${item}"}}
      - {name: tell, connector: x.write, effect: write, input: {n: "${steps.put.n}"}}
    result: "${steps.tell.n}"
- {name: sum, connector: x.write, effect: write, input: {of: "${steps.each}"}}
- name: turns
  needs: []
  repeat:
    limit: 3
    until: "index == 2"
    steps: [{name: turn, connector: x.write, effect: write, input: {n: "${index}"}}]
    result: "${steps.turn.n}"
- {name: end, connector: x.write, effect: write, needs: [sum], input: {n: 1}}
""")


def ended(of=GRAPH, mode: Mode = Mode.MODE_EXECUTE) -> Driver:
    """A run of it that has succeeded."""
    run = Driver(of, mode)
    while not run.run.closed:
        run.settle(run.run.lively()[0].name if len(run.run.live) == 1 else open_steps(run)[0])
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    return run


def open_steps(run: Driver) -> list[str]:
    return [s.name for s in run.run.lively() if s.state in (S.STEP_STATE_DISPATCHED, S.STEP_STATE_UNDOING)]


def finished(run: Driver) -> list[str]:
    """Settle all that is taken or put back; the order in which it was."""
    order = []
    while run.run.undo_queue:
        order.append(run.run.undo_queue[0])
        run.settle(run.run.undo_queue[0])
    return order


def of_state(run: Driver, state: S) -> set[str]:
    return {step.name for step in run.run.steps.values() if step.state == state}


def test_a_chosen_step_takes_along_what_used_it_and_nothing_else() -> None:
    run = ended()
    run.give(Undo("", ("base",)))
    assert finished(run) == ["maybe", "follow", "base"]
    assert run.run.state == R.RUN_STATE_PARTLY_UNDONE
    assert of_state(run, S.STEP_STATE_UNDONE) == {"base", "follow", "maybe"}
    assert run.run.at("other").state == S.STEP_STATE_SUCCEEDED, "it only came later in the document"


def test_the_rest_is_undone_later_and_then_the_run_is_undone() -> None:
    run = ended()
    run.give(Undo("", ("other",)))
    assert finished(run) == ["other"]
    run.give(Undo(""))
    assert finished(run) == ["last", "maybe", "follow", "base"]
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (["each[1].put"], {"each[1].put", "each[1].tell", "sum", "end"}),
        (["each[].mark"], {"each[0].mark", "each[1].mark", "sum", "end"}),
        (["base"], {"base", "each[0].put", "each[1].put", "each[0].tell", "each[1].tell", "sum", "end"}),
        (["turns[1].turn"], {"turns[1].turn", "turns[2].turn"}),
        (["each"], {f"each[{n}].{s}" for n in (0, 1) for s in ("put", "mark", "tell")} | {"sum", "end"}),
    ],
)
def test_items_turns_and_bodies_are_followed(chosen: list[str], taken: set[str]) -> None:
    run = ended(NESTED)
    run.give(Undo("", tuple(chosen)))
    order = finished(run)
    assert set(order) == taken
    before = {step.name: step.effect_order for step in run.run.steps.values()}
    assert order == sorted(order, key=lambda name: -before[name])


def test_while_one_undo_is_under_way_another_one_is_refused_and_not_forgotten() -> None:
    run = ended()
    run.give(Undo("", ("other",)))
    for chosen in ((), ("last",)):
        assert run.give(Undo("", chosen)).refusal.code == "RUN_CLOSED"  # type: ignore[union-attr]
    finished(run)
    run.give(Undo(""))
    assert run.give(Undo("", ("last",))).refusal.code == "RUN_CLOSED"  # type: ignore[union-attr]
    assert run.give(Undo("")).events == () and run.last.refusal is None


def test_a_step_that_is_not_there_or_changed_nothing_is_refused_with_a_hint() -> None:
    run = ended()
    assert "Did you mean 'follow'" in str(run.give(Undo("", ("folow",))).refusal)
    assert "changed nothing that stands" in str(
        ended(workflow("- {name: a, agent: x}")).give(Undo("", ("a",))).refusal
    )
    assert run.run.state == R.RUN_STATE_SUCCEEDED


def test_what_was_undone_is_put_back_in_the_order_of_doing_under_keys_of_its_own() -> None:
    run = ended()
    run.give(Undo(""))
    first = task_of(run.run, GRAPH, "last", None, "")
    assert first.mode == MODE_UNDO and first.task_id.endswith("/last/0/1")
    finished(run)
    run.give(Redo("a mistake"))
    task = task_of(run.run, GRAPH, "base", None, "")
    assert task.mode == MODE_REDO and task.task_id.endswith("/base/0/1/redo-1")
    assert finished(run) == ["base", "other", "follow", "maybe", "last"]
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert of_state(run, S.STEP_STATE_UNDONE) == set()
    run.give(Undo(""))
    assert task_of(run.run, GRAPH, "last", None, "").task_id.endswith("/last/0/1/undo-1")
    finished(run)
    assert run.run.state == R.RUN_STATE_UNDONE


def test_an_outcome_of_an_earlier_undo_counts_for_no_later_one() -> None:
    run = ended()
    run.give(Undo("", ("last",)))
    late = run.outcome("last")
    finished(run)
    run.give(Redo(""))
    finished(run)
    run.give(Undo("", ("last",)))
    assert run.give(Settle(late)).events == ()
    assert run.run.at("last").state == S.STEP_STATE_UNDOING


def test_what_was_changed_since_stays_undone_and_is_said() -> None:
    run = ended()
    run.give(Undo(""))
    finished(run)
    run.give(Redo(""))
    run.settle("base")
    run.settle("other", status=Status.STATUS_CONFLICT)
    finished(run)
    assert run.run.state == R.RUN_STATE_PARTLY_UNDONE
    assert of_state(run, S.STEP_STATE_UNDONE) == {"other"}
    told = RunEvent.FromString(run.last.events[-1])
    assert list(told.run_redone.left) == ["other"]
    assert redo_preview(run.run) == ["other"]


def test_a_failed_run_is_failed_again_once_it_is_put_back() -> None:
    run = Driver(GRAPH)
    run.settle("base")
    run.settle("other")
    run.fail("think")
    error = run.run.error
    run.give(Undo(""))
    finished(run)
    assert run.run.state == R.RUN_STATE_UNDONE and run.run.error is None
    run.give(Redo(""))
    finished(run)
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error == error
    assert failures.failure_of(run.run, GRAPH) is not None


def test_nothing_is_put_back_of_a_run_that_stands_or_is_being_undone() -> None:
    run = ended()
    assert run.give(Redo("")).refusal.code == "RUN_CLOSED"  # type: ignore[union-attr]
    run.give(Undo(""))
    assert run.give(Redo("")).refusal.code == "RUN_CLOSED"  # type: ignore[union-attr]
    finished(run)
    run.give(Redo(""))
    assert run.give(Undo("")).refusal.code == "RUN_CLOSED"  # type: ignore[union-attr]
    assert run.give(Redo("")).events == () and run.last.refusal is None


def test_a_redo_waits_before_it_is_tried_again_and_is_handed_out_again() -> None:
    run = ended()
    run.give(Undo("", ("last",)))
    finished(run)
    run.give(Redo(""))
    run.fail("last", retryable=True)
    assert run.run.at("last").due
    run.now = run.run.at("last").due
    assert run.give(Tick()).undoing == ("last",)
    assert run.give(Redispatch(("last",), "lost")).undoing == ("last",)
    finished(run)
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize("happened", ["yes", "no"])
def test_a_redo_that_nobody_can_know_waits_for_a_person(happened: str) -> None:
    run = ended()
    run.give(Undo("", ("last",)))
    finished(run)
    run.give(Redo(""))
    run.unknown("last")
    assert "the redo of x.write" in run.approval.title
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": happened})
    if happened == "no":
        assert task_of(run.run, GRAPH, "last", None, "").task_id.endswith("/last/0/2/redo-1")
        finished(run)
    assert run.run.state == R.RUN_STATE_SUCCEEDED


def test_an_undo_that_is_incomplete_is_a_failure_that_is_tried_again_left_or_put_back() -> None:
    run = ended()
    run.give(Undo(""))
    run.settle("last", status=Status.STATUS_CONFLICT)
    finished(run)
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    failure = failures.failure_of(run.run, GRAPH)
    assert failure is not None and failure.step == "last" and failure.error.code == "CONFLICT"
    found = {item.action: item for item in failures.remedies(run.run, GRAPH, run.now)}
    assert set(found) == {"retry", "skip", "redo"} and found["retry"].suggested
    assert list(found["retry"].again) == ["last"]

    run.recover(Recovery.RECOVERY_RETRY)
    assert run.last.undoing == ("last",)
    run.settle("last", status=Status.STATUS_CONFLICT)
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    run.recover(Recovery.RECOVERY_SKIP, why="it may stay")
    assert run.run.state == R.RUN_STATE_PARTLY_UNDONE
    assert failures.failure_of(run.run, GRAPH) is None
    run.give(Redo(""))
    finished(run)
    assert run.run.state == R.RUN_STATE_SUCCEEDED


def test_an_undo_is_tried_again_and_then_it_is_whole() -> None:
    run = ended()
    run.give(Undo(""))
    run.settle("last", status=Status.STATUS_CONFLICT)
    finished(run)
    run.recover(Recovery.RECOVERY_RETRY)
    finished(run)
    assert run.run.state == R.RUN_STATE_UNDONE
    assert failures.failure_of(run.run, GRAPH) is None


def test_what_memory_answers_an_undo_with_is_what_it_is_put_back_with() -> None:
    run = ended()
    run.give(Undo("", ("last",)))
    run.settle("last", undo_token=b"of the undo")
    run.give(Redo(""))
    assert task_of(run.run, GRAPH, "last", None, "").undo_token == b"of the undo"
    run.settle("last", undo_token=b"of the redo")
    run.give(Undo("", ("last",)))
    assert task_of(run.run, GRAPH, "last", None, "").undo_token == b"of the redo"


def test_the_plan_says_what_in_which_order_and_what_cannot_be_and_why() -> None:
    of = workflow("""
- {name: a, connector: x.write, effect: write}
- {name: ok, gate: {title: t, why: w, risk: r, approves: [mail]}}
- {name: mail, connector: x.send, effect: irreversible}
- {name: b, connector: x.write, effect: write}
- {name: c, connector: x.write, effect: write, input: {n: "${steps.a.n}"}}
""")
    run = Driver(of)
    run.settle("a", output=run.run.input)
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("mail", undo_token=b"")
    run.settle("b")
    run.settle("c")
    plan = list(undo_plan.plan(run.run, of, [], redo=False))
    assert [(item.item.step, item.item.verdict) for item in plan] == [
        ("c", pb.UNDO_VERDICT_UNASKED),
        ("b", pb.UNDO_VERDICT_UNASKED),
        ("a", pb.UNDO_VERDICT_UNASKED),
        ("mail", pb.UNDO_VERDICT_IMPOSSIBLE),
    ]
    assert plan[-1].item.why == "it can't be taken back" and not plan[-1].undo_token
    chosen = list(undo_plan.plan(run.run, of, ["a"], redo=False))
    assert [(item.item.step, item.item.along) for item in chosen] == [("c", True), ("a", False)]


def test_what_nobody_knows_of_is_in_the_plan() -> None:
    of = workflow(
        "- {name: a, connector: x.write, effect: write}\n- {name: b, connector: x.write, effect: write}"
    )
    run = Driver(of)
    run.settle("a")
    run.unknown("b")
    run.decide(A.APPROVAL_STATE_REJECTED)
    assert run.run.state == R.RUN_STATE_FAILED
    plan = list(undo_plan.plan(run.run, of, [], redo=False))
    assert [(item.item.step, item.item.verdict) for item in plan] == [
        ("a", pb.UNDO_VERDICT_UNASKED),
        ("b", pb.UNDO_VERDICT_UNKNOWN),
    ]


def test_the_items_of_a_map_over_a_chosen_step_came_of_it() -> None:
    of = workflow("""
- {name: list, agent: a, input: {n: 1}}
- name: each
  map:
    over: "${steps.list}"
    at_once: 100
    steps: [{name: put, connector: x.write, effect: write, input: {n: "${item}"}}]
""")
    run = Driver(of)
    run.settle("list", output=encode(labeled(list(range(50)), OWNER)))
    while not run.run.closed:
        run.settle(open_steps(run)[0])
    names = with_what_came_of_it(run.run, of, ["list"])
    assert len(names) == 52
    assert fold(run.history).state == R.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize("happened", ["yes", "no"])
def test_what_a_person_says_of_a_change_after_the_undo_is_about_that_change(happened: str) -> None:
    of = workflow(
        "- {name: a, connector: x.write, effect: write}\n- {name: b, connector: x.write, effect: write}"
    )
    run = Driver(of)
    run.settle("a")
    run.unknown("b")
    run.give(Cancel("enough"))
    run.give(Undo(""))
    run.settle("a")
    assert run.run.state == R.RUN_STATE_UNDONE
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": happened})
    assert run.run.at("a").state == S.STEP_STATE_UNDONE
    stands = happened == "yes"
    assert run.run.at("b").state == (S.STEP_STATE_SUCCEEDED if stands else S.STEP_STATE_PENDING)
    assert run.run.state == (R.RUN_STATE_UNDO_INCOMPLETE if stands else R.RUN_STATE_UNDONE)
