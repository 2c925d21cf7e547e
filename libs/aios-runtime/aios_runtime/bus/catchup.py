"""Following an event log by position: gapless, in order, from where the subscriber's own state stands.

The log's owner is asked for what a notification didn't bring: after a start, a reconnection, a gap.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from aios.bus.v1.bus_pb2 import EventsFiled, ReadEventsRequest, ReadEventsResponse
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import PARTITIONS
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus

READ_SECONDS: Final = 10.0
MAX_EVENTS: Final = 1024  # handed over at once
MAX_NOTIFICATIONS: Final = 64  # kept per partition while it is busy; past these its owner is asked
RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # after failures in a row; then the last again
QUIET_FAILURES: Final = (
    5  # in a row, about 4 s: services that start together wait for one another without a word
)

LoadPosition = Callable[[int], Awaitable[int]]
"""The last position of a partition that the subscriber's state contains; 0: none."""
Handle = Callable[[int, int, Sequence[bytes]], Awaitable[None]]
"""Partition, position of the first event, stored bytes of the events. Returns when state and position are committed."""

log = logging.getLogger("aios.bus.catchup")


class CatchUp:
    """Hands every event of the partitions over, each partition in order and one call at a time.

    `offer` what is notified. A handler that fails is called again, from the position that its state then has; nothing
    is skipped. `gather_s` seconds after a notification the handler is called for what has come in all partitions, so
    that a state that nobody waits for is written less often.
    """

    def __init__(
        self,
        bus: Bus,
        workspace: str,
        partitions: int = PARTITIONS,
        *,
        load_position: LoadPosition,
        handle: Handle,
        domain: str = "run",
        gather_s: float = 0.0,
    ) -> None:
        self._bus = bus
        self._gather_s = gather_s
        self._gathering: asyncio.Future[None] | None = None
        self._subject = subjects.query(domain, "read_events", workspace)
        self._load_position = load_position
        self._handle = handle
        self._partitions = [_Partition(number, self) for number in range(partitions)]
        self._stopped = False
        self._waiting = False  # said, and not over yet

    async def start(self) -> None:
        """Begin with what was missed. Returns at once; the log's owner may not be there yet."""
        self._bus.on_restart(self._restarted)
        self._bus.on_close(self.stop)
        self.read_all()

    def read_all(self) -> None:
        """Ask for what was missed, in every partition."""
        for partition in self._partitions:
            partition.wake(read=True)

    async def offer(self, filed: EventsFiled) -> None:
        """A notification. Returns when the subscriber's state contains its events.

        Raises UNDECODABLE; UNAVAILABLE while the handler or the log's owner fails.
        """
        if filed.partition >= len(self._partitions) or filed.first_position < 1:
            raise TerminalError(
                "UNDECODABLE",
                f"Partition {filed.partition}, position {filed.first_position} can't be of this log.",
            )
        await self._partitions[filed.partition].offer(filed)

    async def stop(self) -> None:
        """Stop after the call that runs, at the latest."""
        self._stopped = True
        await asyncio.gather(*(partition.stop() for partition in self._partitions))

    async def _restarted(self, _wiped: bool) -> None:
        self.read_all()

    async def gather(self) -> None:
        """Wait until the present gathering is over; all who wait go on in one turn of the loop."""
        if not self._gather_s:
            return
        if self._gathering is None:
            loop = asyncio.get_running_loop()
            self._gathering = loop.create_future()
            loop.call_later(self._gather_s, self._gathered)
        await asyncio.shield(self._gathering)

    def _gathered(self) -> None:
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.set_result(None)

    async def load(self, partition: int) -> int:
        return await self._load_position(partition)

    async def hand_over(self, partition: int, first: int, events: Sequence[bytes]) -> None:
        await self._handle(partition, first, events)

    def tell_wait(self, why: str, failures: int) -> None:
        """One line for all partitions once a wait lasts."""
        if failures == QUIET_FAILURES and not self._waiting:
            self._waiting = True
            log.warning("following events waits: %s", why)

    def tell_progress(self) -> None:
        if self._waiting:
            self._waiting = False
            log.info("following events goes on")

    async def read(self, partition: int, after: int) -> ReadEventsResponse:
        """A page of what the owner has after a position. Raises what the owner answers, INTERNAL for a gap."""
        request = ReadEventsRequest(partition=partition, after=after)
        answer = await self._bus.ask(self._subject, request.SerializeToString(), READ_SECONDS)
        try:
            page = ReadEventsResponse.FromString(answer)
        except DecodeError:
            raise RetryableError("UNDECODABLE", "The log's owner answers in another version.") from None
        for expected, event in enumerate(page.events, after + 1):
            if event.position != expected:
                raise RetryableError(
                    "INTERNAL", f"Partition {partition} has {event.position} where {expected} should be."
                )
        return page


