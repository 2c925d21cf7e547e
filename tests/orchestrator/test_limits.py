"""Time-outs of a step, deadlines and service levels: what is decided when a time has come."""

import pytest

from aios.error.v1.error_pb2 import Error
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState, Recovery, RunState, StepState
from aios.task.v1.task_pb2 import Status, Task
from aios_core.errors import TerminalError
from aios_orchestrator.codec import task_of
from aios_orchestrator.core.decide import Settle, Tick
from aios_orchestrator.delivery import GRACE_MS
from aios_orchestrator.due import next_due
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState
MINUTE, HOUR = 60_000, 3_600_000


def of(steps: str, head: str = "") -> Driver:
    return Driver(workflow(steps, head=head))


def at(run: Driver, now: int) -> list[str]:
    """Let the time come; which events there were."""
    run.now = now
    run.give(Tick())
    return [str(RunEvent.FromString(data).WhichOneof("body")) for data in run.last.events]


def task(run: Driver, step: str) -> Task:
    return task_of(run.run, run.workflow, step, None, "")


@pytest.mark.feature("D2")
def test_the_task_says_by_when_it_is_to_be_begun_and_an_attempt_that_nobody_took_is_tried_again() -> None:
    run = of("- {name: a, agent: x, timeout: {queued: 10m, running: 5m}, retry: {limit: 2, jitter: 0}}")
    first = run.outcome("a")
    assert task(run, "a").start_by_ms == 1_000 + 10 * MINUTE and task(run, "a").timeout_ms == 5 * MINUTE
    gone = 1_000 + 15 * MINUTE + GRACE_MS
    assert next_due(run.run) == gone and at(run, gone - 1) == []
    assert at(run, gone) == ["step_retry_scheduled"]
    assert run.run.at("a").error.code == "QUEUE_TIMEOUT"
    assert at(run, run.run.at("a").due) == ["step_scheduled"]
    assert task(run, "a").start_by_ms == run.now + 10 * MINUTE and task(run, "a").dispatch == 2
    first.status = Status.STATUS_FAILED
    first.error.CopyFrom(Error(code="ACTION_FAILED"))
    assert run.give(Settle(first)).events == ()  # it is of the task that was given up
    assert at(run, next_due(run.run)) == ["step_failed", "run_failed"]
    assert run.run.error.code == "QUEUE_TIMEOUT"


@pytest.mark.feature("D2")
def test_of_the_answer_and_the_time_out_the_first_that_is_decided_counts() -> None:
    run = of("- {name: a, agent: x, timeout: {queued: 10m}}")
    gone = next_due(run.run)
    run.settle("a")
    assert at(run, gone) == [] and run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("D2")
def test_a_change_that_may_have_begun_is_awaited_and_the_step_is_late() -> None:
    run = of("- {name: a, connector: files.write, effect: write, timeout: {queued: 10m, total: 2h}}")
    assert task(run, "a").start_by_ms == 1_000 + 10 * MINUTE
    assert task(run, "a").deadline_ms == 1_000 + 2 * HOUR
    due = 1_000 + 15 * MINUTE + GRACE_MS
    assert at(run, due) == ["became_late"]
    assert run.run.at("a").state == S.STEP_STATE_DISPATCHED and run.run.late_time == due
    assert at(run, 10 * HOUR) == [] and next_due(run.run) is None
    run.settle("a")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.run.at("a").effect_order == 1


@pytest.mark.feature("D2")
def test_all_attempts_and_the_waits_between_have_one_time() -> None:
    run = of(
        "- {name: a, agent: x, timeout: {total: 1h}, retry: {limit: 9, backoff: 20m, max_backoff: 3h, jitter: 0}}"
    )
    assert task(run, "a").deadline_ms == 1_000 + HOUR
    run.fail("a", retryable=True)
    assert at(run, run.run.at("a").due) == ["step_scheduled"]
    assert task(run, "a").deadline_ms == 1_000 + HOUR  # counted from the first attempt
    run.fail("a", retryable=True)  # the next wait would end after it
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error.code == "TOTAL_TIMEOUT"
    assert "ACTION_FAILED" in run.run.error.message


