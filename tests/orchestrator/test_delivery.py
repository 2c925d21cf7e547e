"""The window of a lane: what is on the bus, what waits, and whose lease ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_orchestrator.delivery import GRACE_MS, Delivery, TaskKey
from aios_orchestrator.scheduler import Waiting


def task(number: int, priority: int = 5, dispatch: int = 1) -> Waiting:
    return Waiting(run_id=f"run{number}", step="s", dispatch=dispatch, priority=priority, timeout_ms=1000)


def test_what_does_not_fit_waits_by_priority_until_an_outcome_makes_room() -> None:
    delivery = Delivery(window=2)
    out = delivery.hand_out("lane", [task(1), task(2), task(3), task(4, priority=9)], 0)
    assert [item.run_id for item in out] == ["run4", "run1"]
    assert delivery.counts() == {"lane": (2, 2)}
    assert delivery.settled("run4", "s") == "lane"
    assert [item.run_id for item in delivery.fill("lane", 0)] == ["run2"]
    assert delivery.settled("unknown", "s") is None


def test_a_lease_ends_once_and_only_for_the_latest_dispatch() -> None:
    delivery = Delivery()
    delivery.hand_out("lane", [task(1)], 0)
    delivery.hand_out("lane", [task(1, dispatch=2)], 500)
    assert delivery.counts() == {"lane": (1, 0)}
    assert delivery.expired(1000 + GRACE_MS) == []
    assert delivery.expired(1500 + GRACE_MS) == [TaskKey("run1", "s")]
    assert delivery.expired(10**9) == []
    assert delivery.all_out() == [TaskKey("run1", "s")]


def test_an_ended_lease_that_could_not_be_dealt_with_is_told_again() -> None:
    delivery = Delivery()
    delivery.hand_out("lane", [task(1), task(2)], 0)
    keys = delivery.expired(1000 + GRACE_MS)
    delivery.settled("run2", "s")
    delivery.expire_again(keys, 1000 + GRACE_MS)
    assert delivery.expired(1000 + GRACE_MS) == [TaskKey("run1", "s")]


@given(
    st.lists(st.tuples(st.sampled_from(["out", "done", "fill"]), st.integers(0, 9)), max_size=60),
    st.integers(1, 4),
)
def test_no_more_than_the_window_is_out_and_nothing_is_dropped(
    moves: list[tuple[str, int]], window: int
) -> None:
    delivery = Delivery(window)
    given_in: set[str] = set()
    out: set[str] = set()
    for kind, number in moves:
        name = f"run{number}"
        if kind == "out" and name not in given_in:
            given_in.add(name)
            out |= {item.run_id for item in delivery.hand_out("lane", [task(number)], 0)}
        elif kind == "done" and name in out:
            delivery.settled(name, "s")
            out.discard(name)
            given_in.discard(name)
        else:
            out |= {item.run_id for item in delivery.fill("lane", 0)}
        assert len(out) <= window
        on_bus, waiting = delivery.counts().get("lane", (0, 0))
        assert (on_bus, on_bus + waiting) == (len(out), len(given_in))


@pytest.mark.feature("D2", "B1")
def test_a_task_that_goes_on_another_lane_gives_its_place_back() -> None:
    delivery = Delivery(window=1)
    delivery.hand_out("a", [task(1)], 0)
    assert delivery.hand_out("b", [task(1, dispatch=2)], 0)
    assert delivery.counts() == {"a": (0, 0), "b": (1, 0)}
    assert delivery.settled("run1", "s") == "b"
    assert delivery.counts() == {"a": (0, 0), "b": (0, 0)}
