"""A service with its bus connection, which begins before it and ends after it."""

from typing import Final

from aios_runtime.bus.port import Bus
from aios_runtime.service.port import Health, Service

BUS_GRACE_SECONDS: Final = 3.0  # for what is at hand when the service is to stop


class Connected:
    """Stops in the order in which nothing is left half done: first nothing comes in any more, then the service stops,
    which may still publish, and then the connection ends. `door`: its clients still wait for answers meanwhile, so that
    it goes on taking in until it has stopped.
    """

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
        try:
            if not self._door:
                await self._bus.drain(BUS_GRACE_SECONDS)
            if self._started:
                await self._service.stop()
        finally:
            await self._bus.close(BUS_GRACE_SECONDS)

    def health(self) -> Health:
        """What the service says of itself."""
        return self._service.health()
