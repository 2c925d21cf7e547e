"""Serving one durable pull consumer: fetches that wait at the server, bounded slots, and what happens to what fails."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aios_core.errors import AiosError, RetryableError
from aios_runtime.bus import subjects
from aios_runtime.bus.delivery import Delivered
from aios_runtime.bus.failures import Buried, dead_letter, verdict
from aios_runtime.bus.port import Batch, Message
from aios_runtime.bus.session import Session, end
from aios_runtime.bus.topology import Consumer
from aios_runtime.bus.tracing import Tracing

HEARTBEAT_SECONDS: Final = 5.0  # the server says this often that the fetch still waits
SILENCE_SECONDS: Final = 12.5  # without a sign of it the fetch is lost, and another one is sent
MISSING_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # before asking again for a consumer that isn't there yet

log = logging.getLogger("aios.bus")


class Owner(Protocol):
    """What a consumer needs of the bus that it belongs to."""

    tracing: Tracing
    buried: Buried

    @property
    def incarnation(self) -> str: ...

    async def acknowledge(self, session: Session, incarnation: str, reply: str, payload: bytes) -> None: ...

    async def publish(self, messages: Sequence[Message]) -> None: ...

    def suspect(self) -> None: ...


class PullConsumer:
    """Fetches for one consumer and hands what comes to its handler. `attach` it to every new session."""

    def __init__(
        self,
        owner: Owner,
        consumer: Consumer,
        inbox: str,
        handler: Batch,
        *,
        batch: int,
        slots: int,
        calls: int,
    ) -> None:
        if batch < 1 or slots < 1 or calls < 1:
            raise ValueError("batch, slots and calls are at least 1")
        self._owner = owner
        self._consumer = consumer
        self._inbox = f"{inbox}.{consumer.name}"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        self._handler = handler
        self._batch, self._slots, self._calls = batch, slots, calls
        self._session: Session | None = None
        self._subscription: Subscription | None = None
        self._waiting: deque[Delivered] = deque()  # at most `slots`
        self._handling: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._in_hand = 0  # delivered and not settled
        self._asked = 0  # fetched and not delivered
        self._fetches = 0
        self._heard = 0.0
        self._ordered = 0.0
        self._misses = 0
        self._closing = False
        self._pump: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._scheduled = False
        self._pause = 0.0

    async def attach(self, session: Session) -> None:
        """Fetch over this session from now on."""
        self._session = session
        stale = [d for d in self._waiting if d.incarnation != self._owner.incarnation]
        for delivery in stale:
            self._waiting.remove(delivery)
            delivery.let_go()
        if self._pump is None:
            self._pump = asyncio.create_task(self._fetch_always(), name=f"fetch {self._consumer.name}")
        self._reset()

    def release(self) -> None:
        """A slot is free again."""
        self._in_hand -= 1
        if self._asked * 2 <= self._slots:
            self._wake.set()
        if self._waiting:
            self._schedule()

    async def acknowledge(self, session: Session, incarnation: str, reply: str, payload: bytes) -> None:
        """Tell the broker what became of a delivery, if it is still the broker that made it."""
        await self._owner.acknowledge(session, incarnation, reply, payload)

    async def bury(self, delivery: Delivered, error: AiosError) -> None:
        """Keep it as a dead letter. Raises BUS_FAILED when it could not be stored."""
        log.error(
            "a message can't be handled and is kept as a dead letter",
            extra={
                "consumer": self._consumer.name,
                "subject": delivery.subject,
                "code": error.code,
                "why": error.message,
            },
        )
        letter = dead_letter(delivery.subject, delivery.data, delivery.headers, delivery.deliveries, error)
        subject = subjects.dead_letter(self._consumer.service, self._consumer.handler)
        await self._owner.publish([Message(subject, letter.SerializeToString())])
        self._owner.buried.note(delivery.subject, error)

    async def close(self, grace: float) -> None:
        """Fetch no more, give back what waits, let handlers finish within `grace` seconds."""
        self._closing = True
        if self._pump:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await self._unsubscribe()
        waiting, self._waiting = list(self._waiting), deque()
        for delivery in waiting:
            await delivery.retry()
        if self._handling:
            _, late = await asyncio.wait(self._handling, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _fetch_always(self) -> None:
        """Keep as many messages on order as there are free slots. It sleeps while nothing changes."""
        loop = asyncio.get_running_loop()
        while True:
            if self._pause:
                pause, self._pause = self._pause, 0.0
                await asyncio.sleep(pause)
            self._wake.clear()
            session = self._session
            try:
                if session is not None and session.alive:
                    if loop.time() - self._ordered > self._consumer.fetch + SILENCE_SECONDS:
                        self._asked = 0  # every fetch has run out; what it still lacked was lost on its way
                    if self._asked and loop.time() - self._heard > SILENCE_SECONDS:
                        log.warning(
                            "the bus is silent on a fetch; fetching anew",
                            extra={"consumer": self._consumer.name},
                        )
                        self._owner.suspect()
                        self._reset()
                    await self._order(session)
            except RetryableError:
                pass  # the session is lost; the next one is attached soon
            except Exception:
                log.exception("fetching failed by a defect", extra={"consumer": self._consumer.name})
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _order(self, session: Session) -> None:
        if self._subscription is None:
            self._fetches += 1
            subject = f"{self._inbox}.{self._fetches}"
            received = _Receiver(self, session, subject)
            self._subscription = await session.subscribe(subject, received.receive, limit=self._slots + 1024)
        free = self._slots - self._in_hand - self._asked
        if free <= 0 or self._asked * 2 > self._slots:
            return
        order = {"batch": free, "expires": int(self._consumer.fetch * 1e9)}
        if self._consumer.fetch > 2 * HEARTBEAT_SECONDS:  # otherwise its end is sign enough
            order["idle_heartbeat"] = int(HEARTBEAT_SECONDS * 1e9)
        if not self._asked:
            self._heard = asyncio.get_running_loop().time()
        self._ordered = asyncio.get_running_loop().time()
        self._asked += free
        await session.send(self._next, json.dumps(order).encode(), reply=f"{self._inbox}.{self._fetches}")

    def _reset(self) -> None:
        """Forget the fetches under way: nothing that still comes for them is taken."""
        self._asked = 0
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            task = asyncio.ensure_future(end(subscription))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self._wake.set()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await end(subscription)

    def received(self, session: Session, fetch: str, message: Msg) -> None:
        """A message, or what the server says of a fetch."""
        if (
            session is not self._session
            or fetch != f"{self._inbox}.{self._fetches}"
            or self._subscription is None
        ):
            return
        self._heard = asyncio.get_running_loop().time()
        if message.headers and "Status" in message.headers and not message.reply.startswith("$JS.ACK."):
            self._status(message.headers)
            return
        self._misses = 0
        self._asked = max(0, self._asked - 1)
        self._in_hand += 1
        self._waiting.append(Delivered(self, session, self._owner.incarnation, message))
        self._schedule()
        if self._asked * 2 <= self._slots:
            self._wake.set()

    def _status(self, headers: Mapping[str, str]) -> None:
        status = headers["Status"]
        if status == "100":
            return
        if status in ("404", "408") or "Nats-Pending-Messages" in headers:
            self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked)))
        else:
            self._asked = 0
        if status not in ("404", "408"):
            # The consumer isn't there yet, was deleted, or its leader moves.
            self._pause = MISSING_SECONDS[min(self._misses, len(MISSING_SECONDS) - 1)]
            self._misses += 1
            if self._misses > len(MISSING_SECONDS):
                self._owner.suspect()
        self._wake.set()

    def _schedule(self) -> None:
        """Messages that came together are handed over together."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._handling) < self._calls and not self._closing:
            deliveries = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            task = asyncio.create_task(self._handle(deliveries), name=self._consumer.name)
            self._handling.add(task)
            task.add_done_callback(self._handled)

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        if self._waiting:
            self._schedule()

    async def _handle(self, deliveries: Sequence[Delivered]) -> None:
        try:
            await self._attempt(deliveries)
        except RetryableError:
            pass  # the bus is gone: what is not settled comes again
        finally:
            for delivery in deliveries:
                delivery.let_go()

    async def _attempt(self, deliveries: Sequence[Delivered]) -> None:
        first = deliveries[0]
        headers = first.headers if len(deliveries) == 1 else {}
        try:
            with self._owner.tracing.span("process", subjects.template(first.subject), headers):
                await self._handler(deliveries)
        except Exception as error:
            if not isinstance(error, AiosError):
                log.exception(
                    "a handler failed by a defect",
                    extra={"consumer": self._consumer.name, "messages": len(deliveries)},
                )
            await self._judge([delivery for delivery in deliveries if not delivery.settled], error)

    async def _judge(self, deliveries: Sequence[Delivered], error: Exception) -> None:
        """What fails for now comes again. Otherwise one bad message must not take the others with it: each is tried by
        itself."""
        if len(deliveries) > 1 and not isinstance(error, RetryableError):
            for delivery in deliveries:
                await self._attempt([delivery])
            return
        for delivery in deliveries:
            decided = verdict(error, delivery.deliveries)
            if isinstance(decided, AiosError):
                await delivery.dead(decided)
            else:
                await delivery.retry(decided)


class _Receiver:
    """Ties what comes to the fetch that it came for."""

    __slots__ = ("_consumer", "_fetch", "_session")

    def __init__(self, consumer: PullConsumer, session: Session, fetch: str) -> None:
        self._consumer, self._session, self._fetch = consumer, session, fetch

    async def receive(self, message: Msg) -> None:
        self._consumer.received(self._session, self._fetch, message)
