"""A run goes on under another version of its workflow: what it did stays, what it could not follow is refused."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import Recovery
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode
from aios_core.ids import effect_key
from aios_core.values import plain
from aios_orchestrator.codec import task_of
from aios_orchestrator.core.decide import Decision, Undo
from aios_orchestrator.core.migrate import Migrate, plan
from aios_orchestrator.workflow import Workflow
from tests.often import tries
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_rounds import items

pytestmark = pytest.mark.feature("D11")

LOOK = '- {name: look, agent: x, input: {n: "${inputs.n}"}}\n'
PAY = '- {name: pay, connector: files.write, effect: write, input: {n: "${steps.look.n}"}}\n'
TELL = '- {name: tell, agent: x, input: {n: "${steps.pay.n}"}}\n'
GATE = '- {name: ok, gate: {title: "Pay", why: "due", risk: "money", approves: [pay], expires: 1h}}\n'


def move(run: Driver, to: Workflow, names: Mapping[str, str] = {}, accept: bool = False) -> Decision:
    """Have a run follow another version; the driver follows as well."""
    decision = run.give(Migrate(to, names, accept))
    if decision.workflow is not None:
        run.workflow = decision.workflow
        assert run.run.workflow_version == to.version
    return decision


def refused(run: Driver, code: str = "INCOMPATIBLE") -> str:
    assert run.last.refusal is not None and run.last.refusal.code == code
    assert run.last.events == () and run.last.workflow is None
    return run.last.refusal.message


def test_what_was_done_stays_and_what_follows_is_the_new_version_s() -> None:
    run = Driver(workflow(LOOK + PAY + TELL), n=3)
    run.settle("look")
    assert run.run.at("pay").state == S.STEP_STATE_DISPATCHED
    move(
        run,
        workflow(LOOK + PAY + TELL.replace("${steps.pay.n}", "8") + "- {name: last, agent: y, input: {}}"),
    )
    run.settle("pay")
    run.settle("tell")
    assert run.last.dispatched == ("last",) and plain(decode(run.run.at("tell").output)) == {"n": "8"}
    run.settle("last")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


def test_the_version_that_it_follows_already_changes_nothing() -> None:
    of = workflow(LOOK + PAY)
    run = Driver(of)
    assert move(run, of).events == () and run.last.refusal is None


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (LOOK + TELL.replace("steps.pay", "steps.look"), "pay is not there any more, and it has begun"),
        (LOOK + PAY.replace("files.write", "files.append") + TELL, "pay is another thing now"),
        (LOOK + PAY.replace(", effect: write", "") + TELL, "pay is another thing now"),
        (
            LOOK + "- {name: pay, wait: 1h}\n" + TELL.replace("${steps.pay.n}", "1"),
            "pay is another thing now",
        ),
    ],
)
def test_what_has_begun_and_is_gone_or_another_thing_is_refused_whatever_is_accepted(
    after: str, words: str
) -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.settle("pay")
    for accept in (False, True):
        move(run, workflow(after), accept=accept)
        assert words in refused(run)
    assert run.run.workflow_version == run.workflow.version


def test_what_can_be_followed_is_refused_until_a_person_accepts_it_and_that_is_kept() -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.settle("pay")
    new = workflow(
        LOOK + "- {name: first, agent: x, input: {}}\n" + PAY.replace("${steps.look.n}", "5") + TELL
    )
    move(run, new)
    said = refused(run)
    assert "first comes before pay, which had begun" in said and "pay has another input now" in said
    assert "if you accept that" in said
    move(run, new, accept=True)
    accepted = RunEvent.FromString(run.last.events[0]).run_migrated.accepted
    assert len(accepted) == 2 and run.last.dispatched == ("first",)
    run.settle("first")
    run.settle("tell")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


def test_a_renamed_step_without_its_earlier_name_is_refused_and_the_likely_one_is_told() -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.settle("pay")
    move(run, workflow((LOOK + PAY + TELL).replace("pay", "pays")), accept=True)
    assert "--rename pay=pays" in refused(run)


def test_a_renamed_step_keeps_what_it_gave_and_its_effect() -> None:
    run = Driver(workflow(LOOK + PAY + TELL), n=4)
    run.settle("look")
    run.settle("pay", undo_token=b"how")
    new = workflow((LOOK + PAY + TELL).replace("pay", "transfer"))
    move(run, new, {"pay": "transfer"})
    assert run.last.refusal is None
    assert run.run.at("pay").state == S.STEP_STATE_PENDING and "pay" not in run.run.steps
    assert plain(decode(run.run.at("transfer").output)) == {"n": 4}
    assert run.last.dispatched == ()  # nothing is done again
    run.settle("tell")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    run.give(Undo("no"))
    task = task_of(run.run, new, "transfer", None, "")
    assert task.undo_token == b"how" and task.task_id == effect_key(run.run.run_id, "pay", 0, 1)
    run.settle("transfer", task_id=task.task_id)
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"pai": "transfer"}, "no step 'pai' (did you mean 'pay'?)"),
        ({"pay": "transfr"}, "no step 'transfr' (did you mean 'transfer'?)"),
        ({"pay": "look"}, "'look' is another step of the run's version"),
        ({"look": "transfer"}, "the new version has 'look' as well"),
    ],
)
def test_a_name_that_is_not_there_or_that_another_step_has_is_refused(
    names: Mapping[str, str], words: str
) -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.settle("pay")
    move(run, workflow((LOOK + PAY + TELL).replace("pay", "transfer")), names)
    assert words in refused(run, "INVALID_ARGUMENT")


def test_a_name_that_an_effect_was_keyed_by_is_no_other_step_s_later() -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.settle("pay")
    renamed = (LOOK + PAY + TELL).replace("pay", "transfer")
    move(run, workflow(renamed), {"pay": "transfer"})
    move(run, workflow(renamed + PAY.replace("${steps.look.n}", "9")), accept=True)
    assert "pay" in refused(run) and "was the name of" in refused(run)


def test_a_step_under_way_gets_no_other_name() -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    move(run, workflow((LOOK + PAY + TELL).replace("pay", "transfer")), {"pay": "transfer"})
    assert "under way" in refused(run, "INVALID_ARGUMENT")


def test_an_open_approval_is_asked_anew_and_the_earlier_one_counts_no_more() -> None:
    run = Driver(workflow(LOOK + GATE + PAY))
    run.settle("look")
    before = run.approval
    new = workflow(LOOK + GATE + PAY.replace("files.write", "files.append"))
    move(run, new)
    assert run.last.refusal is None
    after = run.approval
    assert after.approval_id != before.approval_id and after.proposed[0].target == "files.append"
    assert run.run.approvals[before.approval_id].state == A.APPROVAL_STATE_REPLACED
    run.decide(A.APPROVAL_STATE_APPROVED, approval=before)
    assert run.last.refusal is not None and run.run.at("pay").state == S.STEP_STATE_PENDING
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.last.dispatched == ("pay",)


def test_an_approval_that_was_given_and_not_used_is_asked_for_anew() -> None:
    late = (
        LOOK
        + GATE
        + "- {name: slow, agent: x, input: {}}\n"
        + PAY.replace("{name: pay,", "{name: pay, needs: [ok, slow],")
    )
    run = Driver(workflow(late))
    run.settle("look")
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.run.at("pay").state == S.STEP_STATE_PENDING
    move(run, workflow(late.replace("files.write", "files.append")))
    assert run.last.refusal is None and run.approval.proposed[0].target == "files.append"
    run.settle("slow")
    assert run.run.at("pay").state == S.STEP_STATE_PENDING
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.last.dispatched == ("pay",)


def test_while_one_step_is_under_way_by_an_approval_that_another_waits_for_the_run_stays() -> None:
    both = LOOK + GATE.replace("[pay]", "[pay, post]") + PAY
    both += "- {name: post, connector: files.write, effect: write, input: {n: 1}}\n"
    run = Driver(workflow(both))
    run.settle("look")
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.last.dispatched == ("pay",)
    new = workflow(both + "- {name: more, agent: x, input: {}}\n")
    move(run, new, accept=True)
    assert "pay is under way by it" in refused(run)
    run.settle("pay")
    run.fail("post")
    move(run, new)
    assert run.last.refusal is None


def test_a_run_that_failed_goes_on_with_the_mended_version() -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.fail("pay")
    assert run.run.state == R.RUN_STATE_FAILED
    move(run, workflow(LOOK + PAY.replace("files.write", "files.append") + TELL))
    assert run.last.refusal is None and run.run.state == R.RUN_STATE_FAILED
    run.recover(Recovery.RECOVERY_RETRY)
    assert run.last.dispatched == ("pay",)
    task = task_of(run.run, run.workflow, "pay", None, "")
    assert task.target == "files.append" and task.task_id == effect_key(run.run.run_id, "pay", 0, 2)


def test_what_may_have_happened_stays_what_it_was() -> None:
    run = Driver(workflow(LOOK + PAY + TELL))
    run.settle("look")
    run.unknown("pay")
    move(run, workflow(LOOK + PAY.replace("files.write", "files.append") + TELL), accept=True)
    assert "pay is another thing now" in refused(run)


MAP = """
- {name: list, agent: x, input: {}}
- name: each
  map:
    over: "${steps.list.items}"
    at_once: 2
    steps:
      - {name: draft, agent: x, input: {it: "${item}"}}
      - {name: send, connector: mail.send, effect: write, input: {it: "${steps.draft.it}"}}
