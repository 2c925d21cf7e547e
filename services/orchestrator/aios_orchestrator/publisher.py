"""Puts on the bus the tasks that a commit led to, as far as there is room on their lanes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.queries_pb2 import ShowQueuesResponse
from aios.run.v1.state_pb2 import RunState
from aios.task.v1.task_pb2 import CachedAnswer, PerformTasks, Task
from aios_core.errors import RetryableError, TerminalError
from aios_core.ids import partition_of_run
from aios_orchestrator.ahead import Planner
from aios_orchestrator.codec import priority_of, task_of
from aios_orchestrator.core.compensate import lane_of
from aios_orchestrator.core.draft import look
from aios_orchestrator.delivery import GRACE_MS, Delivery
from aios_orchestrator.kept_answers import KeptAnswers
from aios_orchestrator.model import Run
from aios_orchestrator.progress import OPEN_STEP
from aios_orchestrator.scheduler import Waiting
from aios_orchestrator.unsent import Note, Unsent
from aios_orchestrator.workflow import Workflow
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus, Message
from aios_runtime.telemetry import tracing

MAX_MESSAGE: Final = 200 * 1024  # bytes of tasks in one message, below the bus's own limit
MAX_TASKS: Final = 64  # tasks in one message: a worker that dies gives back no more than these
RETRY_S: Final = 0.5

log = logging.getLogger(__name__)


Fetch = Callable[[str], Awaitable[tuple[Run, Workflow] | None]]


async def _nothing(run_id: str) -> None:
    return None


def waiting(run: Run, workflow: Workflow, name: str) -> Waiting:
    """What says when the task of a step goes out."""
    step = workflow.at(name)
    return Waiting(
        run.run_id,
        name,
        run.at(name).dispatch,
        step.timeout_ms,
        priority_of(run, workflow, step),
        run.customer,
        run.workflow,
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """A run whose change is committed: the steps that changed, those to hand out, and those that ended."""

    run: Run
    workflow: Workflow
    steps: Collection[str]
    out: Sequence[str]
    ended: Sequence[str]
    closed: bool
    """Whether the run itself ended with it, for the first time."""


class Publisher:
    """Owns the lanes' windows. Tasks that find no room wait in `Delivery` until an outcome makes some."""

    def __init__(self, bus: Bus, workspace: str, answers: KeptAnswers, now_ms: Callable[[], int]) -> None:
        self._bus = bus
        self._answers, self._now_ms = answers, now_ms
        self._workspace = workspace
        self._planner = Planner()
        self.delivery = Delivery()
        self.unsent = Unsent()
        self.fetch: Fetch = _nothing
        """Gives the run of a task that waited, as it is stored, and its workflow; None when there is none."""
        self.owns: Callable[[str], bool] = lambda run_id: True
        """Whether this replica decides for a run. Only then it counts the run's tasks as out: who decides does."""
        self.room_at: Callable[[int], None] = lambda at: None
        """Hears when a rate lets the next waiting task go, in ms of the clock of leases. No outcome may come until then
        that would have it looked for, so somebody must call `refill`."""

    def behind(self) -> frozenset[int]:
        """The partitions of which a task may be committed that is not on the bus."""
        return self.unsent.partitions().union(map(partition_of_run, self.delivery.waiting_runs()))

    async def publish(self, changed: Sequence[Changed], note: Note) -> None:
        """Publish what follows from committed changes. Tries until the bus takes it: it is committed. `note` gets the
        runs whose tasks go out with them."""
        await self._send(await self._tasks(changed, note))
        for change in changed:
            if change.workflow.keeps:
                await self._answers.keep(change.run, change.workflow, change.ended)
        if tracing.enabled():
            for change in changed:
                trace_ended(change)

    async def _offer(self, run: Run, name: str) -> CachedAnswer | None:
        """What a step that goes out may be answered with."""
        key = run.at(name).cache_key
        try:
            return await self._answers.find(key, self._now_ms()) if key else None
        except RetryableError:
            return None  # then the work is done again

    async def _tasks(self, changed: Sequence[Changed], note: Note) -> list[Message]:
        now, lanes = lease_ms(), dict[str, list[Waiting]]()
        at_hand: dict[str, tuple[Run, Workflow]] = {}
        strays: list[Changed] = []
        for change in changed:
            run = change.run
            for name in change.steps:
                step = run.at(name)
                if step.state not in OPEN_STEP or step.due:
                    lane = self.delivery.settled(run.run_id, name)
                    if lane is not None:
                        lanes.setdefault(lane, [])
            if not change.out:
                continue
            if note.lost(run.run_id) or not self.owns(run.run_id):
                strays.append(change)
                continue
            at_hand[run.run_id] = run, change.workflow
            for name in change.out:
                lane = lane_of(run, change.workflow, name)
                lanes.setdefault(lane, []).append(waiting(run, change.workflow, name))
        for lane in self.delivery.held_back():
            lanes.setdefault(lane, [])
        # All take their places in one go: what ends in another batch meanwhile must find them taken.
        going = {lane: self.delivery.hand_out(lane, tasks, now) for lane, tasks in lanes.items()}
        messages: list[Message] = []
        for lane, tasks in going.items():
            messages += await self._ready(lane, tasks, at_hand, note)
        for change in strays:
            messages += await self._stray(change, note)
        room = self.delivery.next_room(now)
        if room is not None:
            self.room_at(room)
        return messages

    async def _stray(self, change: Changed, note: Note) -> list[Message]:
        """Tasks of a run that became another replica's while their commit was under way. They go out at once; counted
        here, they would keep their places from others until their leases end."""
        note.runs.append(change.run.run_id)
        messages = []
        for name in change.out:
            task = await self._offered(change.run, change.workflow, name)
            messages += self._lane_messages(lane_of(change.run, change.workflow, name), [task])
        return messages

    async def _ready(
        self,
        lane: str,
        going: Sequence[Waiting],
        at_hand: Mapping[str, tuple[Run, Workflow]],
        note: Note,
    ) -> list[Message]:
        """The messages of tasks that go. Those that waited are made of what is in the store now; where one is not
        wanted any more, another one goes."""
        tasks: list[Task] = []
        while going:
            note.runs += [item.run_id for item in going]
            for item in going:
                found = at_hand.get(item.run_id) or await self._fetched(item.run_id)
                step = found[0].at(item.step) if found is not None else None
                if found is None or step is None or step.state not in OPEN_STEP or step.due:
                    self.delivery.settled(item.run_id, item.step)
                else:
                    tasks.append(await self._offered(*found, item.step))
            going = self.delivery.fill(lane, lease_ms())
        return self._lane_messages(lane, tasks)

    async def _fetched(self, run_id: str) -> tuple[Run, Workflow] | None:
        """A run whose task has its place already, so that there is no way back: tries until the store answers."""
        while True:
            try:
                return await self.fetch(run_id)
            except RetryableError as error:
                log.warning("a task that may go waits for the store: %s", error.message)
                await asyncio.sleep(RETRY_S)
            except TerminalError:
                log.exception("a task can't go", extra={"run_id": run_id})
                return None

    async def _offered(self, run: Run, workflow: Workflow, name: str) -> Task:
        task = self._task(run, workflow, name)
        if workflow.keeps and task.cacheable and (offered := await self._offer(run, name)) is not None:
            task.cached.CopyFrom(offered)
        return task

    def _task(self, run: Run, workflow: Workflow, name: str) -> Task:
        gate = workflow.gate_of(name)
        approval = run.approvals.get(run.at(gate).approval_id) if gate else None
        if approval is not None and approval.state != st.APPROVAL_STATE_APPROVED:
            approval = None
        task = task_of(run, workflow, name, approval, step_trace(run, name))
        if workflow.at(name).kind == "agent" and not run.undo_queue and run.fork is None:
            task.ahead.extend(self._planner.ahead(workflow, name, lambda root: look(run, root)))
            if run.traceparent:
                for after in task.ahead:
                    after.traceparent = step_trace(run, after.step)
        return task

    def _lane_messages(self, lane: str, tasks: Iterable[Task]) -> list[Message]:
        by_priority: dict[int, list[Task]] = {}
        for task in tasks:
            by_priority.setdefault(task.priority, []).append(task)
        messages = []
        for priority, group in by_priority.items():
            subject = subjects.perform(self._workspace, lane, priority)
            for part in _parts(group):
                first = part[0]
                messages.append(
                    Message(
                        subject,
                        PerformTasks(tasks=part).SerializeToString(),
                        f"{first.task_id}#{first.mode}.{first.dispatch}x{len(part)}",
                        {subjects.HEADER_TRACE: first.traceparent} if first.traceparent else {},
                    )
                )
        return messages

    def queues(self) -> ShowQueuesResponse:
        """What waits and what is out, of what this process decides for."""
        lanes, limits = self.delivery.view(lease_ms())
        return ShowQueuesResponse(lanes=lanes, limits=limits)

    def adopt(self, run: Run, workflow: Workflow, name: str) -> None:
        """Watch over a task that another process has put on the bus. Where its run has become another replica's by
        now, that one does."""
        if not self.owns(run.run_id):
            return
        step = workflow.at(name)
        end = lease_ms() + step.timeout_ms + GRACE_MS
        self.delivery.adopt(waiting(run, workflow, name), lane_of(run, workflow, name), end)

    async def refill(self) -> None:
        """Hand out what waits, if there is room: after a restart, and when a lease has been given up."""
        messages = []
        note = self.unsent.begin()
        for lane in list(self.delivery.counts()):
            messages += await self._ready(lane, self.delivery.fill(lane, lease_ms()), {}, note)
        await self._send(messages)
        self.unsent.end(note)  # and where it is broken off before, it is missing for good

    async def _send(self, messages: Sequence[Message]) -> None:
        while messages:
            try:
                await self._bus.publish(messages)
                return
            except RetryableError as error:
                log.warning("the bus did not take %d messages: %s", len(messages), error.message)
                await asyncio.sleep(RETRY_S)


