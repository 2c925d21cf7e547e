"""Undo of steps whose document says how they are made good, and undo of runs that fail."""

import pytest

from aios.error.v1.error_pb2 import Error
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState, Recovery, RunState, StepState
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_UNDO, Outcome, Status, Task
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_core.labels import OWNER
from aios_core.values import labeled, plain
from aios_orchestrator.codec import task_of
from aios_orchestrator.core import undo
from aios_orchestrator.core.compensate import lane_of
from aios_orchestrator.core.decide import Cancel, Settle, Tick, Undo
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState
STEPS = """
- {name: one, connector: files.write, effect: write, input: {n: "${inputs.n}"}}
- name: two
  connector: mail.send
  effect: write
  retry: {limit: 2, jitter: 0}
  input: {n: 2}
  compensate: {connector: mail.regret, input: {to: "${steps.two.id}", n: "${steps.one.n}"}}
- {name: three, agent: x}
"""


def task(run: Driver, step: str) -> Task:
    return task_of(run.run, run.workflow, step, None, "")


def answer(run: Driver, step: str, status: Status = Status.STATUS_SUCCEEDED, **error: object) -> None:
    """The connector answers the task that is out."""
    run.give(Settle(said(run, step, status, **error)))


def said(run: Driver, step: str, status: Status, **error: object) -> Outcome:
    """What the connector says of the task that is out."""
    out = task(run, step)
    outcome = Outcome(
        run_id=out.run_id, task_id=out.task_id, dispatch=out.dispatch, step=step, status=status, mode=out.mode
    )
    if error:
        outcome.error.CopyFrom(Error(**error))  # type: ignore[arg-type]
    return outcome


def done(head: str = "") -> Driver:
    """One and two have been done; the mail has no inverse."""
    run = Driver(workflow(STEPS, head))
    run.settle("one")
    run.settle("two", output=encode(labeled({"id": "ada"}, OWNER)), undo_token=b"")
    return run


@pytest.mark.feature("D2", "D6")
def test_undo_runs_what_the_document_says_once_and_in_its_turn() -> None:
    run = done()
    run.settle("three")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and undo.preview(run.run) == (["two", "one"], [])
    run.give(Undo("wrong"))
    assert run.last.undoing == ("two",)
    out = task(run, "two")
    assert (out.target, out.mode, out.undo_token) == ("mail.regret", MODE_EXECUTE, b"")
    assert out.task_id == "run_test/two/1/1" != run.outcome("two").task_id
    assert plain(decode(out.input)) == {"to": "ada", "n": 1}
    assert out.approval.approver == "person:owner" and out.approval.arguments_sha256 == sha256(out.input)
    assert lane_of(run.run, run.workflow, "two") == "connector-mail"
    answer(run, "two")
    assert run.run.at("two").state == S.STEP_STATE_UNDONE
    assert (task(run, "one").mode, task(run, "one").target) == (MODE_UNDO, "files.write")
    answer(run, "one")
    assert run.run.state == R.RUN_STATE_UNDONE
    assert run.give(Undo("again")).events == ()


@pytest.mark.feature("D2", "D6")
def test_a_compensation_that_fails_is_tried_again_and_then_stays_visible_until_it_is_asked_for_again() -> (
    None
):
    run = done()
    run.settle("three")
    run.give(Undo("wrong"))
    first = task(run, "two").task_id
    answer(run, "two", Status.STATUS_FAILED, code="UNAVAILABLE", retryable=True)
    run.now = run.run.at("two").due
    run.give(Tick())
    assert task(run, "two").task_id == first and task(run, "two").attempt == 2
    answer(run, "two", Status.STATUS_FAILED, code="MAIL_REFUSED", message="No such person.")
    answer(run, "one")
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    assert run.run.at("two").error.code == "MAIL_REFUSED"
    run.give(Undo("once more"))
    assert run.last.undoing == ("two",) and task(run, "two").task_id == "run_test/two/2/1"
    answer(run, "two")
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.feature("D2", "D6")
def test_one_that_may_have_been_made_is_not_made_under_another_key() -> None:
    run = done()
    run.settle("three")
    run.give(Undo("wrong"))
    first = task(run, "two").task_id
    answer(run, "two", Status.STATUS_UNKNOWN, code="OUTCOME_UNKNOWN")
    assert run.approval.title.startswith("Could not confirm mail.regret")
    run.decide(A.APPROVAL_STATE_REJECTED)
    answer(run, "one")
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE
    run.give(Undo("once more"))
    assert task(run, "two").task_id == first
    answer(run, "two", Status.STATUS_UNKNOWN, code="OUTCOME_UNKNOWN")
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "no"})
    assert task(run, "two").task_id == "run_test/two/2/1"
    assert plain(decode(task(run, "two").input)) == {"to": "ada", "n": 1}
    answer(run, "two")
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.feature("D2", "D6")
@pytest.mark.parametrize("step", ["one", "two"])
def test_a_failure_that_is_said_again_costs_no_other_attempt(step: str) -> None:
    """It did: the last attempt was at work when an earlier failure came again, and the change stayed visible as one
    that could not be taken back, although it was."""
    run = done()
    run.give(Cancel("enough"))
    run.fail("three")
    run.give(Undo("wrong", (step,)))
    failed = said(run, step, Status.STATUS_FAILED, code="UNAVAILABLE", message="down", retryable=True)
    assert run.give(Settle(failed)).events
    assert not run.give(Settle(failed)).events, "while it waits"
    run.now += 60_000
    assert run.give(Tick()).undoing == (step,)
    assert not run.give(Settle(failed)).events, "while the next attempt is at work"
    answer(run, step)
    assert run.run.at(step).state == S.STEP_STATE_UNDONE


