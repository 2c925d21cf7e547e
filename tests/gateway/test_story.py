"""The story of a run says who did what and how each step stands, whatever became of the run."""

from typing import Final

import pytest

from aios.api.v1.api_pb2 import TimelineEntry
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState, Recovery
from aios.task.v1.task_pb2 import Status
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_gateway.story import tell
from aios_memory.narration import episode_of
from aios_orchestrator.core.decide import Cancel, Redispatch, Undo
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_compensate import answer, done
from tests.orchestrator.test_migrate import move
from tests.orchestrator.test_plans import given, planned
from tests.orchestrator.test_spending import ONE, purse_with

pytestmark = pytest.mark.feature("K2")

EACH: Final = """
- name: each
  needs: []
  map: {over: [1], steps: [{name: keep, connector: files.put, effect: write, input: {n: "${item}"}}]}
- {name: last, agent: x, needs: [each]}
"""


def lines(run: Driver) -> list[TimelineEntry]:
    return tell(map(RunEvent.FromString, run.history))


def said(run: Driver) -> list[str]:
    return [f"{line.who} {line.what}" for line in lines(run)]


def tones(run: Driver) -> dict[str, str]:
    return {line.what: line.tone for line in lines(run)}


def test_what_is_worked_on_is_told_while_it_is_and_so_when_it_is_given_out_again() -> None:
    run = Driver(workflow("- {name: a, agent: x}"))
    run.give(Redispatch(("a",), "its lease ended"))
    assert said(run)[1:] == ["agent x is working on a", "AIOS gave a out again"]
    run.settle("a")
    assert said(run)[1:] == ["AIOS gave a out again", "agent x finished a", "AIOS finished"]


def test_nothing_is_under_way_in_a_run_that_has_ended() -> None:
    run = Driver(workflow("- {name: later, wait: {until: '2100-01-01T00:00:00Z'}}\n" + EACH))
    assert tones(run)["began each: 1 item"] == "working"
    run.give(Cancel("enough"))
    run.settle("each[0].keep")
    assert run.run.closed and "working" not in tones(run).values()
    assert tones(run)["began each: 1 item"] == "info"


def test_a_renamed_step_is_told_of_as_the_one_that_it_was() -> None:
    run = Driver(workflow(EACH))
    run.fail("each[0].keep")
    move(run, workflow(EACH.replace("each", "all")), {"each": "all"})
    run.recover(Recovery.RECOVERY_RETRY)
    run.settle("all[0].keep")
    assert said(run)[-2:] == ["AIOS finished all: 1 item", "agent x is working on last"]
    assert "AIOS began each: 1 item" not in said(run)


def test_what_was_done_under_an_earlier_name_is_undone_by_who_did_it() -> None:
    run = Driver(workflow(EACH))
    run.settle("each[0].keep")
    run.fail("last")
    move(run, workflow(EACH.replace("keep", "put")), {"each[].keep": "each[].put"})
    run.give(Undo("all of it"))
    run.settle("each[0].put")
    assert "files connector undid each[0].put" in said(run)


def test_a_step_that_goes_on_with_its_rounds_is_told_to_and_that_it_finished() -> None:
    run = Driver(workflow(EACH))
    run.settle("each[0].keep")
    run.settle("last")
    run.give(Undo("all of it"))
    run.settle("each[0].keep")
    run.recover(Recovery.RECOVERY_REWIND, "each[0].keep")
    assert "AIOS goes on with each" in said(run)
    run.settle("each[0].keep")
    told = said(run)
    assert "AIOS goes on with each" not in told and told.count("AIOS finished each: 1 item") == 2


def test_what_makes_a_step_good_is_told_to_have_done_so() -> None:
    steps = """
- name: order
  connector: shop.order
  effect: write
  compensate: {connector: mail.regret, input: {n: 1}}
"""
    run = Driver(workflow(steps))
    run.settle("order", output=encode(labeled({"id": "ada"}, OWNER)), undo_token=b"")
    run.give(Undo("wrong"))
    assert "mail connector is making good order" in said(run)
    answer(run, "order")
    assert "mail connector undid order" in said(run)


@pytest.mark.parametrize("code", ["CONFLICT", "MAIL_REFUSED"])
def test_what_could_not_be_taken_back_was_changed_since_only_where_it_was(code: str) -> None:
    run = done()
    run.settle("three")
    run.give(Undo("wrong"))
    answer(run, "two", Status.STATUS_FAILED, code=code, message="It can't be.")
    since = ": it was changed since" if code == "CONFLICT" else ""
    assert f"mail connector left two as it is{since}" in said(run)
    assert f"left step two as it is{since}" in [episode_of(data).what for data in run.history]


def test_who_did_a_step_of_a_plan_did_not_do_what_another_plan_calls_so() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.fail("work.plan.two")
    run.recover(Recovery.RECOVERY_REWIND, "work.draft")
    over = {"over": [5], "steps": [{"name": "draw", "agent": "writer", "input": {"n": 1}}]}
    run.settle("work.draft", output=given({"steps": [{"name": "two", "map": over}]}))
    run.decide(ApprovalState.APPROVAL_STATE_APPROVED)
    run.settle("work.plan.two[0].draw")
    assert "AIOS finished work.plan.two: 1 item" in said(run)


def test_what_was_lost_is_told_with_what_was_held_for_it() -> None:
    run = Driver(
        workflow(ONE.replace("agent: x", "connector: a.b, effect: write")), purse=purse_with(900_000)
    )
    run.unknown("a")
    assert lines(run)[-1].cost_micros == run.run.settled == 400_000
