"""A durable consumer served through FastStream, with manual acknowledgement: for short handlers of single messages.

FastStream keeps a connection of its own, under the service's identity. It takes a third of a second to import, so it is
loaded behind the service's start; what is published until then waits in its stream.
"""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from aios_core.errors import AiosError
from aios_runtime.bus import subjects
from aios_runtime.bus.failures import dead_letter, verdict
from aios_runtime.bus.port import Message, Receive
from aios_runtime.bus.topology import Consumer

if TYPE_CHECKING:
    from aios_runtime.bus.connection import NatsBus

FETCH_SECONDS: Final = 60.0  # how long a fetch waits at the server before it is renewed
HANDLED_AT_ONCE: Final = 16  # messages
START_AGAIN_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
STOP_SECONDS: Final = 5.0
RECONNECT_SECONDS: Final = 0.25

log = logging.getLogger("aios.bus.subscriber")


class DurableSubscriber:
    """Serves a durable consumer through FastStream. `handle` gets subject, payload and headers; the message is
    acknowledged when it returns, comes again when it raises RetryableError, and is a dead letter otherwise."""

    def __init__(self, bus: "NatsBus", consumer: Consumer, handle: Receive) -> None:
        self._bus = bus
        self._consumer = consumer
        self._handle = handle
        self._broker: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._again = asyncio.Event()

    async def start(self) -> None:
        """Begin. Returns at once; it ends with the bus."""
        self._bus.on_restart(self._restarted)
        self._bus.on_close(self.stop)
        self._again.set()
        self._starting = asyncio.create_task(self._keep(), name=f"subscribe {self._consumer.name}")

    async def stop(self) -> None:
        """Let what is handled finish, and disconnect."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
            self._starting = None
        await self._disconnect()

    @property
    def running(self) -> bool:
        """Whether it fetches."""
        return self._broker is not None

    async def _restarted(self, _wiped: bool) -> None:
        self._again.set()  # a fetch that waited at the server before waits for nothing now

    async def _keep(self) -> None:
        while True:
            await self._again.wait()
            self._again.clear()
            await self._disconnect()
            await self._connect()

    async def _connect(self) -> None:
        failures = 0
        faststream = await asyncio.to_thread(importlib.import_module, "faststream.nats")
        while True:
            try:
                await self._until_there()
                self._broker = await _subscribe(faststream, self._bus, self._consumer, self._received)
                return
            except (
                Exception
            ) as error:  # of a server that comes and goes, in whatever shape the library gives it
                log.warning("subscribing waits: %s", error, extra={"consumer": self._consumer.name})
                await asyncio.sleep(START_AGAIN_SECONDS[min(failures, len(START_AGAIN_SECONDS) - 1)])
                failures += 1

    async def _until_there(self) -> None:
        """Until the broker has the consumer: the library would try to make it, which only the orchestrator may."""
        await self._bus.keeper.verified.wait()
        js = self._bus.keeper.alive().jetstream()
        await js.consumer_info(self._consumer.stream, self._consumer.name)

    async def _disconnect(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await broker.stop()
            except Exception as error:  # a connection that is going away may fail in any way
                log.debug("disconnecting: %s", error)

    async def _received(self, message: Any) -> None:
        raw = message.raw_message
        headers: Mapping[str, str] = raw.headers or {}
        deliveries = raw.metadata.num_delivered
        try:
            with self._bus.tracing.span("process", subjects.template(raw.subject), headers):
                await self._handle(raw.subject, raw.data, headers)
        except Exception as error:
            if not isinstance(error, AiosError):
                log.exception("a handler failed by a defect", extra={"consumer": self._consumer.name})
            decided = verdict(error, deliveries)
            if not isinstance(decided, AiosError):
                await message.nack(decided)
                return
            letter = dead_letter(raw.subject, raw.data, headers, deliveries, decided)
            await self._bury(letter.SerializeToString(), decided)
        await message.ack()

    async def _bury(self, letter: bytes, why: AiosError) -> None:
        log.error(
            "a message can't be handled and is kept as a dead letter",
            extra={"consumer": self._consumer.name, "code": why.code, "why": why.message},
        )
        subject = subjects.dead_letter(self._consumer.service, self._consumer.handler)
        await self._bus.publish([Message(subject, letter)])


async def _subscribe(
    faststream: Any, bus: "NatsBus", consumer: Consumer, receive: Callable[[Any], Awaitable[None]]
) -> Any:
    """A connected broker with its one subscriber."""
    credentials = bus.credentials
    security = (
        faststream.NatsUserPassword(credentials.user, credentials.password) if credentials.user else None
    )
    inbox = f"{subjects.inbox(consumer.service)}.events"
    broker = faststream.NatsBroker(
        credentials.url,
        security=security,
        name=f"{consumer.name} events",
        inbox_prefix=inbox,
        error_cb=_complained,
        reconnect_time_wait=RECONNECT_SECONDS,
        max_reconnect_attempts=-1,
        logger=None,
        apply_types=False,
        serializer=None,
        graceful_timeout=STOP_SECONDS,
    )
    subscriber = broker.subscriber(
        consumer.filters[0],
        stream=faststream.JStream(consumer.stream, declare=False),
        durable=consumer.name,
        inbox_prefix=f"{inbox}.".encode(),
        pull_sub=faststream.PullSub(batch_size=1, timeout=FETCH_SECONDS),
        ack_policy=importlib.import_module("faststream").AckPolicy.MANUAL,
        decoder=_whole,
        no_reply=True,
        max_workers=HANDLED_AT_ONCE,
    )
    subscriber(receive)
    await broker.start()
    return broker


async def _complained(error: Exception) -> None:
    """The service's main connection tells of the same trouble, once and in its words."""
    log.debug("the connection reports %s", error or type(error).__name__)


async def _whole(message: Any) -> Any:
    """The handler decodes by itself, and acknowledges: it gets the message as it is."""
    return message
