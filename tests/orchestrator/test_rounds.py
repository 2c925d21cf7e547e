"""Steps with steps of their own: maps, repeats and sub-workflows, as parts of the one run."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, Trust, outside
from aios_core.values import label_of, labeled, plain
from aios_orchestrator.core import rounds
from aios_orchestrator.core.decide import Cancel, Redispatch, Tick, Undo
from aios_orchestrator.progress import OPEN_STEP
from tests.often import tries
from tests.orchestrator.runs import Driver, workflow

MAP = """
- {name: list, agent: x, input: {n: "${inputs.n}"}}
- name: each
  map:
    over: "${steps.list.items}"
    at_once: 2
    steps:
      - {name: draft, agent: x, input: {it: "${item}", at: "${index}"}}
      - {name: send, connector: mail.send, effect: write, input: {text: "${steps.draft.it}", n: "${inputs.n}"}}
    result: "${steps.send.text}"
- {name: end, transform: "${steps.each.results}"}
"""
COLLECT = MAP.replace("at_once: 2", "at_once: 3\n    on_failure: collect")
OUT = '  outputs: {r: "${steps.end}"}\n'


def items(*values: object) -> bytes:
    return encode(labeled({"items": list(values)}, OWNER))  # type: ignore[arg-type]


def open_steps(run: Driver) -> list[str]:
    return [name for name in run.run.steps if run.run.at(name).state == S.STEP_STATE_DISPATCHED]


def result_of(run: Driver, step: str) -> object:
    return plain(decode(run.run.at(step).output))


def errors_of(run: Driver, step: str) -> Any:
    """Why items of a map gave nothing."""
    output = result_of(run, step)
    assert isinstance(output, dict)
    return output["errors"]


@pytest.mark.feature("D1")
def test_a_map_goes_through_its_list_so_many_at_once_and_gives_results_in_order() -> None:
    run = Driver(workflow(MAP, OUT))
    assert run.settle("list", output=items("a", "b", "c", "d")).dispatched == (
        "each[0].draft",
        "each[1].draft",
    )
    run.settle("each[1].draft")
    assert run.settle("each[1].send").dispatched == ("each[2].draft",)
    for step in ("each[2].draft", "each[2].send", "each[3].draft", "each[3].send"):
        run.settle(step)
    assert run.run.at("each").state == S.STEP_STATE_RUNNING and run.run.rounds["each"].ended == 3
    run.settle("each[0].draft")
    run.settle("each[0].send")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert run.outputs == {"r": ["a", "b", "c", "d"]}
    assert result_of(run, "each[3].draft") == {"it": "d", "at": 3}


@pytest.mark.feature("D1")
@pytest.mark.parametrize("of", [MAP, COLLECT])
def test_a_map_over_nothing_is_done_at_once(of: str) -> None:
    run = Driver(workflow(of, OUT))
    run.settle("list", output=items())
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": []}


@pytest.mark.feature("D1")
def test_a_map_over_what_is_no_list_fails_in_words() -> None:
    run = Driver(workflow(MAP, OUT))
    run.settle("list", output=encode(labeled({"items": {"a": 1}}, OWNER)))
    assert run.run.error is not None
    assert run.run.error.code == "BAD_OUTPUT" and "'each' goes over is a map" in run.run.error.message


@pytest.mark.feature("D1")
def test_an_item_that_fails_fails_the_run_after_the_others_under_way_have_answered() -> None:
    run = Driver(workflow(MAP, OUT))
    run.settle("list", output=items("a", "b", "c"))
    run.fail("each[0].draft")
    assert run.run.state == R.RUN_STATE_RUNNING and run.last.dispatched == ()
    run.settle("each[1].draft")
    assert run.run.state == R.RUN_STATE_FAILED
    assert run.run.failed == "each[0].draft" and run.run.at("each").state == S.STEP_STATE_CANCELLED


@pytest.mark.feature("D1")
def test_a_map_that_collects_goes_on_without_what_failed_and_says_why() -> None:
    run = Driver(workflow(COLLECT, OUT))
    run.settle("list", output=items("a", "b", "c"))
    run.settle("each[1].draft")
    run.fail("each[1].send", code="MAIL_REFUSED")
    for step in ("each[0].draft", "each[0].send", "each[2].draft", "each[2].send"):
        run.settle(step)
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.run.error is None
    assert run.outputs == {"r": ["a", None, "c"]}
    assert errors_of(run, "each") == [
        {"index": 1, "code": "MAIL_REFUSED", "message": "It failed.", "step": "each[1].send"}
    ]
    assert run.run.at("each").summary == "finished each: 3 items, 1 of them failed"
    output = decode(run.run.at("each").output)
    assert isinstance(output, dict)
    assert label_of(output["results"]).trust != Trust.UNTRUSTED
    assert label_of(output["errors"]).trust == Trust.UNTRUSTED, "a provider's words steer nothing"


@pytest.mark.feature("D1")
def test_what_did_not_happen_after_all_is_not_why_a_run_ended() -> None:
    """It is cancelled while nobody knows what became of a change: that it did not happen is no failure of the run."""
    run = Driver(
        workflow(
            """
