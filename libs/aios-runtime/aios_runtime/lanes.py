"""The worker's side of a work lane: take tasks, work on them, report their outcomes, and only then acknowledge.

A delivery holds many tasks. Each is worked on, timed and reported by itself; outcomes that are ready at the same time
travel together; a delivery is acknowledged when the outcomes of all its tasks are stored by the bus.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from aios.error.v1.error_pb2 import Error
from aios.task.v1.task_pb2 import (
    MODE_SIMULATE,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    Outcome,
    PerformTasks,
    Task,
)
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.minting import now_ms as wall_ms
from aios_runtime import crashpoints, tracecontext
from aios_runtime.ahead import PerformNow, steps_ahead
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus, Delivery
from aios_runtime.bus.replies import error_to_proto
from aios_runtime.kept import VersionOf, kept_answer
from aios_runtime.outcomes import Reporter
from aios_runtime.task_time import too_late

MAX_TASKS: Final = 1024  # in one message
# Seconds until a task comes again that could not be answered, by how often it came; then the last again.
GIVEN_BACK_S: Final = (2.0, 2.0, 5.0, 10.0, 30.0)

Perform = Callable[[Task], Awaitable[Outcome]]

log = logging.getLogger("aios.lane")


def crash_points(service: str) -> tuple[str, str, str, str]:
    """The named instants of a lane's worker; a service declares them at import."""
    return (
        crashpoints.point(f"{service}.lane.received", "tasks were received, none is begun"),
        crashpoints.point(f"{service}.lane.worked", "a task is worked on, its outcome not reported"),
        crashpoints.point(
            f"{service}.lane.reported", "outcomes are stored by the bus, the tasks not acknowledged"
        ),
        crashpoints.point(f"{service}.lane.acknowledged", "the tasks are acknowledged"),
    )


class UnansweredError(Exception):
    """What a `perform` raises when it can't say for good what came of its task: no outcome is reported, and the task
    comes again. An outcome that says "failed" promises that nothing happens any more, also if the task comes twice."""


class _Parcel:
    """A delivery and what is still to do for it. `unanswered`: the outcome of one of its tasks is not known yet."""

    __slots__ = ("delivery", "done", "left", "running", "unanswered")

    def __init__(self, delivery: Delivery, left: int) -> None:
        self.delivery = delivery
        self.left = left
        self.unanswered = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running: set[asyncio.Task[None]] = set()


