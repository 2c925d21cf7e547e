"""Starts of runs that are asked for at the same time travel together, and are committed together.

While a command is under way, further starts gather for the next. So nothing waits when there is little to do, and much
is done at once when there is much. A command goes to whoever leads the partition of its first run.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aios.run.v1.commands_pb2 import StartRunRequest, StartRunResponse, StartRunsRequest, StartRunsResponse
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import run_id
from aios_gateway.peers import Call
from aios_gateway.settings import MAX_REQUEST_BYTES
from aios_runtime.bus.replies import error_from_proto

MAX_STARTS: Final = 100  # in one command
AGAIN_S: Final = 0.25  # before a start is sent again that nobody decides for now
MAX_BYTES: Final = 200 * 1024  # of one command; a larger start is refused as every request is


@dataclass(slots=True)
class _Start:
    call: Call
    request: StartRunRequest
    size: int
    done: "asyncio.Future[StartRunResponse]"


@dataclass(slots=True)
class _Lane:
    waiting: deque[_Start] = field(default_factory=deque)  # at most as many as there may be calls
    sending: "asyncio.Task[None] | None" = None


class Starter:
    """Sends the starts of all calls of this gateway."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    async def start(
        self, call: Call, requests: Sequence[StartRunRequest]
    ) -> list[StartRunResponse | AiosError]:
        """Start runs; for each, once it is durable, the orchestrator's answer, or why it was not started."""
        lane = self._lanes.setdefault(call.workspace, _Lane())
        loop = asyncio.get_running_loop()
        starts = [_Start(call, request, request.ByteSize() + 8, loop.create_future()) for request in requests]
        for start in starts:
            if start.size > MAX_REQUEST_BYTES:
                why = f"The request takes {start.size} bytes; at most {MAX_REQUEST_BYTES} are carried."
                start.done.set_exception(TerminalError("TOO_LARGE", why))
            else:
                self._put(lane, start)
        try:
            await asyncio.wait([start.done for start in starts], timeout=call.timeout)
        finally:
            answers = [_answer(start.done) for start in starts]
        return answers

    def _put(self, lane: _Lane, start: _Start) -> None:
        if start.done.done():
            return  # its caller has gone
        lane.waiting.append(start)
        if lane.sending is None:
            lane.sending = asyncio.create_task(self._send_all(lane), name="starts")

    async def _send_all(self, lane: _Lane) -> None:
        try:
            while lane.waiting:
                await self._send(lane, _take(lane.waiting))
        finally:
            lane.sending = None

    async def _send(self, lane: _Lane, starts: list[_Start]) -> None:
        last = max(starts, key=lambda start: start.call.deadline)
        command = StartRunsRequest(starts=[start.request for start in starts])
        leading = starts[0].request
        first = run_id(leading.workspace, leading.trigger, leading.request_id)
        try:
            answer = await last.call.command_run("start_runs", first, command, StartRunsResponse)
            if len(answer.results) != len(starts):
                raise TerminalError("INTERNAL", "The orchestrator's answer leaves out some of the starts.")
        except AiosError as error:
            for start in starts:
                if not start.done.done():
                    start.done.set_exception(error)
            return
        for start, result in zip(starts, answer.results, strict=True):
            if start.done.done():
                continue  # its caller has gone
            if result.WhichOneof("result") != "error":
                start.done.set_result(result.started)
                continue
            refusal = error_from_proto(result.error)
            if isinstance(refusal, RetryableError) and refusal.code == "UNAVAILABLE":
                # One replica takes over from another: its caller waits for that, and the others do not.
                pause = refusal.retry_after or AGAIN_S
                asyncio.get_running_loop().call_later(pause, self._put, lane, start)
            else:
                start.done.set_exception(refusal)


def _answer(done: "asyncio.Future[StartRunResponse]") -> StartRunResponse | AiosError:
    """What became of a start by now; nobody waits for it any more."""
    if done.cancel() or done.cancelled():
        return RetryableError("DEADLINE_EXCEEDED", "The run was not started in time; ask again.")
    error = done.exception()
    if error is None:
        return done.result()
    if isinstance(error, AiosError):
        return error
    raise error


def _take(waiting: deque[_Start]) -> list[_Start]:
    """The starts of the next command, whose callers still wait; at least one."""
    starts = [waiting.popleft()]
    size = starts[0].size
    while waiting and len(starts) < MAX_STARTS and size + waiting[0].size <= MAX_BYTES:
        start = waiting.popleft()
        if not start.done.done():
            starts.append(start)
            size += start.size
    return starts
