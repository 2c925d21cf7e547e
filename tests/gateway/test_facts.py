"""What a comparison of runs says of a step is how the step stands, whatever became of the run."""

from typing import Final

import pytest

from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Recovery
from aios.run.v1.state_pb2 import StepState as S
from aios_cli.views import diff as page
from aios_core.encoding import decode
from aios_core.values import plain
from aios_gateway.facts import Facts, facts
from aios_orchestrator.core.decide import Cancel, Undo
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_migrate import move
from tests.orchestrator.test_spending import ONE, purse_with

pytestmark = pytest.mark.feature("D9")

STEPS: Final = """
- name: each
  map: {over: [1, 2], steps: [{name: keep, connector: files.put, effect: write, input: {n: "${item}"}}]}
- {name: ok, gate: {title: Go on}, needs: []}
- {name: last, agent: x, needs: [each, ok]}
"""


def told(run: Driver) -> dict[str, Facts]:
    return facts(map(RunEvent.FromString, run.history))


def states(run: Driver) -> dict[str, str]:
    return {name: S.Name(step.state).removeprefix("STEP_STATE_").lower() for name, step in told(run).items()}


def test_a_map_is_told_of_before_it_is_over_and_what_was_stopped_is_not_waited_for() -> None:
    run = Driver(workflow(STEPS))
    under_way = {"each": "running", "each[0].keep": "dispatched", "each[1].keep": "dispatched", "ok": "gated"}
    assert states(run) == under_way
    run.give(Cancel("enough"))
    run.settle("each[0].keep")
    run.unknown("each[1].keep")
    assert states(run) == {
        "each": "cancelled",
        "each[0].keep": "succeeded",
        "each[1].keep": "unknown",
        "ok": "cancelled",
    }


def test_what_was_undone_is_not_told_as_done() -> None:
    run = Driver(workflow(STEPS.partition("- {name: ok")[0]))
    for item in ("each[0].keep", "each[1].keep"):
        run.settle(item)
    run.give(Undo("back"))
    assert states(run)["each[1].keep"] == "undoing"
    run.settle("each[1].keep")
    assert states(run)["each[1].keep"] == "undone" and states(run)["each[0].keep"] == "undoing"


def test_what_is_lost_has_cost_what_was_held_for_it() -> None:
    run = Driver(
        workflow(ONE.replace("agent: x", "connector: a.b, effect: write")), purse=purse_with(900_000)
    )
    run.unknown("a")
    assert told(run)["a"].cost == run.run.at("a").cost == 400_000


def test_a_step_that_runs_again_has_given_nothing_yet() -> None:
    run = Driver(workflow("- {name: a, agent: x}\n- {name: b, agent: x}"))
    run.settle("a")
    run.fail("b")
    run.recover(Recovery.RECOVERY_REWIND, "a")
    shown = told(run)
    assert (shown["a"].state, shown["a"].output) == (S.STEP_STATE_DISPATCHED, b"")
    assert (shown["b"].state, shown["b"].error) == (S.STEP_STATE_PENDING, None)


def test_what_a_step_gave_before_it_had_another_name_is_its_own() -> None:
    run = Driver(workflow(STEPS))
    run.settle("each[0].keep")
    before = told(run)["each[0].keep"].output
    run.settle("each[1].keep")
    move(run, workflow(STEPS.replace("name: keep", "name: put")), {"each[].keep": "each[].put"})
    shown = told(run)
    assert shown["each[0].put"].output == before and plain(decode(before)) == {"n": 1}
    assert set(shown) == set(run.run.steps)


def test_each_state_has_words() -> None:
    assert set(page._STATES) == set(S.values()) - {S.STEP_STATE_UNSPECIFIED}
