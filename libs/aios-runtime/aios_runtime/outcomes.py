"""Reporting outcomes: what is ready at the same time travels in one message per partition."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aios.task.v1.task_pb2 import STATUS_FAILED, Outcome, ReportOutcomes
from aios_core.errors import AiosError, TerminalError
from aios_runtime import crashpoints
from aios_runtime.bus import subjects
from aios_runtime.bus.port import MAX_MESSAGE_BYTES, Bus, Message
from aios_runtime.bus.replies import error_to_proto

MAX_OUTCOMES: Final = 256  # in one message
MAX_BYTES: Final = MAX_MESSAGE_BYTES - 4096  # of one message, with room for its headers
OUTCOME_OVERHEAD_BYTES: Final = 4  # tag and length of an outcome among others
RETRY_SECONDS: Final = (
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
)  # before the n-th try to reach the bus; then the last again

Reported = Callable[[], Awaitable[None]]

log = logging.getLogger("aios.lane")


class Reporter:
    """Collects outcomes while a report is under way and sends them with the next one.

    It keeps trying while there is no bus. What it holds is bounded by the tasks that its lane has in hand.
    """

    def __init__(self, bus: Bus, workspace: str, reported_point: str) -> None:
        self._bus = bus
        self._workspace = workspace
        self._point = reported_point
        self._ready: list[tuple[str, int, Outcome, Reported]] = []
        self._sending: asyncio.Task[None] | None = None

    def report(self, workspace: str, partition: int, outcome: Outcome, reported: Reported) -> None:
        """Report an outcome soon; `reported` is called when the bus has stored it."""
        self._ready.append((workspace or self._workspace, partition, outcome, reported))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="report outcomes")

    async def _send_all(self) -> None:
        try:
            while self._ready:
                ready, self._ready = self._ready, []
                await self._send(
                    messages([(workspace, part, outcome) for workspace, part, outcome, _ in ready])
                )
                crashpoints.crash(self._point)
                for *_, reported in ready:
                    await reported()
        finally:
            self._sending = None

    async def _send(self, batch: list[Message]) -> None:
        attempt = 0
        while True:
            try:
                return await self._bus.publish(batch)
            except AiosError as error:
                if attempt == 0:
                    log.log(
                        logging.WARNING if error.retryable else logging.ERROR,
                        "outcomes can't be reported: %s",
                        error,
                    )
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1


def messages(outcomes: list[tuple[str, int, Outcome]]) -> list[Message]:
    """The outcomes as messages: one or more for each workspace and partition, in order."""
    grouped: dict[tuple[str, int], list[Outcome]] = {}
    for workspace, partition, outcome in outcomes:
        grouped.setdefault((workspace, partition), []).append(outcome)
    made = []
    for (workspace, partition), members in grouped.items():
        subject = subjects.report_outcomes(workspace, partition)
        chunk: list[Outcome] = []
        size = 0
        for member in members:
            bounded, length = _bounded(member)
            if chunk and (len(chunk) == MAX_OUTCOMES or size + length > MAX_BYTES):
                made.append(_message(subject, chunk))
                chunk, size = [], 0
            chunk.append(bounded)
            size += length
        made.append(_message(subject, chunk))
    return made


def _message(subject: str, outcomes: list[Outcome]) -> Message:
    trace = outcomes[0].traceparent if len(outcomes) == 1 else ""
    headers = {subjects.HEADER_TRACE: trace} if trace else {}
    return Message(subject, ReportOutcomes(outcomes=outcomes).SerializeToString(), headers=headers)


def _bounded(outcome: Outcome) -> tuple[Outcome, int]:
    """The outcome, or one that says that it is too large; with its size in bytes."""
    size = outcome.ByteSize() + OUTCOME_OVERHEAD_BYTES
    if size <= MAX_BYTES:
        return outcome, size
    error: AiosError = TerminalError(
        "TOO_LARGE",
        f"The outcome of step {outcome.step} has {size} bytes; at most {MAX_BYTES} are allowed. Store what is large"
        " as an artifact and return its pointer.",
    )
    small = Outcome()
    small.CopyFrom(outcome)
    small.ClearField("output")
    small.ClearField("changes")
    small.ClearField("summary")
    small.status = STATUS_FAILED
    small.error.CopyFrom(error_to_proto(error))
    if small.ByteSize() > MAX_BYTES:
        small.ClearField("undo_token")
    return small, small.ByteSize() + OUTCOME_OVERHEAD_BYTES
