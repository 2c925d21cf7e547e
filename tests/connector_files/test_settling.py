"""A folder is one event once nothing in it has changed for the time of rest, whatever is or isn't reported."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aios_connector_files.watching.settling import Settling

REST = 5000
LOOK = 700  # ms between two looks of the model's watcher

# Changes of one folder: after how many ms, and whether the system reports it.
CHANGES = st.lists(st.tuples(st.integers(1, 12_000), st.booleans()), min_size=1, max_size=12)


@given(changes=CHANGES)
def test_every_final_state_is_settled_once_and_none_before_its_rest(changes: list[tuple[int, bool]]) -> None:
    settling = Settling(REST)
    times, now = [], 0
    for gap, reported in changes:
        now += gap
        times.append((now, reported))
    state, handled, handed = "0", "0", []
    for tick in range(0, now + 4 * REST, 100):
        for at, reported in times:
            if tick - 100 < at <= tick:
                state = str(at)
                if reported:
                    settling.touched("f", at)
        if tick % LOOK == 0 and state != handled:
            settling.seen("f", state, tick)
        for folder in settling.due(tick):
            if settling.settled(folder, state, tick) and state != handled:
                handled = state
                handed.append((tick, state))
    assert handed, "the last state is always handed over"
    assert handed[-1][1] == str(times[-1][0])
    assert len({value for _, value in handed}) == len(handed)
    for tick, value in handed:
        # A change that nothing reported is known from the first look after it.
        assert tick - int(value) >= REST - LOOK - 100, "nothing changed for the time of rest"
        assert not any(reported and int(value) < at <= tick for at, reported in times)


@given(times=st.lists(st.integers(0, 60_000), min_size=1, max_size=30))
def test_reported_changes_alone_give_one_event_per_rest(times: list[int]) -> None:
    times = sorted(times)
    settling, events = Settling(REST), 0
    for at, following in zip(times, [*times[1:], times[-1] + 10 * REST], strict=True):
        settling.touched("f", at)
        while (due := settling.next_due_ms()) is not None and due < following:
            assert settling.due(due) == ["f"]
            assert settling.due(due - 1) == []
            events += settling.settled("f", "any", due)
    expected = sum(b - a > REST for a, b in pairwise(times)) + 1
    assert events == expected
    assert len(settling) == 0


def test_what_is_not_due_is_not_at_rest() -> None:
    settling = Settling(REST)
    settling.touched("f", 0)
    assert not settling.settled("f", "a", REST - 1)
    assert settling.settled("f", "a", REST)
    assert not settling.pending("f")


def test_a_change_that_only_a_look_sees_begins_the_time_again() -> None:
    settling = Settling(REST)
    settling.seen("f", "a", 0)
    assert not settling.settled("f", "b", REST)
    assert settling.next_due_ms() == 2 * REST
    assert settling.settled("f", "b", 2 * REST)
