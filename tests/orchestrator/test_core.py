"""What the orchestrator decides, without a bus, a store or a clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.run.v1.state_pb2 import ApprovalState, RunState, StepState
from aios.task.v1.task_pb2 import Mode, Status
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, Trust, outside
from aios_core.values import label_of, labeled
from aios_orchestrator.core.decide import Cancel, Redispatch, Settle, Tick, Undo
from aios_orchestrator.core.fold import fold
from aios_orchestrator.due import next_due
from tests.often import tries
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState

TWO = workflow(
    """
- {name: a, agent: x, input: {n: "${inputs.n}"}}
- {name: b, agent: x, input: {n: "${steps.a.n}", text: "got ${steps.a.n}"}}
""",
    head='  outputs: {r: "${steps.b.n}", t: "${steps.b.text}"}\n',
)
WRITES = workflow(
    """
- {name: read, connector: files.read, input: {n: "${inputs.n}"}}
- name: ok
  gate: {title: "Write ${inputs.n}", why: "because", risk: "little", approves: [one, two], expires: 1h}
- {name: one, connector: files.write, effect: write, input: {n: "${steps.read.n}"}}
- {name: two, connector: files.write, effect: write, input: {n: 2}}
"""
)


@pytest.mark.feature("D1")
def test_steps_run_in_order_and_hand_their_results_on() -> None:
    run = Driver(TWO, n=3)
    assert run.last.dispatched == ("a",)
    assert run.settle("a").dispatched == ("b",)
    run.settle("b")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert run.outputs == {"r": 3, "t": "got 3"}


@pytest.mark.feature("B3")
def test_an_outcome_that_comes_again_changes_nothing() -> None:
    run = Driver(TWO)
    first = run.outcome("a")
    run.give(Settle(first))
    again = run.give(Settle(first))
    assert again.events == () and again.dispatched == ()


@pytest.mark.feature("D2")
def test_a_transient_failure_is_tried_again_later_and_a_permanent_one_ends_the_run() -> None:
    run = Driver(TWO)
    run.fail("a", retryable=True)
    step = run.run.at("a")
    assert step.state == S.STEP_STATE_WAITING and step.due > run.now
    assert run.give(Tick()).dispatched == ()
    run.now = step.due
    assert run.give(Tick()).dispatched == ("a",)
    assert run.run.at("a").attempt == 2
    run.fail("a")
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error.code == "ACTION_FAILED"


@pytest.mark.feature("D2")
def test_a_failure_with_a_code_that_is_never_retried_is_final() -> None:
    step = (
        "- {name: a, agent: x, retry: {limit: 9, jitter: 0, backoff: 2s, max_backoff: 5s, never: [NO_MONEY]}}"
    )
    run = Driver(workflow(step))
    waits = []
    for _ in range(4):
        run.fail("a", retryable=True)
        waits.append(run.run.at("a").due - run.now)
        run.now = run.run.at("a").due
        run.give(Tick())
    assert waits == [2_000, 4_000, 5_000, 5_000]
    run.fail("a", retryable=True, code="NO_MONEY")
    assert run.run.state == R.RUN_STATE_FAILED


@pytest.mark.feature("D1")
def test_a_step_waits_until_a_time_that_was_computed() -> None:
    run = Driver(
        workflow(
            """
- {name: a, agent: x, input: {at: "1970-01-01T02:00:00+01:00"}}
- {name: pause, wait: {until: "${steps.a.at}"}}
- {name: past, wait: {until: "1970-01-01T00:00:00Z"}}
"""
        )
    )
    run.settle("a")
    assert run.run.at("pause").due == 3_600_000
    run.now = 3_599_999
    assert run.give(Tick()).events == ()
    run.now = 3_600_000
    run.give(Tick())
    run.give(Tick())
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    other = Driver(run.workflow)
    other.settle("a", output=encode(labeled({"at": "tomorrow"}, OWNER)))
    assert other.run.error is not None and other.run.error.code == "BAD_OUTPUT"
    assert "'tomorrow' is not a time with its zone" in other.run.error.message


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        ("{name: a, wait: {until: 2026-12-24}}", "wait.until", "is not a time with its zone"),
        ("{name: a, wait: {untill: 1}}", "wait.untill", "did you mean 'until'?"),
        ("{name: a, wait: {}}", "wait.until", "is missing"),
        ("{name: a, agent: x, retry: {never: [no]}}", "retry.never", "reason codes such as"),
        ("{name: a, agent: x, retry: {jitter: 101}}", "retry.jitter", "from 0 to 100"),
        ("{name: a, agent: x, retry: {max_backoff: long}}", "retry.max_backoff", "is not a duration"),
    ],
)
def test_a_wait_or_a_retry_that_is_wrong_is_refused_with_its_place(step: str, field: str, words: str) -> None:
    with pytest.raises(TerminalError, match=r"w\.yaml:") as caught:
        workflow(f"- {step}")
    assert caught.value.details["field"].endswith(field) and words in caught.value.message


@pytest.mark.feature("D2", "D4")
def test_what_is_due_after_a_wrong_clock_was_set_right_is_due_by_the_right_clock() -> None:
    run = Driver(
        workflow(
            """
