"""A run that failed as an object: told apart, with what can be done about it."""

from typing import Any

import pytest

from aios.error.v1.error_pb2 import Error
from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import Failure
from aios.run.v1.state_pb2 import FailureClass as F
from aios.task.v1.task_pb2 import Mode, Status
from aios_core.encoding import encode
from aios_core.errors import REASONS
from aios_core.labels import OWNER, outside
from aios_core.values import labeled
from aios_orchestrator.core.decide import Tick, Undo
from aios_orchestrator.failures import CLASSES, failure_of, remedies, standing
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_core import TWO, WRITES
from tests.orchestrator.test_rounds import MAP, items


def failed(run: Driver) -> Failure:
    found = failure_of(run.run, run.workflow)
    assert found is not None
    return found


@pytest.mark.feature("J1")
def test_every_reason_code_has_a_class() -> None:
    assert set(CLASSES) == set(REASONS)


@pytest.mark.feature("J1")
@pytest.mark.parametrize(
    ("code", "retryable", "origin", "kind"),
    [
        ("UNAVAILABLE", False, "", F.FAILURE_CLASS_TRANSIENT),
        ("MAIL_BUSY", True, "", F.FAILURE_CLASS_TRANSIENT),
        ("AGENT_FAILED", False, "", F.FAILURE_CLASS_BUG),
        ("AGENT_FAILED", False, "mail", F.FAILURE_CLASS_DATA),
        ("UNDECODABLE", False, "", F.FAILURE_CLASS_DATA),
        ("READ_ONLY", False, "", F.FAILURE_CLASS_PERSON),
        ("MAIL_REFUSED", False, "", F.FAILURE_CLASS_PERSON),
    ],
)
def test_failures_are_told_apart_by_code_and_by_where_the_data_came_from(
    code: str, retryable: bool, origin: str, kind: F.ValueType
) -> None:
    run = Driver(TWO)
    label = outside(origin) if origin else OWNER
    run.settle("a", output=encode(labeled({"n": 1}, label)))
    for _ in range(5):
        state = run.run.at("b")
        if state.due:
            run.now = state.due
            run.give(Tick())
        error = Error(code=code, message="no", retryable=retryable)
        run.settle("b", status=Status.STATUS_FAILED, error=error)
    assert failed(run).failure_class == kind


@pytest.mark.feature("J2")
def test_the_same_step_of_other_items_and_runs_fails_for_the_same_cause() -> None:
    causes = []
    for at, code in ((0, "ACTION_FAILED"), (1, "ACTION_FAILED"), (0, "READ_ONLY")):
        run = Driver(workflow(MAP))
        run.settle("list", output=items("x", "y"))
        run.fail(f"each[{at}].draft", code=code)
        run.settle(f"each[{1 - at}].draft")
        causes.append(failed(run).cause)
        assert failed(run).step == f"each[{at}].draft" and failed(run).target == "x"
    assert causes[0] == causes[1] != causes[2]


def by_action(run: Driver) -> dict[str, Any]:
    return {remedy.action: remedy for remedy in remedies(run.run, run.workflow, run.now)}


@pytest.mark.feature("J2")
def test_remedies_say_what_they_would_do_and_change_nothing() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("one")
    run.fail("two", code="INVALID_ARGUMENT")
    before = run.run
    found = by_action(run)
    assert run.run is before
    assert list(found["retry"].again) == ["two"] and not found["retry"].refused
    assert set(found["edit"].again) == {"ok", "two"} and "approval" in found["edit"].what
    assert found["edit"].suggested, "the data is not as it should be"
    assert "one" in found["rewind"].refused, "what was changed stands"
    assert "one" in found["undo"].what
    assert [effect.step for effect in standing(run.run, run.workflow)] == ["one"]
    run.give(Undo(""))
    assert failure_of(run.run, run.workflow) is None


@pytest.mark.feature("J2")
def test_what_may_have_happened_is_not_offered_to_be_tried_again() -> None:
    run = Driver(WRITES)
    run.settle("read")
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.unknown("one")
    run.decide(A.APPROVAL_STATE_REJECTED)
    found = by_action(run)
    assert found["retry"].refused and found["edit"].refused
    assert found["skip"].suggested and not found["skip"].refused


@pytest.mark.feature("J2")
def test_a_run_whose_outputs_failed_and_a_simulation() -> None:
    run = Driver(workflow("- {name: a, agent: x}", head='  outputs: {r: "${1 / (inputs.n - 1)}"}\n'))
    run.settle("a")
    assert failed(run).step == "" and set(by_action(run)) == {"retry", "undo"}
    simulated = Driver(TWO, mode=Mode.MODE_SIMULATE)
    simulated.fail("a")
    assert failure_of(simulated.run, simulated.workflow) is None