- name: each
  map:
    over: [1, 2]
    steps:
      - {name: keep, connector: files.write, effect: write, input: {n: "${item}"}}
"""
        )
    )
    run.unknown("each[0].keep")
    run.settle("each[1].keep")
    run.give(Cancel("enough"))
    assert run.run.state == R.RUN_STATE_CANCELLED
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "no"})
    given_up = run.run.at("each[0].keep").error
    assert given_up is not None and given_up.message == rounds.STOPPED
    assert run.run.state == R.RUN_STATE_CANCELLED and run.run.error is None


def test_what_waits_for_a_person_in_an_item_that_failed_waits_no_more() -> None:
    run = Driver(
        workflow(
            """
- name: each
  map:
    over: [1, 2]
    on_failure: collect
    steps:
      - {name: fast, agent: x, needs: [], input: {n: "${item}"}}
      - {name: ok, needs: [], gate: {title: "Send ${item}", approves: [send]}}
      - {name: send, needs: [ok, fast], connector: mail.send, effect: write, input: {n: "${item}"}}
"""
        )
    )
    first, second = run.run.open_approvals()
    run.fail("each[0].fast")
    assert run.run.approvals[first.approval_id].state == A.APPROVAL_STATE_REPLACED
    assert run.run.at("each[0].ok").error.code == "ROUND_FAILED"  # type: ignore[union-attr]
    refused = run.decide(A.APPROVAL_STATE_APPROVED, approval=first)
    assert refused.refusal is not None and refused.refusal.code == "APPROVAL_STALE"
    run.settle("each[1].fast")
    run.decide(A.APPROVAL_STATE_APPROVED, approval=second)
    run.settle("each[1].send")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.run.effects == 1


GATED = """
- name: each
  map:
    over: [1, 2, 3]
    on_failure: %s
    steps:
      - {name: ok, gate: {title: "Send ${item}", approves: [send]}}
      - {name: send, connector: mail.send, effect: write, input: {n: "${item}"}}
"""


@pytest.mark.feature("D1", "I4")
def test_a_gate_in_a_map_approves_its_own_item_and_no_other() -> None:
    """The approval of one item given for another is refused, and what nobody approved is not sent."""
    run = Driver(workflow(GATED % "collect"))
    first, second, _ = sorted(run.run.open_approvals(), key=lambda approval: approval.title)
    assert [item.step for item in first.proposed] == ["each[0].send"] and first.title == "Send 1"
    assert run.decide(A.APPROVAL_STATE_APPROVED, approval=second).dispatched == ("each[1].send",)
    stale = run.decide(A.APPROVAL_STATE_APPROVED, approval=first, arguments_sha256=second.arguments_sha256)
    assert stale.refusal is not None and stale.refusal.code == "APPROVAL_STALE" and stale.dispatched == ()
    run.settle("each[1].send")
    run.decide(A.APPROVAL_STATE_REJECTED, approval=first, note="not this one")
    run.now += 31 * 86_400_000
    run.give(Tick())
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.run.effects == 1
    assert [(item["index"], item["code"]) for item in errors_of(run, "each")] == [
        (0, "REJECTED"),
        (2, "APPROVAL_EXPIRED"),
    ]


@pytest.mark.feature("I4")
def test_a_rejection_in_a_map_that_does_not_collect_ends_the_run() -> None:
    run = Driver(workflow(GATED % "fail"))
    run.decide(A.APPROVAL_STATE_REJECTED, approval=run.run.open_approvals()[0])
    assert run.run.state == R.RUN_STATE_CANCELLED and not run.run.open_approvals()


REPEAT = """
- name: refine
  repeat:
    limit: 4
    until: "${steps.check.good}"
    %s
    steps:
      - {name: write, agent: x, input: {turn: "${index}", before: "${previous}"}}
      - {name: check, agent: x, input: {text: "${steps.write.turn}"}}
    result: {text: "${steps.write.turn}"}
