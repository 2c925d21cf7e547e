"""Keeps a service connected: one session after the other, and what the broker is that each of them leads to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Final

from nats.errors import Error as NatsError

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import topology
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.bus.session import Session, lost

CANCEL_AGAIN_SECONDS: Final = 0.1
RECONNECT_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # between attempts; then the last again
VERIFY_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # between looks for a topology that isn't there yet
TELL_AGAIN_SECONDS: Final = 0.5

Attach = Callable[[Session], Awaitable[None]]
"""Called with every new session, before it is used."""
Verified = Callable[[Session], Awaitable[None]]
"""Called when the broker behind a new session is known, and again when it has lost everything under it."""

log = logging.getLogger("aios.bus")


class Keeper:
    """The session there is now, and the incarnation of the broker behind it.

    `connected` is set while there is a session; `verified` while the broker behind it is known as well.
    """

    def __init__(
        self,
        credentials: Credentials,
        service: str,
        inbox: str,
        *,
        declares: bool,
        connectors: Sequence[str],
        replicas: int,
        why_not: Callable[[], AiosError | None],
        attach: Attach,
        verified: Verified,
    ) -> None:
        self._credentials, self._service, self._inbox = credentials, service, inbox
        self._declares, self._connectors, self._replicas = declares, connectors, replicas
        self._why_not = why_not
        self._attach, self._on_verified = attach, verified
        self._session: Session | None = None
        self._incarnation = ""
        self._trouble = ""
        self.connected = asyncio.Event()
        self.verified = asyncio.Event()
        self._suspected = asyncio.Event()
        self._news = asyncio.Event()
        self._wiped = False  # since the listeners were told
        self._listeners: list[Callable[[bool], Awaitable[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def incarnation(self) -> str:
        """What the broker was when it was looked at last; empty before."""
        return self._incarnation

    @property
    def trouble(self) -> str:
        """Why there is no broker to work with, in words; empty when there is."""
        return "" if self.verified.is_set() else self._trouble or "The message bus is not there."

    @property
    def session(self) -> Session | None:
        """The session of now, if it lives."""
        return self._session if self._session is not None and self._session.alive else None

    def alive(self) -> Session:
        """The session of now. Without one raises BUS_FAILED, or DISK_FULL when that is why."""
        session = self.session
        if session is None:
            raise self._why_not() or lost()
        return session

    def listen(self, callback: Callable[[bool], Awaitable[None]]) -> None:
        """Have `callback` told of every reconnection, and whether the broker lost everything meanwhile."""
        self._listeners.append(callback)

    def suspect(self) -> None:
        """Something is missing: look whether the broker has lost its streams."""
        self._suspected.set()

    async def start(self, timeout: float) -> None:
        """Connect; who declares the topology has done so when this returns. Raises BUS_FAILED or UNAUTHENTICATED."""
        keeping = asyncio.create_task(self._keep(), name=f"bus of {self._service}")
        self._tasks = [keeping, asyncio.create_task(self._tell(), name=f"bus news for {self._service}")]
        ready = asyncio.create_task((self.verified if self._declares else self.connected).wait())
        await asyncio.wait([ready, keeping], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            return
        ready.cancel()
        if keeping.done():
            keeping.result()
        raise RetryableError(
            "BUS_FAILED", f"No message bus at {self._credentials.url} to work with. {self.trouble}"
        )

    async def close(self) -> None:
        """Let go of the connection for good."""
        await asyncio.gather(*(_end(task) for task in self._tasks))
        if self._session is not None:
            await self._session.close()

    async def _keep(self) -> None:
        """Connect, serve until the connection is lost, and again. Ends only when the very first one is refused."""
        failures = 0
        while True:
            try:
                session = await Session.open(self._credentials, self._inbox, self._service)
            except AiosError as error:
                if not error.retryable and not self._incarnation:
                    raise
                self._trouble = error.message
            else:
                self._session = session
                if await self._serve(session):
                    failures = 0
                    log.warning("the connection to the bus was lost", extra={"service": self._service})
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _serve(self, session: Session) -> bool:
        """Until it is lost; returns whether the broker behind it became known. Raises what the broker refuses for good,
        the first time."""
        gone = asyncio.ensure_future(session.lost.wait())
        watching: asyncio.Task[None] | None = None
        try:
            await self._attach(session)
            self.connected.set()
            watching = asyncio.create_task(self._watch(session), name="watch the bus")
            await asyncio.wait([gone, watching], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        except RetryableError as error:
            self._trouble = error.message
        except TerminalError as error:
            self._trouble = error.message
            if not self._incarnation:
                raise
        except Exception as error:
            log.exception("serving the bus connection failed by a defect; it is made anew")
            self._trouble = f"{type(error).__name__}: {error}"
        finally:
            known = self.verified.is_set()
            self.connected.clear()
            self.verified.clear()
            gone.cancel()
            if watching is not None:
                await _end(watching)
        await session.close()
        return known

    async def _watch(self, session: Session) -> None:
        """Find out what the broker is, now and whenever something is missing."""
        fresh = True
        while True:
            self._suspected.clear()
            before, self._incarnation = self._incarnation, await self._identify(session)
            wiped = before not in ("", self._incarnation)
            if wiped:
                log.warning("the bus has lost everything it held", extra={"service": self._service})
            self.verified.set()
            if fresh or wiped:
                await self._on_verified(session)
                if before:
                    self._wiped |= wiped
                    self._news.set()
            fresh = False
            await self._suspected.wait()

    async def _identify(self, session: Session) -> str:
        """The broker's incarnation, once its streams are there. Raises BUS_FAILED for good when it refuses them."""
        js = session.jetstream()
        for attempt in count():
            try:
                if self._declares:
                    await topology.declare(js, self._connectors, self._replicas)
                found = await topology.incarnation(js)
                if found:
                    return found
                self._trouble = "Its streams are not there yet; the orchestrator makes them when it starts."
            except RetryableError as error:
                self._trouble = error.message
            except (NatsError, OSError) as error:
                self._trouble = f"The bus answers {error or type(error).__name__}."
            await asyncio.sleep(VERIFY_SECONDS[min(attempt, len(VERIFY_SECONDS) - 1)])
        raise AssertionError("counting never ends")

    async def _tell(self) -> None:
        """Tell of each reconnection, never in the middle of telling of an earlier one. Who can't take it now is told
        again, together with what has happened since."""
        while True:
            await self._news.wait()
            self._news.clear()
            wiped, self._wiped = self._wiped, False
            for listener in self._listeners:
                try:
                    await listener(wiped)
                except RetryableError as error:
                    log.warning("after a reconnection: %s; it is tried again", error)
                    self._wiped |= wiped
                    self._news.set()
                except Exception:
                    log.exception("what follows a reconnection failed by a defect")
            if self._news.is_set():
                await asyncio.sleep(TELL_AGAIN_SECONDS)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended. Once is not enough: before Python 3.12 `asyncio.wait_for`, with which nats-py
    waits for answers, loses a cancellation that comes together with the answer."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS)
