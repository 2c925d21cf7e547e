"""Forks: what is taken over from another run, and what is done anew. The pure core."""

import pytest

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Fork, StepChange
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import labeled, plain
from aios_orchestrator.codec import task_of
from aios_orchestrator.core import fork
from tests.orchestrator.runs import Driver, workflow

STEPS = """
- {name: a, agent: echo, input: {n: "${inputs.n}"}}
- {name: ok, gate: {title: "Write", approves: [put]}}
- {name: b, agent: echo, needs: [a], input: {of: "${steps.a.n}"}}
- {name: side, agent: echo, needs: [], input: {n: 1}}
- {name: put, needs: [ok], connector: files.append_line, effect: write, input: {path: x, entry: "${steps.a}"}}
- {name: last, agent: echo, needs: [put, b, side], input: {b: "${steps.b.of}"}}
"""


def finished() -> Driver:
    driver = Driver(workflow(STEPS))
    driver.settle("a")
    driver.decide(st.APPROVAL_STATE_APPROVED)
    for step in ("side", "b", "put", "last"):
        driver.settle(step)
    assert driver.run.state == st.RUN_STATE_SUCCEEDED
    return driver


def forked(source: Driver, of: Fork, into: str = STEPS) -> Driver:
    """The fork of a finished run, begun."""
    return Driver(workflow(into), forks=(source, of))


def taken_over(driver: Driver) -> set[str]:
    return {
        name for name, step in driver.run.steps.items() if step.dispatch == 0 and step.state != 0 and step.end
    }


@pytest.mark.feature("D9")
def test_what_comes_before_the_step_is_taken_over_and_what_follows_is_virtual() -> None:
    driver = forked(finished(), Fork(run_id="run_test", step="put"))
    assert taken_over(driver) == {"a", "ok", "b", "side"}
    assert driver.last.dispatched == ("put",), "a gate that was taken over asks nobody again"
    assert driver.run.mode == Mode.MODE_SIMULATE
    driver.settle("put")
    driver.settle("last")
    assert driver.run.state == st.RUN_STATE_SUCCEEDED
    assert not driver.run.changed_things()


@pytest.mark.feature("D9")
def test_a_gate_that_is_done_anew_asks_nobody() -> None:
    driver = forked(finished(), Fork(run_id="run_test", step="a"))
    assert taken_over(driver) == {"side"}
    driver.settle("a")
    assert driver.run.at("ok").state == st.STEP_STATE_SKIPPED
    assert driver.run.at("put").state == st.STEP_STATE_DISPATCHED


@pytest.mark.feature("D9")
def test_another_agent_model_prompt_or_input_is_used_in_that_step_alone() -> None:
    other = encode(labeled({"of": 42}, OWNER))
    change = StepChange(step="b", agent="echo-sandboxed", model="m", prompt="p", input=other)
    driver = forked(finished(), Fork(run_id="run_test", changes=[change]))
    assert taken_over(driver) == {"a", "ok", "put", "side"}
    assert driver.run.at("b").input == other
    task = task_of(driver.run, driver.workflow, "b", None, "")
    assert (task.target, task.model, task.prompt) == ("echo-sandboxed", "m", "p")
    driver.settle("b")
    assert plain(decode(driver.run.at("last").input)) == {"b": 42}
    task = task_of(driver.run, driver.workflow, "last", None, "")
    assert (task.target, task.model, task.prompt) == ("echo", "", "")


@pytest.mark.feature("D9")
def test_a_step_that_another_version_means_otherwise_is_done_anew_and_all_that_needs_it() -> None:
    changed = STEPS.replace("{name: a, agent: echo,", "{name: a, agent: echo-sandboxed,")
    driver = forked(finished(), Fork(run_id="run_test", step="last"), into=changed)
    assert taken_over(driver) == {"side"}
    assert driver.last.dispatched == ("a",)


@pytest.mark.feature("D9")
def test_without_a_step_and_a_change_everything_is_done_anew() -> None:
    driver = forked(finished(), Fork(run_id="run_test"))
    assert taken_over(driver) == set()
    assert set(driver.last.dispatched) == {"a", "side"}


@pytest.mark.feature("D9")
def test_a_run_that_was_undone_is_forked_with_what_its_steps_gave() -> None:
    source = finished()
    source.run = source.run.copy()
    step = source.run.step("put")
    source.run.move(step, st.STEP_STATE_UNDONE)
    driver = forked(source, Fork(run_id="run_test", step="last"))
    assert "put" in taken_over(driver)


WAYS = """
- {name: a, agent: echo, input: {n: "${inputs.n}"}}
- {name: mood, branch: {cases: {loud: "steps.a.n > 5"}, otherwise: calm}}
- {name: shout, agent: echo, when: "steps.mood.case == 'loud'", input: {n: 1}}
- {name: maybe, agent: echo, when: "steps.a.n == 1", input: {n: 2}}
"""


