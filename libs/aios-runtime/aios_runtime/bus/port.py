"""The bus port: what services say to each other through, and what they may rely on.

Delivery is at least once, in no order, and the bus may lose everything it holds. What must not be lost is in a store.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from aios_core.errors import AiosError

MAX_MESSAGE_BYTES: Final = 256 * 1024  # headers included; a larger one makes the server drop the client


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish. `message_id` is `Nats-Msg-Id`: an optimization, never the guarantee."""

    subject: str
    data: bytes
    message_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Delivery(Protocol):
    """A message that was delivered and waits to be acknowledged."""

    @property
    def subject(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def deliveries(self) -> int:
        """How often the bus delivered it, from 1."""
        ...

    async def ack(self) -> None:
        """It is dealt with: what it led to is committed."""
        ...

    async def retry(self, delay: float = 0.0) -> None:
        """Give it back; it comes again after `delay` seconds."""
        ...

    async def working(self) -> None:
        """Renew the time within which it must be acknowledged."""
        ...

    async def dead(self, error: AiosError) -> None:
        """It can never be dealt with: keep it as a dead letter with the reason, and acknowledge it."""
        ...


Batch = Callable[[Sequence[Delivery]], Awaitable[None]]
Answer = Callable[[bytes, Mapping[str, str]], Awaitable[bytes]]
Receive = Callable[[str, bytes, Mapping[str, str]], Awaitable[None]]
"""Subject, payload, headers."""


class Bus(Protocol):
    """One service's connection, under its own identity.

    Raises BUS_FAILED (retryable) while there is no server; it reconnects by itself and sets the topology up again.
    """

    @property
    def incarnation(self) -> str:
        """The broker as this connection knows it: another one once it has lost what it held. Empty until it was
        asked."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store messages in their streams. Returns when the broker has acknowledged all of them; raises for the batch
        when one was not (any of them may be stored then)."""
        ...

    async def command(self, message: Message, timeout: float) -> bytes:
        """Publish a command to its stream and wait on a reply inbox for the answer after the commit: the payload of
        its `aios.bus.v1.Reply`. Raises what the reply says, or DEADLINE_EXCEEDED (it may or may not be carried out)."""
        ...

    async def ask(
        self, subject: str, data: bytes, timeout: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A question by request and reply; raises what the answer says, UNAVAILABLE when nobody answers."""
        ...

    async def ping(self, timeout: float) -> None:
        """A way to the broker and back within `timeout` seconds; raises BUS_FAILED."""
        ...

    async def reply(self, delivery: Delivery, payload: bytes | AiosError) -> None:
        """Answer a command's reply inbox, if it has one."""
        ...

    async def answer(self, subject: str, handler: Answer, *, queue: str) -> None:
        """Serve questions on a subject; an AiosError that the handler raises becomes the answer. At most
        `ANSWERS_AT_ONCE` run at once."""
        ...

    async def consume(self, consumer: str, handler: Batch, *, batch: int, slots: int, calls: int = 8) -> None:
        """Serve a durable pull consumer of the topology: `handler` gets 1 to `batch` deliveries that were waiting, at
        most `slots` deliveries are unacknowledged at once, and at most `calls` handler calls run at once (1: each gets
        all that came meanwhile). No polling: a waiting fetch costs nothing.

        A delivery that the handler leaves unsettled comes again in the broker's own time. When the handler raises
        RetryableError, all that it left comes again after a growing delay; TerminalError makes a dead letter; anything
        else is tried again a few times first. Of a batch that failed so, each is tried by itself."""
        ...

    async def subscribe(self, consumer: str, handler: Receive) -> None:
        """Serve a durable consumer of the topology with a short handler of single messages, a few at once. A message is
        acknowledged when the handler returns; what it raises decides as with `consume`. Returns at once."""
        ...

    async def listen(self, subject: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        """Have what is published on a subject from now on, as it comes, one after the other. What is published while
        there is no connection, or faster than the handler takes it, is missed: a gap in what it says must show it."""
        ...

    def on_restart(self, callback: Callable[[bool], Awaitable[None]]) -> None:
        """Called after each reconnection, with True when the broker's incarnation has changed (it lost what it held).
        One call at a time; a callback that raises RetryableError is called again."""
        ...

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Called when this bus is drained, before it lets go of anything."""
        ...

    async def drain(self, grace: float = 5.0) -> None:
        """Take nothing in any more: stop fetching and answering, and let handlers finish within `grace` seconds. What
        is published goes out as before. Again is safe."""
        ...

    async def close(self, grace: float = 5.0) -> None:
        """`drain`, then disconnect."""
        ...