- {name: end, transform: "${steps.refine}"}
"""


@pytest.mark.feature("D1")
def test_a_repeat_goes_on_until_its_condition_holds_and_sees_the_turn_before() -> None:
    run = Driver(workflow(REPEAT % "at_limit: fail", OUT))
    for turn in range(3):
        run.settle(f"refine[{turn}].write")
        verdict = encode(labeled({"good": turn == 2}, OWNER))
        run.settle(f"refine[{turn}].check", output=verdict)
    assert run.outputs == {"r": {"result": {"text": 2}, "turns": 3, "done": True}}
    assert result_of(run, "refine[2].write") == {"turn": 2, "before": {"text": 1}}
    assert result_of(run, "refine[0].write") == {"turn": 0, "before": None}


@pytest.mark.feature("D1")
def test_a_repeat_may_carry_something_through_a_thousand_turns_of_one_decision() -> None:
    of = workflow(
        """
- name: sum
  repeat:
    limit: 1000
    until: "index == 999"
    steps: [{name: add, transform: "${previous == null ? index : previous + index}"}]
- {name: end, transform: "${steps.sum.result}"}
""",
        OUT,
    )
    run = Driver(of)
    assert run.outputs == {"r": 499_500}
    assert len(run.history) == 2 + 2 * 1000 + 3


@pytest.mark.feature("G7")
def test_labels_go_from_the_condition_of_a_repeat_to_the_next_turn() -> None:
    steps = REPEAT % "at_limit: fail"
    run = Driver(workflow(steps.replace("{turn:", '{own: "a constant", turn:'), OUT))
    first = decode(run.run.at("refine[0].write").input)
    run.settle("refine[0].write")
    run.settle("refine[0].check", output=encode(labeled({"good": False}, outside("connector:mail"))))
    second = decode(run.run.at("refine[1].write").input)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert label_of(first["own"]).trust != Trust.UNTRUSTED
    assert all(label_of(value).trust == Trust.UNTRUSTED for value in second.values())


@pytest.mark.feature("D1")
@pytest.mark.parametrize("lenient", [False, True])
def test_a_repeat_ends_at_its_limit(lenient: bool) -> None:
    run = Driver(workflow(REPEAT % f"at_limit: {'go-on' if lenient else 'fail'}", OUT))
    for turn in range(4):
        run.settle(f"refine[{turn}].write")
        run.settle(f"refine[{turn}].check", output=encode(labeled({"good": False}, OWNER)))
    if lenient:
        assert run.outputs == {"r": {"result": {"text": 3}, "turns": 4, "done": False}}
    else:
        assert run.run.error is not None and run.run.error.code == "REPEAT_LIMIT"


CHILD = workflow(
    """
- {name: make, connector: files.write, effect: write, input: {n: "${inputs.n}", list: [1]}}
- {name: each, map: {over: "${steps.make.list}", steps: [{name: post, agent: x, input: {n: "${item + inputs.n}"}}]}}
""",
    '  outputs: {sum: "${steps.each.results[0].n}"}\n',
    name="child",
)


@pytest.mark.feature("D1", "D6")
def test_a_sub_workflow_is_a_part_of_the_run_sees_only_its_input_and_is_undone_with_it() -> None:
    parent = workflow(
        """
