"""Who goes next: by priority, by turns, within limits, and nobody never. On the plain scheduler, over random loads."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_orchestrator.delivery import Delivery
from aios_orchestrator.limits import Limit, Limits
from aios_orchestrator.scheduler import AGE_MS, Backlog, Waiting
from aios_orchestrator.workflow import HIGHEST

pytestmark = pytest.mark.feature("B1", "B6")

NAMES = st.sampled_from(["a", "b", "c"])
TASKS = st.lists(st.tuples(st.integers(0, HIGHEST), NAMES, NAMES), max_size=60)


def anything(task: Waiting) -> bool:
    return True


def tasks_of(drawn: list[tuple[int, str, str]]) -> list[Waiting]:
    return [
        Waiting(f"run{at}", "s", priority=priority, customer=customer, workflow=workflow)
        for at, (priority, customer, workflow) in enumerate(drawn)
    ]


@given(TASKS)
def test_the_most_urgent_go_first_and_nothing_is_lost(drawn: list[tuple[int, str, str]]) -> None:
    backlog = Backlog()
    for task in tasks_of(drawn):
        backlog.put(task, 0)
    assert len(list(backlog)) == backlog.waiting == len(drawn)
    taken = list(backlog.take(1000, 0, anything))
    assert [task.priority for task in taken] == sorted((item[0] for item in drawn), reverse=True)
    assert len({task.run_id for task in taken}) == len(drawn) and not backlog.waiting


@given(st.integers(0, HIGHEST), st.integers(1, 5))
def test_no_task_is_passed_over_for_ever_by_more_urgent_ones(priority: int, flows: int) -> None:
    """It counts as the most urgent after (9 - priority) times AGE_MS, and then goes in its turn among the flows."""
    backlog = Backlog()
    low = Waiting("low", "s", priority=priority, customer="low")
    backlog.put(low, 0)
    now, number, after = 0, 0, 0
    ripe = (HIGHEST - priority) * AGE_MS
    while True:
        for flow in range(flows):  # every moment as many urgent ones come as go
            number += 1
            backlog.put(Waiting(f"run{number}", "s", priority=HIGHEST, customer=f"c{flow}"), now)
        taken = list(backlog.take(flows, now, anything))
        assert len(taken) == flows
        if now >= ripe:
            after += flows
        if low in taken:
            break
        assert after <= 2 * flows + 1
        now += AGE_MS // 2


@given(st.integers(1, 9), st.integers(1, 9))
def test_of_one_priority_customers_are_served_as_their_weights_say(one: int, two: int) -> None:
    limits = Limits([Limit("l", "customer", "a", weight=one), Limit("m", "customer", "b", weight=two)])
    backlog = Backlog(lambda name: limits.weight("customer", name))
    for at in range(600):
        backlog.put(Waiting(f"run{at}", "s", customer="a" if at < 300 else "b"), 0)
    some = [next(backlog.take(1, 0, anything)).customer for _ in range(200)]
    for at in range(1, 200):
        served = Counter(some[:at])
        assert abs(served["a"] * two - served["b"] * one) <= one + two + max(one, two)


@given(TASKS)
def test_a_customer_with_many_tasks_does_not_keep_back_one_with_few(
    drawn: list[tuple[int, str, str]],
) -> None:
    backlog = Backlog()
    for at in range(500):
        backlog.put(Waiting(f"many{at}", "s", priority=HIGHEST, customer="many"), 0)
    for task in tasks_of(drawn):
        task.priority = HIGHEST
        backlog.put(task, 1)
    few = Waiting("few", "s", priority=HIGHEST, customer="few")
    backlog.put(few, 2)
    first = list(backlog.take(6, 2, anything))
    assert few in first


LIMITS = st.lists(
    st.builds(
        Limit,
        name=st.just("l"),
        scope=st.sampled_from(["workflow", "customer"]),
        of=st.sampled_from(["a", "b", "*"]),
        in_flight=st.integers(1, 3),
        weight=st.integers(1, 3),
    ),
    max_size=4,
)
MOVES = st.lists(
    st.one_of(st.tuples(st.just("out"), TASKS), st.tuples(st.just("done"), st.integers(0, 100))), max_size=30
)


@given(LIMITS, st.integers(1, 6), MOVES)
def test_no_limit_is_passed_and_no_place_stays_empty(
    limits: list[Limit], window: int, moves: list[tuple[str, object]]
) -> None:
    rules = Limits(limits)
    delivery = Delivery(window, rules)
    out: dict[str, Waiting] = {}
    waiting: dict[str, Waiting] = {}
    now = number = 0
    for kind, what in moves:
        now += AGE_MS // 3
        if kind == "out":
            assert isinstance(what, list)
            tasks = tasks_of(what)
            for task in tasks:
                number += 1
                task.run_id = f"run{number}"
                waiting[task.run_id] = task
            ready = delivery.hand_out("lane", tasks, now)
        else:
            assert isinstance(what, int)
            if out:
                done = sorted(out)[what % len(out)]
                del out[done]
                delivery.settled(done, "s")
            ready = delivery.fill("lane", now)
        for task in ready:
            out[task.run_id] = waiting.pop(task.run_id)
        assert len(out) <= window
        used = Counter((s, getattr(t, s)) for t in out.values() for s in ("workflow", "customer"))

        def free(task: Waiting, used: Counter[tuple[str, str]] = used) -> bool:
            found = [(s, rules.of(s, getattr(task, s))) for s in ("workflow", "customer")]
            return all(
                limit is None or not limit.in_flight or used[scope, getattr(task, scope)] < limit.in_flight
                for scope, limit in found
            )

        for (scope, name), count in used.items():
            limit = rules.of(scope, name)
            assert limit is None or count <= limit.in_flight
        assert len(out) == window or not any(free(task) for task in waiting.values())
        assert delivery.counts().get("lane", (0, 0)) == (len(out), len(waiting))


@given(st.integers(1, 5), st.lists(st.integers(0, 400), max_size=60))
def test_a_connector_is_never_called_more_often_than_its_rate(rate: int, pauses: list[int]) -> None:
    limits = Limits([Limit("l", "connector", "slow", rate=rate, per_ms=1000)])
    delivery = Delivery(limits=limits)
    now, went = 0, list[int]()
    tasks = [Waiting(f"run{at}", "s") for at in range(200)]
    went += [now] * len(delivery.hand_out("connector-slow", tasks, now))
    assert len(delivery.hand_out("agent", [Waiting("x", "s")], now)) == 1  # others go on
    for pause in pauses:
        now += pause
        went += [now] * len(delivery.fill("connector-slow", now))
        assert sum(now - 1000 < at for at in went) <= rate
        due = delivery.next_room(now)
        assert due is None or due > now
    assert len(went) >= min(200, rate)


def test_a_limit_is_shared_out_among_replicas_and_nobody_gets_nothing() -> None:
    limit = Limit("l", "connector", "slow", in_flight=10)
    delivery = Delivery(limits=Limits([limit], lambda: 0.25))
    assert delivery.window("connector-slow") == 2
    assert Delivery(limits=Limits([limit], lambda: 0.01)).window("connector-slow") == 1


def test_a_task_that_is_not_wanted_any_more_leaves_the_line() -> None:
    delivery = Delivery(window=1)
    delivery.hand_out("lane", [Waiting("one", "s"), Waiting("two", "s"), Waiting("three", "s")], 0)
    delivery.settled("two", "s")
    assert delivery.counts() == {"lane": (1, 1)}
    delivery.settled("one", "s")
    assert [task.run_id for task in delivery.fill("lane", 0)] == ["three"]
    lanes, _ = delivery.view(0)
    assert (lanes[0].in_flight, lanes[0].waiting) == (1, 0)