class _Partition:
    """One partition's place. Its task runs only while there is something to do."""

    def __init__(self, number: int, owner: CatchUp) -> None:
        self._number = number
        self._owner = owner
        self._position: int | None = None  # the state's; None: to be asked
        self._read = False  # the owner is to be asked
        self._waiting: deque[EventsFiled] = deque()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []  # who offered, by the position waited for
        self._task: asyncio.Task[None] | None = None
        self._failures = 0

    def wake(self, *, read: bool = False) -> None:
        self._read |= read
        if self._task is None and not self._owner._stopped:
            self._task = asyncio.create_task(self._run(), name=f"catch up {self._number}")

    async def offer(self, filed: EventsFiled) -> None:
        last = filed.first_position + len(filed.events) - 1
        if self._owner._stopped:
            raise RetryableError("UNAVAILABLE", "The subscriber stops.")
        if self._position is not None and last <= self._position:
            return
        if len(self._waiting) < MAX_NOTIFICATIONS:
            self._waiting.append(filed)
        else:
            self._read = True
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((last, done))
        self.wake()
        await done

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._send_away(RetryableError("UNAVAILABLE", "The subscriber stops."))

    async def _run(self) -> None:
        try:
            while self._read or self._waiting or self._waiters:
                try:
                    if self._position is None:
                        self._position = await self._owner.load(self._number)
                    self._tell()
                    if not self._read:
                        await self._owner.gather()
                    await self._step(self._position)
                    self._tell()
                    self._failures = 0
                    self._owner.tell_progress()
                except AiosError as error:
                    await self._pause(str(error))
                except Exception as error:
                    log.exception("following events failed by a defect", extra={"partition": self._number})
                    await self._pause(f"{type(error).__name__}: {error}")
        finally:
            self._task = None

    async def _step(self, position: int) -> None:
        first, events = self._take(position)
        if not events and (self._read or self._waiting or self._waiters):
            page = await self._owner.read(self._number, position)
            first, events = position + 1, [event.event for event in page.events][:MAX_EVENTS]
            self._read = position + len(events) < page.head
            if not events and self._waiting:
                # It is announced and not in the log: the owner was put back to an earlier state.
                raise RetryableError(
                    "UNAVAILABLE", f"Partition {self._number} is announced past its head {page.head}."
                )
        if events:
            await self._owner.hand_over(self._number, first, events)
            self._position = position + len(events)

    def _take(self, position: int) -> tuple[int, list[bytes]]:
        """What the notifications hold directly after the position."""
        events: list[bytes] = []
        while self._waiting and len(events) < MAX_EVENTS:
            filed = self._waiting[0]
            known = position + len(events) - filed.first_position + 1
            if known < 0:
                break  # a gap
            self._waiting.popleft()
            events.extend(filed.events[known:])
        return position + 1, events

    def _tell(self) -> None:
        position = self._position or 0
        for last, done in self._waiters:
            if last <= position and not done.done():
                done.set_result(None)
        self._waiters = [(last, done) for last, done in self._waiters if not done.done()]

    async def _pause(self, why: str) -> None:
        delay = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        self._owner.tell_wait(why, self._failures)
        self._position = None
        self._read = True
        self._waiting.clear()
        self._send_away(RetryableError("UNAVAILABLE", why, retry_after=delay))
        await asyncio.sleep(delay)

    def _send_away(self, error: AiosError) -> None:
        """Who offered is not kept: its place is needed for other partitions, and what it brought is read later."""
        waiters, self._waiters = self._waiters, []
        for _, done in waiters:
            if not done.done():
                done.set_exception(error)