- {name: make, connector: files.write, effect: write, input: {n: 1}}
- {name: sub, workflow: child@v, input: {n: "${inputs.n + 6}"}}
- {name: last, connector: files.write, effect: write, input: {n: "${steps.sub.sum}"}}
""",
        uses={"child@v": CHILD},
    )
    run = Driver(parent, n=1)
    run.settle("make")
    assert result_of_input(run, "sub.make") == {"n": 7, "list": [1]}
    run.settle("sub.make")
    run.settle("sub.each[0].post")
    run.settle("last")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and result_of(run, "last") == {"n": 8}
    run.give(Undo("back"))
    order = []
    while run.run.undo_queue:
        order.append(run.run.undo_queue[0])
        run.settle(order[-1])
    assert order == ["last", "sub.make", "make"] and run.run.state == R.RUN_STATE_UNDONE


def result_of_input(run: Driver, step: str) -> object:
    return plain(decode(run.run.at(step).input))


@pytest.mark.feature("D1")
def test_the_input_of_a_sub_workflow_is_checked_when_it_begins() -> None:
    parent = workflow('- {name: sub, workflow: child@v, input: {n: "no number"}}', uses={"child@v": CHILD})
    run = Driver(parent)
    assert run.run.error is not None and run.run.error.code == "INVALID_ARGUMENT"
    assert "input.n" in run.run.error.message and run.run.failed == "sub"


NESTED = """
- name: outer
  map:
    over: [[1, 2], [], [3]]
    on_failure: collect
    steps:
      - {name: first, agent: x, input: {n: 1}}
      - name: inner
        map:
          over: "${item}"
          steps: [{name: work, agent: x, input: {n: "${item}", first: "${steps.first.n}"}}]
      - {name: after, connector: mail.send, effect: write, input: {all: "${steps.inner.results}"}}
"""


@pytest.mark.feature("D1")
def test_an_inner_map_that_fails_fails_the_outer_item_alone() -> None:
    run = Driver(workflow(NESTED))
    for index in range(3):
        run.settle(f"outer[{index}].first")
    assert set(open_steps(run)) == {
        "outer[0].inner[0].work", "outer[0].inner[1].work", "outer[1].after", "outer[2].inner[0].work",
    }  # fmt: skip
    run.fail("outer[0].inner[1].work")
    assert run.run.at("outer[0].inner").state == S.STEP_STATE_RUNNING, "another item is still under way"
    run.settle("outer[0].inner[0].work")
    assert run.run.at("outer[0].inner").state == S.STEP_STATE_FAILED
    for step in ("outer[1].after", "outer[2].inner[0].work", "outer[2].after"):
        run.settle(step)
    assert result_of(run, "outer")["results"] == [None, {"all": []}, {"all": [{"n": 3, "first": 1}]}]  # type: ignore[index]
    assert [item["step"] for item in errors_of(run, "outer")] == ["outer[0].inner"]
    assert run.run.effects == 2


@pytest.mark.feature("D1")
def test_when_an_item_of_an_inner_map_failed_nothing_more_begins_in_its_other_items() -> None:
    run = Driver(
        workflow(
            """
- name: outer
  map:
    over: [1]
    on_failure: collect
    steps:
      - name: inner
        map:
          over: [1, 2, 3]
          steps:
            - {name: look, agent: x, input: {n: "${item}"}}
            - {name: ok, gate: {title: "Send ${item}", approves: [send]}}
            - {name: send, connector: mail.send, effect: write, input: {n: "${item}"}}
"""
        )
    )
    run.settle("outer[0].inner[0].look")
    (asked,) = run.run.open_approvals()
    run.fail("outer[0].inner[1].look")
    assert run.run.approvals[asked.approval_id].state == A.APPROVAL_STATE_REPLACED
    assert run.run.state == R.RUN_STATE_RUNNING, "the third item's step is still under way"
    assert run.settle("outer[0].inner[2].look").dispatched == ()
    assert run.run.state == R.RUN_STATE_SUCCEEDED and not run.run.effects and not run.run.open_approvals()
    (error,) = errors_of(run, "outer")
    assert (error["code"], error["step"]) == ("ACTION_FAILED", "outer[0].inner")


@pytest.mark.feature("D1")
def test_a_retry_is_not_begun_in_an_item_that_failed_meanwhile() -> None:
    run = Driver(
        workflow(
            """
