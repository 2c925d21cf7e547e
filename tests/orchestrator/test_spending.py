"""What a step may spend is decided before it is handed out: held, waited for, or asked for."""

import pytest

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import state_pb2 as st
from aios.run.v1.budget_pb2 import Account, Accounts
from aios.task.v1.task_pb2 import Status
from aios_orchestrator.core import money
from aios_orchestrator.core.decide import Tick
from aios_orchestrator.core.money import Attempt, Cap, Charge, Purse
from aios_orchestrator.core.spike import LEAST_RUNS, Spike, usual
from tests.orchestrator.runs import Driver, workflow

ANSWERED, REJECTED = st.APPROVAL_STATE_ANSWERED, st.APPROVAL_STATE_REJECTED
ACCOUNT = "budget/b/2026-11/all"
ONE = """
- {name: a, agent: x, budget: "0.40"}
- {name: b, agent: x, budget: "0.40"}
"""


def purse_with(cap: int, settled: int = 0) -> Purse:
    sums = {ACCOUNT: Account(name=ACCOUNT, settled_micros=settled)}
    purse = Purse(Accounts(), sums)
    purse.charge = Charge((ACCOUNT,), (Cap(ACCOUNT, "b", cap),))
    return purse


def settled(driver: Driver, purse: Purse) -> None:
    """What the engine does once a decision is committed."""
    for serial, cost in driver.last.settled:
        assert purse.settle(serial, cost, driver.now)


@pytest.mark.feature("F5")
def test_a_budget_is_checked_before_the_money_is_spent() -> None:
    purse = purse_with(500_000)
    first = Driver(workflow(ONE), purse=purse)
    assert (first.last.dispatched, purse.held(ACCOUNT)) == (("a",), 400_000)
    assert purse.short(400_000) is not None  # nothing is spent yet, but it may be
    first.settle("a", cost_micros=400_000)
    assert first.last.dispatched == ()
    settled(first, purse)
    assert (purse.held(ACCOUNT), purse.settled(ACCOUNT)) == (0, 400_000)
    first.now += 60_000
    first.give(Tick())
    assert first.approval.kind == st.APPROVAL_KIND_BUDGET
    assert (purse.held(ACCOUNT), purse.settled(ACCOUNT)) == (0, 400_000)


@pytest.mark.feature("F5")
@pytest.mark.parametrize(("answer", "cap"), [("once", 700_000), ("2", 2_000_000)])
def test_a_person_lets_one_step_pass_or_sets_the_cap(answer: str, cap: int) -> None:
    purse = purse_with(400_000, settled=300_000)
    driver = Driver(workflow(ONE), purse=purse)
    assert (driver.last.dispatched, purse.held(ACCOUNT)) == ((), 0)
    assert "$0.40 for 2026-11" in driver.approval.why
    driver.decide(ANSWERED, {"allow": answer})
    assert driver.last.dispatched == ("a",)
    assert purse.cap(purse.charge.caps[0]) == cap
    assert purse.held(ACCOUNT) + purse.settled(ACCOUNT) == 700_000
    driver.settle("a", cost_micros=400_000)
    settled(driver, purse)
    driver.now += 60_000
    driver.give(Tick())
    asks = [item.step for item in driver.run.open_approvals()]
    assert asks == (["b"] if answer == "once" else [])


@pytest.mark.feature("F5")
@pytest.mark.parametrize("how", ["stop", "reject", "too little"])
def test_what_is_not_allowed_is_not_handed_out(how: str) -> None:
    purse = purse_with(100_000)
    driver = Driver(workflow(ONE), purse=purse)
    if how == "reject":
        driver.decide(REJECTED)
    else:
        driver.decide(ANSWERED, {"allow": "stop" if how == "stop" else "0.2"})
    if how == "too little":
        assert driver.approval.state == st.APPROVAL_STATE_OPEN  # it is asked again
    else:
        assert driver.run.state == st.RUN_STATE_CANCELLED
    assert (purse.held(ACCOUNT), driver.run.held) == (0, 0)


@pytest.mark.feature("F5")
def test_a_failed_attempt_is_settled_and_the_next_one_holds_anew() -> None:
    purse = purse_with(10_000_000)
    steps = '- {name: a, agent: x, budget: "0.40", retry: {limit: 3, backoff: 1s}}'
    driver = Driver(workflow(steps), purse=purse)
    first = driver.run.at("a").charge
    driver.fail("a", retryable=True)
    assert driver.last.settled == ((first, 0),)
    settled(driver, purse)
    driver.now += 600_000
    driver.give(Tick())
    assert driver.run.at("a").charge == first + 1
    driver.settle("a", cost_micros=7)
    settled(driver, purse)
    assert (purse.held(ACCOUNT), purse.settled(ACCOUNT)) == (0, 7)