@pytest.mark.feature("D2")
def test_an_attempt_that_its_worker_cut_off_at_the_end_of_all_time_is_final() -> None:
    run = of("- {name: a, agent: x, timeout: {total: 1h}}")
    run.now = 1_000 + HOUR
    run.fail("a", retryable=True, code="STEP_TIMEOUT")
    assert run.run.error.code == "TOTAL_TIMEOUT"


@pytest.mark.feature("B4")
def test_a_gate_expires_at_the_deadline_of_its_step_and_of_the_run() -> None:
    gate = '- {name: a, agent: x}\n- {name: ok, gate: {title: "Go on"}%s}\n- {name: b, agent: x, needs: [ok]}'
    for steps, head, step in (
        (gate % ", deadline: 2h", "", "ok"),
        (gate % "", "  deadline: 2h\n", ""),
    ):
        run = of(steps, head)
        run.settle("a")
        approval = run.approval.approval_id
        assert at(run, 2 * HOUR) == [] and next_due(run.run) == 1_000 + 2 * HOUR
        kinds = at(run, 1_000 + 2 * HOUR)
        assert kinds[:2] == ["deadline_passed", "approval_decided"] and kinds[-1] == "run_failed"
        assert run.run.approvals[approval].state == A.APPROVAL_STATE_EXPIRED
        assert run.run.error.code == "DEADLINE_EXCEEDED" and run.run.failed == step
        assert next_due(run.run) is None


@pytest.mark.feature("B4")
def test_the_outcome_of_what_is_handed_out_is_awaited_at_the_runs_deadline() -> None:
    run = of(
        """
- {name: a, connector: files.write, effect: write, input: {}}
- {name: b, agent: x, needs: []}
- {name: c, agent: x, needs: [a]}
""",
        "  deadline: 1h\n",
    )
    assert task(run, "a").deadline_ms == 0 and task(run, "a").start_by_ms == 1_000 + HOUR
    assert task(run, "b").deadline_ms == 1_000 + HOUR
    assert {task(run, step).due_ms for step in "ab"} == {1_000 + HOUR}
    assert at(run, 1_000 + HOUR) == ["deadline_passed"]
    run.settle("a")
    assert run.run.at("a").state == S.STEP_STATE_SUCCEEDED and run.last.dispatched == ()
    run.fail("b", retryable=True, code="STEP_TIMEOUT")
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error.code == "DEADLINE_EXCEEDED"
    run.recover(Recovery.RECOVERY_RETRY)  # a person has it go on, and its deadline is no more
    assert run.run.state == R.RUN_STATE_RUNNING and task(run, "b").deadline_ms == 0
    run.settle("b")
    run.settle("c")
    assert at(run, 9 * HOUR) == [] and run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("B4")
def test_nobody_who_answers_after_a_deadline_keeps_a_run_open() -> None:
    run = of("- {name: a, agent: x}", "  deadline: 1h\n")
    at(run, 1_000 + HOUR)
    assert at(run, 1_000 + HOUR + GRACE_MS) == ["step_failed", "run_failed"]


@pytest.mark.feature("B4")
def test_a_deadline_that_is_only_noted_stops_nothing() -> None:
    run = of(
        "- {name: a, agent: x, deadline: 1h, on_deadline: note}", "  deadline: 30m\n  on_deadline: note\n"
    )
    assert task(run, "a").deadline_ms == 0 and task(run, "a").due_ms == 1_000 + HOUR // 2
    assert at(run, 2 * HOUR) == ["deadline_passed", "deadline_passed"]
    assert run.run.overdue and run.run.at("a").overdue
    run.fail("a", retryable=True)
    at(run, run.run.at("a").due)
    run.settle("a")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("B4")
def test_a_deadline_may_be_a_time_that_was_computed() -> None:
    run = of(
        '- {name: a, agent: x, input: {at: "1970-01-01T02:00:00+01:00"}}\n'
        '- {name: b, agent: x, deadline: "${steps.a.at}"}\n- {name: c, wait: 9h, deadline: "${steps.a.at}"}'
    )
    run.settle("a")
    assert task(run, "b").deadline_ms == HOUR
    run.settle("b")
    assert run.run.at("c").limits.deadline_ms == HOUR
    assert at(run, HOUR) == ["deadline_passed", "step_failed", "run_failed"]
    late = of('- {name: a, wait: 1h}\n- {name: b, agent: x, deadline: "1970-01-01T00:30:00Z"}')
    at(late, 1_000 + HOUR)
    assert late.run.error.code == "DEADLINE_EXCEEDED" and late.run.at("b").attempt == 0


