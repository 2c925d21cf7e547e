"""Who sends the events that runs wait for: some come before anybody waits, and the last one is sent once it is awaited,
and never again. So a run that does not end has lost an event."""

import asyncio
from datetime import UTC, datetime
from random import Random
from typing import Final

from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent
from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import StepState
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import encode
from aios_core.errors import RetryableError, TerminalError
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_runtime.bus import subjects
from aios_runtime.run_states import ENDED
from aios_testing.sim.loop import EPOCH_MS
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.person import ANSWER_SECONDS, TRACE, Person
from aios_testing.sim.workload import SCHEDULE

EVERY: Final = (
    5  # of so many seeds one has such a run, so that the others tell the story that they always told
)
TICKS: Final = (-15.0, 60.0)  # seconds after the beginning between which the schedule's times are
FIRST: Final = 900  # the number of the first such run


class Sender:
    """Starts runs that wait for events, and sends them."""

    def __init__(self, rng: Random, person: Person) -> None:
        self._bus, self._rng, self._person = person.bus, rng, person
        self.accepted: dict[str, float] = {}  # when an event was answered, by its id
        self.scheduled = False
        self._sent = 0

    async def run(self, number: int) -> None:
        """One run from its start to its end."""
        self._person.busy += 1
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, self._person.horizon * 0.5))
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"h{number}",
            workflow="hear",
            input=encode(labeled({"n": number}, OWNER)),
            mode=Mode.MODE_EXECUTE,
            actor="person:owner",
            trigger="manual",
            traceparent=TRACE,
        )
        started = await self._person.say("start_run", request, pb.StartRunResponse)
        assert started is not None
        self._person.accepted[started.run_id] = request.workflow
        early = [self._send(number, rng.uniform(0.0, 40.0)) for _ in range(rng.randint(0, 2))]
        await asyncio.gather(*early, self._last(started.run_id, number))
        self._person.busy -= 1

    async def schedule(self) -> None:
        """Apply a schedule that has a few times and then none any more."""
        self._person.busy += 1
        await asyncio.sleep(self._rng.uniform(0.0, 10.0))
        first, last = (datetime.fromtimestamp(EPOCH_MS / 1000 + after, UTC).isoformat() for after in TICKS)
        await self._person.apply(SCHEDULE % (first, last), "tick")
        self.scheduled = True
        self._person.busy -= 1

    async def _last(self, run: str, number: int) -> None:
        """The event that the run waits for in the end."""
        request = query.GetRunRequest(workspace=WORKSPACE, run_id=run).SerializeToString()
        while True:
            await asyncio.sleep(self._rng.uniform(1.0, 4.0))
            try:
                data = await self._bus.ask(subjects.query("run", "get_run", WORKSPACE), request, 5.0)
            except (RetryableError, TerminalError):
                continue
            head = query.GetRunResponse.FromString(data).run.head
            if head.state in ENDED:
                return
            if any(s.step == "reply" and s.state == StepState.STEP_STATE_WAITING for s in head.steps):
                await self._send(number, 0.0)
                return

    async def _send(self, number: int, after: float) -> None:
        await asyncio.sleep(after)
        self._sent += 1
        event = ExternalEvent(
            workspace=WORKSPACE,
            id=f"reply{self._sent}",
            source="outside",
            type="sim.replied",
            data=b'{"n": %d, "sent": %d}' % (number, self._sent),
            received_by="person:owner",
            traceparent=TRACE,
        )
        request = AcceptEventRequest(event=event).SerializeToString()
        for _ in range(2 if self._rng.random() < 0.3 else 1):
            while True:
                try:
                    data = await self._bus.ask(subjects.accept(WORKSPACE), request, ANSWER_SECONDS)
                    break
                except RetryableError:
                    await asyncio.sleep(1.0)
            assert AcceptEventResponse.FromString(data).event_id == event.id
            self._person.events[event.id] = event.data
            self.accepted.setdefault(event.id, asyncio.get_running_loop().time())
