"""A command's connection, which finds the server again when it was started anew."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from aios.api.v1 import api_pb2
from aios.resource.v1.resource_pb2 import Resource
from aios.run.v1.state_pb2 import RunState
from aios_cli import discovery, exits
from aios_cli.client import Client
from aios_cli.options import DEFAULT_TIMEOUT_S, given
from aios_core.errors import AiosError, RetryableError
from aios_runtime.run_states import ENDED

AGAIN_SECONDS: Final = (
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    2.0,
    5.0,
    5.0,
    5.0,
    10.0,
    10.0,
    10.0,
)  # about 50 s without a server

STATUS_SECONDS: Final = 1.0

_TELLING: Final = frozenset({"approval_requested", "step_unknown", "approval_decided"})


class Session:
    """`with Session() as session:` a connected client."""

    def __init__(self) -> None:
        self.client = self._connect()

    def __enter__(self) -> Self:
        self.client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(kind, error, trace)

    def run(self, run_id: str) -> api_pb2.Run:
        """A run as it stands now."""
        return self.client.call(self.client.runs.GetRun, api_pb2.GetRunRequest(run_id=run_id)).run

    def listed(self, method: Any, request: Any, items: str, limit: int | None = None) -> list[Any]:
        """What a listing has, or the first `limit`."""
        return list(islice(self.client.each(method, request, items), limit))

    def resources(self, kind: str) -> list[Resource]:
        """All documents of a kind; of all kinds for ''."""
        return self.listed(
            self.client.resources.ListResources, api_pb2.ListResourcesRequest(kind=kind), "resources"
        )

    def watch(self, run_id: str, after: int, deadline: float | None) -> Iterator[api_pb2.WatchRunResponse]:
        """The run's events until it ends, over restarts of the server. Raises DEADLINE_EXCEEDED at `deadline`."""
        failures = 0
        while True:
            request = api_pb2.WatchRunRequest(run_id=run_id, after_sequence=after)
            try:
                for answer in self.client.stream(self.client.runs.WatchRun, request, _left(deadline)):
                    failures = 0
                    after = answer.event.sequence
                    yield answer
                return
            except (exits.NoServerError, RetryableError):
                left = _left(deadline)
                if failures == len(AGAIN_SECONDS):
                    raise
                wait = AGAIN_SECONDS[failures]
                self._again(wait if left is None else min(wait, left))
                failures += 1

    def follow(
        self,
        run_id: str,
        show: Callable[[api_pb2.TimelineEntry], None],
        *,
        after: int = 0,
        until_person: bool = True,
        timeout: float | None = None,
    ) -> api_pb2.Run:
        """Watch a run, showing its story, until it ends, or (`until_person`) something of it is open for a person."""
        deadline = time.monotonic() + timeout if timeout else None
        stop_at = 0
        for answer in self.watch(run_id, after, deadline):
            if answer.HasField("entry"):
                show(answer.entry)
            if until_person and answer.event.WhichOneof("body") in _TELLING:
                run = self.run(run_id)
                stop_at = run.sequence if run.pending_approvals else 0
            if stop_at and answer.event.sequence >= stop_at:
                break
        return self.run(run_id)

    def statuses(self, timeout: float | None = None) -> Iterator[api_pb2.GetStatusResponse]:
        """How it all stands, every second, over restarts of the server; for `timeout` seconds, at least once."""
        deadline = time.monotonic() + timeout if timeout else None
        failures = 0
        while True:
            wait = STATUS_SECONDS
            try:
                request = api_pb2.GetStatusRequest()
                answer = self.client.call(self.client.system.GetStatus, request, DEFAULT_TIMEOUT_S)
                failures = 0
                yield answer
            except (exits.NoServerError, RetryableError):
                if failures == len(AGAIN_SECONDS):
                    raise
                wait = AGAIN_SECONDS[failures]
                failures += 1
            left = deadline - time.monotonic() if deadline is not None else wait
            if left <= 0:
                return
            if failures:
                self._again(min(wait, left))
            else:
                time.sleep(min(wait, left))

    def _connect(self) -> Client:
        return Client(discovery.find(given), given.timeout or DEFAULT_TIMEOUT_S)

    def _again(self, wait: float) -> None:
        """Look for the server anew, since its port may be another one now."""
        time.sleep(wait)
        try:
            fresh = self._connect()
            fresh.__enter__()
        except AiosError:
            return
        self.client.__exit__(None, None, None)
        self.client = fresh


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise RetryableError("DEADLINE_EXCEEDED", "The run goes on; the time given to wait is over.")
    return left


def exit_code(run: api_pb2.Run) -> int:
    """The exit code that says how a run stands."""
    if run.pending_approvals and run.state not in ENDED:
        return exits.NEEDS_PERSON
    if run.state == RunState.RUN_STATE_UNDO_INCOMPLETE:
        return exits.REFUSED
    if run.state in (RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CANCELLED, RunState.RUN_STATE_SKIPPED):
        return exits.FAILED
    return exits.OK
