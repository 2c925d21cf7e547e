"""Questions to a service that may just be starting again: asked until it answers, for a while."""

import asyncio
from itertools import count
from typing import Final

from aios_core.errors import RetryableError
from aios_runtime.bus.port import Bus

# A process that died is back by then, on a cluster too; and it is well below the time limits of steps.
PATIENCE_S: Final = 30.0
PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # between two tries; then the last again


async def ask_patiently(bus: Bus, subject: str, data: bytes, timeout: float) -> bytes:
    """The answer to a question that may be asked several times. Raises what the last try raised: a TerminalError at
    once, a RetryableError after `PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    for tries in count():
        try:
            return await bus.ask(subject, data, timeout)
        except RetryableError:
            pause = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
            if loop.time() + pause >= end:
                raise
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")
