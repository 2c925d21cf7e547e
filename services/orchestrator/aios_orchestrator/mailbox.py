"""From accepted events to the runs that wait for them, and from a run that begins to wait to events that came before.

An event is committed with the mark that nobody was told of it, and loses the mark once all runs that an index finds
have heard it. A run looks into the index of events after its wait is committed. So whichever of the two is committed
last finds the other; what a process did not come to before it died is found by its marks, and by the runs that wait.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from aios.event.v1.event_pb2 import Resolution
from aios.run.v1.commands_pb2 import HearEventRequest
from aios.run.v1.state_pb2 import STEP_STATE_WAITING, RunHead
from aios_core.errors import RetryableError
from aios_orchestrator.correlation import index_of
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import Taken
from aios_runtime.store.port import Aggregate, Store, Write

PAGE: Final = 100  # runs, or events, in one go
EARLIER: Final = 100  # events of one correlation that came before a wait and are looked at, the newest ones
PAUSE_S: Final = 1.0  # before what could not be done is tried again
UNHEARD: Final = "unheard"
"""The index of events of which not all runs that wait for them were told."""

Hearing = Callable[[HearEventRequest], Awaitable[None]]
"""Has runs hear an event, wherever they belong; again is safe."""

log = logging.getLogger(__name__)


def heard_as(correlation: str) -> str:
    """The name of the index under which events are found by a correlation."""
    return f"event:{correlation}"


@contextmanager
def _logged() -> Iterator[None]:
    """A run that can't hear by a defect keeps no other from hearing."""
    try:
        yield
    except RetryableError:
        raise
    except Exception:
        log.exception("an event could not be heard by a defect")


class Mailbox:
    """Brings events and waiting runs together."""

    def __init__(self, store: Store, hear: Hearing, workspace: str) -> None:
        self._store = store
        self._hear = hear
        self._workspace = workspace
        self._looking: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def accepted(self) -> None:
        """An event was committed with the mark `UNHEARD`: have it heard."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="orchestrator-mailbox")

    def waits(self, run: Run, correlations: Sequence[str]) -> None:
        """A run waits from now on, if what was decided stands: look for events that came before."""
        _, before = self._looking.get(run.run_id, (0, ()))
        self._looking[run.run_id] = (run.create_time, (*before, *correlations))
        self.accepted()

    async def stop(self) -> None:
        """Stop; what was not done is found again by its marks."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def taken(self, partitions: Taken) -> None:
        """After a start or a take-over: whoever was here before may not have come to everything. Events first, so that
        those which were accepted in time are heard before a time-out is noticed."""
        try:
            await self._deliver()
        except RetryableError:  # nobody decides for one of the runs yet
            self.accepted()
        for partition in partitions:
            await self._look_again(partition)

    async def sweep(self) -> None:
        """Have heard what another replica accepted and was then not able to tell of."""
        await self._deliver()

    async def _work(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._look()
                await self._deliver()
            except RetryableError as error:
                log.warning("events wait to be heard: %s", error.message)
                self._again = True
                await asyncio.sleep(PAUSE_S)
            except Exception:
                log.exception("events could not be heard by a defect")

    async def _look(self) -> None:
        """For runs that have begun to wait. An event that comes later finds them by itself."""
        while self._looking:
            run = next(iter(self._looking))
            since, correlations = self._looking[run]
            for correlation in dict.fromkeys(correlations):
                found = await self._store.query(heard_as(correlation), self._workspace, limit=EARLIER)
                for item in reversed(found.items):
                    event = Resolution.FromString(item.head)
                    if event.time_ms >= since:
                        with _logged():  # at the next start it looks again
                            await self._tell(event, [run])
            if self._looking.get(run) == (since, correlations):
                del self._looking[run]

    async def _deliver(self) -> None:
        """Everything that has the mark. What can't be heard now keeps it, and does not keep back what comes after."""
        token, failed = "", None
        while True:
            page = await self._store.query(
                UNHEARD, self._workspace, token=token, limit=PAGE, newest_first=False
            )
            results = await asyncio.gather(*map(self._deliver_one, page.items), return_exceptions=True)
            for result in results:
                if isinstance(result, RetryableError):
                    failed = result
                elif isinstance(result, BaseException):
                    raise result
            token = page.next_token
            if not token:
                break
        if failed is not None:
            raise failed

    async def _deliver_one(self, item: Aggregate) -> None:
        event = Resolution.FromString(item.head)
        with _logged():
            await self._tell_all(event)
            # Another replica may have done the same: then its mark is gone already.
            await self._store.commit([Write(item.key, item.revision, item.head, index={UNHEARD: ""})])

    async def _tell_all(self, event: Resolution) -> None:
        for correlation in event.correlations:
            token = ""
            while True:
                page = await self._store.query(
                    index_of(correlation), self._workspace, token=token, limit=PAGE, newest_first=False
                )
                if page.items:
                    await self._tell(event, [RunHead.FromString(run.head).run_id for run in page.items])
                token = page.next_token
                if not token:
                    break

    async def _tell(self, event: Resolution, runs: Sequence[str]) -> None:
        await self._hear(HearEventRequest(workspace=self._workspace, event=event, run_ids=runs))

    async def _look_again(self, partition: int) -> None:
        token = ""
        while True:
            page = await self._store.query(
                "awaiting", f"{self._workspace}/{partition}", token=token, limit=PAGE, newest_first=False
            )
            for item in page.items:
                head = RunHead.FromString(item.head)
                waits = (step for step in head.steps if step.state == STEP_STATE_WAITING and step.awaits)
                self._looking[head.run_id] = (head.create_time_ms, tuple(step.awaits for step in waits))
            if page.items:
                self.accepted()
            token = page.next_token
            if not token:
                return
