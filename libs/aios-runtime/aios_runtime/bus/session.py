"""One connection to the broker, from its making to its loss: it is never mended, a new one takes its place.

So nothing that was meant for a broker that went away (an acknowledgement, say) can reach the one that came after it.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.bus.port import MAX_MESSAGE_BYTES, Message
from aios_runtime.bus.replies import Parts
from aios_runtime.bus.topology import API_SECONDS

CONNECT_SECONDS: Final = 2
CONNECT_PAUSE_SECONDS: Final = 0.01  # the client tries twice; further tries are ours
PING_SECONDS: Final = 5  # a server that answers none of two pings is gone
PINGS_UNANSWERED: Final = 2
ACK_SECONDS: Final = 5.0  # for the broker to say that it stored a message
WRITE_BUFFER_BYTES: Final = 8 * 1024 * 1024
INBOX_PENDING_MESSAGES: Final = 65_536

_DENIED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')
_MESSAGE_TOO_LARGE: Final = 10054  # the server's code

log = logging.getLogger("aios.bus")


def lost() -> RetryableError:
    """What is raised while there is no server."""
    return RetryableError(
        "BUS_FAILED", "The message bus is not there now; AIOS reconnects by itself.", retry_after=1.0
    )


def size_of(message: Message, headers: Mapping[str, str]) -> int:
    """Bytes of a message as the server counts them: headers and payload."""
    if not headers:
        return len(message.data)
    return (
        14
        + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
        + len(message.data)
    )


def check_size(message: Message, headers: Mapping[str, str]) -> None:
    """Raises TOO_LARGE before the server would drop the connection for it."""
    size = size_of(message, headers)
    if size > MAX_MESSAGE_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"The message for {message.subject} has {size} bytes; at most {MAX_MESSAGE_BYTES} are allowed. Store"
            " what is large as an artifact and send its pointer.",
            subject=message.subject,
            bytes=str(size),
        )


class Waiting:
    """Answers that somebody waits for: `expected` acknowledgements, or one answer."""

    __slots__ = ("expected", "future", "parts", "stored", "subjects")

    def __init__(self, expected: int, stored: bool, subjects: Sequence[str]) -> None:
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.expected = expected
        self.stored = stored
        self.subjects = subjects
        self.parts: Parts | None = None

    def receive(self, message: Msg) -> None:
        if self.future.done():
            return
        if message.headers and message.headers.get("Status") == "503":
            self.fail(_nobody(self.stored, self.subjects[0]))
        elif self.stored and message.data.startswith(b'{"error"'):
            self.fail(_refused(message.data, self.subjects[0]))
        elif message.headers and (part := message.headers.get(subjects.HEADER_PART)):
            self.parts = self.parts or Parts()
            if (whole := self.parts.add(part, message.data)) is not None:
                self.future.set_result(whole)
        else:
            self.expected -= 1
            if not self.expected:
                self.future.set_result(message.data)

    def fail(self, error: AiosError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _nobody(stored: bool, subject: str) -> AiosError:
    if stored:
        return RetryableError(
            "BUS_FAILED", f"No stream takes {subject} now; the bus is being set up.", retry_after=0.2
        )
    return RetryableError(
        "UNAVAILABLE", f"Nobody answers {subject} now; the service is starting or stopped.", retry_after=0.5
    )


def _refused(data: bytes, subject: str) -> AiosError:
    error = json.loads(data).get("error", {})
    why = str(error.get("description", "no reason given"))
    if error.get("err_code") == _MESSAGE_TOO_LARGE:
        return TerminalError(
            "TOO_LARGE", f"The bus refuses the message for {subject}: {why}.", subject=subject
        )
    return RetryableError(
        "BUS_FAILED", f"The bus can't store the message for {subject}: {why}.", retry_after=1.0
    )


class _Client(Client):
    """The client, closing all the way on a broken connection.

    Its own closing first sends what is buffered; where that fails it stops there, tells nobody, and leaves tasks
    behind.
    """

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._pending = []
        self._pending_data_size = 0
        await super()._close(status, do_cbs)


class Session:
    """A live connection with one inbox, to which every acknowledgement and answer comes."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self._client = _Client()
        self._tokens = count(1)
        self._waiting: dict[str, Waiting] = {}
        self._replies: dict[str, Waiting] = {}
        self.lost = asyncio.Event()

    @property
    def alive(self) -> bool:
        return not self.lost.is_set() and self._client.is_connected

    @classmethod
    async def open(cls, credentials: Credentials, inbox: str, name: str) -> "Session":
        """Connect. Raises BUS_FAILED when there is no server, UNAUTHENTICATED when it refuses the password."""
        session = cls(inbox)
        try:
            await session._client.connect(
                servers=[credentials.url],
                user=credentials.user,
                password=credentials.password,
                name=name,
                allow_reconnect=False,
                connect_timeout=CONNECT_SECONDS,
                reconnect_time_wait=CONNECT_PAUSE_SECONDS,  # type: ignore[arg-type]
                max_reconnect_attempts=1,
                ping_interval=PING_SECONDS,
                max_outstanding_pings=PINGS_UNANSWERED,
                pending_size=WRITE_BUFFER_BYTES,
                inbox_prefix=inbox.encode(),
                error_cb=session._on_error,
                closed_cb=session._on_closed,
            )
            session._watch_reading()
            await session.subscribe(f"{inbox}.*", session._on_inbox, limit=INBOX_PENDING_MESSAGES)
        except (nats.errors.Error, OSError, TimeoutError, RetryableError) as error:
            await session.close()
            if "authorization violation" in str(error).lower():
                raise TerminalError(
                    "UNAUTHENTICATED", f"The bus refuses the password of {credentials.user}."
                ) from None
            raise lost() from error
        except BaseException:
            await session.close()
            raise
        return session

    def jetstream(self) -> JetStreamContext:
        """The broker's management interface."""
        return self._client.jetstream(timeout=API_SECONDS)

    async def subscribe(
        self, subject: str, receive: Callable[[Msg], Awaitable[None]], *, queue: str = "", limit: int
    ) -> Subscription:
        """Have `receive` called for every message; past `limit` waiting ones they are dropped. Raises BUS_FAILED."""
        try:
            return await self._client.subscribe(subject, queue=queue, cb=receive, pending_msgs_limit=limit)
        except (nats.errors.Error, OSError) as error:
            raise lost() from error

    async def send(
        self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand a message to the connection, and no more. Raises BUS_FAILED."""
        if not self.alive:
            raise lost()
        try:
            await self._client.publish(subject, data, reply, dict(headers) if headers else None)
        except (nats.errors.Error, OSError) as error:
            raise lost() from error

    async def store(self, messages: Sequence[tuple[Message, Mapping[str, str]]]) -> None:
        """Publish, and wait until the broker says that it has stored all of them."""
        if not messages:
            return
        waiting = Waiting(len(messages), stored=True, subjects=[message.subject for message, _ in messages])
        tokens = []
        try:
            for message, headers in messages:
                token = self._expect(waiting)
                tokens.append(token)
                await self.send(message.subject, message.data, f"{self._inbox}.{token}", headers)
            async with asyncio.timeout(ACK_SECONDS):
                await waiting.future
        except TimeoutError:
            raise RetryableError(
                "BUS_FAILED", f"The bus did not confirm {len(messages)} messages in time."
            ) from None
        finally:
            self._forget(tokens, waiting)

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout: float) -> bytes:
        """Ask, and wait `timeout` seconds for one answer. Raises UNAVAILABLE, DEADLINE_EXCEEDED or BUS_FAILED."""
        waiting = Waiting(1, stored=False, subjects=[subject])
        token = self._expect(waiting)
        try:
            await self.send(subject, data, f"{self._inbox}.{token}", headers)
            async with asyncio.timeout(timeout):
                return await waiting.future
        except TimeoutError:
            raise RetryableError(
                "DEADLINE_EXCEEDED", f"No answer to {subject} within {timeout:g} s."
            ) from None
        finally:
            self._forget([token], waiting)

    def expect_reply(self, token: str, waiting: Waiting) -> None:
        """Have what comes to `<inbox>.<token>` go to `waiting`, which outlives this connection."""
        self._replies[token] = waiting

    def forget_reply(self, token: str) -> None:
        """Nobody waits for it any more."""
        self._replies.pop(token, None)

    async def flush(self, timeout: float) -> None:
        """Until the server has taken all that was sent."""
        try:
            # The client's ping overtakes what it has buffered, which is on its way by the time of the pong; only a
            # second one is behind it.
            for _ in range(2):
                await self._client.flush(timeout=timeout)  # type: ignore[arg-type]
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise lost() from error

    async def close(self) -> None:
        """Disconnect; who waits gets BUS_FAILED."""
        with suppress(
            nats.errors.Error, OSError, AssertionError, AttributeError
        ):  # it may never have been open
            await self._client.close()
        self._end()

    def _watch_reading(self) -> None:
        """A connection that is not read is lost, whether or not the client says so."""
        reading = self._client._reading_task
        if reading is not None:
            reading.add_done_callback(self._reading_ended)

    def _reading_ended(self, reading: "asyncio.Task[None]") -> None:
        if not reading.cancelled() and reading.exception() is not None:
            log.debug("reading from the bus failed: %s", reading.exception())
        self._end()

    def _expect(self, waiting: Waiting) -> str:
        token = str(next(self._tokens))
        self._waiting[token] = waiting
        return token

    def _forget(self, tokens: Sequence[str], waiting: Waiting) -> None:
        for token in tokens:
            self._waiting.pop(token, None)
        if waiting.future.done() and not waiting.future.cancelled():
            waiting.future.exception()  # who waited may have been cancelled, and nobody else will look
        else:
            waiting.future.cancel()

    async def _on_inbox(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        waiting = self._waiting.get(token) or self._replies.get(token)
        if waiting is not None:
            waiting.receive(message)

    async def _on_error(self, error: Exception) -> None:
        denied = _DENIED.search(str(error))
        if denied is None:
            log.debug("the bus connection reports %s", error or type(error).__name__)
            return
        subject = denied[2]
        log.error("the bus forbids %s to %s", denied[1], subject)
        for waiting in set(self._waiting.values()):
            if any(wanted.lower() == subject for wanted in waiting.subjects):
                waiting.fail(
                    TerminalError(
                        "PERMISSION_DENIED",
                        f"The bus does not let this service use {subject}.",
                        subject=subject,
                    )
                )

    async def _on_closed(self) -> None:
        self._end()

    def _end(self) -> None:
        self.lost.set()
        for waiting in set(self._waiting.values()):
            waiting.fail(lost())
        self._waiting.clear()


async def end(subscription: Subscription) -> None:
    """Take nothing more of it, whatever its connection is like."""
    try:
        await subscription.unsubscribe()
    except Exception as error:  # its connection may be in any state of going away; nothing hangs on it
        log.debug("unsubscribing failed: %s", error, exc_info=True)
