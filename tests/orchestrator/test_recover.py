"""A run that ended goes on: what failed again, without it, with another input, or from an earlier step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import Recovery
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode, encode
from aios_core.hashing import sha256
from aios_core.labels import OWNER, Trust, outside
from aios_core.values import label_of, labeled, plain
from aios_orchestrator.core.decide import Cancel, Redispatch, Redo, Settle, Tick, Undo
from aios_orchestrator.progress import OPEN_STEP
from tests.often import tries
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_core import TWO, WRITES
from tests.orchestrator.test_rounds import (
    CHILD,
    COLLECT,
    EVERYTHING,
    MAP,
    OUT,
    finish,
    items,
    open_steps,
)

RETRY, SKIP, EDIT, REWIND = (
    Recovery.RECOVERY_RETRY,
    Recovery.RECOVERY_SKIP,
    Recovery.RECOVERY_EDIT,
    Recovery.RECOVERY_REWIND,
)


def refused(run: Driver) -> str:
    assert run.last.refusal is not None
    assert run.last.events == ()
    return run.last.refusal.code


def told(run: Driver, name: str) -> int:
    """How many events of a kind there were."""
    return sum(RunEvent.FromString(event).WhichOneof("body") == name for event in run.history)


def kept(run: Driver, step: str) -> tuple[object, object]:
    return run.run.at(step).state, run.run.at(step).output


@pytest.mark.feature("D8")
def test_a_retry_tries_what_failed_in_a_new_attempt_group_and_repeats_nothing_else() -> None:
    run = Driver(TWO, n=3)
    run.settle("a")
    before = kept(run, "a")
    run.fail("b")
    assert run.run.state == R.RUN_STATE_FAILED
    late = run.outcome("b")
    assert run.recover(RETRY).dispatched == ("b",)
    assert run.run.state == R.RUN_STATE_RUNNING and run.run.error is None
    assert run.run.at("b").attempt_group == 2 and kept(run, "a") == before
    assert run.give(Settle(late)).events == (), "an outcome of the attempts before counts no more"
    run.settle("b")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": 3, "t": "got 3"}
    assert told(run, "step_scheduled") == 3


@pytest.mark.feature("D8")
def test_what_was_cut_off_when_the_run_failed_goes_on_with_it() -> None:
    run = Driver(
        workflow(
            """
- {name: a, needs: [], agent: x, input: {n: 1}}
- {name: pause, needs: [], wait: 5s}
- {name: ok, needs: [], gate: {title: "Go", approves: [w]}}
- {name: w, needs: [ok, a], connector: files.write, effect: write, input: {n: 1}}
- {name: end, needs: [w, pause], agent: x}
"""
        )
    )
    old = run.approval
    run.fail("a")
    assert run.run.at("pause").state == run.run.at("ok").state == S.STEP_STATE_CANCELLED
    run.recover(RETRY)
    assert run.run.at("pause").state == S.STEP_STATE_WAITING
    assert run.approval.approval_id != old.approval_id
    run.settle("a")
    run.decide(A.APPROVAL_STATE_APPROVED, approval=old)
    assert run.last.refusal is not None and run.last.refusal.code == "APPROVAL_STALE"
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("w")
    run.now += 6_000
    run.give(Tick())
    run.settle("end")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D8", "B3")
@pytest.mark.parametrize("recovery", [RETRY, EDIT, REWIND])
def test_what_may_have_happened_is_never_done_again(recovery: Recovery) -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.unknown("one")
    run.decide(A.APPROVAL_STATE_REJECTED)
    assert run.run.state == R.RUN_STATE_FAILED
    run.recover(recovery, "one", {"n": 5} if recovery == EDIT else None)
    assert refused(run) == "OUTCOME_UNKNOWN"
    run.recover(SKIP, "one")
    assert run.run.at("one").state == S.STEP_STATE_SKIPPED
    assert open_steps(run) == ["two"]


@pytest.mark.feature("D8")
def test_a_question_that_is_open_keeps_its_step_and_stays_open() -> None:
    run = Driver(
        workflow(
            """
