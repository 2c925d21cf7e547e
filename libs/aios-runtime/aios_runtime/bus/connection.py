"""A service's connection to the bus: the port over NATS."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError, ServiceUnavailableError
from nats.nuid import NUID

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects, topology
from aios_runtime.bus.answers import Answers, Listener, fitting
from aios_runtime.bus.consumer import PullConsumer
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.bus.port import Answer, Batch, Delivery, Message, Receive
from aios_runtime.bus.replies import unpack
from aios_runtime.bus.session import Session, Waiting, check_size, lost
from aios_runtime.bus.subjects import HEADER_REPLY
from aios_runtime.bus.tracing import PassThrough, Tracing

WINDOW_MESSAGES: Final = 512  # unconfirmed at once in a publish
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOWS: Final = 4  # publishes that have messages unconfirmed at once; the others wait
RECONNECT_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SETTLE_SECONDS: Final = (
    10.0  # an acknowledgement waits so long for a new connection; then the message comes again
)
VERIFY_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FLUSH_SECONDS: Final = 5.0
TELL_AGAIN_SECONDS: Final = 0.5

log = logging.getLogger("aios.bus")


class NatsBus:
    """The bus port over one NATS connection at a time; a lost one is replaced. Make it with `connect`."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        service: str,
        connectors: Sequence[str] = topology.DEFAULT_CONNECTORS,
        tracing: Tracing | None = None,
        declares: bool | None = None,
        replicas: int = 1,
    ) -> None:
        self.tracing: Tracing = tracing or PassThrough()
        self._credentials = credentials
        self._service = service
        self._connectors = tuple(connectors)
        self._declares = service == topology.TOPOLOGY_OWNER if declares is None else declares
        self._replicas = replicas
        self._inbox = f"{subjects.inbox(service)}.{NUID().next().decode()}"
        self._session: Session | None = None
        self._incarnation = ""
        self._verified = asyncio.Event()
        self._connected = asyncio.Event()
        self._windows = asyncio.Semaphore(WINDOWS)
        self._subscriptions: list[Answers | Listener] = []
        self._consumers: list[PullConsumer] = []
        self._commands: dict[str, _Command] = {}
        self._tokens = count(1)
        self._callbacks: list[Callable[[bool], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._teller: asyncio.Task[None] | None = None
        self._suspected = asyncio.Event()
        self._news = asyncio.Event()
        self._wiped = False
        self._closing = False

    @classmethod
    async def connect(
        cls,
        credentials: Credentials,
        *,
        service: str,
        connectors: Sequence[str] = topology.DEFAULT_CONNECTORS,
        tracing: Tracing | None = None,
        declares: bool | None = None,
        replicas: int = 1,
        timeout: float = 10.0,
    ) -> "NatsBus":
        """Connect as `service` within `timeout` seconds.

        The orchestrator (or who `declares`) makes the topology before this returns; the others don't wait for it: what
        they publish raises BUS_FAILED until it is there, what they consume begins then.
        Raises BUS_FAILED, UNAUTHENTICATED.
        """
        bus = cls(
            credentials,
            service=service,
            connectors=connectors,
            tracing=tracing,
            declares=declares,
            replicas=replicas,
        )
        bus._keeper = asyncio.create_task(bus._keep(), name=f"bus {service}")
        bus._teller = asyncio.create_task(bus._tell(), name=f"bus news {service}")
        ready = asyncio.create_task((bus._verified if bus._declares else bus._connected).wait())
        done, _ = await asyncio.wait(
            [ready, bus._keeper], timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if ready in done:
            return bus
        ready.cancel()
        failure = bus._keeper.exception() if bus._keeper in done else None
        await bus.close(0)
        raise failure or RetryableError("BUS_FAILED", f"No message bus answers at {credentials.url}.")

    @property
    def incarnation(self) -> str:
        """The broker as this connection knows it; empty until it was asked."""
        return self._incarnation

    @property
    def connected(self) -> bool:
        """Whether there is a server now."""
        return self._session is not None and self._session.alive

    async def publish(self, messages: Sequence[Message]) -> None:
        prepared = [(message, self._headers(message)) for message in messages]
        for window in _windows(prepared):
            async with self._windows:
                await self._alive().store(window)

    async def command(self, message: Message, timeout: float) -> bytes:
        token = f"c{next(self._tokens)}"
        headers = {**self._headers(message), HEADER_REPLY: f"{self._inbox}.{token}"}
        check_size(message, headers)
        command = _Command(message, headers, Waiting(1, stored=False, subjects=[message.subject]))
        self._commands[token] = command
        try:
            async with asyncio.timeout(timeout):
                await self._deliver(token, command)
                return unpack(await command.waiting.future)
        except TimeoutError:
            raise RetryableError(
                "DEADLINE_EXCEEDED",
                f"{subjects.template(message.subject)} was not answered within {timeout:g} s.",
            ) from None
        finally:
            self._commands.pop(token, None)
            if self._session is not None:
                self._session.forget_reply(token)

    async def ask(
        self, subject: str, data: bytes, timeout: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        message = Message(subject, data, headers=headers or {})
        return unpack(await self._alive().request(subject, data, self._headers(message), timeout))

    async def reply(self, delivery: Delivery, payload: bytes | AiosError) -> None:
        inbox = delivery.headers.get(HEADER_REPLY, "")
        if not inbox.startswith("aios.inbox."):
            return  # nobody waits, or the sender wants us to speak elsewhere in our name
        try:
            await self._alive().send(inbox, fitting(inbox, payload))
        except RetryableError:
            log.debug("an answer found no bus; who waits asks again")

    async def answer(self, subject: str, handler: Answer, *, queue: str) -> None:
        answers = Answers(subject, handler, queue, self.tracing)
        self._subscriptions.append(answers)
        await self._attach_now(answers)

    async def consume(self, consumer: str, handler: Batch, *, batch: int, slots: int, calls: int = 8) -> None:
        entry = self.consumer(consumer)
        pull = PullConsumer(self, entry, self._inbox, handler, batch=batch, slots=slots, calls=calls)
        self._consumers.append(pull)
        if self._session is not None and self._verified.is_set():
            await pull.attach(self._session)

    async def subscribe(self, consumer: str, handler: Receive) -> None:
        from aios_runtime.bus.durable import (
            DurableSubscriber,
        )  # only where it is used: its library is slow to load

        await DurableSubscriber(self, self.consumer(consumer), handler).start()

    async def listen(self, subject: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        listener = Listener(subject, handler)
        self._subscriptions.append(listener)
        await self._attach_now(listener)

    async def _attach_now(self, subscription: "Answers | Listener") -> None:
        session = self._session
        if session is not None and session.alive:
            await subscription.attach(session)
            await session.flush(FLUSH_SECONDS)  # whatever is sent from now on arrives

    def consumer(self, name: str) -> topology.Consumer:
        """An entry of the topology's table. Raises INVALID_ARGUMENT."""
        known = {entry.name: entry for entry in topology.consumers(self._connectors)}
        if name not in known:
            names = ", ".join(sorted(known))
            raise TerminalError(
                "INVALID_ARGUMENT", f"{name!r} is no consumer of the topology; there are {names}."
            )
        return known[name]

    @property
    def credentials(self) -> Credentials:
        """How it connects, for what must hold a connection of its own."""
        return self._credentials

    async def until_there(self, consumer: topology.Consumer) -> None:
        """Wait until the broker has the consumer. Raises BUS_FAILED when the connection is lost meanwhile."""
        await self._verified.wait()
        js = self._alive().jetstream()
        for attempt in count():
            try:
                await js.consumer_info(consumer.stream, consumer.name)
                return
            except (NotFoundError, ServiceUnavailableError):
                await asyncio.sleep(VERIFY_SECONDS[min(attempt, len(VERIFY_SECONDS) - 1)])
                self._alive()
            except (NatsError, OSError) as error:
                raise lost() from error

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        self._closers.append(callback)

    def on_restart(self, callback: Callable[[bool], Awaitable[None]]) -> None:
        self._callbacks.append(callback)

    async def close(self, grace: float = 5.0) -> None:
        self._closing = True
        await asyncio.gather(*(callback() for callback in self._closers))
        await asyncio.gather(*(consumer.close(grace) for consumer in self._consumers))
        await asyncio.gather(*(subscription.close(grace) for subscription in self._subscriptions))
        tasks = [task for task in (self._keeper, self._teller) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            with suppress(RetryableError):
                await self._session.flush(max(grace, 0.1))
            await self._session.close()

    async def acknowledge(self, session: Session, incarnation: str, reply: str, payload: bytes) -> None:
        """Tell the broker what became of a delivery. A broker that has lost everything since is not told: the
        acknowledgement would meet another message under the same number."""
        if session is not self._session or not session.alive:
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._verified.wait()
            except TimeoutError:
                return
        if self._session is not None and self._incarnation == incarnation:
            with suppress(RetryableError):  # it comes again; that is what at least once means
                await self._session.send(reply, payload)

    def suspect(self) -> None:
        """Something is missing: look whether the broker has lost its streams."""
        self._suspected.set()

    def _alive(self) -> Session:
        if self._session is None or not self._session.alive:
            raise lost()
        return self._session

    def _headers(self, message: Message) -> dict[str, str]:
        headers = dict(message.headers)
        if message.message_id:
            headers["Nats-Msg-Id"] = message.message_id
        self.tracing.inject(headers)
        check_size(message, headers)
        return headers

    async def _deliver(self, token: str, command: "_Command") -> None:
        """Until the broker has it: a command may be repeated, since its request id makes that safe."""
        for attempt in count():
            await self._connected.wait()
            session = self._session
            try:
                if session is None:
                    raise lost()
                session.expect_reply(token, command.waiting)
                await session.store([(command.message, command.headers)])
                return
            except RetryableError:
                await asyncio.sleep(RECONNECT_SECONDS[min(attempt, len(RECONNECT_SECONDS) - 1)])

    async def _keep(self) -> None:
        """Connect, serve until the connection is lost, and again. Ends only when the first one is refused."""
        failures = 0
        while True:
            try:
                session = await Session.open(self._credentials, self._inbox, self._service)
            except AiosError as error:
                if not error.retryable and not self._incarnation:
                    raise
                await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            await self._serve(session)
            log.warning("the connection to the bus was lost", extra={"service": self._service})

    async def _serve(self, session: Session) -> None:
        self._session = session
        for token, command in self._commands.items():
            session.expect_reply(token, command.waiting)
        lost_again = asyncio.ensure_future(session.lost.wait())
        verifying = asyncio.create_task(self._verify_always(session), name="verify the bus")
        try:
            for subscription in self._subscriptions:
                await subscription.attach(session)
            await session.flush(FLUSH_SECONDS)
            self._connected.set()
            await asyncio.wait([lost_again, verifying], return_when=asyncio.FIRST_COMPLETED)
            if verifying.done() and not self._incarnation:
                verifying.result()
        except RetryableError:
            pass
        finally:
            self._connected.clear()
            self._verified.clear()
            lost_again.cancel()
            verifying.cancel()
            await asyncio.gather(verifying, return_exceptions=True)
            if not self._closing:
                await session.close()

    async def _verify_always(self, session: Session) -> None:
        """Find out what the broker is, now and whenever something is missing."""
        fresh = True
        while True:
            self._suspected.clear()
            before, self._incarnation = self._incarnation, await self._identify(session)
            wiped = bool(before) and before != self._incarnation
            self._verified.set()
            if fresh or wiped:
                for consumer in self._consumers:
                    await consumer.attach(session)
            if wiped:
                log.warning("the bus has lost everything it held", extra={"service": self._service})
                for command in list(self._commands.values()):
                    await session.store([(command.message, command.headers)])
            if before and (fresh or wiped):
                self._wiped |= wiped
                self._news.set()
            fresh = False
            await self._suspected.wait()

    async def _identify(self, session: Session) -> str:
        """The broker's incarnation, once its streams are there."""
        js = session.jetstream()
        for attempt in count():
            try:
                if self._declares:
                    await topology.declare(js, self._connectors, self._replicas)
                found = await topology.incarnation(js)
            except RetryableError:
                found = ""
            if found:
                return found
            await asyncio.sleep(VERIFY_SECONDS[min(attempt, len(VERIFY_SECONDS) - 1)])
        raise AssertionError("counting never ends")

    async def _tell(self) -> None:
        """Call back after each reconnection; never in the middle of a call for an earlier one."""
        while True:
            await self._news.wait()
            self._news.clear()
            wiped, self._wiped = self._wiped, False
            for callback in self._callbacks:
                try:
                    await callback(wiped)
                except RetryableError as error:
                    log.warning("after a reconnection: %s; it is tried again", error)
                    self._wiped |= wiped
                    await asyncio.sleep(TELL_AGAIN_SECONDS)
                    self._news.set()
                except Exception:
                    log.exception("what follows a reconnection failed by a defect")


class _Command:
    """A command that waits for its answer."""

    __slots__ = ("headers", "message", "waiting")

    def __init__(self, message: Message, headers: Mapping[str, str], waiting: Waiting) -> None:
        self.message, self.headers, self.waiting = message, headers, waiting


def _windows(
    messages: Sequence[tuple[Message, Mapping[str, str]]],
) -> Iterator[list[tuple[Message, Mapping[str, str]]]]:
    """The messages in runs of at most `WINDOW_MESSAGES` and, but for a single one, `WINDOW_BYTES`."""
    window: list[tuple[Message, Mapping[str, str]]] = []
    size = 0
    for message, headers in messages:
        if window and (len(window) == WINDOW_MESSAGES or size + len(message.data) > WINDOW_BYTES):
            yield window
            window, size = [], 0
        window.append((message, headers))
        size += len(message.data)
    if window:
        yield window