- {name: a, agent: x, input: {n: "${inputs.n}"}}
- {name: pause, wait: 2s, needs: [a]}
- name: ok
  needs: [pause]
  gate: {title: "Go on", approves: [b], expires: 1h}
- {name: b, connector: files.write, effect: write, needs: [ok], input: {n: 1}}
"""
        )
    )
    right, day = run.now, 86_400_000
    run.now = right + day
    run.fail("a", retryable=True)
    run.now = run.run.at("a").due
    run.give(Tick())
    run.now = right
    run.settle("a")
    assert run.run.at("pause").due == right + 2000
    assert run.run.update_time > right + day, "within a run time does not go back"
    assert run.give(Tick()).events == ()
    run.now = right + 2000
    run.give(Tick())
    assert run.approval.expire_time_ms == run.now + 3_600_000
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.run.at("b").state == S.STEP_STATE_DISPATCHED


@pytest.mark.feature("D2")
def test_retries_end_at_their_limit() -> None:
    run = Driver(workflow("- {name: a, agent: x, retry: {limit: 2, backoff: 1ms}}"))
    run.fail("a", retryable=True)
    run.now += 10
    run.give(Tick())
    run.fail("a", retryable=True)
    assert run.run.state == R.RUN_STATE_FAILED


@pytest.mark.feature("J1")
def test_a_late_failure_of_an_older_dispatch_does_not_count_but_its_success_does() -> None:
    run = Driver(TWO)
    old = run.outcome("a", status=Status.STATUS_FAILED)
    old_success = run.outcome("a")
    run.give(Redispatch(("a",), "lost"))
    assert run.give(Settle(old)).events == ()
    assert run.give(Settle(old_success)).dispatched == ("b",)


@pytest.mark.feature("I4", "I7")
def test_a_gate_approves_exactly_what_it_shows() -> None:
    run = Driver(WRITES)
    run.settle("read")
    approval = run.approval
    assert [item.step for item in approval.proposed] == ["one", "two"]
    assert approval.title == "Write 1" and approval.why == "because" and approval.risk == "little"
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("one",)
    assert run.run.at("one").input == approval.proposed[0].arguments


@pytest.mark.feature("I4")
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"arguments_sha256": b"x" * 32}, "APPROVAL_STALE"),
        ({"arguments_sha256": b""}, "INVALID_ARGUMENT"),
        ({"approval_id": "apr_other"}, "NOT_FOUND"),
    ],
)
def test_an_approval_of_anything_else_is_refused(fields: dict[str, object], code: str) -> None:
    run = Driver(WRITES)
    run.settle("read")
    refused = run.decide(A.APPROVAL_STATE_APPROVED, **fields)
    assert refused.refusal is not None and refused.refusal.code == code
    assert refused.dispatched == () and run.run.at("ok").state == S.STEP_STATE_GATED


@pytest.mark.feature("I4")
def test_an_approval_counts_once_and_not_after_its_expiry() -> None:
    run = Driver(WRITES)
    run.settle("read")
    approval = run.approval
    run.decide(A.APPROVAL_STATE_APPROVED)
    again = run.decide(A.APPROVAL_STATE_APPROVED, approval=approval)
    assert again.refusal is None and again.events == ()  # the same click of the same person
    other = run.decide(A.APPROVAL_STATE_REJECTED, approval=approval)
    assert other.refusal is not None and other.refusal.code == "APPROVAL_USED"
    late = Driver(WRITES)
    late.settle("read")
    late.now += 3_600_001
    refused = late.decide(A.APPROVAL_STATE_APPROVED)
    assert refused.refusal is not None and refused.refusal.code == "APPROVAL_EXPIRED"
    late.give(Tick())
    assert late.run.state == R.RUN_STATE_CANCELLED


@pytest.mark.feature("I3")
def test_a_rejection_ends_the_run_without_a_change() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_REJECTED, note="not yet")
    assert run.run.state == R.RUN_STATE_CANCELLED
    assert run.run.at("one").state == S.STEP_STATE_CANCELLED


@pytest.mark.feature("D6")
def test_undo_takes_changes_back_in_reverse_order_once_each() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("one")
    run.settle("two")
    assert run.give(Undo("")).undoing == ("two",)
    assert run.settle("two").undoing == ("one",)
    run.settle("one")
    assert run.run.state == R.RUN_STATE_UNDONE
    assert run.give(Undo("")).events == ()


@pytest.mark.feature("D6")
def test_what_a_person_changed_since_is_left_and_the_rest_is_undone() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("one")
    run.settle("two")
    run.give(Undo(""))
    run.settle("two", status=Status.STATUS_CONFLICT)
    run.settle("one")
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    assert run.run.at("two").state == S.STEP_STATE_UNDO_CONFLICT
    assert run.run.at("one").state == S.STEP_STATE_UNDONE


def test_a_run_that_is_under_way_is_not_undone() -> None:
    run = Driver(TWO)
    refused = run.give(Undo(""))
    assert refused.refusal is not None and refused.refusal.code == "RUN_CLOSED"


@pytest.mark.feature("B3")
def test_an_unknown_outcome_waits_for_a_person_who_says_it_happened() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.unknown("one")
    assert "please check" in run.approval.title
    assert run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "yes"}).dispatched == ("two",)


@pytest.mark.feature("B3")
def test_only_a_person_starts_a_new_attempt_of_what_may_have_happened() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.unknown("one")
    run.give(Tick())
    assert run.run.at("one").state == S.STEP_STATE_UNKNOWN
    assert run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": False}).dispatched == ("one",)
    assert run.run.at("one").attempt_group == 2


def test_cancel_waits_for_what_is_under_way_and_never_undoes() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.give(Cancel("enough"))
    assert run.run.state == R.RUN_STATE_CANCELLING
    run.settle("one")
    assert run.run.state == R.RUN_STATE_CANCELLED
    assert run.run.at("one").state == S.STEP_STATE_SUCCEEDED
    assert run.give(Undo("")).undoing == ("one",)


@pytest.mark.feature("D10")
def test_a_simulation_passes_gates_and_has_nothing_to_undo() -> None:
    run = Driver(WRITES, mode=Mode.MODE_SIMULATE)
    for step in ("read", "one", "two"):
        run.settle(step)
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    refused = run.give(Undo(""))
    assert refused.refusal is not None


@pytest.mark.feature("C4", "F5")
def test_a_step_over_the_cap_is_never_handed_out() -> None:
    run = Driver(
        workflow(
            """