- name: each
  map:
    over: [1]
    on_failure: collect
    steps:
      - {name: a, needs: [], agent: x, input: {n: 1}}
      - {name: b, needs: [], agent: x, input: {n: 1}}
"""
        )
    )
    run.fail("each[0].a", retryable=True)
    assert run.run.at("each[0].a").state == S.STEP_STATE_WAITING
    run.fail("each[0].b")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.last.dispatched == ()
    assert errors_of(run, "each")[0]["step"] == "each[0].b"


@pytest.mark.feature("G7")
def test_labels_go_from_a_list_to_all_that_is_done_for_it() -> None:
    run = Driver(workflow(MAP.replace("{it:", '{own: "a constant", it:'), OUT))
    run.settle("list", output=encode(labeled({"items": ["a", "b"]}, outside("connector:mail"))))
    made = decode(run.run.at("each[0].draft").input)
    assert isinstance(made, dict)
    assert label_of(made["own"]).trust == Trust.UNTRUSTED, "that it is done at all depends on the list"
    assert label_of(made["at"]).trust == Trust.UNTRUSTED


@pytest.mark.feature("D1")
def test_a_map_of_too_many_is_refused_before_it_begins() -> None:
    run = Driver(workflow(MAP, OUT))
    run.settle("list", output=items(*range(10_001)))
    assert run.run.error is not None and run.run.error.code == "TOO_LARGE"
    assert "10001 rounds of 2 steps; at most 10000" in run.run.error.message


@pytest.mark.feature("D1")
@pytest.mark.parametrize("collect", [False, True])
def test_ten_thousand_items_fit_and_what_they_gave_is_told_when_it_does_not(collect: bool) -> None:
    text = """
- {name: list, agent: x}
- name: each
  map: {over: "${steps.list.items}", at_once: 1000, %s steps: [{name: t, transform: %s}]}
"""
    how = "on_failure: collect," if collect else ""
    run = Driver(workflow(text % (how, '{n: "${item}"}')))
    run.settle("list", output=items(*range(10_000)))
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    run = Driver(workflow(text % (how, "'a result of fifty characters, which is too much here'")))
    run.settle("list", output=items(*range(10_000)))
    assert run.run.error is not None and run.run.error.code == "TOO_LARGE"
    assert run.run.error.message.startswith("What the 10000 items of map 'each' gave does not fit")


@pytest.mark.feature("D1")
def test_maps_in_maps_end_where_a_run_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MAX_RUN_STEPS", 500)
    run = Driver(
        workflow(
            """
- {name: list, agent: x}
- name: outer
  map:
    over: [1, 2, 3, 4, 5, 6]
    at_once: 1
    steps: [{name: inner, map: {over: "${steps.list.items}", steps: [{name: t, transform: "${item}"}]}}]
