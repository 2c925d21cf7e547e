"""A service with its bus connection, which begins before it and ends after it."""

from collections.abc import Awaitable, Callable
from typing import Final

from aios_runtime.bus.port import Bus
from aios_runtime.service.port import Health, Service

BUS_GRACE_SECONDS: Final = 3.0  # for what is at hand when the service is to stop


async def stop_in_order(bus: Bus, stop: Callable[[], Awaitable[None]], *, door: bool = False) -> None:
    """Stop in the order in which nothing is left half done: first nothing comes in any more, then the service stops,
    which may still publish, and then the connection ends. `door`: its clients still wait for answers meanwhile, so that
    it goes on taking in until it has stopped."""
    try:
        if not door:
            await bus.drain(BUS_GRACE_SECONDS)
        await stop()
    finally:
        await bus.close(BUS_GRACE_SECONDS)


async def nothing() -> None:
    """The stop of what was not started, or ends with its bus."""


class Connected:
    """A service as its launcher starts and stops it; `door` as above."""

    def __init__(self, service: Service, bus: Bus, door: bool = False) -> None:
        self._service = service
        self._bus = bus
        self._door = door
        self._started = False

    async def start(self) -> None:
        """Start the service."""
        self._started = True
        await self._service.start()

    async def stop(self) -> None:
        """Stop the service, if it was started, and end its connection."""
        stop = self._service.stop if self._started else nothing
        await stop_in_order(self._bus, stop, door=self._door)

    def health(self) -> Health:
        """What the service says of itself."""
        return self._service.health()
