"""A durable consumer served through FastStream, with manual acknowledgement: for short handlers of single messages.

FastStream keeps a connection of its own, under the service's identity. It takes a third of a second to import, so it is
loaded behind the service's start; what is published until then waits in its stream.
"""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aios_core.errors import AiosError
from aios_runtime.bus import subjects
from aios_runtime.bus.delivery import ACK, nak
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.bus.failures import dead_letter, verdict
from aios_runtime.bus.port import Message, Receive
from aios_runtime.bus.session import Session, lost
from aios_runtime.bus.topology import Consumer

if TYPE_CHECKING:
    from aios_runtime.bus.connection import NatsBus

FETCH_SECONDS: Final = 60.0  # how long a fetch waits at the server before it is renewed
HANDLED_AT_ONCE: Final = 64  # messages
START_AGAIN_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
STOP_SECONDS: Final = 5.0
START_SECONDS: Final = 5.0
NEVER_SECONDS: Final = 24 * 3600
BURY_AGAIN_SECONDS: Final = 1.0

log = logging.getLogger("aios.bus.subscriber")


class DurableSubscriber:
    """Serves a durable consumer through FastStream. `handle` gets subject, payload and headers; the message is
    acknowledged when it returns, comes again when it raises RetryableError, and is a dead letter otherwise."""

    def __init__(self, bus: "NatsBus", consumer: Consumer, handle: Receive) -> None:
        self._bus = bus
        self._consumer = consumer
        self._handle = handle
        self._stream: _Stream | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._incarnation = ""

    async def start(self) -> None:
        """Begin. Returns at once; it ends with the bus."""
        self._bus.on_restart(self._restarted)
        self._bus.on_close(self.stop)
        self._again.set()
        self._keeping = asyncio.create_task(self._keep(), name=f"subscribe {self._consumer.name}")

    async def stop(self) -> None:
        """Let what is handled finish, and disconnect."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        await self._disconnect()

    async def _restarted(self, _wiped: bool) -> None:
        if self._incarnation != self._bus.incarnation:
            self._again.set()  # its consumer is another one

    async def _keep(self) -> None:
        faststream = await asyncio.to_thread(importlib.import_module, "faststream.nats")
        failures = 0
        while True:
            await self._again.wait()
            self._again.clear()
            if self._stream is not None and self._stream.alive and self._incarnation == self._bus.incarnation:
                continue  # to make it anew would only drop what it has just fetched
            await self._disconnect()
            try:
                await self._connect(faststream)
                failures = 0
            except Exception as error:  # a server that comes and goes fails in many shapes
                log.warning(
                    "subscribing waits: %s", error, extra={"consumer": self._consumer.name}, exc_info=True
                )
                self._again.set()
                await asyncio.sleep(START_AGAIN_SECONDS[min(failures, len(START_AGAIN_SECONDS) - 1)])
                failures += 1

    async def _connect(self, faststream: Any) -> None:
        await self._bus.keeper.verified.wait()
        session = self._bus.keeper.alive()
        beginning = asyncio.ensure_future(self._begin(faststream, session))
        gone = asyncio.ensure_future(session.lost.wait())
        try:
            await asyncio.wait([beginning, gone], return_when=asyncio.FIRST_COMPLETED)
            if not beginning.done():
                raise lost()  # the library would try on for as long as it may
            beginning.result()
        finally:
            gone.cancel()
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)

    async def _begin(self, faststream: Any, session: Session) -> None:
        incarnation = self._incarnation = self._bus.incarnation
        # The library would try to make a consumer that isn't there, which only the orchestrator may.
        await session.jetstream().consumer_info(self._consumer.stream, self._consumer.name)

        async def received(message: Any) -> None:
            payload = await self._outcome(message.raw_message)
            await self._bus.acknowledge(session, incarnation, message.raw_message.reply, payload)

        self._stream = _Stream(faststream, self._bus.credentials, self._consumer, received, self._again.set)
        await self._stream.start()

    async def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.stop()

    async def _outcome(self, raw: Any) -> bytes:
        """Handle a message; what the broker is to be told then."""
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
                return nak(decided)
            return await self._bury(raw, headers, deliveries, decided)
        return ACK

    async def _bury(self, raw: Any, headers: Mapping[str, str], deliveries: int, why: AiosError) -> bytes:
        log.error(
            "a message can't be handled and is kept as a dead letter",
            extra={"consumer": self._consumer.name, "code": why.code, "why": why.message},
        )
        letter = dead_letter(raw.subject, raw.data, headers, deliveries, why)
        subject = subjects.dead_letter(self._consumer.service, self._consumer.handler)
        try:
            await self._bus.publish([Message(subject, letter.SerializeToString())])
        except AiosError as error:
            log.warning("a dead letter can't be stored now: %s", error)
            return nak(BURY_AGAIN_SECONDS)
        self._bus.buried.note(raw.subject, why)
        return ACK


class _Stream:
    """FastStream's connection with its one subscriber. `on_lost` is called when it is: it is not mended, so
    that nothing meant for one broker reaches the next."""

    def __init__(
        self,
        faststream: Any,
        credentials: Credentials,
        consumer: Consumer,
        receive: Callable[[Any], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self._on_lost = on_lost
        self._stopping = False
        user, inbox = credentials.user, f"{subjects.inbox(consumer.service)}.events"
        self._client: Any = None
        self._broker = faststream.NatsBroker(
            credentials.url,
            security=faststream.NatsUserPassword(user, credentials.password) if user else None,
            name=f"{consumer.name} events",
            inbox_prefix=inbox,
            error_cb=_complained,
            disconnected_cb=self._disconnected,
            # Not `allow_reconnect=False`: without a connection the library would fetch in a tight loop.
            reconnect_time_wait=NEVER_SECONDS,
            logger=None,
            apply_types=False,
            serializer=None,
            graceful_timeout=STOP_SECONDS,
        )
        self._subscriber = self._broker.subscriber(
            consumer.filters[0],
            stream=faststream.JStream(consumer.stream, declare=False),
            durable=consumer.name,
            inbox_prefix=f"{inbox}.".encode(),
            # One at a time: the client holds a larger batch back until it is full or the time is up.
            pull_sub=faststream.PullSub(batch_size=1, timeout=FETCH_SECONDS),
            ack_policy=importlib.import_module("faststream").AckPolicy.MANUAL,
            decoder=_whole,
            no_reply=True,
            max_workers=HANDLED_AT_ONCE,
        )
        self._subscriber(receive)

    @property
    def alive(self) -> bool:
        """Whether its connection stands."""
        return self._client is not None and bool(self._client.is_connected)

    async def start(self) -> None:
        """Connect. Raises TimeoutError, and what the library raises."""
        async with asyncio.timeout(START_SECONDS):
            self._client = await self._broker.connect()
            await self._broker.start()

    async def stop(self) -> None:
        """Let what is handled finish. A library that is cut off from its server stops half-way; the rest is done
        here."""
        self._stopping = True
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._broker.stop()
        except Exception as error:
            log.debug("disconnecting: %s", error, exc_info=True)
        for task in self._subscriber.tasks:
            task.cancel()
        if self._client is not None:
            with suppress(Exception):
                await self._client.close()

    async def _disconnected(self) -> None:
        if not self._stopping:
            self._on_lost()


async def _complained(error: Exception) -> None:
    """The service's main connection tells of the same trouble, once and in its words."""
    log.debug("the connection reports %s", error or type(error).__name__)


async def _whole(message: Any) -> Any:
    """The handler decodes by itself, and acknowledges: it gets the message as it is."""
    return message
