"""Steps that are done ahead: which may be, on what input, and what counts of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.run.v1 import state_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios.task.v1.task_pb2 import MODE_EXECUTE, STATUS_FAILED, Outcome, Task
from aios_core.encoding import decode, encode
from aios_core.labels import OWNER, outside
from aios_core.values import Leaf, labeled
from aios_orchestrator.ahead import Planner, followers
from aios_orchestrator.codec import task_of
from aios_orchestrator.core.decide import Cancel, Settle
from aios_orchestrator.core.draft import look
from aios_orchestrator.workflow import Workflow
from aios_runtime.ahead import steps_ahead
from tests.orchestrator.runs import Driver, workflow

CHAIN = workflow(
    """
- {name: a, agent: echo, input: {n: "${inputs.n}"}}
- {name: b, agent: echo, input: {n: "${steps.a.n}", of: ["${steps.a}", "x", "${inputs.n}"]}}
- {name: c, agent: echo, input: {whole: "${steps.b}", deep: "${steps.b.of}", a: "${steps.a.n}"}}
- {name: d, agent: echo, input: "${steps.c}"}
"""
)


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast this machine is decides nothing here."""
    monkeypatch.setattr("aios_runtime.ahead.MAX_NS", 10**15)


def chain(steps: str) -> list[str]:
    return [step.name for step in followers(workflow(steps)).get("a", ())]


def handed_out(run: Driver, step: str = "a") -> Task:
    """The task of a step as it goes on the bus."""
    task = task_of(run.run, run.workflow, step, None, "")
    task.ahead.extend(Planner().ahead(run.workflow, step, lambda root: look(run.run, root)))
    return task


def echo(task: Task) -> Outcome:
    return Outcome(
        run_id=task.run_id,
        task_id=task.task_id,
        dispatch=task.dispatch,
        step=task.step,
        status=1,
        output=task.input,
        mode=task.mode,
    )


def test_agent_steps_that_nothing_stands_before_follow() -> None:
    assert chain("- {name: a, agent: x}\n- {name: b, agent: x}\n- {name: c, agent: x, needs: [a]}") == [
        "b",
        "c",
    ]


@pytest.mark.parametrize(
    "step",
    [
        "{name: b, connector: files.look}",
        "{name: b, memory: read}",
        "{name: b, wait: 1s}",
        '{name: b, agent: x, when: "inputs.n > 1"}',
        '{name: b, agent: x, budget: "0.01"}',
        "{name: b, agent: x, needs: [a, other]}",
        "{name: b, agent: x, needs: []}",
    ],
)
def test_a_step_that_something_stands_before_does_not_follow(step: str) -> None:
    other = "- {name: other, agent: x, needs: []}\n"
    assert chain(f"{other}- {{name: a, agent: x, needs: []}}\n- {step}") == []


def test_a_step_behind_a_gate_does_not_follow() -> None:
    gated = "- {name: a, agent: x}\n- {name: g, gate: {approves: [b]}}\n- {name: b, agent: x}\n"
    assert chain(gated) == []


def test_what_computes_with_an_output_to_come_is_left_to_the_orchestrator() -> None:
    run = Driver(workflow('- {name: a, agent: x}\n- {name: b, agent: x, input: {n: "${steps.a.n + 1}"}}'))
    assert list(handed_out(run).ahead) == []


def inputs(run: Driver) -> dict[str, bytes]:
    """What each step was handed out with."""
    events = (RunEvent.FromString(stored).step_scheduled for stored in run.history)
    return {event.step: event.input for event in events if event.step}


def test_the_worker_makes_the_inputs_that_the_orchestrator_makes() -> None:
    run = Driver(CHAIN)
    task = handed_out(run)
    done = [(task, echo(task)), *steps_ahead(task, echo(task), echo)]
    assert [made.step for made, _ in done] == ["a", "b", "c", "d"]
    for _, outcome in done:
        assert run.give(Settle(outcome)).refusal is None
    assert run.run.state == state_pb2.RUN_STATE_SUCCEEDED
    assert inputs(run) == {made.step: made.input for made, _ in done}


