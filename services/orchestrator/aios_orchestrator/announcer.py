"""Tells subscribers of the events that were filed. The store has them, under gapless positions: an announcement that is
lost with this process is made up for at its next start, and one that comes late is noticed as a gap."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from aios.bus.v1.bus_pb2 import EventsFiled
from aios_core.errors import RetryableError
from aios_core.ids import PARTITIONS
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus, Message
from aios_runtime.store.port import Filed, Store

LINGER_S: Final = (
    0.015  # that events wait for further ones, unless their runs wait for somebody or have ended
)
# Between two announcements of many events, however urgent: every subscriber takes each in its hands.
SPACING_S: Final = 0.004
MANY: Final = 64  # events in an announcement after which the next one keeps the whole distance
MAX_MESSAGE: Final = 200 * 1024  # bytes of events in one message, below the bus's own limit
MAX_EVENTS: Final = 512  # in one message
MAX_WAITING: Final = 20_000  # events; past these only the last of each partition is announced
RETRY_S: Final = 0.5

log = logging.getLogger(__name__)


class Announcer:
    """Gathers what was filed while an announcement is under way, and sends it with the next one."""

    def __init__(self, bus: Bus, workspace: str) -> None:
        self._bus = bus
        self._workspace = workspace
        self._waiting: dict[int, list[Filed]] = {}
        self._count = 0
        self._next = 0.0  # when the next announcement may go out, by the loop's clock
        self._urgent = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def announce(self, filed: Iterable[Filed], *, urgent: bool) -> None:
        """Announce soon; at once if it is `urgent`. Call it in the order of the commits."""
        for event in filed:
            self._waiting.setdefault(event.partition, []).append(event)
            self._count += 1
        if self._count > MAX_WAITING:
            self._waiting = {partition: events[-1:] for partition, events in self._waiting.items()}
            self._count = len(self._waiting)
        if not self._count:
            return
        if urgent:
            self._urgent.set()
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="announce events")

    async def announce_heads(self, store: Store, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        """Announce the last event of each partition: whoever missed some then asks for them."""
        for partition in partitions:
            head = await store.event_head(partition)
            if head:
                self.announce(await store.events(partition, head - 1, 1), urgent=True)

    async def stop(self) -> None:
        """Announce what waits, if the bus takes it at once."""
        if (sending := self._sending) is not None:
            self._urgent.set()
            await asyncio.wait([sending], timeout=RETRY_S)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                try:
                    async with asyncio.timeout(LINGER_S):
                        await self._urgent.wait()
                except TimeoutError:
                    pass
                loop = asyncio.get_running_loop()
                if loop.time() < self._next:
                    await asyncio.sleep(self._next - loop.time())
                self._next = loop.time() + SPACING_S * min(1.0, self._count / MANY)
                self._urgent.clear()
                waiting, self._waiting, self._count = self._waiting, {}, 0
                await self._send(list(self._messages(waiting.values())))
        finally:
            self._sending = None

    async def _send(self, messages: Sequence[Message]) -> None:
        while True:
            try:
                return await self._bus.publish(messages)
            except RetryableError as error:
                log.warning("the bus did not take %d announcements: %s", len(messages), error.message)
                await asyncio.sleep(RETRY_S)

    def _messages(self, filed: Iterable[Sequence[Filed]]) -> Iterable[Message]:
        """Announcements of partitions' events: as many in one message as it holds."""
        part: list[EventsFiled] = []
        size = 0
        for body in (body for events in filed for body in _bodies(events)):
            cost = body.ByteSize() + 8
            if part and size + cost > MAX_MESSAGE:
                yield self._message(part)
                part, size = [], 0
            part.append(body)
            size += cost
        if part:
            yield self._message(part)

    def _message(self, part: Sequence[EventsFiled]) -> Message:
        first = part[0]
        first.more.extend(part[1:])
        subject = subjects.run_events(self._workspace, first.partition)
        # Without an id: what is announced again, because it may have been lost, is no duplicate to the broker.
        return Message(subject, first.SerializeToString())


def _bodies(events: Sequence[Filed]) -> Iterable[EventsFiled]:
    """Events of one partition, those of one body following each other without a gap, each body fit for a message."""
    body = EventsFiled()
    size = 0
    for event in events:
        cost = len(event.data) + 8
        if cost > MAX_MESSAGE:
            # Who hears of what comes after it has a gap, and asks for it.
            if body.events:
                yield body
            yield EventsFiled(partition=event.partition, first_position=event.position + 1)
            body, size = EventsFiled(), 0
            continue
        full = size + cost > MAX_MESSAGE // 2 or len(body.events) == MAX_EVENTS
        if body.events and (full or event.position != body.first_position + len(body.events)):
            yield body
            body, size = EventsFiled(), 0
        if not body.events:
            body.partition, body.first_position = event.partition, event.position
        body.events.append(event.data)
        size += cost
    if body.events:
        yield body