- {name: a, needs: [], agent: x, input: {n: 1}}
- {name: w, needs: [], connector: files.write, effect: write, input: {n: 1}}
- {name: end, needs: [a, w], agent: x}
"""
        )
    )
    run.unknown("w")
    run.fail("a")
    assert run.run.state == R.RUN_STATE_FAILED and run.run.at("w").state == S.STEP_STATE_UNKNOWN
    run.recover(REWIND, "w")
    assert refused(run) == "OUTCOME_UNKNOWN"
    run.recover(RETRY)
    run.settle("a")
    assert run.run.at("w").state == S.STEP_STATE_UNKNOWN
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "no"})
    run.settle("w")
    run.settle("end")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D8")
def test_a_step_is_skipped_with_a_value_that_stands_for_its_result() -> None:
    run = Driver(TWO)
    run.fail("a")
    run.recover(SKIP, value={"m": 1})
    assert refused(run) == "INVALID_ARGUMENT"
    assert run.last.refusal is not None and "steps.a.n" in run.last.refusal.message
    run.recover(SKIP, value={"n": 7}, why="known")
    run.settle("b")
    assert run.outputs == {"r": 7, "t": "got 7"}
    assert label_of(decode(run.run.at("a").output)).trust == OWNER.trust


@pytest.mark.feature("D8")
def test_what_reads_a_step_that_was_skipped_without_a_value_reads_null() -> None:
    run = Driver(TWO)
    run.settle("a")
    run.fail("b")
    run.recover(SKIP)
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": None, "t": None}


@pytest.mark.feature("D8", "I4")
def test_another_input_is_approved_anew_before_it_is_used() -> None:
    run = Driver(WRITES)
    run.settle("read")
    old = run.approval
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("one")
    run.fail("two")
    assert run.recover(EDIT, value={"n": 9}).dispatched == ()
    assert [item.step for item in run.approval.proposed] == ["two"], "what was done is not asked again"
    assert plain(decode(run.approval.proposed[0].arguments)) == {"n": 9}
    assert run.run.at("one").state == S.STEP_STATE_SUCCEEDED
    run.decide(A.APPROVAL_STATE_APPROVED, approval=old)
    assert run.run.at("two").state == S.STEP_STATE_PENDING, "the approval of the old input does not count"
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("two",)
    assert (
        sha256(run.run.at("two").input)
        == run.run.approvals[run.run.at("ok").approval_id].proposed[0].arguments_sha256
    )
    run.settle("two")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    run.give(Undo(""))
    assert run.run.undo_queue == ("two", "one")


@pytest.mark.feature("D8", "I4")
def test_a_retry_under_an_approval_that_still_counts_asks_nobody_and_one_that_has_expired_asks() -> None:
    for later, asks in ((1_000, False), (3_600_001, True)):
        run = Driver(WRITES)
        run.settle("read")
        run.decide(A.APPROVAL_STATE_APPROVED)
        run.fail("one")
        run.now += later
        run.recover(RETRY)
        assert bool(run.run.open_approvals()) is asks
        assert run.last.dispatched == (() if asks else ("one",))


@pytest.mark.feature("D8")
def test_what_a_person_left_as_it_was_in_an_input_keeps_its_label() -> None:
    run = Driver(
        workflow(
            """
- {name: a, agent: x}
- {name: b, agent: x, input: {to: "${steps.a.to}", text: "${steps.a.text}"}}
"""
        )
    )
    run.settle("a", output=encode(labeled({"to": "x@y", "text": "hi"}, outside("mail"))))
    run.fail("b")
    run.recover(EDIT, value={"to": "x@y", "text": "better"})
    value = decode(run.run.at("b").input)
    assert isinstance(value, dict)
    assert label_of(value["to"]).trust <= Trust.UNTRUSTED < label_of(value["text"]).trust


@pytest.mark.feature("D8")
def test_a_rewind_runs_a_step_with_another_input_and_what_came_of_it_and_nothing_else() -> None:
    run = Driver(
        workflow(
            """
