"""What a rehearsal tells of a run that fails and takes back by itself what it changed."""

from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios_cli.recording import recorded
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import labeled, plain
from aios_orchestrator import undo_plan
from aios_orchestrator.cases import Rehearsed, cases_of
from aios_orchestrator.rehearsing import rehearse
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_compensate import answer

pytestmark = pytest.mark.feature("D6", "D10")

UNDO = "  on_failure: undo\n"
STEPS = """
- {name: one, connector: files.write, effect: write, input: {n: "${inputs.n}"}}
- name: two
  connector: mail.send
  effect: write
  input: {n: 2}
  compensate: {connector: mail.regret, input: {to: "${steps.two.id}"}}
- {name: ok, gate: {title: Pay, approves: [pay]}}
- {name: pay, connector: bank.pay, effect: payment, budget: "0.10", input: {n: 3}}
- name: each
  map: {over: [1, 2], at_once: 1, steps: [{name: put, connector: files.write, effect: write, input: {n: "${item}"}}]}
- {name: last, agent: x}
"""
RESULTS = {
    "one": {},
    "two": {"id": "ada"},
    "ok": "approve",
    "pay": {},
    "each[].put": {},
    "last": {"$error": {"code": "AGENT_FAILED"}},
}
PLANNED = {"undone": ["each[1].put", "each[0].put", "two", "one"], "left": ["pay"]}
STAYS = " (pay: it is a payment; undo brings no money back)"


def told(
    expect: dict[str, Any], head: str = UNDO, no_inverse: tuple[str, ...] = (), **results: Any
) -> Rehearsed:
    given = {"input": {"n": 1}, "results": {**RESULTS, **results}, "no_inverse": list(no_inverse)}
    (case,) = cases_of([{**given, "expect": {"state": "failed", **expect}}])
    return rehearse(workflow(STEPS, head), case)


def test_the_last_change_is_taken_back_first_and_what_stays_is_told_with_the_reason() -> None:
    found = told({**PLANNED, "compensated": {"two": {"to": "ada"}}})
    assert found.problems == [] and found.error.endswith("[AGENT_FAILED]")
    assert [(item.step, item.stays) for item in found.undo] == [
        *((step, False) for step in PLANNED["undone"]),
        ("pay", True),
    ]
    shown = {item["step"]: item for item in found.shape()["undo"]}
    assert (shown["two"]["instead"], shown["two"]["instead_input"]) == ("mail.regret", {"to": "ada"})
    assert (shown["one"]["target"], shown["one"]["instead"]) == ("files.write", None)
    assert shown["pay"]["why"] == "it is a payment; undo brings no money back"


@pytest.mark.parametrize(
    ("expect", "problem"),
    [
        ({"undone": ["one", "two"]}, f"undone: expected one, two; got {', '.join(PLANNED['undone'])}{STAYS}"),
        ({"undone": []}, f"undone: expected none; got {', '.join(PLANNED['undone'])}{STAYS}"),
        ({"left": []}, f"left: expected none; got pay{STAYS}"),
        ({"compensated": {"two": {"to": "bo"}}}, "compensated.two.to: expected 'bo', got 'ada'"),
        ({"compensated": {"one": {}}}, "compensated: no other action makes one good"),
    ],
)  # fmt: skip
def test_what_is_not_as_expected_is_told(expect: dict[str, Any], problem: str) -> None:
    assert told(expect).problems == [problem]


def test_what_its_connector_can_not_take_back_stays() -> None:
    left = ["each[1].put", "each[0].put", "pay", "one"]
    found = told({"undone": ["two"], "left": left}, no_inverse=("one", "each[].put"))
    assert found.problems == []
    assert {item.why for item in found.undo if item.step == "one"} == {"it has no inverse"}


def test_a_compensation_that_can_not_be_worked_out_leaves_the_change() -> None:
    found = told({"undone": ["each[1].put", "each[0].put", "one"]}, two={})
    assert found.problems == []
    assert "can't be worked out" in next(item.why for item in found.undo if item.step == "two")


def test_nothing_is_undone_without_a_failure_or_where_the_workflow_does_not_say_so() -> None:
    assert told({"undone": []}, head="").undo == []
    assert told({"state": "succeeded", "undone": []}, last={}).problems == []
    assert told({"undone": []}, one={"$error": {"code": "DISK_FULL"}}).problems == []


def test_it_is_the_order_of_the_undo_itself() -> None:
    """A run that fails in truth is undone step by step as the rehearsal said."""
    of = workflow(STEPS.replace("- {name: ok", "#").replace("- {name: pay", "#"), UNDO)
    run = Driver(of)
    for step in ("one", "two", "each[0].put", "each[1].put"):
        run.settle(step, output=encode(labeled({"id": "ada"}, OWNER)))
    run.fail("last")
    order = []
    for _ in PLANNED["undone"]:
        order.append(run.run.undo_queue[0])
        answer(run, order[-1])
    assert (order, run.run.undo_queue) == (PLANNED["undone"], ())


def test_a_run_that_was_undone_since_it_failed_is_recorded_with_what_could_not_be() -> None:
    of = workflow(STEPS.replace("- {name: ok", "#").replace("- {name: pay", "#"), UNDO)
    run = Driver(of)
    run.settle("one", undo_token=b"")
    run.settle("two", output=encode(labeled({"id": "ada"}, OWNER)), undo_token=b"")
    for step in ("each[0].put", "each[1].put"):
        run.settle(step)
    run.fail("last")
    for _ in range(3):
        answer(run, run.run.undo_queue[0])
    assert run.run.state == st.RUN_STATE_UNDO_INCOMPLETE
    events = [RunEvent.FromString(data) for data in run.history]
    test = recorded(events, of, api_pb2.Run(run_id="run_test", state=run.run.state))
    assert test["no_inverse"] == ["one", "two"]
    assert (test["expect"]["undone"], test["expect"]["left"]) == (PLANNED["undone"][:3], ["one"])
    assert test["expect"]["compensated"] == {"two": {"to": "ada"}}
    (case,) = cases_of([test])
    assert rehearse(of, case).problems == []


def test_the_preview_of_an_undo_tells_what_is_run_in_the_place_of_an_inverse() -> None:
    run = Driver(workflow(STEPS))
    run.settle("one")
    run.settle("two", output=encode(labeled({"id": "ada"}, OWNER)))
    two, one = undo_plan.plan(run.run, run.workflow, (), redo=False)
    assert (two.item.instead, plain(decode(two.item.instead_input))) == ("mail.regret", {"to": "ada"})
    assert two.undo_token == b"", "whether its change stands makes no difference"
    assert (one.item.instead, bool(one.undo_token)) == ("", True)


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        ({"expect": {"undoen": []}}, "UNKNOWN_FIELD", r"tests\[0\]\.expect\.undoen"),
        ({"expect": {"undone": "one"}}, "BAD_RESOURCE", r"tests\[0\]\.expect\.undone: must be a list"),
        ({"expect": {"compensated": []}}, "BAD_RESOURCE", r"tests\[0\]\.expect\.compensated: must be a map"),
        ({"no_inverse": {"one": 1}}, "BAD_RESOURCE", r"tests\[0\]\.no_inverse: must be a list"),
    ],
)  # fmt: skip
def test_a_case_that_is_written_wrongly_is_refused(case: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(TerminalError, match=words) as caught:
        cases_of([case])
    assert caught.value.code == code
