"""What other engines are known to get wrong, each as a test. The names are the traps."""

import pytest

from aios.run.v1.state_pb2 import ApprovalState, RunState, StepState
from aios.task.v1.task_pb2 import ReportOutcomes
from aios_core.encoding import decode
from aios_core.ids import partition_of
from aios_core.values import plain
from aios_orchestrator.codec import head_of, records_of, task_of
from aios_orchestrator.core.decide import Redispatch, Settle, Tick
from aios_orchestrator.delivery import WINDOW, Delivery, TaskKey
from aios_orchestrator.publisher import waiting
from aios_orchestrator.repository import Repository
from aios_orchestrator.takeover import handed_out, tasks_of
from aios_runtime.outcomes import messages
from aios_testing.store_memory import MemoryStore
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState

THREE = workflow(
    """
- {name: a, agent: x, input: {n: "${inputs.n}"}}
- {name: b, agent: x, input: {n: "${steps.a.n}"}}
- {name: c, agent: x, input: {n: "${steps.b.n}"}}
"""
)
QUESTIONS = workflow(
    """
- name: first
  needs: []
  ask: {title: "First", questions: [{id: q, text: "Which?"}]}
- name: second
  needs: []
  ask: {title: "Second", questions: [{id: q, text: "Which?"}]}
""",
    head='  outputs: {first: "${steps.first.answers.q}", second: "${steps.second.answers.q}"}\n',
)
GATED = workflow(
    """
- {name: ok, gate: {title: "Write", approves: [one], expires: 1h}}
- {name: one, connector: files.write, effect: write, input: {n: 1}}
"""
)


@pytest.mark.feature("D2")
def test_a_retry_repeats_no_finished_work() -> None:
    run = Driver(THREE)
    run.settle("a")
    handed_out = ["a", "b"]
    for _ in range(2):
        run.fail("b", retryable=True)
        run.now = run.run.at("b").due
        handed_out += run.give(Tick()).dispatched
    handed_out += run.settle("b").dispatched
    run.settle("c")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert handed_out == ["a", "b", "b", "b", "c"]
    assert (run.run.at("a").attempt, run.run.at("b").attempt) == (1, 3)


@pytest.mark.feature("I4")
def test_an_answer_reaches_no_other_gate() -> None:
    run = Driver(QUESTIONS)
    first, second = sorted(run.run.open_approvals(), key=lambda approval: approval.step)
    run.decide(A.APPROVAL_STATE_ANSWERED, {"q": "for the second"}, approval=second)
    assert run.run.at("first").state == S.STEP_STATE_GATED
    run.decide(A.APPROVAL_STATE_ANSWERED, {"q": "for the first"}, approval=first)
    assert run.outputs == {"first": "for the first", "second": "for the second"}


@pytest.mark.feature("D4", "I4")
@pytest.mark.parametrize("first", ["the answer", "the timer"])
def test_a_timer_and_the_answer_that_it_waits_for_never_both_count(first: str) -> None:
    run = Driver(GATED)
    run.now = run.run.at("ok").due - (first == "the answer")
    if first == "the answer":
        assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("one",)
        run.now += 1
        assert run.give(Tick()).events == ()
        assert run.run.state == R.RUN_STATE_RUNNING
    else:
        approval = run.approval
        run.give(Tick())
        assert run.run.state == R.RUN_STATE_CANCELLED
        late = run.decide(A.APPROVAL_STATE_APPROVED, approval=approval)
        assert late.refusal is not None and late.dispatched == ()
        assert run.run.state == R.RUN_STATE_CANCELLED


@pytest.mark.feature("D3", "J1")
def test_a_restart_takes_no_good_run_for_a_crashed_one() -> None:
    run = Driver(THREE)
    slow = run.outcome("a")
    for _ in range(50):
        run.give(Redispatch(("a",), "the orchestrator was started again"))
    step = run.run.at("a")
    assert (step.state, step.attempt, run.run.error) == (S.STEP_STATE_DISPATCHED, 1, None)
    assert run.give(Settle(slow)).dispatched == ("b",)