@pytest.mark.feature("B4")
def test_the_deadline_of_a_map_ends_its_rounds_and_awaits_what_is_under_way() -> None:
    run = of(
        """
- name: each
  deadline: 1h
  map:
    over: [1, 2, 3]
    at_once: 2
    steps:
      - {name: a, agent: x, input: "${item}"}
      - {name: ok, gate: {title: ok}}
"""
    )
    run.settle("each[0].a")
    assert run.approval.step == "each[0].ok"
    assert at(run, 1_000 + HOUR)[0] == "deadline_passed"
    assert not run.run.open_approvals() and run.run.state == R.RUN_STATE_RUNNING
    run.settle("each[1].a")
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error.code == "DEADLINE_EXCEEDED"
    assert "each[2].a" not in run.run.steps


@pytest.mark.feature("B4")
def test_in_a_map_that_goes_on_without_what_fails_a_deadline_fails_an_item_alone() -> None:
    run = of(
        """
- name: each
  map:
    over: [1, 2]
    on_failure: collect
    steps:
      - name: inner
        deadline: 1h
        map: {over: [1, 2], at_once: 1, steps: [{name: a, agent: x, input: "${item}"}]}
"""
    )
    run.settle("each[1].inner[0].a")
    run.settle("each[1].inner[1].a")
    assert at(run, 1_000 + HOUR) == ["deadline_passed"]
    run.settle("each[0].inner[0].a")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert run.run.at("each[0].inner").error.code == "DEADLINE_EXCEEDED"


@pytest.mark.feature("B4")
def test_the_deadline_of_a_sub_workflow_holds_where_it_is_used() -> None:
    inner = workflow("- {name: a, agent: x}", "  deadline: 1h\n  service_level: 5m\n", name="inner")
    run = Driver(workflow("- {name: s, workflow: inner, input: {n: 1}}", uses={"inner": inner}))
    assert at(run, 1_000 + 5 * MINUTE) == ["became_late"] and run.run.at("s").late
    assert at(run, 1_000 + HOUR) == ["deadline_passed"]
    run.fail("s.a", retryable=True)
    assert run.run.error.code == "DEADLINE_EXCEEDED"


@pytest.mark.feature("B4")
def test_a_service_level_is_told_once_and_stops_nothing() -> None:
    run = of("- {name: a, agent: x, service_level: 10m}", "  service_level: 20m\n")
    assert at(run, 1_000 + 10 * MINUTE) == ["became_late"]
    assert run.run.at("a").late and not run.run.late and run.run.late_time == run.now
    assert at(run, 1_000 + 20 * MINUTE) == ["became_late"] and run.run.late
    assert at(run, HOUR) == [] and next_due(run.run) is None
    run.settle("a")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("B4")
def test_what_says_nothing_of_time_stores_nothing_of_it() -> None:
    run = of("- {name: a, agent: x}\n- {name: pause, wait: 1h}\n- {name: ok, gate: {title: ok}}")
    run.settle("a")
    assert not any(b"limits" in str(RunEvent.FromString(data)).encode() for data in run.history)
    assert task(run, "a").start_by_ms == task(run, "a").due_ms == task(run, "a").deadline_ms == 0


@pytest.mark.feature("D2", "B4")
@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        ("{name: a, agent: x, timeout: {queue: 5m}}", "timeout.queue", "did you mean 'queued'?"),
        ("{name: a, memory: write, timeout: {queued: 5m}}", "timeout.queued", "does not apply"),
        ("{name: a, agent: x, on_deadline: note}", "deadline", "is missing"),
        ("{name: a, agent: x, deadline: soon}", "deadline", "nor a duration"),
        ("{name: a, agent: x, deadline: 1h, on_deadline: stop}", "on_deadline", "'fail' or 'note'"),
        ("{name: a, transform: 1, deadline: 1h}", "deadline", "has no deadline"),
    ],
)
def test_what_is_said_wrongly_of_time_is_refused_with_its_place(step: str, field: str, words: str) -> None:
    with pytest.raises(TerminalError, match=r"w\.yaml:") as caught:
        workflow(f"- {step}")
    assert caught.value.details["field"].endswith(field) and words in caught.value.message
