"""The outbox relay: what a commit promised to publish is published, right away or later.

A service hands over the messages of a commit together with the ids that the store gave them. When the bus takes them
they are marked as sent, which the store makes durable along with a later commit. When it does not, they stay in the
outbox, and the relay publishes the outbox from its start, again and again, until nothing is pending.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from aios_core.errors import RetryableError, TerminalError
from aios_runtime.bus.port import Bus, Message
from aios_runtime.store.port import Committed, OutboxMessage, Pending, Store, Write

PUBLISHED_AT_ONCE: Final = 256  # messages
FIRST_DELAY: Final = 0.05  # seconds between two attempts to publish what is pending, doubled up to the last
LAST_DELAY: Final = 5.0

_log = logging.getLogger("aios.outbox")


def committed(write: Write, result: Committed) -> list[Pending]:
    """The messages of a committed write with their ids, as `publish` takes them."""
    return [Pending(number, message) for number, message in zip(result.outbox_ids, write.outbox, strict=True)]


class OutboxRelay:
    """Publishes a store's outbox. Call `drain` once at the start, `publish` after every commit, `close` at the end."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._flying: set[int] = set()
        self._refused: set[int] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closed = False
        bus.on_restart(self._restarted)

    @property
    def behind(self) -> bool:
        """Whether the bus did not take what is pending, so that it waits for the next attempt."""
        return self._recovery is not None

    async def publish(self, messages: Sequence[Pending]) -> None:
        """Publish messages of the commits just made, in order. Never raises for the state of the bus: what it does
        not take now stays pending, and the relay goes on by itself."""
        if self.behind or self._closed:
            return
        try:
            for first in range(0, len(messages), PUBLISHED_AT_ONCE):
                await self._send(messages[first : first + PUBLISHED_AT_ONCE])
        except RetryableError as error:
            _log.warning("The outbox waits for the bus: %s", error)
            self._recover()

    async def drain(self) -> int:
        """Publish all that is pending; returns how many messages. Raises BUS_FAILED when the bus does not take them."""
        total = 0
        while page := await self._page():
            await self._send(page)
            total += len(page)
        return total

    async def close(self) -> None:
        """Stop trying. What is pending stays in the store for the next start."""
        self._closed = True
        task, self._recovery = self._recovery, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _page(self) -> list[Pending]:
        skipped = self._flying | self._refused
        pending = await self._store.pending(PUBLISHED_AT_ONCE + len(skipped))
        return [message for message in pending if message.outbox_id not in skipped][:PUBLISHED_AT_ONCE]

    async def _send(self, messages: Sequence[Pending]) -> None:
        ids = [pending.outbox_id for pending in messages]
        self._flying.update(ids)
        try:
            await self._bus.publish([_message(pending.message) for pending in messages])
        except TerminalError as error:
            if len(messages) > 1:
                await self._send_apart(messages)
                return
            self._refused.update(ids)
            _log.error(
                "The bus refuses message %s, which stays in the outbox: %s",
                messages[0].message.message_id,
                error,
            )
            return
        finally:
            self._flying.difference_update(ids)
        await self._store.mark_sent(ids)

    async def _send_apart(self, messages: Iterable[Pending]) -> None:
        for pending in messages:
            await self._send([pending])

    async def _restarted(self, _lost: bool) -> None:
        self._wake.set()
        if not self._closed:
            self._recover()

    def _recover(self) -> None:
        if self._recovery is None and not self._closed:
            self._recovery = asyncio.get_running_loop().create_task(self._until_drained())

    async def _until_drained(self) -> None:
        delay = FIRST_DELAY
        try:
            while True:
                self._wake.clear()
                try:
                    await self.drain()
                    return
                except RetryableError:
                    delay = await self._pause(delay)
        except TerminalError as error:
            _log.error("The outbox can't be published until the service starts again: %s", error)
        finally:
            self._recovery = None

    async def _pause(self, delay: float) -> float:
        try:
            await asyncio.wait_for(self._wake.wait(), delay)
            return FIRST_DELAY
        except TimeoutError:
            return min(delay * 2, LAST_DELAY)


def _message(message: OutboxMessage) -> Message:
    return Message(message.subject, message.data, message.message_id, message.headers)