""",
        )
    )
    run.settle("list", output=items(*range(90)))
    assert run.run.error is not None and run.run.error.code == "TOO_LARGE"
    assert run.run.error.message == "With step 'outer[5].inner' the run would have more than 500 steps."


@pytest.mark.feature("G7")
def test_a_constant_that_a_map_gives_for_items_from_outside_is_from_outside() -> None:
    run = Driver(workflow(MAP.replace('"${steps.send.text}"', "done"), OUT))
    run.settle("list", output=encode(labeled({"items": ["a"]}, outside("connector:mail"))))
    run.settle("each[0].draft", output=encode(labeled({"it": "a"}, OWNER)))
    run.settle("each[0].send", output=encode(labeled({"text": "a"}, OWNER)))
    assert run.outputs == {"r": ["done"]}
    assert label_of(decode(run.run.outputs)).trust == Trust.UNTRUSTED


@pytest.mark.parametrize(
    ("steps", "field", "words"),
    [
        ("- {name: a, retry: {}, map: {over: [], steps: [{name: b, agent: x}]}}", "retry", "its steps may have it"),
        ("- {name: a, input: {}, map: {over: [], steps: [{name: b, agent: x}]}}", "input", "has no input"),
        ("- {name: a, wait: 1s, timeout: 2s}", "timeout", "a step of kind wait has no timeout"),
        ("- {name: a, agent: x, effect: write}", "effect", "a step of kind agent has no effect"),
        ("- {name: a, map: {over: [], steps: [{name: B b, agent: x}]}}", "map.steps[0].name", "lower case letters"),
        ("- {name: a, transform: '${item}'}", "spec.steps[0].transform", "no 'item' here; only the steps of a map"),
        ("- {name: a, transform: '${previous}'}", "spec.steps[0].transform", "only the steps of a repeat"),
        ("- {name: a, map: {steps: [{name: b, agent: x}]}}", "map.over", "is missing"),
        ("- {name: a, map: {over: [], steps: []}}", "map.steps", "at least one step"),
        ("- {name: a, map: {over: [], at_once: 0, steps: [{name: b, agent: x}]}}", "map.at_once", "1 to 1000"),
        ("- {name: a, map: {over: [], on_failure: no, steps: [{name: b, agent: x}]}}", "map.on_failure", "'fail'"),
        ("- {name: a, map: {over: [], stepz: []}}", "map.stepz", "did you mean 'steps'?"),
        ("- {name: a, map: {over: [], steps: [{name: a, agent: x}]}}", "steps[0].name", "'a' stands twice"),
        ("- {name: a, map: {over: [], steps: [{name: b, agent: x, needs: [c]}]}}", "steps[0].needs", "no step 'c'"),
        (
            "- {name: a, map: {over: [], steps: [{name: b, agent: x, needs: [c]}, {name: c, agent: x}]}}",
            "map.steps[0].needs",
            "in a circle: ",
        ),
        (
            "- {name: a, map: {over: [], steps: [{name: b, agent: x}]}}\n- {name: c, transform: '${steps.b}'}",
            "spec.steps[1].transform",
            "no step 'b'",
        ),
        (
            "- {name: a, map: {over: [], steps: [{name: b, transform: '${steps.c}'}]}}\n- {name: c, agent: x}",
            "map.steps[0].transform",
            "'b' reads steps.c, which does not come before it",
        ),
        (
            "- {name: a, map: {over: [], steps: [{name: b, agent: x}], result: '${steps.d}'}}",
            "spec.steps[0].map.result",
            "no step 'd'",
        ),
        ("- {name: a, repeat: {until: 'true', steps: [{name: b, agent: x}]}}", "repeat.limit", "is missing"),
        ("- {name: a, repeat: {limit: 2, steps: [{name: b, agent: x}]}}", "repeat.until", "is missing"),
        ("- {name: a, repeat: {limit: 2000, until: 'true', steps: [{name: b, agent: x}]}}", "limit", "1 to 1000"),
        ("- {name: a, workflow: other}", "workflow", "no workflow 'other'"),
        (
            "- {name: g, gate: {approves: [a]}}\n- {name: a, map: {over: [], steps: [{name: b, agent: x}]}}",
            "gate.approves[0]",
            "'a' has steps of its own",
        ),
        (
            "- {name: a, map: {over: [], steps: [{name: g, gate: {approves: [z]}}]}}\n- {name: z, agent: x}",
            "gate.approves[0]",
            "no step 'z'",
        ),
    ],
)  # fmt: skip
@pytest.mark.feature("D2")
def test_a_bad_body_is_refused_with_its_place(steps: str, field: str, words: str) -> None:
    with pytest.raises(TerminalError) as caught:
        workflow(steps)
    assert words in caught.value.message
    assert caught.value.details["field"].endswith(field)
    assert caught.value.message.startswith("w.yaml:")


@pytest.mark.feature("D2")
def test_bodies_nest_only_so_deep() -> None:
    steps = "{name: last, agent: x}"
    for at in range(9):
        steps = f"{{name: m{at}, map: {{over: [1], steps: [{steps}]}}}}"
    with pytest.raises(TerminalError, match="nested deeper than 8"):
        workflow(f"- {steps}")


EVERYTHING = workflow(
    """
