"""Waits for an event in the pure core: found by a key, matched as a whole, or timed out; one of them, and once."""

from typing import Any

import pytest

from aios.event.v1.event_pb2 import Resolution
from aios.run.v1.state_pb2 import RunState, StepState
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.json_values import dumps
from aios_core.labels import Trust
from aios_core.values import Plain, label_of, plain
from aios_orchestrator.core.decide import Cancel, Hear, Tick, decide
from aios_orchestrator.correlation import correlation_of, correlations_of, equation, event_value
from aios_orchestrator.due import next_due
from aios_orchestrator.mapping import compile_expression
from tests.orchestrator.runs import Driver, workflow

HOUR = 3_600_000
ONE = """
- name: reply
  wait: {event: mail.replied, match: "event.data.n == inputs.n && event.data.ok", %s}
- name: said
  transform: {by: "${steps.reply.timed_out ? '' : steps.reply.event.source}", late: "${steps.reply.timed_out}"}
"""
SIDE = "event.data.n"


def event(data: Any = None, kind: str = "mail.replied", **fields: str) -> Resolution:
    base = {"event_id": "e1", "event_source": "mail", "event_type": kind}
    resolution = Resolution(**{**base, **fields})
    resolution.event_data = dumps(data if data is not None else {"n": 1, "ok": True})
    return resolution


def heard(driver: Driver, told: Resolution) -> Hear:
    """The input that the event is for the run, as the intake finds it."""
    sides: dict[str, Any] = {"": None}
    for step in driver.workflow.steps.values():
        if step.hears is not None and step.hears.side:
            sides[step.hears.side] = compile_expression(step.hears.side, "match")
    return Hear(event_value(told), frozenset(correlations_of(driver.run.workspace, told, sides)))


def begun(fields: str = "timeout: 1h", steps: str = ONE) -> Driver:
    return Driver(workflow(steps % fields))


@pytest.mark.feature("D1")
def test_the_event_that_matches_lets_the_run_go_on_with_its_data_which_stays_untrusted() -> None:
    driver = begun()
    assert driver.run.at("reply").state == StepState.STEP_STATE_WAITING
    assert driver.last.waiting == (correlation_of("main", "mail.replied", SIDE, 1),)
    driver.give(heard(driver, event({"n": 1, "ok": True, "words": "yes"})))
    assert driver.run.state == RunState.RUN_STATE_SUCCEEDED
    value = decode(driver.run.at("reply").output)
    assert plain(value) == {
        "event": {
            "id": "e1",
            "source": "mail",
            "type": "mail.replied",
            "subject": "",
            "data": {"n": 1, "ok": True, "words": "yes"},
        },
        "timed_out": False,
    }
    label = label_of(value)
    assert label.trust == Trust.UNTRUSTED
    assert "event:mail" in label.origins
    assert plain(decode(driver.run.at("said").output)) == {"by": "mail", "late": False}
    assert label_of(decode(driver.run.at("said").output)).trust == Trust.UNTRUSTED


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    "told",
    [
        event({"n": 1, "ok": False}),
        event({"n": 2, "ok": True}),
        event({"n": "1", "ok": True}),
        event({"n": 1}),
        event([]),
        event(kind="mail.sent"),
    ],
)
def test_any_other_event_changes_nothing(told: Resolution) -> None:
    driver = begun()
    decision = driver.give(heard(driver, told))
    assert not decision.events
    assert driver.run.at("reply").state == StepState.STEP_STATE_WAITING


@pytest.mark.feature("D1", "D2")
def test_without_an_event_the_wait_fails_or_goes_on_as_the_document_says() -> None:
    failing, going = begun(), begun("timeout: 1h, on_timeout: go-on")
    for driver in (failing, going):
        driver.now += HOUR - 1
        driver.give(Tick())
        assert driver.run.state == RunState.RUN_STATE_RUNNING
        driver.now += 1
        driver.give(Tick())
    assert failing.run.state == RunState.RUN_STATE_FAILED
    assert failing.run.error is not None and failing.run.error.code == "WAIT_TIMED_OUT"
    assert going.run.state == RunState.RUN_STATE_SUCCEEDED
    assert plain(decode(going.run.at("reply").output)) == {"event": None, "timed_out": True}


@pytest.mark.feature("D1", "D3")
def test_of_the_event_and_the_time_out_one_wins_and_the_event_counts_once() -> None:
    first, then = begun("timeout: 1h, on_timeout: go-on"), begun("timeout: 1h, on_timeout: go-on")
    first.now += HOUR
    first.give(heard(first, event()))
    assert not first.give(Tick()).events
    assert plain(decode(first.run.at("reply").output))["timed_out"] is False  # type: ignore[index,call-overload]
    then.now += HOUR
    then.give(Tick())
    assert not then.give(heard(then, event())).events
    assert not first.give(heard(first, event())).events


