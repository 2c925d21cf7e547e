"""The cache of model answers."""

import hashlib

import pytest

from aios_core.errors import TerminalError
from aios_memory.cache import MAX_VALUE_BYTES, Cache
from aios_runtime.store.port import Store
from tests.memory.serving import WORKSPACE, Clock


def key(n: int) -> bytes:
    return hashlib.sha256(str(n).encode()).digest()


@pytest.mark.feature("F3")
async def test_the_first_answer_stays_and_is_found_after_a_restart(store: Store, clock: Clock) -> None:
    cache = Cache(store, WORKSPACE, clock)
    await cache.start()
    assert not (await cache.get(key(1))).found
    await cache.put(key(1), b"first")
    await cache.put(key(1), b"second")
    answer = await Cache(store, WORKSPACE, clock).get(key(1))
    assert (answer.found, answer.value, answer.create_time_ms) == (True, b"first", clock.ms)


@pytest.mark.feature("F3")
async def test_an_answer_that_is_too_old_is_forgotten_and_may_be_replaced(store: Store, clock: Clock) -> None:
    cache = Cache(store, WORKSPACE, clock, max_age_ms=1000)
    await cache.start()
    await cache.put(key(1), b"old")
    clock.ms += 1000
    assert not (await cache.get(key(1))).found
    await cache.put(key(1), b"new")
    assert (await cache.get(key(1))).value == b"new"


@pytest.mark.parametrize("bounds", [{"max_entries": 3}, {"max_bytes": 3 * 1015}])
async def test_the_oldest_answers_make_room_for_new_ones(
    store: Store, clock: Clock, bounds: dict[str, int]
) -> None:
    cache = Cache(store, WORKSPACE, clock, **bounds)
    await cache.start()
    for n in range(6):
        clock.ms += 1
        await cache.put(key(n), b"x" * 1000)
    assert [n for n in range(6) if (await cache.get(key(n))).found] == [3, 4, 5]
    assert len((await store.scan(f"{WORKSPACE}/cache/")).items) == 3
    again = Cache(store, WORKSPACE, clock, **bounds)
    await again.start()
    await again.put(key(7), b"x" * 1000)
    assert len((await store.scan(f"{WORKSPACE}/cache/")).items) == 3


async def test_an_answer_that_is_too_large_or_has_no_key_is_refused(store: Store, clock: Clock) -> None:
    cache = Cache(store, WORKSPACE, clock)
    with pytest.raises(TerminalError, match="at most") as caught:
        await cache.put(key(1), b"x" * (MAX_VALUE_BYTES + 1))
    assert caught.value.code == "TOO_LARGE"
    with pytest.raises(TerminalError, match="32 bytes"):
        await cache.put(b"short", b"x")
