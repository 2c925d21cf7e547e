"""The embedded server of a test, and how a test waits."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import Crash, EmbeddedNats
from aios_runtime.bus.endpoint import Endpoint

Connect = Callable[[str], Awaitable[NatsBus]]


class Server(EmbeddedNats):
    """The embedded server, with what a test waits for."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, on_crash=self._crashed)
        self.data_dir = data_dir
        self.crashes: list[Crash] = []
        self.endpoint = Endpoint("", {})

    def _crashed(self, crash: Crash) -> None:
        self.crashes.append(crash)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 15.0) -> None:
    """Let the loop turn until the condition holds; the test fails when it doesn't in time."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if await holds if isinstance(holds, Awaitable) else holds:
                return
            await asyncio.sleep(0.005)