- {name: a, agent: x, budget: "0.60"}
- {name: b, agent: x, budget: "0.60"}
""",
            head='  budget: {cap: "1.00"}\n',
        )
    )
    assert run.run.held == 600_000
    assert run.settle("a", cost_micros=500_000).dispatched == ()
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error.code == "BUDGET_EXCEEDED"
    assert (run.run.held, run.run.settled) == (0, 500_000)


def test_parallel_steps_start_together_and_a_branch_chooses() -> None:
    run = Driver(
        workflow(
            """
- {name: a, needs: [], agent: x, input: {n: 1}}
- {name: b, needs: [], agent: x, input: {n: 2}}
- name: which
  needs: [a, b]
  branch: {cases: {big: "steps.b.n > 1"}, otherwise: small}
- {name: c, when: "steps.which.case == 'big'", transform: {sum: "${steps.a.n + steps.b.n}"}}
- {name: d, when: "steps.which.case == 'small'", transform: {sum: 0}}
- {name: w, wait: 5s}
""",
            head='  outputs: {sum: "${steps.c.sum}", none: "${steps.d.sum}"}\n',
        )
    )
    assert run.last.dispatched == ("a", "b")
    run.settle("a")
    run.settle("b")
    assert run.run.at("d").state == S.STEP_STATE_SKIPPED
    assert next_due(run.run) == run.now + 5_000
    run.now += 5_000
    run.give(Tick())
    assert run.outputs == {"sum": 3, "none": None}


def test_questions_are_answered_once_and_only_with_what_they_allow() -> None:
    run = Driver(
        workflow(
            """