def lease_ms() -> int:
    """The clock of leases, in ms: one that nobody sets, since leases do not outlive this process."""
    return int(asyncio.get_running_loop().time() * 1000)


def _parts(tasks: Iterable[Task]) -> Iterable[list[Task]]:
    part: list[Task] = []
    total = 0
    for task in tasks:
        cost = task.ByteSize() + 8
        if part and (total + cost > MAX_MESSAGE or len(part) >= MAX_TASKS):
            yield part
            part, total = [], 0
        part.append(task)
        total += cost
    if part:
        yield part


def step_trace(run: Run, step: str) -> str:
    """The trace context of a step: the same after any restart, so that its workers' spans find their parent."""
    group = run.at(step).attempt_group
    again = f"/{group}" if group > 1 else ""
    return (
        tracing.child(run.traceparent, f"{run.run_id}/{step}/{run.undo_group}{again}")
        if run.traceparent
        else ""
    )


def trace_ended(change: Changed) -> None:
    """Record the spans of what ended with a change: steps, and the run itself."""
    run, workflow = change.run, change.workflow
    if not run.traceparent:
        return
    for name in change.ended:
        step = run.at(name)
        if step.state in (st.STEP_STATE_SUCCEEDED, st.STEP_STATE_FAILED):
            tracing.record(
                f"step {workflow.at(name).kind}",
                step_trace(run, name),
                start_ms=step.start,
                end_ms=step.end,
                parent=run.traceparent,
                attributes={
                    "aios.run_id": run.run_id,
                    "aios.step": name,
                    "aios.target": workflow.at(name).target,
                    **({"aios.late": "true"} if step.late else {}),
                },
                error=step.error.code if step.error else "",
            )
    if run.closed and change.closed:
        tracing.record(
            "run {workflow}",
            run.traceparent,
            start_ms=run.create_time,
            end_ms=run.update_time,
            parent=run.parent_traceparent,
            attributes={
                "aios.run_id": run.run_id,
                "aios.workflow": run.workflow,
                "aios.state": RunState.Name(run.state),
                **({"aios.late": "true"} if run.late_time else {}),
            },
            error=run.error.code if run.error else "",
        )