class LaneWorker:
    """Works on the tasks of one lane. `start` begins; the bus's `drain` ends it, letting what runs finish.

    `perform` returns the outcome of a task; what it raises is reported for it. `perform_now` is tried first, in the
    loop's own turn, for what takes microseconds; None means: use `perform`. What a task names as the steps after it is
    done with it as long as `perform_now` does it. At most `slots` tasks are worked on at
    once. `batch` is how many messages are taken at once.

    `timeout_is_unknown`: a task that would change the world and runs out of time may have changed it, so that it is
    UNKNOWN, not failed. A `perform` that knows better catches its cancellation and returns an outcome. Such a lane's
    `perform` also sees to it that what comes too late is not begun: only its ledger knows whether it was before.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        service: str,
        workspace: str,
        lane: str,
        perform: Perform,
        slots: int,
        batch: int,
        heartbeat_s: float = 4.0,
        perform_now: PerformNow | None = None,
        timeout_is_unknown: bool = False,
        worker: str = "",
        now_ms: Callable[[], int] = wall_ms,
        version_of: VersionOf | None = None,
    ) -> None:
        self._bus = bus
        self._service, self._workspace, self._lane = service, workspace, lane
        self._perform, self._perform_now = perform, perform_now
        self._slots, self._batch, self._heartbeat = slots, batch, heartbeat_s
        self._timeout_is_unknown = timeout_is_unknown
        self._worker = worker or service
        self._now_ms, self._version_of = now_ms, version_of
        self._received, self._worked, reported, self._acknowledged = crash_points(service)
        self._reporter = Reporter(bus, workspace, reported)
        self._queue: deque[tuple[_Parcel, Task]] = (
            deque()
        )  # at most `slots` parcels of at most MAX_TASKS each
        self._running = 0
        self._parcels: set[_Parcel] = set()
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take tasks."""
        self._beating = asyncio.create_task(self._beat(), name=f"heartbeats {self._lane}")
        consumer = subjects.consumer(self._service, "perform")
        await self._bus.consume(consumer, self._take, batch=self._batch, slots=self._slots, calls=self._slots)

    async def stop(self) -> None:
        """Stop the heartbeats. Close the bus first: it lets what runs finish."""
        if self._beating:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    @property
    def working(self) -> int:
        """Tasks that are worked on now."""
        return self._running

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        parcels = []
        for delivery in deliveries:
            try:
                tasks = _decode(delivery.data)
            except TerminalError as error:
                await delivery.dead(error)
                continue
            parcel = _Parcel(delivery, len(tasks))
            parcels.append(parcel)
            self._parcels.add(parcel)
            self._queue.extend((parcel, task) for task in tasks)
        crashpoints.crash(self._received)
        try:
            self._start_what_fits()
            for parcel in parcels:
                await parcel.done
        finally:
            for parcel in parcels:
                self._drop(parcel)

    def _drop(self, parcel: _Parcel) -> None:
        """It is done, or the worker stops: what is still running for it is of no use."""
        self._parcels.discard(parcel)
        if parcel.left:
            self._queue = deque(entry for entry in self._queue if entry[0] is not parcel)
            for task in parcel.running:
                task.cancel()

    def _start_what_fits(self) -> None:
        while self._queue and self._running < self._slots:
            parcel, task = self._queue.popleft()
            outcome = self._at_once(task)
            if outcome is not None:
                self._finish(parcel, task, outcome)
                if task.ahead and outcome.status == STATUS_SUCCEEDED:
                    self._go_on(parcel, task, outcome)
                continue
            self._running += 1
            work = asyncio.create_task(self._work(parcel, task), name=f"{self._lane} task")
            parcel.running.add(work)
            work.add_done_callback(parcel.running.discard)

    def _go_on(self, parcel: _Parcel, first: Task, outcome: Outcome) -> None:
        """The steps that follow without asking; the delivery is not acknowledged before all are reported."""
        for task, done in steps_ahead(first, outcome, self._at_once):
            parcel.left += 1
            self._finish(parcel, task, done)

    def _at_once(self, task: Task) -> Outcome | None:
        if too_late(task, self._now_ms()) is not None:
            return None
        kept = kept_answer(task, self._version_of)
        if kept is not None or self._perform_now is None:
            return kept
        token = tracecontext.current.set(task.traceparent)
        began = time.perf_counter_ns()
        try:
            outcome = self._perform_now(task)
        except Exception as error:
            outcome = self._failure(task, error)
        finally:
            tracecontext.current.reset(token)
        if outcome is not None and not outcome.usage.wall_us:
            outcome.usage.wall_us = (time.perf_counter_ns() - began) // 1000
        return outcome

    async def _work(self, parcel: _Parcel, task: Task) -> None:
        tracecontext.current.set(task.traceparent)  # this task's own context
        began = time.perf_counter_ns()
        try:
            outcome = await self._within_its_time(task)
            if not outcome.usage.wall_us:
                outcome.usage.wall_us = (time.perf_counter_ns() - began) // 1000
            self._finish(parcel, task, outcome)
        except UnansweredError as error:
            log.warning("%s is given back: %s", task.target, error, extra={"run_id": task.run_id})
            parcel.unanswered = True
            await self._reported(parcel)
        finally:
            self._running -= 1
            self._start_what_fits()

    async def _within_its_time(self, task: Task) -> Outcome:
        limit = task.timeout_ms / 1000 if task.timeout_ms else None
        late = None if self._timeout_is_unknown else too_late(task, self._now_ms())
        if late is not None:
            return _failed(late)
        if task.deadline_ms and (rest := (task.deadline_ms - self._now_ms()) / 1000) > 0:
            limit = rest if limit is None else min(limit, rest)
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                return await self._perform(task)
        except TimeoutError as error:
            if not clock.expired():
                return self._failure(task, error)
        except UnansweredError:
            raise
        except Exception as error:
            if isinstance(error, AiosError) and error.details.get("outcome") == "unknown":
                raise UnansweredError(error.message) from error
            return self._failure(task, error)
        return self._out_of_time(task, limit or 0.0)

    def _out_of_time(self, task: Task, limit: float) -> Outcome:
        if self._timeout_is_unknown and task.mode != MODE_SIMULATE:
            error = TerminalError(
                "OUTCOME_UNKNOWN",
                f"{task.target} did not end within {limit:g} s; whether it changed anything is not known.",
            )
            return Outcome(status=STATUS_UNKNOWN, error=error_to_proto(error))
        return _failed(RetryableError("STEP_TIMEOUT", f"{task.target} took longer than its {limit:g} s."))

    def _failure(self, task: Task, error: Exception) -> Outcome:
        if isinstance(error, AiosError):
            return _failed(error)
        log.error(
            "a task failed by a defect",
            exc_info=error,
            extra={"service": self._service, "run_id": task.run_id, "step": task.step, "target": task.target},
        )
        return _failed(
            RetryableError("INTERNAL", f"{task.target} failed by a defect ({type(error).__name__}).")
        )

    def _finish(self, parcel: _Parcel, task: Task, outcome: Outcome) -> None:
        crashpoints.crash(self._worked)
        outcome.run_id, outcome.task_id, outcome.dispatch, outcome.step = (
            task.run_id,
            task.task_id,
            task.dispatch,
            task.step,
        )
        outcome.mode = task.mode
        if task.cacheable and self._version_of is not None:
            outcome.target_version = self._version_of(task)
        outcome.traceparent = task.traceparent
        outcome.worker = self._worker
        self._reporter.report(task.workspace, task.partition, outcome, lambda: self._reported(parcel))

    async def _reported(self, parcel: _Parcel) -> None:
        parcel.left -= 1
        if parcel.left == 0:
            if parcel.unanswered:
                times = min(max(parcel.delivery.deliveries, 1), len(GIVEN_BACK_S))
                await parcel.delivery.retry(GIVEN_BACK_S[times - 1])
            else:
                await parcel.delivery.ack()
            crashpoints.crash(self._acknowledged)
            if not parcel.done.done():
                parcel.done.set_result(None)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            for parcel in list(self._parcels):
                await parcel.delivery.working()


def _decode(data: bytes) -> Sequence[Task]:
    try:
        tasks = PerformTasks.FromString(data).tasks
    except DecodeError:
        raise TerminalError("UNDECODABLE", "The message on the work lane is not a PerformTasks.") from None
    if not 0 < len(tasks) <= MAX_TASKS:
        raise TerminalError(
            "UNDECODABLE", f"The message has {len(tasks)} tasks; 1 to {MAX_TASKS} are allowed."
        )
    if any(not task.run_id or not task.task_id or not task.workspace for task in tasks):
        raise TerminalError("UNDECODABLE", "A task lacks its workspace, run_id or task_id.")
    return tasks


def _failed(error: AiosError) -> Outcome:
    proto: Error = error_to_proto(error)
    return Outcome(status=STATUS_FAILED, error=proto)
