"""Modes: what a document declares of how its agents work, and where a person sees it."""

import pytest

from aios.task.v1.task_pb2 import WorkMode
from aios_core.errors import TerminalError
from aios_orchestrator.checking import check_workflow
from aios_orchestrator.codec import task_of
from aios_orchestrator.document import parse_documents
from aios_orchestrator.explaining import explain
from aios_orchestrator.problems import Problems
from tests.orchestrator.runs import Driver, workflow

W = WorkMode
STEPS = """
- {name: facts, agent: x, mode: deterministic}
- {name: idea, agent: x, needs: [facts]}
- {name: ok, gate: {title: "Good?"}}
- {name: other, agent: x}
"""


@pytest.mark.feature("C5")
def test_a_mode_goes_out_with_the_task_and_is_in_the_history_and_the_approval() -> None:
    run = Driver(workflow(STEPS, "  mode: creative\n"))
    assert run.run.work_mode == W.WORK_MODE_CREATIVE
    assert task_of(run.run, run.workflow, "facts", None, "").work_mode == W.WORK_MODE_DETERMINISTIC
    run.settle("facts")
    assert task_of(run.run, run.workflow, "idea", None, "").work_mode == W.WORK_MODE_CREATIVE
    run.settle("idea")
    told = [(each.step, each.work_mode) for each in run.approval.modes]
    assert told == [("facts", W.WORK_MODE_DETERMINISTIC), ("idea", W.WORK_MODE_CREATIVE)]
    assert run.run.at("idea").work_mode == W.WORK_MODE_CREATIVE


@pytest.mark.feature("C5")
def test_nothing_declared_is_nothing_said() -> None:
    run = Driver(workflow("- {name: a, agent: x}\n- {name: ok, gate: {title: ok}}"))
    assert not task_of(run.run, run.workflow, "a", None, "").work_mode and not run.run.work_mode
    run.settle("a")
    assert not run.approval.modes


@pytest.mark.feature("C5")
def test_explain_tells_the_mode_of_each_agent() -> None:
    told = {step.name: step.what for step in explain(workflow(STEPS, "  mode: creative\n")).steps}
    assert told["facts"].endswith("in deterministic mode") and told["idea"].endswith("in creative mode")


@pytest.mark.feature("C5")
def test_a_sub_workflow_has_its_own_mode() -> None:
    inner = workflow("- {name: a, agent: x}", "  mode: deterministic\n", name="inner")
    outer = workflow(
        "- {name: s, workflow: inner, input: {n: 1}}", "  mode: creative\n", uses={"inner": inner}
    )
    assert outer.at("s.a").mode == W.WORK_MODE_DETERMINISTIC


@pytest.mark.feature("C5")
@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        ("{name: a, agent: x, mode: wild}", "mode", "exploratory, deterministic, creative"),
        ("{name: a, connector: f.look, mode: creative}", "mode", "has no mode"),
    ],
)
def test_a_mode_is_one_of_three_and_of_agents(step: str, field: str, words: str) -> None:
    with pytest.raises(TerminalError, match=r"w\.yaml:") as caught:
        workflow(f"- {step}")
    assert caught.value.details["field"].endswith(field) and words in caught.value.message


@pytest.mark.feature("C5")
def test_another_answer_each_time_and_the_same_again_do_not_go_together() -> None:
    text = (
        "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  mode: creative\n"
        "  steps: [{name: a, agent: x, cache: 1h}, {name: b, agent: x, mode: deterministic, cache: 1h}]\n"
    )
    problems = Problems()
    check_workflow(parse_documents(text.encode(), "w.yaml")[0], {}, problems)
    (error,) = problems.errors
    assert error.details["field"] == "spec.steps[0].cache"