@pytest.mark.feature("D10")
def test_a_fork_takes_the_case_that_it_is_told_and_supposes_what_it_is_told() -> None:
    source = Driver(workflow(WAYS), mode=Mode.MODE_SIMULATE)
    source.settle("a")
    source.settle("maybe")
    assert source.run.at("shout").state == st.STEP_STATE_SKIPPED
    taken = forked(source, Fork(run_id="run_test", changes=[StepChange(step="mood", take="loud")]), into=WAYS)
    assert taken_over(taken) == {"a", "mood"}, "what was decided otherwise, and what came before it"
    assert taken.run.at("shout").state == st.STEP_STATE_DISPATCHED
    fails = StepChange(step="maybe", supposed=st.SUPPOSED_FAILS)
    skipped = forked(source, Fork(run_id="run_test", changes=[fails]), into=WAYS)
    assert skipped.run.at("maybe").state == st.STEP_STATE_SKIPPED
    holds = StepChange(step="shout", supposed=st.SUPPOSED_HOLDS)
    assert forked(source, Fork(run_id="run_test", changes=[holds]), into=WAYS).run.at("shout").state == (
        st.STEP_STATE_DISPATCHED
    )


ENDS = """
- {name: a, agent: echo, input: {n: "${inputs.n}"}}
- name: each
  map:
    over: [1, 2]
    on_failure: collect
    steps:
      - {name: ok, gate: {title: Keep it, approves: [keep]}}
      - {name: keep, connector: files.append_line, effect: write, input: {n: "${item}"}}
- {name: all, gate: {title: Tell, approves: [tell]}}
- {name: tell, agent: echo, input: {failed: "${steps.each.failed}"}}
"""


def ended(change: StepChange, into: str = ENDS) -> Driver:
    """A fork of a simulation in which a step ends as it is supposed, as far as it goes."""
    source = Driver(workflow(into), mode=Mode.MODE_SIMULATE)
    for step in ("a", "each[0].keep", "each[1].keep", "tell"):
        source.settle(step)
    return forked(source, Fork(run_id="run_test", changes=[change]), into=into)


@pytest.mark.feature("D10")
@pytest.mark.parametrize(
    "change",
    [
        StepChange(step="each[].ok", ends=st.SUPPOSED_END_REJECTED),
        StepChange(step="each[].keep", ends=st.SUPPOSED_END_FAILED),
    ],
    ids=["rejected", "failed"],
)
def test_an_item_that_is_supposed_to_fail_is_counted_and_the_run_goes_on(change: StepChange) -> None:
    found = ended(change)
    code = {"each[].ok": "REJECTED", "each[].keep": "ACTION_FAILED"}[change.step]
    told = plain(decode(found.run.at("each").output))
    assert (told["failed"], told["results"], {item["code"] for item in told["errors"]}) == (
        2,
        [None, None],
        {code},
    )
    assert plain(decode(found.run.at("tell").input)) == {"failed": 2}


@pytest.mark.feature("D10")
def test_a_gate_that_is_supposed_to_be_rejected_stops_the_run_and_a_step_that_fails_fails_it() -> None:
    rejected = ended(StepChange(step="all", ends=st.SUPPOSED_END_REJECTED))
    assert rejected.run.state == st.RUN_STATE_CANCELLED and taken_over(rejected) == {"a", "each"}
    failed = ended(StepChange(step="tell", ends=st.SUPPOSED_END_FAILED))
    assert failed.run.state == st.RUN_STATE_FAILED and failed.run.error.code == "ACTION_FAILED"


@pytest.mark.parametrize(
    ("of", "field", "says"),
    [
        (Fork(changes=[StepChange(step="a", take="x")]), "changes[0].take", "no case 'x'; there are: none"),
        (
            Fork(changes=[StepChange(step="a", supposed=st.SUPPOSED_HOLDS)]),
            "changes[0].supposed",
            "no condition",
        ),
        (
            Fork(changes=[StepChange(step="a", ends=st.SUPPOSED_END_REJECTED)]),
            "changes[0].ends",
            "'a' (agent) can't end so",
        ),
        (Fork(changes=[StepChange(step="ok", ends=st.SUPPOSED_END_FAILED)]), "changes[0].ends", "(gate)"),
        (Fork(step="bb"), "step", "(did you mean 'b'?)"),
        (Fork(changes=[StepChange(step="nope", agent="x")]), "changes[0].step", "there is no step 'nope'"),
        (Fork(changes=[StepChange(step="put", agent="x")]), "changes[0].agent", "no agent's step"),
        (Fork(changes=[StepChange(step="ok", input=b"x")]), "changes[0].step", "is a gate"),
    ],
)
@pytest.mark.feature("D9")
def test_what_can_not_be_changed_is_refused_by_its_field(of: Fork, field: str, says: str) -> None:
    with pytest.raises(TerminalError) as refused:
        fork.check(of, workflow(STEPS))
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.details["field"] == field
    assert says in refused.value.message