@pytest.mark.feature("D2", "D6")
@pytest.mark.parametrize("step", ["one", "two"])
def test_a_person_is_not_asked_again_what_he_has_said(step: str) -> None:
    """He was, where the bus delivered again that nobody knew: while the undo that he had asked for anew was at work."""
    run = done()
    run.give(Cancel("enough"))
    run.fail("three")
    run.give(Undo("wrong", (step,)))
    unsure = said(run, step, Status.STATUS_UNKNOWN, code="OUTCOME_UNKNOWN", message="no answer")
    run.give(Settle(unsure))
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "no"})
    assert run.last.undoing == (step,)
    assert not run.give(Settle(unsure)).events
    answer(run, step)
    assert run.run.at(step).state == S.STEP_STATE_UNDONE


@pytest.mark.feature("D2", "D6")
def test_that_an_earlier_undo_was_done_says_nothing_of_the_next() -> None:
    """It did where the step had been done anew between them: the run was undone, and the change stood."""
    run = done()
    run.settle("three")
    run.give(Undo("wrong"))
    answer(run, "two")
    first = run.outcome("one")
    run.give(Settle(first))
    run.recover(Recovery.RECOVERY_REWIND, "one")
    for step in ("one", "two", "three"):
        run.settle(step, output=encode(labeled({"id": "ada", "n": 1}, OWNER)))
    run.give(Undo("wrong again"))
    answer(run, "two")
    assert run.run.at("one").state == S.STEP_STATE_UNDOING
    assert not run.give(Settle(first)).events
    answer(run, "one")
    assert run.run.state == R.RUN_STATE_UNDONE


ROUNDS = """
- name: each
  map:
    over: [1]
    on_failure: collect
    steps:
      - name: put
        connector: files.write
        effect: write
        input: {n: 1}
        compensate: {connector: mail.regret, input: {n: 2}}
      - {name: post, agent: x}
"""


@pytest.mark.feature("D2", "D6")
def test_one_that_did_not_happen_is_made_again_whatever_became_of_its_round() -> None:
    """It was given up with its round, failed, and then handed out under the same key for ever."""
    run = Driver(workflow(ROUNDS))
    run.settle("each[0].put")
    run.fail("each[0].post")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    run.give(Undo("wrong"))
    answer(run, "each[0].put", Status.STATUS_UNKNOWN, code="OUTCOME_UNKNOWN")
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "no"})
    assert task(run, "each[0].put").task_id == "run_test/each[0].put/2/1"
    answer(run, "each[0].put")
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.feature("D2", "D6")
def test_what_a_person_saw_happen_can_be_made_good_too() -> None:
    run = Driver(workflow(STEPS))
    run.settle("one")
    run.unknown("two")
    run.decide(A.APPROVAL_STATE_ANSWERED, {"happened": "yes"})
    run.settle("three")
    run.give(Undo("wrong"))
    assert run.run.at("two").state == S.STEP_STATE_UNDO_CONFLICT  # it has no id to say it to
    assert run.last.undoing == ("one",) and run.run.at("two").error is not None


@pytest.mark.feature("D2", "D6")
def test_a_run_that_fails_is_undone_by_itself_where_it_says_so() -> None:
    run = done("  on_failure: undo\n")
    run.fail("three")
    kinds = [str(RunEvent.FromString(data).WhichOneof("body")) for data in run.last.events]
    assert kinds == ["step_failed", "run_failed", "undo_requested", "undo_scheduled"]
    assert not task(run, "two").HasField("approval")  # nobody has consented to it
    answer(run, "two", Status.STATUS_FAILED, code="APPROVAL_REQUIRED", message="It has none.")
    answer(run, "one")
    assert run.run.state == R.RUN_STATE_UNDO_INCOMPLETE and run.run.error.code == "ACTION_FAILED"
    run.give(Undo("go on"))
    assert task(run, "two").approval.approver == "person:owner"
    answer(run, "two")
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.feature("D2", "D6")
def test_a_run_that_fails_stays_as_it_is_without_that_or_where_it_changed_nothing() -> None:
    run = done()
    run.fail("three")
    assert run.run.state == R.RUN_STATE_FAILED
    bare = Driver(workflow("- {name: a, agent: x}", "  on_failure: undo\n"))
    bare.fail("a")
    assert bare.run.state == R.RUN_STATE_FAILED
    bare.recover(Recovery.RECOVERY_RETRY)
    assert bare.run.state == R.RUN_STATE_RUNNING


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        ("{name: a, connector: f.look, compensate: {connector: f.x}}", "compensate", "changes nothing"),
        ("{name: a, agent: x, compensate: {connector: f.x}}", "compensate", "has no compensate"),
        (
            "{name: a, connector: f.w, effect: write, compensate: {connector: f}}",
            "compensate.connector",
            "must be <connector>.<action>",
        ),
        (
            "{name: a, connector: f.w, effect: write, compensate: {connector: f.x, effect: payment}}",
            "compensate.effect",
            "must be 'write'",
        ),
        (
            "{name: a, connector: f.w, effect: write, compensate: {connector: f.x, input: {n: '${steps.b.n}'}}}\n"
            "- {name: b, agent: x}",
            "compensate.input.n",
            "does not come before it",
        ),
    ],
)
def test_what_is_said_wrongly_of_making_good_is_refused(step: str, field: str, words: str) -> None:
    with pytest.raises(TerminalError, match=r"w\.yaml:") as caught:
        workflow(f"- {step}")
    assert caught.value.details["field"].endswith(field) and words in caught.value.message