def test_without_a_timeout_it_waits_for_ever_and_a_cancelled_run_waits_no_more() -> None:
    driver = Driver(workflow("- {name: w, wait: {event: x}}"))
    assert next_due(driver.run) is None
    assert driver.run.awaited()
    driver.give(Cancel("enough"))
    assert driver.run.state == RunState.RUN_STATE_CANCELLED
    assert not driver.run.awaited()
    assert not driver.give(heard(driver, event(kind="x"))).events


def test_items_of_a_map_wait_each_for_their_own() -> None:
    steps = """
- name: all
  map:
    over: [1, 2]
    steps: [{name: w, wait: {event: mail.replied, match: "item == event.data.n"}}]
"""
    driver = Driver(workflow(steps))
    driver.give(heard(driver, event({"n": 2})))
    states = [driver.run.at(f"all[{at}].w").state for at in (0, 1)]
    assert states == [StepState.STEP_STATE_WAITING, StepState.STEP_STATE_SUCCEEDED]
    driver.give(heard(driver, event({"n": 1}, event_id="e2")))
    assert driver.run.state == RunState.RUN_STATE_SUCCEEDED


def test_the_event_that_a_run_began_with_is_not_what_it_waits_for() -> None:
    driver = begun()
    driver.run.trigger, driver.run.request = "intent:x", "mail:e1"
    told = heard(driver, event())
    assert not decide(driver.run, driver.workflow, told, driver.now, "event:mail").events


def test_a_wait_by_nothing_fails_and_says_so() -> None:
    steps = """
- {name: none, transform: {x: null}}
- {name: w, wait: {event: x, match: "event.data.n == steps.none.x"}}
"""
    driver = Driver(workflow(steps))
    assert driver.run.error is not None and driver.run.error.code == "BAD_OUTPUT"
    assert "steps.none.x" in driver.run.error.message


def test_a_simulation_does_not_wait() -> None:
    driver = Driver(workflow("- {name: w, wait: {event: x}}"), mode=MODE_SIMULATE)
    assert driver.run.state == RunState.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("event.data.thread == inputs.thread", ("event.data.thread", "inputs.thread")),
        ("inputs.thread == event.data.thread", ("event.data.thread", "inputs.thread")),
        ("event.data.a > 3 && event.data.kind == 'a == b && c'", ("event.data.kind", "'a == b && c'")),
        ("(event.data.a || event.data.b) && event.id == inputs.x[0]", ("event.id", "inputs.x[0]")),
        ("event.data.b == event.data.c && event.subject == inputs.s", ("event.subject", "inputs.s")),
        ("event.data.a == inputs.a || event.data.b", None),
        ("event.data.a == inputs.a ? true : false", None),
        ("event.data.a > inputs.a", None),
        ("event.data.a == event.data.b", None),
        ("(event.data.a == inputs.a)", None),
        ("event.data.a == r'x' && event.data.b", None),
    ],
)
def test_the_equation_by_which_an_event_is_found(text: str, sides: tuple[str, str] | None) -> None:
    assert equation(text) == sides


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, "1", False), (1, True, False), (5, 5, True), ("a", "a", True), ("a", "b", False)],
)
def test_keys_of_different_kinds_are_different(one: Plain, other: Plain, same: bool) -> None:
    assert (correlation_of("w", "t", "e", one) == correlation_of("w", "t", "e", other)) is same
    assert correlation_of("w", "t", "e", one) != correlation_of("v", "t", "e", one)


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        ("{event: x, match: 'event.data.n > 3'}", "needs an equation"),
        ("{event: x, on_timeout: go-on}", "wait.timeout"),
        ("{event: x, timeout: 1h, on_timeout: stop}", "'fail' or 'go-on'"),
        ("{event: '', timeout: 1h}", "type of an event"),
        ("{event: x, until: 3}", "until"),
        ("{event: x, match: 'event.data.n == steps.no.n'}", "there is no step 'no'"),
        ("{event: x, match: 'event.data.n =='}", "not valid CEL"),
    ],
)
def test_what_is_wrong_with_a_wait_is_said_when_it_is_applied(wait: str, says: str) -> None:
    with pytest.raises(TerminalError) as refused:
        workflow(f"- name: w\n  wait: {wait}")
    assert says in refused.value.message
