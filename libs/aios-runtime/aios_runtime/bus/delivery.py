"""A message that was delivered, and what the broker may be told of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from nats.aio.msg import Msg

from aios_core.errors import AiosError
from aios_runtime.bus.session import Session

if TYPE_CHECKING:
    from aios_runtime.bus.consumer import PullConsumer

ACK: Final = b"+ACK"
WORKING: Final = b"+WPI"


def nak(delay: float) -> bytes:
    """What tells the broker to deliver a message again after `delay` seconds."""
    return b'-NAK {"delay": %d}' % int(delay * 1e9) if delay > 0 else b"-NAK"


class Delivered:
    """A delivery, with the broker's incarnation that it came from: no other one may be told of it."""

    __slots__ = ("_consumer", "_incarnation", "_message", "_session", "settled")

    def __init__(self, consumer: "PullConsumer", session: Session, incarnation: str, message: Msg) -> None:
        self._consumer = consumer
        self._session = session
        self._incarnation = incarnation
        self._message = message
        self.settled = False

    @property
    def subject(self) -> str:
        return self._message.subject

    @property
    def data(self) -> bytes:
        return self._message.data

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers or {}

    @property
    def deliveries(self) -> int:
        tokens = self._message.reply.split(".")
        return int(tokens[4] if len(tokens) == 9 else tokens[6])

    @property
    def incarnation(self) -> str:
        return self._incarnation

    async def ack(self) -> None:
        await self._settle(ACK)

    async def retry(self, delay: float = 0.0) -> None:
        await self._settle(nak(delay))

    async def working(self) -> None:
        if not self.settled:
            await self._consumer.acknowledge(self._session, self._incarnation, self._message.reply, WORKING)

    async def dead(self, error: AiosError) -> None:
        if self.settled:
            return
        await self._consumer.bury(self, error)
        await self._settle(ACK)

    def let_go(self) -> None:
        """Nobody deals with it any more; the broker delivers it again in its own time."""
        if not self.settled:
            self.settled = True
            self._consumer.release()

    async def _settle(self, payload: bytes) -> None:
        if self.settled:
            return
        self.settled = True
        try:
            await self._consumer.acknowledge(self._session, self._incarnation, self._message.reply, payload)
        finally:
            self._consumer.release()
