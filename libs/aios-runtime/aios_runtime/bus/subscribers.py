"""Event subscribers and the intake of external events."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from aios.bus.v1.bus_pb2 import EventsFiled
from aios.event.v1.event_pb2 import ExternalEvent
from aios_core.errors import TerminalError
from aios_core.ids import PARTITIONS
from aios_runtime import cloudevents
from aios_runtime.bus import subjects
from aios_runtime.bus.catchup import CatchUp, Handle, LoadPosition
from aios_runtime.bus.port import Bus, Delivery

BATCH: Final = 64  # notifications handed over at once
SLOTS: Final = 256  # of them that are not acknowledged; each has up to 200 KiB


class EventSubscriber:
    """Follows the run events of a workspace: gapless, in order, from the position that the subscriber's state holds.

    A notification is acknowledged when the state contains its events. `consumer` is the durable consumer that brings
    notifications, such as `memory__run_events`. `gather_s`: as `CatchUp` has it.
    """

    def __init__(
        self,
        bus: Bus,
        workspace: str,
        *,
        consumer: str,
        load_position: LoadPosition,
        handle: Handle,
        partitions: int = PARTITIONS,
        gather_s: float = 0.0,
    ) -> None:
        self._workspace = workspace
        self._catch_up = CatchUp(
            bus, workspace, partitions, load_position=load_position, handle=handle, gather_s=gather_s
        )
        self._bus, self._consumer = bus, consumer

    async def start(self) -> None:
        """Begin with what was missed. Returns at once; it ends with the bus."""
        await self._catch_up.start()
        await self._bus.consume(self._consumer, self._notified, batch=BATCH, slots=SLOTS)

    async def _notified(self, deliveries: Sequence[Delivery]) -> None:
        """Notifications that came together are waited for together; each is acknowledged by itself."""
        ended = await asyncio.gather(*map(self._one, deliveries), return_exceptions=True)
        for failure in ended:
            if failure is not None:
                raise failure

    async def _one(self, delivery: Delivery) -> None:
        try:
            filed = EventsFiled.FromString(delivery.data)
        except DecodeError:
            await delivery.dead(TerminalError("UNDECODABLE", "This is not an EventsFiled."))
            return
        if delivery.subject.split(".")[5:6] == [self._workspace]:
            await asyncio.gather(*(self._catch_up.offer(part) for part in (filed, *filed.more)))
        await delivery.ack()


class IntakeSubscriber:
    """Takes bare external events (`aios.in.<workspace>.<source>.<type>`, CloudEvents) in.

    `handle` returns when the event is committed; then it is acknowledged. What isn't a CloudEvent, or is refused, is a
    dead letter with the reason.
    """

    def __init__(self, bus: Bus, workspace: str, handle: Callable[[ExternalEvent], Awaitable[None]]) -> None:
        self._bus = bus
        self._workspace = workspace
        self._handle = handle

    async def start(self) -> None:
        """Begin. Returns at once; it ends with the bus."""
        await self._bus.subscribe(subjects.consumer("orchestrator", "intake"), self._arrived)

    async def _arrived(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        tokens = subject.split(".")
        if len(tokens) < 5:
            raise TerminalError("INVALID_ARGUMENT", f"{subject} names no workspace, source and type.")
        event = cloudevents.from_message(headers, data)
        event.workspace = tokens[2]
        event.received_by = "bus"
        event.traceparent = headers.get(subjects.HEADER_TRACE, "")
        await self._handle(event)
