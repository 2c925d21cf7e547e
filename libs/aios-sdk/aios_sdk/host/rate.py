"""The rate limit of a connector, shared by all its replicas: turns are taken by compare-and-set in the store that they
share. Whoever has no turn yet waits for it: he is slowed down, not refused."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aios_core.errors import RetryableError
from aios_runtime.store.port import Committed, Store, Write
from aios_sdk.connector.effects import Rate

RACES: Final = 100  # tries for one turn, each lost to another replica's


def turn(full_us: int, now_us: int, rate: Rate) -> tuple[int, int]:
    """Whether a call may go out now: (when all turns are free again if it does, how long to wait first), in µs.

    `full_us` is when all `rate.calls` turns would be free again. It is never further ahead than `rate.per_ms`: where it
    seems so, a clock was set back.
    """
    per_us = rate.per_ms * 1000
    after = min(max(full_us, now_us), now_us + per_us) + per_us // rate.calls
    return after, max(0, after - now_us - per_us)


class Limiter:
    """Gives out the turns of one connector."""

    def __init__(
        self,
        store: Store,
        key: str,
        rate: Rate | None,
        now_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store, self._key, self._rate = store, key, rate
        self._now_ms, self._sleep = now_ms, sleep
        self._line = asyncio.Lock()  # of this process, who came first is first

    async def take(self) -> None:
        """Wait until a call may go out. Without a rate that is at once. Raises what the store raises."""
        if self._rate is None:
            return
        async with self._line:
            races = 0
            while True:
                stored = await self._store.read(self._key)
                full_us = int(stored.head) if stored is not None else 0
                after_us, wait_us = turn(full_us, self._now_ms() * 1000, self._rate)
                if wait_us:
                    await self._sleep(wait_us / 1e6)
                    continue
                revision = stored.revision if stored is not None else 0
                (result,) = await self._store.commit([Write(self._key, revision, str(after_us).encode())])
                if isinstance(result, Committed):
                    return
                races += 1
                if races == RACES:
                    raise RetryableError("UNAVAILABLE", "Too many replicas call at the same time.")