"""


def test_rounds_that_have_begun_keep_their_steps_and_the_rest_follows() -> None:
    run = Driver(workflow(MAP))
    run.settle("list", output=items("a", "b", "c"))
    run.settle("each[0].draft")
    more = MAP + "      - {name: note, agent: x, input: {}}\n"
    move(run, workflow(more), accept=True)
    assert "the steps inside of each are others now" in refused(run)
    move(
        run,
        workflow(MAP.replace("at_once: 2", "at_once: 3").replace('{it: "${steps.draft.it}"}', "{it: 1}")),
        accept=True,
    )
    assert run.last.refusal is None and "each[2].draft" in run.last.dispatched
    run.settle("each[0].send")
    for step in ("each[1].draft", "each[2].draft", "each[1].send", "each[2].send"):
        run.settle(step)
    assert run.run.state == R.RUN_STATE_SUCCEEDED


def test_rounds_that_are_over_are_not_gone_back_into_where_they_have_other_steps_since() -> None:
    """They were: the new step began in rounds that were over, and what was stored was not what had happened."""
    plain_map = MAP.replace("connector: mail.send, effect: write", "agent: x")
    tell = "- {name: tell, agent: x, input: {}}\n"
    run = Driver(workflow(plain_map + tell))
    run.settle("list", output=items("a", "b"))
    for step in ("each[0].draft", "each[1].draft", "each[0].send", "each[1].send"):
        run.settle(step)
    run.fail("tell")
    first = "      - {name: note, agent: x, input: {}}\n      - {name: draft"
    move(run, workflow(plain_map.replace("      - {name: draft", first) + tell), accept=True)
    assert run.last.refusal is None
    run.recover(Recovery.RECOVERY_REWIND, "each[0].draft")
    assert "whose steps are others now than when it ran. Go back to 'each' itself." in refused(
        run, "INVALID_ARGUMENT"
    )
    run.recover(Recovery.RECOVERY_REWIND, "each")
    assert set(run.last.dispatched) == {"each[0].note", "each[1].note"}


def test_steps_of_rounds_are_renamed_where_none_is_under_way() -> None:
    mended = MAP.replace("draft", "write")
    run = Driver(workflow(MAP))
    run.settle("list", output=items("a", "b"))
    for step in ("each[0].draft", "each[1].draft"):
        run.settle(step)
    run.settle("each[0].send")
    run.fail("each[1].send")
    assert run.run.state == R.RUN_STATE_FAILED
    move(run, workflow(mended), {"each[].draft": "each[].write"})
    assert run.last.refusal is None
    run.recover(Recovery.RECOVERY_RETRY)
    assert run.last.dispatched == ("each[1].send",)
    run.settle("each[1].send")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert plain(decode(run.run.at("each[1].write").output)) == {"it": "b"}


def test_a_step_that_was_skipped_may_go_and_inputs_get_their_defaults() -> None:
    run = Driver(workflow(LOOK + '- {name: extra, when: "inputs.n > 5", agent: x, input: {}}\n' + PAY))
    run.settle("look")
    assert run.run.at("extra").state == S.STEP_STATE_SKIPPED
    new = workflow(LOOK + PAY + '- {name: tell, agent: x, input: {n: "${inputs.n}"}}\n')
    move(run, new)
    assert run.last.refusal is None and "extra" not in run.run.steps
    run.settle("pay")
    assert run.last.dispatched == ("tell",)


def test_an_input_that_the_new_version_needs_and_a_cap_that_is_spent_are_refused() -> None:
    run = Driver(workflow(LOOK.replace("{name: look,", "{name: look, budget: '0.40',") + PAY))
    run.settle("look", cost_micros=300_000)
    less = workflow(
        LOOK.replace("{name: look,", "{name: look, budget: '0.10',") + PAY, "  budget: {cap: '0.20'}\n"
    )
    move(run, less, accept=True)
    assert "spent already" in refused(run)


@pytest.mark.parametrize("how", ["succeeded", "simulated", "other"])
def test_a_run_that_does_not_go_on_stays_as_it_is(how: str) -> None:
    run = Driver(workflow(LOOK), Mode.MODE_SIMULATE if how == "simulated" else Mode.MODE_EXECUTE)
    if how == "succeeded":
        run.settle("look")
    move(run, workflow(LOOK + PAY, name="v" if how == "other" else "w"))
    refused(run, "INVALID_ARGUMENT" if how == "other" else "RUN_CLOSED")


@given(st.lists(st.sampled_from(["settle", "fail", "migrate", "recover"]), max_size=14), st.data())
@settings(max_examples=tries(120), deadline=None)
def test_whatever_versions_it_goes_through_a_run_ends_and_does_no_step_twice(
    moves: list[str], data: st.DataObject
) -> None:
    texts = [
        LOOK + PAY + TELL,
        LOOK + PAY,
        LOOK + GATE + PAY + TELL,
        LOOK + "- {name: more, agent: x, input: {}}\n" + PAY + TELL,
    ]
    versions = [workflow(text) for text in texts]
    run = Driver(versions[0])
    done: dict[str, bytes] = {}
    for what in moves:
        live = [step.name for step in run.run.lively() if step.state == S.STEP_STATE_DISPATCHED]
        if what == "migrate":
            to = data.draw(st.sampled_from(versions))
            said = (
                plan(run.run, run.workflow, Migrate(to)) if run.run.state in (1, R.RUN_STATE_FAILED) else None
            )
            move(run, to, accept=data.draw(st.booleans()))
            if said is not None and any(found.final for found in said.breaks):
                assert run.last.refusal is not None or run.workflow is to
        elif what == "recover":
            run.recover(Recovery.RECOVERY_RETRY)
        elif live:
            step = data.draw(st.sampled_from(live))
            key = effect_key(run.run.run_id, step, 0, run.run.at(step).attempt_group)
            assert step not in done or run.run.at(step).attempt_group > 1
            if what == "settle":
                run.settle(step)
                done[step] = key.encode()
            else:
                run.fail(step)
        for approval in run.run.open_approvals():
            run.decide(A.APPROVAL_STATE_APPROVED, approval=approval)
    for _ in range(20):
        for step in list(run.run.lively()):
            run.settle(step.name)
        for approval in run.run.open_approvals():
            run.decide(A.APPROVAL_STATE_APPROVED, approval=approval)
    assert run.run.closed
    assert {name for name in done if name in run.workflow.steps} == {
        name for name in done if run.run.at(name).state == S.STEP_STATE_SUCCEEDED
    }
