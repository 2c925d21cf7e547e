"""What a test declares comes in the order in which it stands there, and a run that is written down goes as it went."""

from typing import Any, Final

import pytest

from aios.api.v1 import api_pb2
from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios_cli.recording import recorded
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.cases import Rehearsed, cases_of
from aios_orchestrator.core.decide import Cancel, Tick
from aios_orchestrator.rehearsing import rehearse
from aios_orchestrator.workflow import Workflow
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_migrate import move
from tests.orchestrator.test_spending import ONE, purse_with

pytestmark = pytest.mark.feature("D1")

TWO: Final = """
- {name: one, connector: files.put, effect: write}
- {name: two, connector: files.put, effect: write, needs: []}
- {name: three, agent: x, needs: [two]}
"""
WRONG: Final = {"$error": {"code": "NOT_FOUND"}}
ASKS: Final = """
- {name: ok, gate: {title: Keep it, expires: 2h, fails: %s, approves: [keep]}}
- {name: keep, connector: files.put, effect: write}
- {name: beside, agent: x, needs: []}
- {name: after, agent: x, needs: [beside]}
"""


UNDO: Final = "  on_failure: undo\n"


def told(steps: str, results: dict[str, Any], head: str = "", **expect: Any) -> Rehearsed:
    (case,) = cases_of([{"input": {"n": 1}, "results": results, "expect": expect}])
    return rehearse(workflow(steps, head), case)


def test_what_is_under_way_ends_in_the_order_in_which_it_is_declared() -> None:
    for first, then in (("one", "two"), ("two", "one")):
        given = {first: {}, then: {}, "three": WRONG}
        found = told(TWO, given, head=UNDO, state="failed", undone=[then, first])
        assert found.problems == []


def test_what_ends_after_a_failure_needs_no_more_than_what_was_under_way() -> None:
    """Where `one` fails first, `three` does not begin, and so nothing is declared of it."""
    found = told(TWO, {"one": WRONG, "two": {}}, state="failed", error="NOT_FOUND", ran=["one", "two"])
    assert found.problems == []
    found = told(TWO, {"two": {}, "one": WRONG}, state="failed")
    assert found.problems == ["no result of three (x) is declared under `results`"]


def test_a_decision_comes_in_its_turn_as_well() -> None:
    assert (
        told(
            ASKS % "closed", {"ok": "reject", "beside": {}}, state="cancelled", ran=["ok", "beside"]
        ).problems
        == []
    )
    said = told(ASKS % "closed", {"beside": {}, "ok": "reject"}, state="cancelled")
    assert said.problems == ["no result of after (x) is declared under `results`"]


@pytest.mark.parametrize(("fails", "state"), [("closed", "cancelled"), ("open", "succeeded")])
def test_nobody_may_decide(fails: str, state: str) -> None:
    given = {"beside": {}, "after": {}, "ok": "expire", "keep": {}}
    found = told(ASKS % fails, given, state=state)
    assert found.problems == [] and found.virtual_ms == 2 * 3_600_000
    assert found.steps["beside"]["state"] == "succeeded"


def test_a_gate_that_takes_two_persons_is_decided_by_both_in_its_turn() -> None:
    steps = """
- name: each
  map:
    over: [1]
    on_failure: collect
    steps:
      - {name: ok, gate: {title: Keep it, approves: [keep], approvers: {of: [ada, bo], need: 2}}}
      - {name: keep, connector: files.put, effect: write}
      - {name: fails, agent: x, needs: []}
"""
    found = told(steps, {"each[0].ok": "approve", "each[0].fails": WRONG, "each[0].keep": {}})
    assert found.problems == [] and found.steps["each[0].keep"]["state"] == "succeeded"


def test_a_question_may_expire_and_what_else_is_asked_then_needs_no_answer() -> None:
    steps = """
- {name: which, ask: {questions: [{id: q, text: Which?}], expires: 1h}}
- {name: other, ask: {questions: [{id: q, text: Which?}], expires: 2h}, needs: []}
"""
    assert told(steps, {"which": "expire"}, state="cancelled").problems == []
    assert told(steps, {}).problems == [
        "no decision on other is declared under `results`: the answers, `reject` or `expire`"
    ]


def written(run: Driver, of: Workflow) -> dict[str, Any]:
    events = [RunEvent.FromString(data) for data in run.history]
    return recorded(events, of, api_pb2.Run(run_id=run.run.run_id, state=run.run.state))


def test_a_run_is_written_down_in_the_order_in_which_it_went() -> None:
    of = workflow(TWO, UNDO)
    run = Driver(of)
    run.settle("two")
    run.settle("one")
    run.fail("three")
    while run.run.undo_queue:
        run.settle(run.run.undo_queue[0])
    test = written(run, of)
    assert list(test["results"]) == ["two", "one", "three"]
    assert test["expect"]["undone"] == ["one", "two"]


def test_a_gate_that_nobody_decided_on_is_written_down() -> None:
    of = workflow(ASKS % "closed")
    run = Driver(of)
    run.settle("beside")
    run.settle("after")
    run.now += 3 * 3_600_000
    run.give(Tick())
    assert run.run.state == st.RUN_STATE_CANCELLED
    assert written(run, of)["results"]["ok"] == "expire"


def test_what_somebody_did_to_a_run_is_in_no_test() -> None:
    of = workflow(TWO)
    run = Driver(of)
    run.give(Cancel("enough"))
    for step in ("one", "two"):
        run.settle(step)
    with pytest.raises(TerminalError, match="cancelled by somebody, which a test can't be"):
        written(run, of)


def test_a_run_that_was_moved_to_another_version_is_in_no_test() -> None:
    """What it did before has other names."""
    of = workflow(TWO)
    run = Driver(of)
    run.settle("one")
    to = workflow(TWO.replace("name: one", "name: first"))
    move(run, to, {"one": "first"})
    for step in ("two", "three"):
        run.settle(step)
    assert run.run.state == st.RUN_STATE_SUCCEEDED
    with pytest.raises(TerminalError, match="taken up again, which a test can't be"):
        written(run, to)


def test_what_went_as_it_did_for_want_of_money_is_in_no_test() -> None:
    purse = purse_with(300_000)
    of = workflow(ONE)
    run = Driver(of, purse=purse)
    run.decide(st.APPROVAL_STATE_ANSWERED, {"allow": "stop"})
    assert run.run.state == st.RUN_STATE_CANCELLED
    with pytest.raises(
        TerminalError, match=r"does not go as the run went: no result of a .* in no test"
    ) as caught:
        written(run, of)
    assert caught.value.code == "NOT_RECORDABLE"


def test_a_result_that_looks_like_a_declared_error_is_in_no_test() -> None:
    of = workflow("- {name: a, agent: x}")
    run = Driver(of)
    run.settle("a", output=encode(labeled({"$error": "odd"}, OWNER)))
    with pytest.raises(TerminalError, match=r"results\.a\.\$error: must be a map") as caught:
        written(run, of)
    assert caught.value.code == "NOT_RECORDABLE"