- {name: a, needs: [], agent: x, input: {n: "${inputs.n}"}}
- {name: side, needs: [], agent: x, input: {n: 5}}
- {name: b, needs: [a], agent: x, input: {n: "${steps.a.n}"}}
- {name: c, needs: [b, side], agent: x, input: {n: "${steps.b.n + steps.side.n}"}}
""",
            head='  outputs: {r: "${steps.c.n}"}\n',
        )
    )
    for step in ("a", "side", "b", "c"):
        run.settle(step)
    assert run.outputs == {"r": 6}
    assert run.recover(REWIND, "b", {"n": 10}).dispatched == ("b",)
    assert run.run.state == R.RUN_STATE_RUNNING and run.run.outputs == b""
    assert run.run.at("c").state == S.STEP_STATE_PENDING
    run.settle("b")
    run.settle("c")
    assert run.outputs == {"r": 15}
    assert run.run.at("side").attempt_group == run.run.at("a").attempt_group == 1
    run.recover(REWIND, "a")
    run.settle("a")
    assert plain(decode(run.run.at("b").input)) == {"n": 1}, (
        "an edit that was made for what came before is dropped"
    )


@pytest.mark.feature("D8", "D6")
def test_a_rewind_behind_an_effect_is_refused_with_the_list_until_that_is_undone() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("one")
    run.fail("two")
    run.recover(REWIND, "read")
    assert refused(run) == "EFFECTS_STAND"
    assert run.last.refusal is not None and run.last.refusal.details["steps"] == "one"
    run.give(Undo(""))
    run.settle("one")
    assert run.run.state == R.RUN_STATE_UNDONE
    run.recover(REWIND, "two")
    assert refused(run) == "EFFECTS_STAND", "what was undone would be missing"
    run.recover(RETRY)
    assert refused(run) == "RUN_CLOSED"
    run.recover(REWIND, "one")
    assert run.run.at("read").state == S.STEP_STATE_SUCCEEDED
    assert [item.step for item in run.approval.proposed] == ["one", "two"], (
        "an approval counts for one effect"
    )
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.run.at("one").attempt_group == 2
    run.settle("one")
    run.settle("two")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    run.give(Undo(""))
    assert run.run.undo_queue == ("two", "one")


@pytest.mark.feature("D8")
def test_runs_that_are_not_failed_are_refused_in_words() -> None:
    run = Driver(TWO)
    run.recover(RETRY, "a")
    assert refused(run) == "NOT_FAILED"
    run.recover(REWIND, "a")
    assert refused(run) == "NOT_FAILED"
    run.give(Cancel("x"))
    run.settle("a")
    for recovery in (RETRY, SKIP, EDIT, REWIND):
        run.recover(recovery, "a")
        assert refused(run) == "RUN_CLOSED"
    done = Driver(TWO)
    done.settle("a")
    done.settle("b")
    done.recover(RETRY, "a")
    assert refused(done) == "NOT_FAILED"
    simulated = Driver(TWO, mode=Mode.MODE_SIMULATE)
    simulated.fail("a")
    simulated.recover(RETRY)
    assert refused(simulated) == "RUN_CLOSED"


@pytest.mark.feature("D8")
@pytest.mark.parametrize(
    ("recovery", "step", "value", "words"),
    [
        (SKIP, "ok", None, "NOT_FAILED"),
        (RETRY, "bb", None, "Did you mean 'b'"),
        (RETRY, "c", None, "has not begun"),
        (RETRY, "a", None, "rewind to it"),
        (EDIT, "b", None, "new input"),
        (RETRY, "b", {"n": 1}, "edit the input"),
        (REWIND, "q", None, "no step"),
    ],
)
def test_a_recovery_that_makes_no_sense_is_refused_and_changes_nothing(
    recovery: Recovery, step: str, value: dict[str, int] | None, words: str
) -> None:
    run = Driver(
        workflow(
            """
