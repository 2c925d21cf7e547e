"""Serving questions, and listening to what is published: subscriptions that are made anew on every connection."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Answer
from aios_runtime.bus.replies import in_parts
from aios_runtime.bus.session import Session, end
from aios_runtime.bus.tracing import Tracing

ANSWERS_AT_ONCE: Final = 64
ANSWERS_WAITING: Final = 1024  # questions past these are dropped: who asked gets DEADLINE_EXCEEDED
HEARD_WAITING: Final = 8192  # messages past these are missed

log = logging.getLogger("aios.bus")


class Answers:
    """Questions on one subject, at most `ANSWERS_AT_ONCE` at once."""

    def __init__(self, subject: str, handler: Answer, queue: str, tracing: Tracing) -> None:
        self._subject, self._handler, self._queue, self._tracing = subject, handler, queue, tracing
        self._places = asyncio.Semaphore(ANSWERS_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        self._session: Session | None = None
        self._subscription: Subscription | None = None

    async def attach(self, session: Session) -> None:
        """Serve on this session as well, once."""
        if session is self._session:
            return
        self._session = session

        async def asked(message: Msg) -> None:
            await self._places.acquire()
            task = asyncio.create_task(self._answer(session, message), name=f"answer {self._subject}")
            self._running.add(task)
            task.add_done_callback(self._answered)

        self._subscription = await session.subscribe(
            self._subject, asked, queue=self._queue, limit=ANSWERS_WAITING
        )

    async def close(self, grace: float) -> None:
        """Take no more questions, and let those at hand be answered within `grace` seconds."""
        if self._subscription is not None:
            await end(self._subscription)
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
            log.exception(
                "a question failed by a defect", extra={"subject": subjects.template(message.subject)}
            )
            result = TerminalError(
                "INTERNAL", f"The answering service failed by a defect ({type(error).__name__})."
            )
        try:
            for data, part in in_parts(message.subject, result, headers):
                await session.send(message.reply, data, headers=part)
        except RetryableError:
            log.debug("an answer found no bus; who waits asks again")


class Listener:
    """Hears a subject, one message after the other."""

    def __init__(self, subject: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        self._subject, self._handler = subject, handler
        self._session: Session | None = None
        self._subscription: Subscription | None = None

    async def attach(self, session: Session) -> None:
        """Hear on this session as well, once."""
        if session is self._session:
            return
        self._session = session
        self._subscription = await session.subscribe(self._subject, self._heard, limit=HEARD_WAITING)

    async def close(self, grace: float) -> None:
        """Hear no more."""
        if self._subscription is not None:
            await end(self._subscription)

    async def _heard(self, message: Msg) -> None:
        try:
            await self._handler(message.data)
        except Exception:
            log.exception(
                "a listener failed by a defect", extra={"subject": subjects.template(message.subject)}
            )
