"""A service's connection to the bus: the port over NATS."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final

from nats.aio.msg import Msg
from nats.nuid import NUID

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects, topology
from aios_runtime.bus.consumer import PullConsumer
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.bus.port import MAX_MESSAGE_BYTES, Answer, Batch, Delivery, Message
from aios_runtime.bus.replies import pack, unpack
from aios_runtime.bus.session import Session, Waiting, check_size, lost
from aios_runtime.bus.subjects import HEADER_REPLY
from aios_runtime.bus.tracing import PassThrough, Tracing

WINDOW_MESSAGES: Final = 512  # unconfirmed at once in a publish
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOWS: Final = 4  # publishes that have messages unconfirmed at once; the others wait
ANSWERS_AT_ONCE: Final = 64
ANSWERS_WAITING: Final = 1024  # questions past these are dropped: who asked gets DEADLINE_EXCEEDED
RECONNECT_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SETTLE_SECONDS: Final = 10.0  # an acknowledgement waits so long for a new connection; then the message comes again
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
        self._answers: list[_Answers] = []
        self._consumers: list[PullConsumer] = []
        self._commands: dict[str, _Command] = {}
        self._tokens = count(1)
        self._callbacks: list[Callable[[bool], Awaitable[None]]] = []
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
            credentials, service=service, connectors=connectors, tracing=tracing, declares=declares, replicas=replicas
        )
        bus._keeper = asyncio.create_task(bus._keep(), name=f"bus {service}")
        bus._teller = asyncio.create_task(bus._tell(), name=f"bus news {service}")
        ready = asyncio.create_task((bus._verified if bus._declares else bus._connected).wait())
        done, _ = await asyncio.wait([ready, bus._keeper], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
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
                "DEADLINE_EXCEEDED", f"{subjects.template(message.subject)} was not answered within {timeout:g} s."
            ) from None
        finally:
            self._commands.pop(token, None)
            if self._session is not None:
                self._session.forget_reply(token)

    async def ask(self, subject: str, data: bytes, timeout: float, headers: Mapping[str, str] | None = None) -> bytes:
        message = Message(subject, data, headers=headers or {})
        return unpack(await self._alive().request(subject, data, self._headers(message), timeout))

    async def reply(self, delivery: Delivery, payload: bytes | AiosError) -> None:
        inbox = delivery.headers.get(HEADER_REPLY, "")
        if not inbox.startswith("aios.inbox."):
            return  # nobody waits, or the sender wants us to speak elsewhere in our name
        try:
            await self._alive().send(inbox, _fitting(inbox, payload))
        except RetryableError:
            log.debug("an answer found no bus; who waits asks again")

    async def answer(self, subject: str, handler: Answer, *, queue: str) -> None:
        answers = _Answers(subject, handler, queue, self.tracing)
        self._answers.append(answers)
        if self._session is not None and self._session.alive:
            await answers.attach(self._session)
            await self._session.flush(FLUSH_SECONDS)  # whoever asks from now on is answered

    async def consume(self, consumer: str, handler: Batch, *, batch: int, slots: int, calls: int = 8) -> None:
        known = {entry.name: entry for entry in topology.consumers(self._connectors)}
        if consumer not in known:
            raise TerminalError(
                "INVALID_ARGUMENT", f"{consumer!r} is no consumer of the topology; there are {', '.join(sorted(known))}."
            )
        pull = PullConsumer(self, known[consumer], self._inbox, handler, batch=batch, slots=slots, calls=calls)
        self._consumers.append(pull)
        if self._session is not None and self._verified.is_set():
            await pull.attach(self._session)

    def on_restart(self, callback: Callable[[bool], Awaitable[None]]) -> None:
        self._callbacks.append(callback)

    async def close(self, grace: float = 5.0) -> None:
        self._closing = True
        await asyncio.gather(*(consumer.close(grace) for consumer in self._consumers))
        await asyncio.gather(*(answers.close(grace) for answers in self._answers))
        tasks = [task for task in (self._keeper, self._teller) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            try:
                await self._session.flush(max(grace, 0.1))
            except RetryableError:
                pass
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
            try:
                await self._session.send(reply, payload)
            except RetryableError:
                pass  # it comes again; that is what at least once means

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
                return await session.store([(command.message, command.headers)])
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
            for answers in self._answers:
                await answers.attach(session)
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


class _Answers:
    """Questions on one subject, at most `ANSWERS_AT_ONCE` at once."""

    def __init__(self, subject: str, handler: Answer, queue: str, tracing: Tracing) -> None:
        self._subject, self._handler, self._queue, self._tracing = subject, handler, queue, tracing
        self._places = asyncio.Semaphore(ANSWERS_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def attach(self, session: Session) -> None:
        async def asked(message: Msg) -> None:
            await self._places.acquire()
            task = asyncio.create_task(self._answer(session, message), name=f"answer {self._subject}")
            self._running.add(task)
            task.add_done_callback(self._answered)

        await session.subscribe(self._subject, asked, queue=self._queue, limit=ANSWERS_WAITING)

    async def close(self, grace: float) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()

    async def _answer(self, session: Session, message: Msg) -> None:
        headers = message.headers or {}
        try:
            with self._tracing.span("answer", subjects.template(message.subject), headers):
                result: bytes | AiosError = await self._handler(message.data, headers)
        except AiosError as error:
            result = error
        except Exception as error:
            log.exception("a question failed by a defect", extra={"subject": subjects.template(message.subject)})
            result = TerminalError("INTERNAL", f"The answering service failed by a defect ({type(error).__name__}).")
        try:
            await session.send(message.reply, _fitting(message.subject, result))
        except RetryableError:
            log.debug("an answer found no bus; who waits asks again")


def _fitting(subject: str, result: bytes | AiosError) -> bytes:
    """The encoded Reply, or one that says that the answer is too large."""
    data = pack(result)
    if len(data) <= MAX_MESSAGE_BYTES:
        return data
    return pack(
        TerminalError(
            "TOO_LARGE",
            f"The answer to {subjects.template(subject)} has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are allowed."
            " Ask for less at once.",
        )
    )


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