@pytest.mark.feature("B2", "D2")
def test_a_result_that_is_too_large_fails_once_and_in_words() -> None:
    run = Driver(workflow("- {name: a, agent: x, retry: {limit: 5, backoff: 1ms}}"))
    (message,) = messages([("main", 0, run.outcome("a", output=b"x" * 300_000))])
    (refused,) = ReportOutcomes.FromString(message.data).outcomes
    run.give(Settle(refused))
    assert run.run.state == R.RUN_STATE_FAILED
    assert (run.run.error.code, run.run.at("a").attempt) == ("TOO_LARGE", 1)


@pytest.mark.feature("B3", "J1")
def test_the_work_of_a_dead_worker_is_handed_out_again() -> None:
    run, delivery = Driver(THREE), Delivery()
    task = task_of(run.run, THREE, "a", None, "")
    delivery.hand_out("agent", [waiting(run.run, THREE, "a")], 0)
    end = delivery.next_lease_end()
    assert end is not None
    (lost,) = delivery.expired(end)
    assert lost == TaskKey(run.run.run_id, "a")
    assert run.give(Redispatch((lost.step,), "its lease ended")).dispatched == ("a",)
    again = task_of(run.run, THREE, "a", None, "")
    assert (again.task_id, again.dispatch) == (task.task_id, task.dispatch + 1)


@pytest.mark.feature("D3")
def test_no_step_ships_or_writes_the_history_before_it() -> None:
    count = 400
    chain = "\n".join(
        f'- {{name: s{at:03}, agent: x, input: {{n: "${{{"inputs" if at == 0 else f"steps.s{at - 1:03}"}.n}}"}}}}'
        for at in range(count)
    )
    run = Driver(workflow(chain))
    shipped, written = [], []
    for at in range(count):
        shipped.append(task_of(run.run, run.workflow, f"s{at:03}", None, "").ByteSize())
        before = run.run
        run.settle(f"s{at:03}")
        records = records_of(run.run, before, run.run.own)
        events = sum(map(len, run.last.events))
        written.append(
            events + head_of(run.run).ByteSize() + sum(len(data or b"") for data in records.values())
        )
    assert max(shipped) - min(shipped) <= 8  # numbers take more bytes as they grow
    assert max(written[1:-1]) - min(written[1:-1]) <= 16


@pytest.mark.feature("B2")
def test_what_is_handed_out_again_keeps_to_the_limits_of_its_lane() -> None:
    run, delivery = Driver(THREE), Delivery()
    tasks = []
    for number in range(3 * WINDOW):
        task = waiting(run.run, THREE, "a")
        task.run_id, task.dispatch = f"run_{number}", 2
        tasks.append(task)
    out = delivery.hand_out("agent", tasks, 0)
    assert len(out) == WINDOW
    delivery.settled(out[0].run_id, "a")
    assert len(delivery.fill("agent", 0)) == 1


@pytest.mark.feature("D3", "I4")
async def test_an_approved_call_runs_although_nothing_was_published_after_the_approval() -> None:
    run = Driver(GATED)
    run.decide(A.APPROVAL_STATE_APPROVED)
    store = MemoryStore(lambda: run.now)
    repository = Repository(store)
    await store.commit(repository.writes(None, run.run, run.run.own, run.history, {}, run.workflow))
    # The process died here. Another one reads what is committed.
    stored = await Repository(store).load("main", run.run.run_id)
    assert stored is not None
    found = [heads async for heads in handed_out(store, "main", partition_of(run.run.slot))]
    assert [key for key, _ in tasks_of(found[0])] == [TaskKey(run.run.run_id, "one")]
    task = task_of(stored.run, GATED, "one", next(iter(stored.run.approvals.values())), "")
    assert plain(decode(task.input)) == {"n": 1}
    assert task.approval.approval_id == next(iter(run.run.approvals))