@pytest.mark.feature("F5")
def test_who_waits_for_what_others_hold_looks_less_and_less_often() -> None:
    """Each look is an event of its history, and what others hold may be held for a day."""
    purse = purse_with(500_000)
    others = purse.hold(Attempt("run_other", "s", 1, 1), 400_000, 0)
    driver = Driver(workflow(ONE), purse=purse)
    waits = []
    while driver.now < 24 * 3_600_000:
        step = driver.run.at("a")
        assert (step.state, driver.last.dispatched) == (st.STEP_STATE_WAITING, ())
        waits.append(step.due - driver.now)
        driver.now = step.due
        driver.give(Tick())
    assert waits[:6] == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]
    assert len(driver.history) < 1_500
    assert purse.settle(others, 100_000, driver.now)
    driver.now = driver.run.at("a").due
    driver.give(Tick())
    assert driver.last.dispatched == ("a",)


@pytest.mark.feature("F5")
def test_what_finds_no_room_among_the_holds_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(money, "MAX_HELD_BYTES", 1)
    purse = purse_with(10_000_000)
    other = purse.hold(Attempt("run_other", "s", 1, 1), 5, 0)
    driver = Driver(workflow(ONE), purse=purse)
    assert (driver.last.dispatched, driver.run.at("a").state) == ((), st.STEP_STATE_WAITING)
    assert purse.settle(other, 5, 0)
    driver.now += 60_000
    driver.give(Tick())
    assert driver.last.dispatched == ("a",)


def test_a_step_without_a_budget_touches_no_account() -> None:
    purse = purse_with(0)
    driver = Driver(workflow("- {name: a, agent: x}"), purse=purse)
    driver.settle("a")
    assert driver.run.state == st.RUN_STATE_SUCCEEDED
    assert (purse.dirty, purse.serial) == (False, 0)


SPIKE = '  spike: {times: 3, at_least: "0.10"}\n  budget: {cap: "9"}\n'


@pytest.mark.feature("F6")
def test_a_run_that_costs_more_than_others_asks_once() -> None:
    purse = purse_with(10_000_000)
    purse.costs["w"] = [100_000] * LEAST_RUNS
    steps = ONE + '- {name: c, agent: x, budget: "0.40"}\n'
    driver = Driver(workflow(steps, SPIKE), purse=purse)
    driver.settle("a", cost_micros=130_001)
    assert (driver.last.dispatched, driver.approval.kind) == ((), st.APPROVAL_KIND_SPIKE)
    assert "$0.13" in driver.approval.why
    driver.decide(ANSWERED, {"allow": "go on"})
    assert driver.last.dispatched == ("b",)
    driver.settle("b", cost_micros=400_000)
    assert driver.last.dispatched == ("c",)  # it was decided for this run


@pytest.mark.feature("F6")
def test_a_run_like_the_others_is_not_asked_about() -> None:
    purse = purse_with(10_000_000)
    purse.costs["w"] = [100_000] * LEAST_RUNS
    driver = Driver(workflow(ONE, SPIKE), purse=purse)
    driver.settle("a", cost_micros=130_000)
    assert driver.last.dispatched == ("b",)


@pytest.mark.feature("F6")
def test_what_is_usual_is_robust() -> None:
    spike = Spike(3, 50)
    assert usual([100] * (LEAST_RUNS - 1), spike) is None
    assert usual([100] * 8, spike) == 130
    assert usual([100] * 8 + [1_000_000], spike) == 130  # one odd run changes nothing
    assert usual([1] * 8, spike) == 50
    assert usual([80, 90, 100, 110, 120] * 2, spike) == 100 + 3 * 14


TIMED = """
- name: a
  agent: x
  budget: "0.40"
  %s
  retry: {limit: 5, backoff: 1s}
"""


@pytest.mark.feature("F5", "D2")
@pytest.mark.parametrize("says", ["timeout: {total: 10m}", "deadline: 10m"])
@pytest.mark.parametrize("lacks", ["for now", "for good"])
def test_what_waits_for_money_has_no_more_time_for_it(says: str, lacks: str) -> None:
    """It had all of its time anew: neither the wait nor the question says by when the step has to be done."""
    purse = purse_with(500_000)
    driver = Driver(workflow(TIMED % says), purse=purse)
    driver.fail("a", retryable=True)
    settled(driver, purse)
    others = purse.hold(Attempt("run_other", "s", 1, 1), 400_000, driver.now)
    if lacks == "for good":
        purse.settle(others, 400_000, driver.now)
    driver.now += 2_000
    driver.give(Tick())
    waits = driver.run.at("a")
    assert waits.unfunded if lacks == "for now" else driver.approval.kind == st.APPROVAL_KIND_BUDGET
    driver.now += 600_000
    driver.give(Tick())
    assert driver.run.state == st.RUN_STATE_FAILED
    assert driver.run.at("a").error.code in ("TOTAL_TIMEOUT", "DEADLINE_EXCEEDED")
    assert not driver.run.open_approvals()