- name: outer
  map:
    over: [[1, 2], [3]]
    at_once: 2
    on_failure: collect
    steps:
      - {name: ok, gate: {title: "Go on with ${index}", approves: [write]}}
      - {name: write, connector: files.write, effect: write, input: {n: "${index}"}}
      - name: inner
        map:
          over: "${item}"
          at_once: 1
          steps:
            - {name: pause, needs: [], wait: 5s}
            - {name: work, needs: [], agent: x, budget: "0.01", input: {n: "${item}"}}
      - {name: turns, repeat: {limit: 2, until: "${index == 1}", steps: [{name: turn, agent: x, input: {n: 1}}]}}
- {name: sub, workflow: child@v, input: {n: 1}}
""",
    uses={"child@v": CHILD},
)


@settings(max_examples=tries(150), deadline=None)
@given(st.data())
def test_any_order_of_outcomes_and_decisions_ends_and_undo_leaves_nothing(data: st.DataObject) -> None:
    """`Driver.give` checks after every input that state, fold of the events, and what is stored are the same."""
    run = Driver(EVERYTHING)
    kinds = ["settle"] * 4 + [
        "fail",
        "retry",
        "unknown",
        "yes",
        "no",
        "approve",
        "reject",
        "tick",
        "lost",
        "cancel",
    ]
    for _ in range(data.draw(st.integers(0, 40))):
        kind = data.draw(st.sampled_from(kinds))
        if kind in ("settle", "fail", "retry", "unknown", "lost"):
            steps = open_steps(run)
            if steps:
                step = data.draw(st.sampled_from(steps))
                {
                    "settle": lambda step: run.settle(step, cost_micros=data.draw(st.integers(0, 5))),
                    "fail": run.fail,
                    "retry": lambda step: run.fail(step, retryable=True),
                    "unknown": run.unknown,
                    "lost": lambda step: run.give(Redispatch((step,), "x")),
                }[kind](step)
        elif kind == "tick":
            run.now += data.draw(st.sampled_from([1, 2_000, 70_000]))
            run.give(Tick())
        elif kind == "cancel":
            if data.draw(st.integers(0, 9)) == 0:
                run.give(Cancel("x"))
        elif run.run.open_approvals():
            approval = data.draw(st.sampled_from(run.run.open_approvals()))
            answers = {"yes": {"happened": "yes"}, "no": {"happened": "no"}}.get(kind)
            state = A.APPROVAL_STATE_REJECTED if kind == "reject" else A.APPROVAL_STATE_APPROVED
            run.decide(A.APPROVAL_STATE_ANSWERED if answers else state, answers, approval=approval)
        assert run.run.held >= 0 and run.run.held + run.run.settled <= run.run.cap
    finish(run)
    assert run.run.closed and run.run.held == 0
    changed = [step.name for step in run.run.changed_things()]
    run.give(Undo("all back"))
    finish(run)
    assert run.run.state in (R.RUN_STATE_UNDONE, R.RUN_STATE_UNDO_INCOMPLETE)
    for name in changed:
        undoable = run.run.at(name).undoable
        assert not undoable or run.run.at(name).state == S.STEP_STATE_UNDONE


def finish(run: Driver) -> None:
    """The faults stop: everything is settled, decided and due."""
    for _ in range(80):
        for step in list(run.run.steps.values()):
            if step.state in OPEN_STEP and not step.due:
                run.settle(step.name)
        for approval in run.run.open_approvals():
            gate = approval.kind == 1
            if run.run.approvals[approval.approval_id].state != A.APPROVAL_STATE_OPEN:
                continue
            run.decide(
                A.APPROVAL_STATE_APPROVED if gate else A.APPROVAL_STATE_ANSWERED,
                None if gate else {"happened": "yes"},
                approval=approval,
            )
        run.now += 100_000
        run.give(Tick())
        if run.run.closed and not run.run.undo_queue:
            return


@pytest.mark.feature("F5")
def test_money_is_kept_across_the_items_of_a_map() -> None:
    run = Driver(
        workflow(
            """
- {name: each, map: {over: [1, 2, 3], at_once: 3, steps: [{name: a, agent: x, budget: "0.40", input: {n: 1}}]}}
"""
        )
    )
    assert run.run.error is not None and run.run.error.code == "BUDGET_EXCEEDED"
    assert run.run.held == int(Decimal("0.80") * 1_000_000)