- name: ask
  ask: {title: T, questions: [{id: col, text: "Which column is hours?", options: [Std, Anz]}]}
- {name: use, transform: "${steps.ask.answered}"}
""",
            head='  outputs: {got: "${steps.ask.answers.col}", all: "${steps.use}"}\n',
        )
    )
    wrong = run.decide(A.APPROVAL_STATE_ANSWERED, {"col": "Rate"})
    assert wrong.refusal is not None and wrong.refusal.code == "BAD_ANSWER"
    missing = run.decide(A.APPROVAL_STATE_ANSWERED, {})
    assert missing.refusal is not None and missing.refusal.code == "BAD_ANSWER"
    run.decide(A.APPROVAL_STATE_ANSWERED, {"col": "std"})
    outputs = run.outputs
    assert isinstance(outputs, dict) and outputs["got"] == "Std"
    assert outputs["all"][0]["answer"] == "Std" and outputs["all"][0]["id"] == "col"


@pytest.mark.feature("G7")
def test_labels_go_with_the_data_and_through_conditions() -> None:
    run = Driver(
        workflow(
            """
- {name: read, connector: files.read}
- name: mix
  transform: {path: "${steps.read.path}", both: "${steps.read.path + string(inputs.n)}", own: "${inputs.n}"}
- {name: chosen, when: "steps.read.path == 'x'", transform: {own: "${inputs.n}"}}
"""
        )
    )
    run.settle("read", output=encode(labeled({"path": "x"}, outside("connector:files"))))
    mix = decode(run.run.at("mix").output)
    assert isinstance(mix, dict)
    assert label_of(mix["path"]).trust == Trust.UNTRUSTED and label_of(mix["own"]) == OWNER
    assert label_of(mix["both"]).trust == Trust.UNTRUSTED
    assert label_of(decode(run.run.at("chosen").output)).trust == Trust.UNTRUSTED


@pytest.mark.feature("D4")
def test_a_broken_chain_of_events_is_noticed() -> None:
    run = Driver(TWO)
    run.settle("a")
    with pytest.raises(ValueError, match="does not follow"):
        fold([run.history[0], *run.history[2:]])
    tampered = bytearray(run.history[0])
    tampered[-1] ^= 1
    with pytest.raises(Exception):  # noqa: B017 - either it does not decode, or the chain breaks
        fold([bytes(tampered), *run.history[1:]])


@settings(max_examples=tries(150), deadline=None)
@given(st.data())
def test_any_order_of_outcomes_decisions_and_ticks_ends_and_keeps_its_books(data: st.DataObject) -> None:
    """`Driver.give` checks `fold(events) == state` after every input; here: money, and that it ends."""
    run = Driver(WRITES)
    kinds = [
        "settle",
        "fail",
        "retry",
        "unknown",
        "approve",
        "reject",
        "cancel",
        "tick",
        "undo",
        "lost",
        "yes",
        "no",
    ]
    for _ in range(data.draw(st.integers(0, 25))):
        kind = data.draw(st.sampled_from(kinds))
        step = data.draw(st.sampled_from(list(run.run.steps)))
        if kind == "settle":
            run.settle(step, cost_micros=data.draw(st.integers(0, 5)))
        elif kind in ("fail", "retry"):
            run.fail(step, retryable=kind == "retry")
        elif kind == "unknown":
            run.unknown(step)
        elif kind == "cancel":
            run.give(Cancel("x"))
        elif kind == "undo":
            run.give(Undo(""))
        elif kind == "lost":
            run.give(Redispatch((step,), "x"))
        elif kind == "tick":
            run.now += data.draw(st.sampled_from([1, 2_000, 70_000]))
            run.give(Tick())
        elif run.run.open_approvals():
            approval = run.run.open_approvals()[0]
            answers = {"yes": {"happened": "yes"}, "no": {"happened": "no"}}.get(kind)
            state = A.APPROVAL_STATE_REJECTED if kind == "reject" else A.APPROVAL_STATE_APPROVED
            run.decide(A.APPROVAL_STATE_ANSWERED if answers else state, answers, approval=approval)
        assert run.run.held >= 0 and run.run.held + run.run.settled <= run.run.cap
        if run.run.closed:
            assert run.run.held == 0
    for _ in range(60):  # the faults stop: everything is settled, decided and due
        for step in list(run.run.steps.values()):
            if step.state in (S.STEP_STATE_DISPATCHED, S.STEP_STATE_UNDOING):
                run.settle(step.name)
        for approval in run.run.open_approvals():
            gate = approval.kind == 1
            run.decide(
                A.APPROVAL_STATE_APPROVED if gate else A.APPROVAL_STATE_ANSWERED,
                None if gate else {"happened": "yes"},
                approval=approval,
            )
        run.now += 100_000
        run.give(Tick())
    assert run.run.closed


@pytest.mark.feature("D1")
def test_a_pure_stretch_of_a_hundred_steps_is_decided_in_one_go() -> None:
    """Branches, conditions and transforms need nobody: the whole stretch is one decision, so one commit."""
    steps = [
        '- {name: first, agent: x, input: {n: "${inputs.n}"}}',
        '- {name: t0, transform: "${steps.first.n}"}',
    ]
    for at in range(1, 100):
        before = f"steps.t{at - 1}"
        if at % 10 == 0:
            steps.append(f'- {{name: t{at}, branch: {{cases: {{big: "{at} > 50"}}, otherwise: small}}}}')
        elif at % 10 == 1 and at > 1:
            steps.append(f"""- {{name: t{at}, when: "{before}.case == 'big'", transform: {{n: {at}}}}}""")
        else:
            steps.append(f"- {{name: t{at}, transform: {{n: {at}}}}}")
    steps.append("- {name: last, agent: x}")
    run = Driver(workflow("\n".join(steps)))
    decision = run.settle("first")
    assert decision.dispatched == ("last",)
    assert sum(run.run.at(f"t{at}").state == S.STEP_STATE_SUCCEEDED for at in range(100)) == 95
    assert sum(run.run.at(f"t{at}").state == S.STEP_STATE_SKIPPED for at in range(100)) == 5


ASKING = """
- {name: make, agent: x}
- {name: ask, ask: {title: T, questions: "${steps.make.questions}"}}
"""


def asking(pattern: str) -> Driver:
    run = Driver(workflow(ASKING))
    question = {"id": "q", "text": "Which?", "pattern": pattern}
    run.settle("make", output=encode(labeled({"questions": [question]}, OWNER)))
    return run


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        ("(?i)(EUR|CHF)", "chf", "chfx"),
        ("[0-9]+", "42", "4 2"),
        ("a|b", "b", "ab"),
        ("(a+)+b", "aab", "a" * 200),
    ],
)
def test_an_answer_is_all_that_its_pattern_says_whatever_the_pattern(
    pattern: str, right: str, wrong: str
) -> None:
    run = asking(pattern)
    refused = run.decide(A.APPROVAL_STATE_ANSWERED, {"q": wrong})
    assert refused.refusal is not None
    assert refused.refusal.code == "BAD_ANSWER"
    assert run.decide(A.APPROVAL_STATE_ANSWERED, {"q": right}).refusal is None


@pytest.mark.parametrize("pattern", ["(", "(?=a)a", "((a{1000}){1000}){1000}", "x" * 5000])
def test_a_question_with_a_pattern_that_can_not_be_matched_fails_its_step(pattern: str) -> None:
    run = asking(pattern)
    assert run.run.state == R.RUN_STATE_FAILED
    assert run.run.error.code == "BAD_OUTPUT"
    assert "pattern" in run.run.error.message


@pytest.mark.feature("D2", "D10")
@pytest.mark.parametrize("stops", ["cancelled", "failed"])
def test_what_waits_for_another_attempt_gets_none_once_the_run_stops(stops: str) -> None:
    """It did, when its wait was over before all else had ended: a cancelled run began its work once more."""
    run = Driver(
        workflow(
            "- {name: again, agent: x, retry: {limit: 3, backoff: 1s}}\n"
            "- {name: goes-on, agent: x, needs: []}\n"
            "- {name: pause, wait: 5s, needs: []}\n"
            "- {name: ok, gate: {title: Go on, expires: 1m}, needs: []}\n"
            "- {name: fails, agent: x, needs: []}"
        )
    )
    run.fail("again", retryable=True)
    if stops == "cancelled":
        run.settle("fails")
        run.give(Cancel("enough"))
    else:
        run.fail("fails")
    assert next_due(run.run) is None
    run.now += 120_000
    assert not run.give(Tick()).events
    run.settle("goes-on")
    assert run.run.state == (R.RUN_STATE_CANCELLED if stops == "cancelled" else R.RUN_STATE_FAILED)
    assert run.run.at("again").state == S.STEP_STATE_CANCELLED