@given(
    st.recursive(
        st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, min_size=1, max_size=3),
        max_leaves=8,
    )
)
def test_labels_travel_with_what_fills_a_hole(data: object) -> None:
    run = Driver(CHAIN)
    task = handed_out(run)
    first = echo(task)
    first.output = encode({"n": labeled(data, outside("agent:x")), "m": Leaf(None, OWNER)})  # type: ignore[arg-type]
    done = [(task, first), *steps_ahead(task, first, echo)]
    for made, outcome in done:
        run.give(Settle(outcome))
        assert inputs(run)[made.step] == made.input
    assert run.run.state == state_pb2.RUN_STATE_SUCCEEDED


def test_an_outcome_on_another_input_does_not_count() -> None:
    run = Driver(CHAIN)
    task = handed_out(run)
    (_, ahead), *_ = steps_ahead(task, echo(task), echo)
    other = echo(task)
    other.output = encode(labeled({"n": 2}, OWNER))
    run.give(Settle(other))
    before = run.run.sequence
    run.give(Settle(ahead))
    assert run.run.sequence == before
    assert run.run.at("b").state == state_pb2.STEP_STATE_DISPATCHED
    run.settle("b", output=encode(labeled({"of": [1]}, OWNER)))
    assert run.run.at("b").state == state_pb2.STEP_STATE_SUCCEEDED


def test_an_outcome_that_comes_before_its_turn_or_after_the_end_changes_nothing() -> None:
    run = Driver(CHAIN)
    task = handed_out(run)
    (_, b), (_, c), _ = steps_ahead(task, echo(task), echo)
    before = run.run.sequence
    run.give(Settle(c))
    run.give(Settle(b))
    assert run.run.sequence == before
    run.give(Cancel("enough"))
    run.give(Settle(echo(task)))
    run.give(Settle(b))
    assert run.run.state == state_pb2.RUN_STATE_CANCELLED
    assert run.run.at("b").state == state_pb2.STEP_STATE_CANCELLED


def test_what_was_done_ahead_twice_counts_once() -> None:
    run = Driver(CHAIN)
    task = handed_out(run)
    for _ in range(2):
        run.give(Settle(echo(task)))
        for _, outcome in steps_ahead(task, echo(task), echo):
            run.give(Settle(outcome))
    history = len(run.history)
    assert run.run.state == state_pb2.RUN_STATE_SUCCEEDED
    assert history == 1 + 4 + 4 + 1  # started, scheduled and succeeded four times each, ended


@pytest.mark.parametrize("stop", ["fails", "takes longer"])
def test_a_worker_stops_at_what_it_can_not_do_at_once(stop: str) -> None:
    def perform(task: Task) -> Outcome | None:
        if task.step != "c":
            return echo(task)
        return Outcome(status=STATUS_FAILED) if stop == "fails" else None

    run = Driver(CHAIN)
    task = handed_out(run)
    assert [made.step for made, _ in steps_ahead(task, echo(task), perform)] == ["b"]


@pytest.mark.parametrize("output", [{"m": 1}, {"n": None}, [1]])
def test_a_hole_that_nothing_fills_ends_it_as_the_run_would(output: object) -> None:
    run = Driver(CHAIN)
    task = handed_out(run)
    first = echo(task)
    first.output = encode(labeled(output, OWNER))  # type: ignore[arg-type]
    done = list(steps_ahead(task, first, echo))
    run.give(Settle(first))
    if done:  # below a null everything is null
        assert decode(done[0][0].input) == decode(run.run.at("b").input)
    else:
        assert run.run.failed == "b"


def test_chains_that_need_nothing_of_the_run_are_prepared_once() -> None:
    fixed: Workflow = workflow('- {name: a, agent: x}\n- {name: b, agent: x, input: {n: "${steps.a.n}"}}')
    planner = Planner()

    def nothing(root: str) -> None:
        raise AssertionError(root)

    assert planner.ahead(fixed, "a", nothing) is planner.ahead(fixed, "a", nothing)
    run = Driver(fixed, MODE_EXECUTE)
    assert handed_out(run).ahead[0].step == "b"