- {name: ok, gate: {title: "Go", approves: [a]}}
- {name: a, agent: x}
- {name: b, agent: x}
- {name: c, agent: x}
"""
        )
    )
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("a")
    run.fail("b")
    run.recover(recovery, step, value)
    refused(run)
    assert words in str(run.last.refusal)


@pytest.mark.feature("D8", "F5")
def test_a_run_that_would_pass_its_cap_goes_on_once_a_person_allows_more() -> None:
    run = Driver(
        workflow('- {name: a, agent: x, budget: "0.60"}\n- {name: b, agent: x, budget: "0.60"}', head="")
    )
    run.settle("a", cost_micros=600_000)
    assert run.run.error is not None and run.run.error.code == "BUDGET_EXCEEDED"
    run.recover(RETRY)
    assert run.run.error is not None and run.run.error.code == "BUDGET_EXCEEDED", "the cap holds"
    run.recover(RETRY, cap=900_000)
    assert refused(run) == "INVALID_ARGUMENT"
    assert run.recover(RETRY, cap=1_200_000).dispatched == ("b",)
    assert run.run.cap == 1_200_000 and run.run.held == 600_000


@pytest.mark.feature("D8")
def test_an_item_that_failed_the_run_is_tried_again_and_the_rest_of_the_map_goes_on() -> None:
    run = Driver(workflow(MAP, head=OUT))
    run.settle("list", output=items("x", "y", "z"))
    run.settle("each[0].draft")
    run.settle("each[0].send")
    run.fail("each[1].draft")
    for step in open_steps(run):
        run.settle(step)
    assert run.run.state == R.RUN_STATE_FAILED and run.run.at("each").state == S.STEP_STATE_CANCELLED
    run.recover(RETRY)
    assert run.run.at("each").state == S.STEP_STATE_RUNNING
    assert "each[1].draft" in open_steps(run) and run.run.at("each[0].send").attempt_group == 1
    for _ in range(9):
        for step in open_steps(run):
            run.settle(step)
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": ["x", "y", "z"]}


@pytest.mark.feature("D8")
def test_what_a_map_went_on_without_is_tried_again_and_what_came_of_the_map_after_it() -> None:
    run = Driver(workflow(COLLECT, head=OUT))
    run.settle("list", output=items("x", "y"))
    run.settle("each[0].draft")
    run.settle("each[0].send")
    run.fail("each[1].draft")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": ["x", None]}
    run.recover(REWIND, "each[0].draft")
    assert refused(run) == "EFFECTS_STAND"
    run.recover(REWIND, "each[1].draft")
    assert open_steps(run) == ["each[1].draft"] and run.run.at("end").state == S.STEP_STATE_PENDING
    run.settle("each[1].draft")
    run.settle("each[1].send")
    assert run.outputs == {"r": ["x", "y"]} and told(run, "run_succeeded") == 2


NESTED = """
- name: all
  map:
    over: [1, 2]
    on_failure: %s
    steps: [{name: each, map: {over: ["${item}"], steps: [{name: a, agent: x}]}}]
- {name: end, agent: x}
"""


@pytest.mark.feature("D8")
def test_a_step_in_a_map_in_a_map_that_is_over_is_gone_back_to_and_both_go_on_until_it_is_done() -> None:
    run = Driver(workflow(NESTED % "fail"))
    steps = ["all[0].each[0].a", "all[1].each[0].a"]
    for step in (*steps, "end"):
        run.settle(step)
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert run.recover(REWIND, steps[0]).dispatched == (steps[0],)
    assert run.run.at("all").state == run.run.at("all[0].each").state == S.STEP_STATE_RUNNING
    assert run.run.at("all[1].each").state == S.STEP_STATE_SUCCEEDED
    assert run.settle(steps[0]).dispatched == ("end",)
    run.settle("end")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D8")
def test_a_map_that_began_in_the_decision_in_which_the_run_ended_is_stored_whole_when_it_goes_on() -> None:
    """`Driver.give` reads back what is stored."""
    run = Driver(
        workflow(
            """
- {name: each, needs: [], map: {over: [1], steps: [{name: rest, wait: 3s}]}}
- {name: wrong, needs: [], transform: {n: "${1 / (inputs.n - 1)}"}}
"""
        )
    )
    assert run.run.state == R.RUN_STATE_FAILED and run.run.at("each").state == S.STEP_STATE_CANCELLED
    run.recover(SKIP, "wrong")
    assert run.run.at("each[0].rest").state == S.STEP_STATE_WAITING
    run.now += 3_000
    run.give(Tick())
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D8")
@pytest.mark.parametrize("recovery", [EDIT, REWIND, RETRY])
def test_a_part_of_what_was_left_out_is_not_gone_back_to_but_the_whole_is(recovery: Recovery) -> None:
    run = Driver(workflow(NESTED % "collect"))
    run.fail("all[0].each[0].a")
    run.settle("all[1].each[0].a")
    run.fail("end")
    run.recover(SKIP, "all[0].each")
    run.fail("end")
    run.recover(recovery, "all[0].each[0].a", {"n": 1} if recovery == EDIT else None)
    assert refused(run) == "INVALID_ARGUMENT"
    assert run.last.refusal is not None and "Go back to 'all[0].each' itself" in str(run.last.refusal)
    assert run.recover(REWIND, "all[0].each").dispatched == ("all[0].each[0].a",)
    run.settle("all[0].each[0].a")
    run.settle("end")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D8")
def test_a_turn_of_a_repeat_that_is_over_is_not_gone_back_to_but_the_whole_is() -> None:
    run = Driver(
        workflow(
            """
