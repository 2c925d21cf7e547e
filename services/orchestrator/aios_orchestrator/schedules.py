"""Starts what schedules say. Decided → committed → started → noted: what dies in between is started again under the
run id that it had."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aios.resource.v1 import resource_pb2 as pb
from aios.run.v1.commands_pb2 import CancelRunRequest, StartRunRequest
from aios.run.v1.state_pb2 import RunHead
from aios.task.v1.task_pb2 import MODE_EXECUTE
from aios_core.encoding import encode
from aios_core.errors import RetryableError, TerminalError
from aios_core.ids import check_request_id, derive, run_id
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.repository import stored_run
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.schedule import Schedule, decide, parameters, request_of, upcoming
from aios_runtime.run_states import ENDED
from aios_runtime.store.port import Aggregate, Committed, Store, Write

AGAIN_MS: Final = 1_000  # between two looks whether the run has ended that others wait for
RECONCILE_MS: Final = 60_000  # between two looks at all schedules, for clocks that were set back
TRIES: Final = 10  # of a change that others make at the same time
MAX_TIMES: Final = 20  # next times in an answer
ACTOR: Final = "service:orchestrator"

log = logging.getLogger(__name__)


def schedule_key(workspace: str, name: str) -> str:
    """The aggregate of how far a schedule is."""
    return f"{workspace}/schedule/{name}"


def is_schedule(key: str) -> bool:
    """Whether an aggregate is one of these."""
    return key.split("/", 2)[1] == "schedule"


class Schedules:
    """All schedules of a workspace; of several replicas each starts its own."""

    def __init__(
        self,
        store: Store,
        resources: ResourceBook,
        ownership: Ownership,
        start: Callable[[StartRunRequest], Awaitable[None]],
        cancel: Callable[[CancelRunRequest], Awaitable[None]],
        workspace: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._resources = resources
        self._ownership = ownership
        self._start, self._cancel = start, cancel
        self._workspace = workspace
        self._now_ms = now_ms
        self._looked: float | None = None
        self._applied = -1

    async def look(self, due: Sequence[Aggregate]) -> bool:
        """Start what is due, of those aggregates that are schedules of this replica; whether there was any."""
        await self._resources.refresh()  # another replica may have been asked to apply one of this one's
        clock = asyncio.get_running_loop().time() * 1000
        applied = self._resources.applied
        if self._looked is None or clock - self._looked >= RECONCILE_MS or applied != self._applied:
            for schedule in await self._resources.schedules(self._workspace):
                if self._owns(schedule.name):
                    await self._try(schedule.name)
            self._looked, self._applied = clock, applied
        own = [name for item in due if self._owns(name := item.key.rsplit("/", 1)[1])]
        for name in own:
            await self._try(name)
        return bool(own)

    async def _try(self, name: str) -> None:
        """One that can't be decided on rests until all are looked at again, so that it does not hold up the clock."""
        try:
            await self._decide(await self._resources.schedule(self._workspace, name))
        except RetryableError:
            raise
        except Exception as error:
            log.exception(
                "schedule %s rests", name, exc_info=None if isinstance(error, TerminalError) else error
            )
            stored = await self._store.read(schedule_key(self._workspace, name))
            if stored is not None:
                index = {"schedules": self._workspace}
                await self._store.commit([Write(stored.key, stored.revision, stored.head, index=index)])

    def taken(self) -> None:
        """Others looked after some of them until now."""
        self._looked = None

    def _owns(self, name: str) -> bool:
        return self._ownership.owns_run(derive("sch", self._workspace, name))

    async def _decide(self, schedule: Schedule) -> None:
        for _ in range(TRIES):
            stored, state = await self._read(schedule.name)
            if state.starting or state.replaces:  # decided before, and perhaps nobody came to it
                decided, revision = state, stored
            else:
                decided = decide(schedule, state, self._now_ms(), await self._busy(state))
                revision = await self._write(schedule, stored, state, decided)
            if revision < 0:
                continue
            if not decided.starting and not decided.replaces:
                return
            started = await self._carry_out(schedule, decided)
            if await self._write(schedule, revision, decided, started) >= 0:
                return
        raise RetryableError("CONFLICT", "The schedule is being changed by somebody else.")

    async def _carry_out(self, schedule: Schedule, decided: pb.ScheduleState) -> pb.ScheduleState:
        after = pb.ScheduleState()
        after.CopyFrom(decided)
        for time in decided.starting:
            request = self._request(schedule, request_of(time))
            run = run_id(request.workspace, request.trigger, request.request_id)
            try:
                request.input = encode(parameters(schedule, time))
                await self._start(request)
            except TerminalError as error:
                if (
                    error.code != "REQUEST_ID_REUSED"
                ):  # the run of that time was started by an earlier version
                    log.warning("schedule %s could not start its run: %s", schedule.name, error.message)
                    after.problem = f"{error.message} [{error.code}]"
                    continue
            after.problem = ""
            after.last_run_id, after.last_run_time_ms = run, time
            after.runs += 1
        if decided.replaces and decided.replaces != after.last_run_id:
            await self._give_up(decided.replaces, after.last_run_id)
        del after.starting[:]
        after.replaces = ""
        return after

    async def _give_up(self, run: str, by: str) -> None:
        request = CancelRunRequest(
            workspace=self._workspace,
            request_id=f"superseded/{by}",
            run_id=run,
            actor=ACTOR,
            why="the schedule's next time has come",
            superseded_by=by,
        )
        try:
            await self._cancel(request)
        except TerminalError as error:
            if error.code not in ("RUN_CLOSED", "NOT_FOUND"):
                raise

    def _request(self, schedule: Schedule, request: str) -> StartRunRequest:
        return StartRunRequest(
            workspace=self._workspace,
            request_id=request,
            workflow=schedule.workflow,
            mode=MODE_EXECUTE,
            actor=f"schedule:{schedule.name}",
            trigger=f"schedule:{schedule.name}",
        )

    async def _busy(self, state: pb.ScheduleState) -> bool:
        if not state.last_run_id:
            return False
        stored = await stored_run(self._store, self._workspace, state.last_run_id)
        return stored is not None and RunHead.FromString(stored.head).state not in ENDED

    async def _read(self, name: str) -> tuple[int, pb.ScheduleState]:
        stored = await self._store.read(schedule_key(self._workspace, name))
        if stored is None:
            return 0, pb.ScheduleState(workspace=self._workspace, name=name)
        return stored.revision, pb.ScheduleState.FromString(stored.head)

    async def _write(
        self, schedule: Schedule, revision: int, before: pb.ScheduleState, after: pb.ScheduleState
    ) -> int:
        """The revision afterwards; -1 when somebody else was quicker."""
        due: int | None = after.next_time_ms or None
        if after.starting or after.replaces:
            due = self._now_ms()
        elif after.queued and not (after.paused or schedule.paused):
            due = min(due or 1 << 62, self._now_ms() + AGAIN_MS)
        key = schedule_key(self._workspace, schedule.name)
        if revision and before == after:
            stored = await self._store.read(key)
            if stored is not None and stored.revision == revision and stored.due_ms == due:
                return revision
        write = Write(
            key, revision, after.SerializeToString(), due_ms=due, index={"schedules": self._workspace}
        )
        (result,) = await self._store.commit([write])
        return result.revision if isinstance(result, Committed) else -1

    async def list_schedules(self, request: pb.ListSchedulesRequest) -> pb.ListSchedulesResponse:
        """The schedules with their next times. Raises NOT_FOUND for a name that there isn't."""
        await self._resources.refresh()
        if request.name:
            found = [await self._resources.schedule(request.workspace, request.name)]
        else:
            found = list(await self._resources.schedules(request.workspace))
        times = min(request.times or 1, MAX_TIMES)
        return pb.ListSchedulesResponse(schedules=[await self._view(item, times) for item in found])

    async def _view(self, schedule: Schedule, times: int) -> pb.ScheduleView:
        _, state = await self._read(schedule.name)
        return pb.ScheduleView(
            state=state,
            title=schedule.title,
            workflow=schedule.workflow,
            when=schedule.when,
            timezone=schedule.zone.key,
            missed=schedule.missed,
            concurrency=schedule.concurrency,
            paused=state.paused or schedule.paused,
            next_times_ms=upcoming(schedule, state, times),
        )

    async def change(self, request: pb.ChangeScheduleRequest) -> pb.ChangeScheduleResponse:
        """Pause, resume or run now. Raises NOT_FOUND, and FAILED_PRECONDITION where the document has it paused."""
        check_request_id(request.request_id)
        await self._resources.refresh()
        schedule = await self._resources.schedule(request.workspace, request.name)
        if request.action == "run":
            return await self._run_now(schedule, request)
        if request.action == "resume" and schedule.paused:
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"The document of schedule {schedule.name!r} says `paused: true`; apply it without that.",
                field="name",
            )
        for _ in range(TRIES):
            revision, state = await self._read(schedule.name)
            after = pb.ScheduleState()
            after.CopyFrom(state)
            after.paused = request.action == "pause"
            if after.paused != state.paused:
                after.next_time_ms = schedule.after(max(self._now_ms(), state.last_time_ms))
            if await self._write(schedule, revision, state, after) >= 0:
                return pb.ChangeScheduleResponse(schedule=await self._view(schedule, 1))
        raise RetryableError("CONFLICT", "The schedule is being changed by somebody else. Try again.")

    async def _run_now(
        self, schedule: Schedule, request: pb.ChangeScheduleRequest
    ) -> pb.ChangeScheduleResponse:
        start = self._request(schedule, f"now/{request.request_id}")
        run = run_id(start.workspace, start.trigger, start.request_id)
        known = await stored_run(self._store, self._workspace, run) is not None
        if not known:
            start.actor = request.actor
            start.input = encode(parameters(schedule, self._now_ms()))
            await self._start(start)
        return pb.ChangeScheduleResponse(schedule=await self._view(schedule, 1), run_id=run, duplicate=known)
