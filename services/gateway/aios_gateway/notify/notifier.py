"""Follows what needs a person, writes down what was not told yet, and sends it until it is delivered or too old.

Announcements only say that there is more; what needs a person is asked of the orchestrator. So nothing is missed that
needs somebody for longer than `LOOK_SECONDS`, whatever is lost on the way.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aios_core.errors import AiosError, RetryableError
from aios_gateway.notify import sending
from aios_gateway.notify.book import Book, Told, Webhook
from aios_gateway.notify.needs import Need

LOOK_SECONDS: Final = 30.0  # between two looks when nothing is announced
GATHER_SECONDS: Final = 0.5  # announcements that come together are one reason to look
CLAIM_MS: Final = 60_000  # after which another gateway, or a later start, sends what this one did not finish
BACKOFF_MS: Final = (2_000, 10_000, 60_000, 5 * 60_000, 15 * 60_000, 60 * 60_000)  # then the last again
MAX_ATTEMPTS: Final = 78  # three days of them
JITTER: Final = 0.2
AT_ONCE: Final = 8  # requests under way

log = logging.getLogger(__name__)

Ask = Callable[[], Awaitable[tuple[Sequence[Need], bool]]]
"""What needs a person now, and whether that is all of it."""


class Notifier:
    """Tells one workspace's needs. `draw` gives a number from 0 to 1."""

    def __init__(
        self, book: Book, ask: Ask, now_ms: Callable[[], int], draw: Callable[[], float] = random.random
    ) -> None:
        self._book, self._ask, self._now_ms, self._draw = book, ask, now_ms, draw
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="notifier")

    async def stop(self) -> None:
        """What is under way is sent again after the next start, unless its answer came."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hint(self) -> None:
        """Something may need a person now, or no more; or the webhook is another."""
        self._wake.set()

    async def look(self) -> None:
        """Write down what needs a person and is not in the book, and forget what needs nobody any more."""
        found, complete = await self._ask()
        now = {need.id: need for need in found}
        known = await self._book.all()
        for name, need in now.items():
            if name not in known:
                await self._book.add(need)
        if complete:
            for name, (revision, _) in known.items():
                if name not in now:
                    await self._book.forget(name, revision)

    async def send(self) -> None:
        """Send the next of what is due: `AT_ONCE` at most, so that one that answers slowly does not keep what is new
        from being seen."""
        webhook = await self._book.webhook()
        if webhook is not None:
            due = await self._book.due(self._now_ms(), AT_ONCE)
            await asyncio.gather(*(self._one(webhook, *one) for one in due))

    async def _run(self) -> None:
        while True:
            try:
                wait = LOOK_SECONDS
                if await self._book.webhook() is not None:
                    await self.look()
                    await self.send()
                    next_due = await self._book.next_due()
                    if next_due is not None:
                        wait = min(wait, max(0.0, (next_due - self._now_ms()) / 1000))
            except AiosError as error:
                log.info("what needs a person could not be looked up", extra={"code": error.code})
                wait = GATHER_SECONDS * 2
            except Exception:
                log.exception("the notifier failed; it tries again")
                wait = LOOK_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()

    async def _one(self, webhook: Webhook, name: str, revision: int, told: Told) -> None:
        now = self._now_ms()
        trying = told.model_copy(update={"attempts": told.attempts + 1})
        if not await self._book.put(name, revision, trying, now + CLAIM_MS):
            return  # another gateway sends it
        body = sending.body_of(told.need, told.begin_time_ms)
        done, due_ms = trying.model_copy(update={"state": "delivered", "last_error": ""}), None
        try:
            await sending.post(webhook, name, body, now)
        except AiosError as error:
            lost = not isinstance(error, RetryableError) or trying.attempts >= MAX_ATTEMPTS
            done = trying.model_copy(
                update={"state": "undeliverable" if lost else "pending", "last_error": error.message}
            )
            due_ms = None if lost else self._now_ms() + self._backoff(trying.attempts)
            log.warning(
                "the webhook was not delivered",
                extra={"need": name, "attempts": trying.attempts, "reason": error.message, "given_up": lost},
            )
        await self._book.put(name, revision + 1, done, due_ms)

    def _backoff(self, attempts: int) -> int:
        base = BACKOFF_MS[min(attempts, len(BACKOFF_MS)) - 1]
        return round(base * (1 + JITTER * (2 * self._draw() - 1)))
