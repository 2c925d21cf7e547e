"""To the replica that decides for a run: what comes to another one is passed on to it by request and reply, and only
acknowledged once it has answered. Whoever passes on decides nothing, so a stale idea of the owner costs one more try.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import Message as Proto

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1.queries_pb2 import ShowQueuesRequest, ShowQueuesResponse
from aios.run.v1.state_pb2 import RunHead
from aios.task.v1.task_pb2 import Outcome, ReportOutcomes
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import partition_of_run, run_id
from aios_orchestrator.commands import MAX_STARTS, Commands, parse
from aios_orchestrator.ownership import Ownership, moved
from aios_orchestrator.repository import Repository
from aios_orchestrator.shown import together
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus
from aios_runtime.bus.replies import error_to_proto
from aios_runtime.outcomes import messages
from aios_runtime.run_states import ENDED

ASK_S: Final = 10.0  # for another replica to answer
MAX_BODY: Final = 200 * 1024  # bytes in one message, below the bus's own limit
QUEUE: Final = "orchestrator"

Report = tuple[str, Sequence[Outcome]]
"""Outcomes of one workspace."""

_REQUESTS: Final[Mapping[str, Any]] = {
    "start_run": pb.StartRunRequest,
    "cancel_run": pb.CancelRunRequest,
    "undo_run": pb.UndoRunRequest,
    "redo_run": pb.RedoRunRequest,
    "recover_run": pb.RecoverRunRequest,
    "migrate_run": pb.MigrateRunRequest,
    "decide_approval": pb.DecideApprovalRequest,
    "admit_run": pb.AdmitRunRequest,
    "fund_run": pb.FundRunRequest,
    "edit_approval": pb.EditApprovalRequest,
}
_PASSED_ON: Final = (*_REQUESTS, "start_runs", "report_outcomes", "hear_event", "show_queues")


class Router:
    """Carries out commands where they belong."""

    def __init__(
        self, bus: Bus, ownership: Ownership, commands: Commands, repository: Repository, workspace: str
    ) -> None:
        self._bus = bus
        self._ownership = ownership
        self._commands = commands
        self._repository = repository
        self._workspace = workspace
        self._shared = repository.store.shared
        self.queues: Callable[[], ShowQueuesResponse] = ShowQueuesResponse
        """What waits and what is out, of what this replica decides for."""

    async def serve(self) -> None:
        """Take what other replicas pass on."""
        if self._shared:
            for name in _PASSED_ON:
                subject = self._subject(name, self._ownership.me)
                await self._bus.answer(subject, self._taker(name), queue=QUEUE)

    async def carry_out(self, name: str, data: bytes) -> bytes:
        """The encoded answer to a command. Raises UNAVAILABLE while nobody decides for its run, and what is refused."""
        if not self._shared:
            return (await self._commands.carry_out(name, data)).SerializeToString()
        if name == "start_runs":
            return (await self._start_runs(parse(pb.StartRunsRequest, data))).SerializeToString()
        kind = _REQUESTS.get(name)
        if kind is None:  # any replica's
            return (await self._commands.carry_out(name, data)).SerializeToString()
        request = parse(kind, data)
        partition = partition_of_run(_run_of(request))
        replica = self._ownership.owner(partition)
        if replica != self._ownership.me:
            return await self._pass_on(name, data, [partition], replica)
        answer = await self._ownership.while_owner(replica, [partition], self._commands.carry_out(name, data))
        if isinstance(answer, pb.StartRunResponse):
            await self._supersede([answer.run.head])
        return answer.SerializeToString()

    async def start(self, request: pb.StartRunRequest) -> None:
        """Start a run, wherever it belongs. Again is safe."""
        await self.carry_out("start_run", request.SerializeToString())

    async def cancel(self, request: pb.CancelRunRequest) -> None:
        """Cancel a run, wherever it belongs. Again is safe."""
        await self.carry_out("cancel_run", request.SerializeToString())

    async def admit(self, request: pb.AdmitRunRequest) -> None:
        """Tell a queued run that its turn has come, wherever it belongs. Again is safe."""
        await self.carry_out("admit_run", request.SerializeToString())

    async def fund(self, request: pb.FundRunRequest) -> None:
        """Tell a run that asked for money that there may be enough, wherever it belongs. Again is safe."""
        await self.carry_out("fund_run", request.SerializeToString())

    async def hear(self, request: pb.HearEventRequest) -> None:
        """Have runs hear an event, wherever they belong. Again is safe."""
        places: dict[str, list[str]] = {}
        for run in request.run_ids:
            places.setdefault(self._ownership.owner(partition_of_run(run)), []).append(run)
        failed: AiosError | None = None
        for replica, runs in places.items():
            some = pb.HearEventRequest(workspace=request.workspace, event=request.event, run_ids=runs)
            data, partitions = some.SerializeToString(), list(map(partition_of_run, runs))
            try:
                if replica != self._ownership.me:
                    await self._pass_on("hear_event", data, partitions, replica)
                else:
                    work = self._commands.carry_out("hear_event", data)
                    await self._ownership.while_owner(replica, partitions, work)
            except AiosError as error:
                failed = _sooner(failed, error)
        if failed is not None:
            raise failed

    async def settle(self, reports: Sequence[Report]) -> list[AiosError | None]:
        """Settle reports of outcomes; for each why it could not be, if so. Again is safe, and helps unless that is a
        TerminalError."""
        if not self._shared:
            return await _tried(self._commands.settle(reports), len(reports))
        parts: dict[int, list[tuple[int, Report]]] = {}
        for at, (workspace, outcomes) in enumerate(reports):
            by_partition: dict[int, list[Outcome]] = {}
            for outcome in outcomes:
                by_partition.setdefault(partition_of_run(outcome.run_id), []).append(outcome)
            for partition, some in by_partition.items():
                parts.setdefault(partition, []).append((at, (workspace, some)))
        owners: dict[str, list[int]] = {}
        failures: list[AiosError | None] = [None] * len(reports)
        for partition in parts:
            try:
                owners.setdefault(self._ownership.owner(partition), []).append(partition)
            except RetryableError as error:
                for at, _ in parts[partition]:
                    failures[at] = error

        async def to(replica: str, partitions: list[int]) -> None:
            places, some = zip(*(part for partition in partitions for part in parts[partition]), strict=True)
            if replica == self._ownership.me:
                settling = self._ownership.while_owner(replica, partitions, self._commands.settle(some))
            else:
                settling = self._report(some, partitions, replica)
            for at, why in zip(places, await _tried(settling, len(some)), strict=True):
                failures[at] = _sooner(failures[at], why)

        await asyncio.gather(*(to(replica, partitions) for replica, partitions in owners.items()))
        return failures

    async def _report(
        self, reports: Sequence[Report], partitions: Sequence[int], replica: str
    ) -> list[AiosError | None]:
        outcomes = [(workspace, partitions[0], outcome) for workspace, some in reports for outcome in some]
        try:
            for message in messages(outcomes):
                await self._pass_on("report_outcomes", message.data, partitions, replica)
        except TerminalError as error:
            if len(reports) == 1:
                return [error]
            return [(await self._report([one], partitions, replica))[0] for one in reports]
        return [None] * len(reports)

    async def _start_runs(self, request: pb.StartRunsRequest) -> Proto:
        if not 0 < len(request.starts) <= MAX_STARTS:
            return await self._commands.carry_out("start_runs", request.SerializeToString())
        results = [pb.StartRunResult()] * len(request.starts)
        places: dict[str, list[int]] = {}
        for at, start in enumerate(request.starts):
            try:
                places.setdefault(self._ownership.owner(partition_of_run(_run_of(start))), []).append(at)
            except RetryableError as error:
                results[at] = pb.StartRunResult(error=error_to_proto(error))

        async def to(replica: str, some: list[int]) -> None:
            try:
                answer = await self._start_some([request.starts[at] for at in some], replica)
            except RetryableError as error:
                answer = [pb.StartRunResult(error=error_to_proto(error))] * len(some)
            for at, result in zip(some, answer, strict=True):
                results[at] = result

        await asyncio.gather(*(to(replica, some) for replica, some in places.items()))
        response = pb.StartRunsResponse(results=results)
        if response.ByteSize() > MAX_BODY:
            for result in response.results:
                result.started.run.ClearField("input")
        return response

    async def _start_some(
        self, starts: Sequence[pb.StartRunRequest], replica: str
    ) -> Sequence[pb.StartRunResult]:
        """Start runs that one replica decides for."""
        data = pb.StartRunsRequest(starts=starts).SerializeToString()
        partitions = [partition_of_run(_run_of(start)) for start in starts]
        if replica != self._ownership.me:
            told = await self._pass_on("start_runs", data, partitions, replica)
            return pb.StartRunsResponse.FromString(told).results
        answer = await self._ownership.while_owner(
            replica, partitions, self._commands.carry_out("start_runs", data)
        )
        assert isinstance(answer, pb.StartRunsResponse)
        await self._supersede([result.started.run.head for result in answer.results])
        return answer.results

    async def _supersede(self, heads: Sequence[RunHead]) -> None:
        """The newest run for one thing takes the place of the others, those of other replicas too.

        Each replica looks after its own start is committed, so of two that start at once the later one sees both.
        """
        seen = set()
        for head in heads:
            key = (head.workspace, head.workflow, head.concurrency_key)
            replaces = head.concurrency_key and not head.HasField("concurrency")
            if not replaces or head.state in ENDED or key in seen:
                continue
            seen.add(key)
            active = await self._repository.active_with_key(*key)
            by = max(active, key=lambda run: (run.create_time_ms, run.run_id), default=head)
            for run in active:
                if run.run_id != by.run_id:
                    await self._cancel(run, by.run_id)

    async def _cancel(self, run: RunHead, by: str) -> None:
        request = pb.CancelRunRequest(
            workspace=run.workspace,
            request_id=f"superseded/{by}",
            run_id=run.run_id,
            actor="service:orchestrator",
            why="a later change takes its place",
            superseded_by=by,
        )
        try:
            await self.carry_out("cancel_run", request.SerializeToString())
        except TerminalError as error:
            if error.code != "RUN_CLOSED":
                raise

    async def _pass_on(self, name: str, data: bytes, partitions: Collection[int], replica: str) -> bytes:
        asking = self._bus.ask(self._subject(name, replica), data, ASK_S)
        return await self._ownership.while_owner(replica, partitions, asking)

    def _taker(self, name: str) -> Callable[[bytes, Mapping[str, str]], Awaitable[bytes]]:
        async def taken(data: bytes, headers: Mapping[str, str]) -> bytes:
            if name == "show_queues":
                return self.queues().SerializeToString()
            runs = _runs_of(name, data)
            if not all(map(self._ownership.owns_run, runs)):
                raise moved()
            if name != "report_outcomes":
                return await self.carry_out(name, data)
            (why,) = await self.settle([(self._workspace, parse(ReportOutcomes, data).outcomes)])
            if why is not None:
                raise why
            return b""

        return taken

    async def show_queues(self) -> ShowQueuesResponse:
        """What waits and what is out, with every replica that decides for some of it."""
        shown = [self.queues()]
        for replica in self._ownership.others():
            data = ShowQueuesRequest(workspace=self._workspace, own=True).SerializeToString()
            told = await self._bus.ask(self._subject("show_queues", replica), data, ASK_S)
            shown.append(ShowQueuesResponse.FromString(told))
        return together(shown)

    def _subject(self, name: str, replica: str) -> str:
        return subjects.passed_on(name, self._workspace, replica)


def _sooner(one: AiosError | None, other: AiosError | None) -> AiosError | None:
    """Of two failures the one that goes by itself: what may be done yet is not given up."""
    return other if one is None or isinstance(other, RetryableError) else one


async def _tried(settling: Awaitable[list[AiosError | None]], reports: int) -> list[AiosError | None]:
    try:
        return await settling
    except AiosError as error:
        return [error] * reports


def _run_of(request: Any) -> str:
    if isinstance(request, pb.StartRunRequest):
        return run_id(request.workspace, request.trigger, request.request_id)
    return str(request.run_id)


def _runs_of(name: str, data: bytes) -> list[str]:
    if name == "report_outcomes":
        return [outcome.run_id for outcome in parse(ReportOutcomes, data).outcomes]
    if name == "hear_event":
        return list(parse(pb.HearEventRequest, data).run_ids)
    if name == "start_runs":
        return [_run_of(start) for start in parse(pb.StartRunsRequest, data).starts]
    return [_run_of(parse(_REQUESTS[name], data))]