@pytest.mark.feature("F6")
def test_what_waited_for_the_answer_goes_on_with_it() -> None:
    """It looked by itself, up to a minute later."""
    purse = purse_with(10_000_000)
    purse.costs["w"] = [100_000] * LEAST_RUNS
    steps = "".join(f'- {{name: {name}, agent: x, budget: "0.40", needs: [a]}}\n' for name in "bcd")
    driver = Driver(workflow('- {name: a, agent: x, budget: "0.40"}\n' + steps, SPIKE), purse=purse)
    driver.settle("a", cost_micros=130_001)
    assert (driver.last.dispatched, driver.approval.kind) == ((), st.APPROVAL_KIND_SPIKE)
    driver.decide(ANSWERED, {"allow": "go on"})
    assert sorted(driver.last.dispatched) == ["b", "c", "d"]


ITEMS = """
- name: each
  map:
    over: [1, 2, 3]
    at_once: 1
    on_failure: collect
    steps:
      - {name: first, agent: x, budget: "0.40"}
      - {name: then, agent: x, budget: "0.40", retry: {limit: 3, backoff: 1s}, timeout: {total: 10m}}
"""


def spiking() -> Driver:
    purse = purse_with(10_000_000)
    purse.costs["w"] = [100_000] * LEAST_RUNS
    return Driver(workflow(ITEMS, SPIKE), purse=purse)


@pytest.mark.feature("F6")
@pytest.mark.parametrize("how", ["stop", "reject"])
def test_who_stops_what_costs_too_much_stops_the_run_and_not_one_item_of_it(how: str) -> None:
    """A map that collects failures went on with its other items, and nobody was asked again."""
    driver = spiking()
    driver.settle("each[0].first", cost_micros=130_001)
    assert driver.approval.kind == st.APPROVAL_KIND_SPIKE
    if how == "stop":
        driver.decide(ANSWERED, {"allow": "stop"})
    else:
        driver.decide(REJECTED)
    assert (driver.run.state, driver.last.dispatched) == (st.RUN_STATE_CANCELLED, ())


@pytest.mark.feature("F6")
def test_a_question_that_nobody_answered_is_asked_again_before_more_is_spent() -> None:
    driver = spiking()
    driver.settle("each[0].first", cost_micros=90_000)
    error = Error(code="X", message="It failed.", retryable=True)
    driver.settle("each[0].then", cost_micros=90_000, status=Status.STATUS_FAILED, error=error)
    driver.now += 2_000
    driver.give(Tick())
    asked = driver.approval
    assert asked.kind == st.APPROVAL_KIND_SPIKE
    driver.now += 600_000
    driver.give(Tick())
    assert driver.run.at("each[0].then").error.code == "TOTAL_TIMEOUT"
    assert driver.run.approvals[asked.approval_id].state == st.APPROVAL_STATE_EXPIRED
    assert (driver.last.dispatched, driver.approval.step) == ((), "each[1].first")


@pytest.mark.feature("F6", "D2")
@pytest.mark.parametrize("how", ["stop", "reject"])
def test_who_has_a_run_go_on_whose_spending_was_stopped_is_asked_first(how: str) -> None:
    purse = purse_with(10_000_000)
    purse.costs["w"] = [100_000] * LEAST_RUNS
    steps = '- {name: beside, agent: x, needs: []}\n- {name: b, agent: x, budget: "0.40", needs: [a]}\n'
    driver = Driver(workflow('- {name: a, agent: x, budget: "0.40"}\n' + steps, SPIKE), purse=purse)
    driver.settle("a", cost_micros=130_001)
    if how == "stop":
        driver.decide(ANSWERED, {"allow": "stop"})
    else:
        driver.decide(REJECTED)
    driver.fail("beside")
    assert driver.run.state == st.RUN_STATE_FAILED
    driver.recover(st.Recovery.RECOVERY_RETRY)
    assert (driver.last.dispatched, driver.approval.kind) == (("beside",), st.APPROVAL_KIND_SPIKE)
    driver.decide(ANSWERED, {"allow": "go on"})
    assert driver.last.dispatched == ("b",)


@pytest.mark.feature("F6", "D2")
def test_of_what_waited_for_the_answer_nothing_begins_once_one_of_it_has_failed() -> None:
    purse = purse_with(10_000_000)
    purse.costs["w"] = [100_000] * LEAST_RUNS
    amounts = {"b": "0.40", "c": "0.40", "d": "0.01"}
    steps = "".join(
        f'- {{name: {name}, agent: x, budget: "{held}", needs: [a]}}\n' for name, held in amounts.items()
    )
    head = SPIKE.replace('"9"', '"0.60"')
    driver = Driver(workflow('- {name: a, agent: x, budget: "0.40"}\n' + steps, head), purse=purse)
    driver.settle("a", cost_micros=130_001)
    driver.decide(ANSWERED, {"allow": "go on"})
    assert driver.last.dispatched == ("b",)
    assert (driver.run.stopping, driver.run.failed) == (True, "c")
