"""A service's connection to the bus: the port over NATS."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from nats.nuid import NUID

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects, topology
from aios_runtime.bus.answers import Answers, Listener
from aios_runtime.bus.consumer import PullConsumer
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.bus.failures import Buried
from aios_runtime.bus.keeper import Keeper
from aios_runtime.bus.port import Answer, Batch, Delivery, Message, Receive
from aios_runtime.bus.replies import IN_PARTS, in_parts, unpack
from aios_runtime.bus.session import Session, Waiting, check_size
from aios_runtime.bus.subjects import HEADER_REPLY
from aios_runtime.bus.tracing import PassThrough, Tracing

WINDOW_MESSAGES: Final = 512  # unconfirmed at once in a publish
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOWS: Final = 4  # publishes that have messages unconfirmed at once; the others wait
REPEAT_SECONDS: Final = (
    0.01,
    0.05,
    0.1,
    0.2,
    0.5,
)  # before a command is published again; then the last again
SETTLE_SECONDS: Final = (
    10.0  # an acknowledgement waits so long for a connection; then the message comes again
)
FLUSH_SECONDS: Final = 5.0

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
        why_not: Callable[[], AiosError | None] = lambda: None,
    ) -> None:
        self.tracing: Tracing = tracing or PassThrough()
        self._credentials = credentials
        self._connectors = tuple(connectors)
        self._inbox = f"{subjects.inbox(service)}.{NUID().next().decode()}"
        self._windows = asyncio.Semaphore(WINDOWS)
        self._subscriptions: list[Answers | Listener] = []
        self._consumers: list[PullConsumer] = []
        self.buried = Buried()
        self._commands: dict[str, _Command] = {}
        self._tokens = count(1)
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self.keeper = Keeper(
            credentials,
            service,
            self._inbox,
            declares=service == topology.TOPOLOGY_OWNER if declares is None else declares,
            connectors=self._connectors,
            replicas=replicas,
            why_not=why_not,
            attach=self._attach,
            verified=self._serve,
        )

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
        why_not: Callable[[], AiosError | None] = lambda: None,
        timeout: float = 10.0,
    ) -> "NatsBus":
        """Connect as `service` within `timeout` seconds.

        The orchestrator (or who `declares`) makes the topology before this returns; the others don't wait for it: what
        they publish raises BUS_FAILED until it is there, what they consume begins then.
        `why_not` says why there is no bus, where that can be known.
        Raises BUS_FAILED, UNAUTHENTICATED.
        """
        bus = cls(
            credentials,
            service=service,
            connectors=connectors,
            tracing=tracing,
            declares=declares,
            replicas=replicas,
            why_not=why_not,
        )
        try:
            await bus.keeper.start(timeout)
        except BaseException:
            await bus.close(0)
            raise
        return bus

    @property
    def incarnation(self) -> str:
        """The broker as this connection knows it; empty until it was asked."""
        return self.keeper.incarnation

    @property
    def connected(self) -> bool:
        """Whether there is a server now."""
        return self.keeper.session is not None

    @property
    def trouble(self) -> str:
        """Why there is no bus to work with, in words; empty when there is."""
        return self.keeper.trouble

    @property
    def credentials(self) -> Credentials:
        """How it connects, for what must hold a connection of its own."""
        return self._credentials

    async def publish(self, messages: Sequence[Message]) -> None:
        prepared = [(message, self._headers(message)) for message in messages]
        for window in _windows(prepared):
            async with self._windows:
                await self.keeper.alive().store(window)

    async def command(self, message: Message, timeout: float) -> bytes:
        token = f"c{next(self._tokens)}"
        headers = {**self._headers(message), **IN_PARTS, HEADER_REPLY: f"{self._inbox}.{token}"}
        check_size(message, headers)
        command = _Command(message, headers, Waiting(1, stored=False, subjects=[message.subject]))
        self._commands[token] = command
        try:
            async with asyncio.timeout(timeout):
                await self._deliver(token, command)
                return unpack(await command.waiting.future)
        except TimeoutError:
            self.keeper.alive()
            raise RetryableError(
                "DEADLINE_EXCEEDED",
                f"{subjects.template(message.subject)} was not answered within {timeout:g} s.",
            ) from None
        finally:
            self._commands.pop(token, None)
            if self.keeper.session is not None:
                self.keeper.session.forget_reply(token)

    async def ask(
        self, subject: str, data: bytes, timeout: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        message = Message(subject, data, headers=headers or {})
        asked = {**self._headers(message), **IN_PARTS}
        return unpack(await self.keeper.alive().request(subject, data, asked, timeout))

    async def ping(self, timeout: float) -> None:
        await self.keeper.alive().flush(timeout)

    async def reply(self, delivery: Delivery, payload: bytes | AiosError) -> None:
        inbox = delivery.headers.get(HEADER_REPLY, "")
        if not inbox.startswith(subjects.INBOXES):
            return  # nobody waits, or the sender wants us to speak elsewhere in our name
        try:
            for data, part in in_parts(inbox, payload, delivery.headers):
                await self.keeper.alive().send(inbox, data, headers=part)
        except RetryableError:
            log.debug("an answer found no bus; who waits asks again")

    async def answer(self, subject: str, handler: Answer, *, queue: str) -> None:
        await self._begin(Answers(subject, handler, queue, self.tracing))

    async def consume(self, consumer: str, handler: Batch, *, batch: int, slots: int, calls: int = 8) -> None:
        entry = self.consumer(consumer)
        pull = PullConsumer(self, entry, self._inbox, handler, batch=batch, slots=slots, calls=calls)
        self._consumers.append(pull)
        if self.keeper.verified.is_set():
            await pull.attach(self.keeper.alive())

    async def subscribe(self, consumer: str, handler: Receive) -> None:
        # Only where it is used: its library is slow to load.
        from aios_runtime.bus.durable import DurableSubscriber

        await DurableSubscriber(self, self.consumer(consumer), handler).start()

    async def listen(self, subject: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        await self._begin(Listener(subject, handler))

    async def _begin(self, subscription: Answers | Listener) -> None:
        self._subscriptions.append(subscription)
        session = self.keeper.session
        if session is not None:
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

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        self._closers.append(callback)

    def on_restart(self, callback: Callable[[bool], Awaitable[None]]) -> None:
        self.keeper.listen(callback)

    async def drain(self, grace: float = 5.0) -> None:
        closers, self._closers = self._closers, []
        for failure in await asyncio.gather(*(callback() for callback in closers), return_exceptions=True):
            if failure is not None:
                log.error("closing goes on after a failure", exc_info=failure)
        consumers, self._consumers = self._consumers, []
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(part.close(grace) for part in (*consumers, *subscriptions)))

    async def close(self, grace: float = 5.0) -> None:
        await self.drain(grace)
        if self.keeper.session is not None:
            with suppress(RetryableError):
                await self.keeper.session.flush(max(grace, 0.1))
        await self.keeper.close()

    async def acknowledge(self, session: Session, incarnation: str, reply: str, payload: bytes) -> None:
        """Tell the broker what became of a delivery. A broker that has lost everything since is not told: the
        acknowledgement would meet another message under the same number."""
        if session is not self.keeper.session:
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self.keeper.verified.wait()
            except TimeoutError:
                return
        if self.keeper.incarnation == incarnation:
            with suppress(RetryableError):  # it comes again; that is what at least once means
                await self.keeper.alive().send(reply, payload)

    def suspect(self) -> None:
        """Something is missing: look whether the broker has lost its streams."""
        self.keeper.suspect()

    async def _attach(self, session: Session) -> None:
        """All that listens does so on the new session."""
        for token, command in self._commands.items():
            session.expect_reply(token, command.waiting)
        for subscription in list(self._subscriptions):
            await subscription.attach(session)
        await session.flush(FLUSH_SECONDS)

    async def _serve(self, session: Session) -> None:
        """The broker is known: fetch from it, and repeat the commands whose answers may have been lost."""
        for consumer in list(self._consumers):
            await consumer.attach(session)
        for command in list(self._commands.values()):
            with suppress(AiosError):  # who waits for it is told by its own time-out
                await session.store([(command.message, command.headers)])

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
            await self.keeper.connected.wait()
            try:
                session = self.keeper.alive()
                session.expect_reply(token, command.waiting)
                await session.store([(command.message, command.headers)])
                return
            except RetryableError:
                await asyncio.sleep(REPEAT_SECONDS[min(attempt, len(REPEAT_SECONDS) - 1)])


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
