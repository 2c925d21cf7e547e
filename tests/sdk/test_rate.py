"""A connector's rate holds for all its replicas together, whatever their clocks do."""

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_sdk.connector import Rate
from aios_sdk.host.rate import Limiter, turn
from aios_testing.store_memory import MemoryStore

pytestmark = pytest.mark.feature("B6", "L2")

RATES = st.builds(Rate, calls=st.integers(1, 20), per_ms=st.integers(20, 5000))


class Waits(Exception):
    """It was told to wait."""


@given(rate=RATES, pauses_us=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200))
def test_no_window_has_more_calls_than_were_saved_up_and_have_come_due_in_it(
    rate: Rate, pauses_us: list[int]
) -> None:
    now = full = 0
    calls = []
    for pause in pauses_us:
        now += pause
        after, wait = turn(full, now, rate)
        if wait:
            now += wait
            after, wait = turn(full, now, rate)
        assert not wait, "after the wait it is its turn"
        full = after
        calls.append(now)
    spacing_us = rate.per_ms * 1000 // rate.calls
    for at, first in enumerate(calls):
        for count, last in enumerate(calls[at:], 1):
            assert count <= rate.calls + (last - first) // spacing_us + 1


@given(rate=RATES, back_us=st.integers(0, 10**12))
def test_a_clock_that_is_set_back_holds_calls_up_no_longer_than_the_rates_own_time(
    rate: Rate, back_us: int
) -> None:
    full, _ = turn(0, 10**15, rate)
    _, wait_us = turn(full, 10**15 - back_us, rate)
    assert wait_us <= rate.per_ms * 1000 // rate.calls


async def test_replicas_share_the_turns_of_one_store() -> None:
    async def waits(seconds: float) -> None:
        raise Waits(f"{seconds:.3f}")

    store, now_ms, rate = MemoryStore(lambda: 0), [1000], Rate(calls=5, per_ms=1000)
    replicas = [Limiter(store, "main/rate/mail", rate, lambda: now_ms[0], waits) for _ in range(2)]
    turns = cycle(replicas)
    for _ in range(5):
        await next(turns).take()
    for replica in replicas:
        with pytest.raises(Waits, match=r"0\.200"):
            await replica.take()
    now_ms[0] += 200
    await replicas[0].take()
    with pytest.raises(Waits):
        await replicas[1].take()