- {name: turns, repeat: {limit: 3, until: "${index == 1}", steps: [{name: t, agent: x, input: {n: "${index}"}}]}}
- {name: end, agent: x}
"""
        )
    )
    run.settle("turns[0].t")
    run.fail("turns[1].t")
    run.recover(REWIND, "turns[0].t")
    assert refused(run) == "INVALID_ARGUMENT"
    run.recover(RETRY)
    assert open_steps(run) == ["turns[1].t"]
    run.settle("turns[1].t")
    run.settle("end")
    run.recover(REWIND, "turns[1].t")
    assert refused(run) == "INVALID_ARGUMENT"
    run.recover(REWIND, "turns")
    assert open_steps(run) == ["turns[0].t"]
    for step in ("turns[0].t", "turns[1].t", "end"):
        run.settle(step)
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D8")
def test_a_sub_workflow_runs_again_with_another_input_checked_against_its_schema() -> None:
    run = Driver(workflow("- {name: sub, workflow: child@v, input: {n: 1}}", uses={"child@v": CHILD}))
    inner = open_steps(run)[0]
    run.fail(inner)
    run.recover(REWIND, "sub", {"m": 1})
    assert refused(run) == "INVALID_ARGUMENT"
    run.recover(REWIND, "sub", {"n": 8})
    assert open_steps(run) == [inner] and run.run.at(inner).attempt_group == 2
    assert 8 in plain(decode(run.run.at(inner).input)).values()  # type: ignore[union-attr]


@pytest.mark.feature("D8", "D6")
def test_what_could_not_be_taken_back_counts_as_done_when_the_run_goes_on() -> None:
    of = workflow(
        '- {name: write, connector: files.write, effect: write, input: {n: "${inputs.n}"}}\n'
        "- {name: one, agent: x, input: {n: 1}}\n- {name: two, agent: x, input: {n: 2}}\n"
    )
    run = Driver(of)
    for step in ("write", "one", "two"):
        run.settle(step)
    run.give(Undo("back"))
    run.fail("write")
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    run.recover(REWIND, "one")
    assert run.last.refusal is None and run.last.dispatched == ("one",)
    run.settle("one")
    run.settle("two")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


MAYBE = ["retry", "skip", "edit", "rewind"]


def maybe_recover(run: Driver, data: st.DataObject) -> None:
    """One recovery, whatever comes of it; what the run had done before and does not repeat stays as it is."""
    begun = [step.name for step in run.run.steps.values() if step.state != S.STEP_STATE_PENDING]
    kind = data.draw(st.sampled_from(MAYBE if begun else MAYBE[:3]))
    names = ["", *(step.name for step in run.run.steps.values() if step.state == S.STEP_STATE_FAILED)]
    step = data.draw(st.sampled_from(begun if kind == "rewind" else names))
    recovery = {"retry": RETRY, "skip": SKIP, "edit": EDIT, "rewind": REWIND}[kind]
    value: dict[str, int] | None = {"n": 4} if kind == "edit" or data.draw(st.booleans()) else None
    before = {step.name: step for step in run.run.steps.values()}
    incomplete = run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    run.recover(recovery, step, None if kind == "retry" else value)
    if run.last.refusal is not None:
        assert run.last.events == ()
        return
    if incomplete and kind in ("retry", "skip"):
        return  # it is about the undo
    reopened = next(
        event.run_reopened
        for event in map(RunEvent.FromString, run.last.events)
        if event.WhichOneof("body") == "run_reopened"
    )
    for name, old in before.items():
        if name in reopened.again:
            assert not (old.effect_order and old.state == S.STEP_STATE_SUCCEEDED), (
                "an effect that stands is not repeated"
            )
            assert old.state != S.STEP_STATE_UNKNOWN
            assert run.run.at(name).attempt_group == old.attempt_group + 1
        elif old.state == S.STEP_STATE_SUCCEEDED and old.body is None:
            assert run.run.at(name) is old


@pytest.mark.feature("D8")
@pytest.mark.parametrize("kind", ["connector: files.write, effect: write", "agent: x"])
def test_the_steps_inside_of_one_that_was_left_out_begin_anew_with_it(kind: str) -> None:
    of = workflow(
        "- {name: a, agent: x, input: {n: 1}}\n"
        "- name: each\n"
        "  map:\n"
        "    over: [1]\n"
        '    result: "${steps.post.none.of_it}"\n'
        f'    steps: [{{name: post, {kind}, input: {{n: "${{item}}"}}}}]\n'
    )
    run = Driver(of)
    run.settle("a")
    run.settle("each[0].post")
    assert (run.run.state, run.run.failed) == (R.RUN_STATE_FAILED, "each")
    run.recover(SKIP)
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    run.recover(REWIND, "a")
    if "effect" in kind:  # what it changed stands, and is not done a second time
        assert refused(run) == "EFFECTS_STAND"
        return
    run.settle("a")
    assert run.last.dispatched == ("each[0].post",)
    run.settle("each[0].post")
    assert run.run.state == R.RUN_STATE_FAILED


@pytest.mark.feature("D8")
@pytest.mark.parametrize("of", [WRITES, EVERYTHING], ids=["writes", "everything"])
@settings(max_examples=tries(200), deadline=None)
@given(data=st.data())
def test_any_history_with_recoveries_is_the_fold_of_its_events_and_ends(
    of: object, data: st.DataObject
) -> None:
    """`Driver.give` checks after every input that state, fold of the events, and what is stored are the same."""
    run = Driver(of)  # type: ignore[arg-type]
    kinds = ["settle"] * 4 + ["fail", "fail", "retry", "unknown", "yes", "no", "approve", "approve", "reject"]
    kinds += [
        "tick",
        "lost",
        "cancel",
        "undo",
        "undo",
        "some",
        "redo",
        "redo",
        "recover",
        "recover",
        "recover",
    ]
    for _ in range(data.draw(st.integers(0, 50))):
        kind = data.draw(st.sampled_from(kinds))
        if kind in ("settle", "fail", "retry", "unknown", "lost"):
            steps = [name for name in run.run.live if run.run.at(name).state in OPEN_STEP]
            if steps:
                step = data.draw(st.sampled_from(sorted(steps)))
                {
                    "settle": lambda step: run.settle(step, cost_micros=data.draw(st.integers(0, 5))),
                    "fail": run.fail,
                    "retry": lambda step: run.fail(step, retryable=True),
                    "unknown": run.unknown,
                    "lost": lambda step: run.give(Redispatch((step,), "x")),
                }[kind](step)
        elif kind == "tick":
            run.now += data.draw(st.sampled_from([1, 2_000, 70_000, 4_000_000]))
            run.give(Tick())
        elif kind in ("cancel", "undo"):
            if data.draw(st.integers(0, 5)) == 0 or (kind == "undo" and run.run.closed):
                run.give(Cancel("x") if kind == "cancel" else Undo("x"))
        elif kind == "some" and run.run.closed and run.run.steps:
            run.give(Undo("x", (data.draw(st.sampled_from(sorted(run.run.steps))),)))
        elif kind == "redo":
            run.give(Redo("x"))
        elif kind == "recover":
            if run.run.closed:
                maybe_recover(run, data)
        elif run.run.open_approvals():
            approval = data.draw(st.sampled_from(run.run.open_approvals()))
            answers = {"yes": {"happened": "yes"}, "no": {"happened": "no"}}.get(kind)
            state = A.APPROVAL_STATE_REJECTED if kind == "reject" else A.APPROVAL_STATE_APPROVED
            run.decide(A.APPROVAL_STATE_ANSWERED if answers else state, answers, approval=approval)
        assert run.run.held >= 0 and run.run.held + run.run.settled <= run.run.cap
    for _ in range(5):
        finish(run)
        assert run.run.closed and run.run.held == 0
        if run.run.state == R.RUN_STATE_FAILED:
            run.recover(RETRY)
    run.give(Undo("all back"))
    finish(run)
    orders = [step.effect_order for step in run.run.changed_things()]
    assert len(set(orders)) == len(orders)
    assert run.run.state in (R.RUN_STATE_UNDONE, R.RUN_STATE_UNDO_INCOMPLETE)
