"""Questions that other services ask the orchestrator: reads that change nothing, each bounded."""

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import ClassVar, Final

from aios.bus.v1.bus_pb2 import FiledEvent, ReadEventsRequest, ReadEventsResponse
from aios.event.v1.event_pb2 import Resolution
from aios.resource.v1 import resource_pb2 as res
from aios.run.v1 import queries_pb2 as pb
from aios.run.v1.budget_pb2 import ListAccountsRequest, ListAccountsResponse
from aios.run.v1.commands_pb2 import (
    MigrateRunRequest,
    MigrateRunResponse,
    RecoverRunRequest,
    RecoverRunResponse,
)
from aios.run.v1.state_pb2 import (
    APPROVAL_STATE_OPEN,
    RUN_STATE_QUEUED,
    STEP_STATE_FAILED,
    STEP_STATE_PENDING,
    Approval,
    Failure,
    RunHead,
)
from aios_core.errors import RetryableError, TerminalError
from aios_core.step_names import by_round
from aios_orchestrator import failures, undo_plan
from aios_orchestrator.accounts import AccountBook
from aios_orchestrator.codec import head_of, step_record
from aios_orchestrator.commands import migration_of, parse, recovery_of
from aios_orchestrator.core import migrate
from aios_orchestrator.document import kind_named
from aios_orchestrator.live_runs import LIVE, LiveRuns
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.paging import MAX_ANSWER, page_that_fits, slim_approval, slim_run
from aios_orchestrator.queueing import MAX_WAITING
from aios_orchestrator.repository import Repository, approval_key, run_key, stored_run
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.schedules import Schedules
from aios_orchestrator.workflow import Workflow
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus

MAX_PAGE: Final = 200
MAX_SHOWN: Final = 500  # steps of the rounds of one step in an answer
MAX_SHARED: Final = 100  # runs of one cause that an answer names
MAX_TOUCHED: Final = 20  # of those, the ones whose changes it tells
MAX_EFFECTS: Final = 100  # changes that it tells
QUEUE: Final = "orchestrator"


class Queries:
    """Answers questions from the store."""

    def __init__(
        self,
        repository: Repository,
        resources: ResourceBook,
        ownership: Ownership,
        schedules: Schedules,
        queues: Callable[[], Awaitable[pb.ShowQueuesResponse]],
        accounts: AccountBook,
        live: LiveRuns,
        now_ms: Callable[[], int],
    ) -> None:
        self._now_ms, self._schedules = now_ms, schedules
        self._ownership, self._queues = ownership, queues
        self._accounts, self._live = accounts, live
        self._repository = repository
        self._store = repository.store
        self._resources = resources

    async def serve(self, bus: Bus, workspace: str) -> None:
        """Answer on the bus."""
        for (domain, name), handler in self._HANDLE.items():
            await bus.answer(subjects.query(domain, name, workspace), _bound(self, handler), queue=QUEUE)

    async def get_run(self, data: bytes) -> pb.GetRunResponse:
        request = parse(pb.GetRunRequest, data)
        stored = await self._repository.view(request.workspace, request.run_id)
        if stored is None:
            raise TerminalError("NOT_FOUND", f"There is no run {request.run_id!r}.", field="run_id")
        run = stored.run
        view = pb.RunView(head=head_of(run, await self._names(run)), input=run.input, outputs=run.outputs)
        await self._place([view.head])
        size = view.ByteSize()
        for approval in run.approvals.values():
            size += approval.ByteSize()
            if size < MAX_ANSWER:
                view.approvals.append(approval)
        if request.full:
            for name, step in run.steps.items():
                size += len(step.input) + len(step.output)
                if size < MAX_ANSWER:
                    view.records[name].CopyFrom(step_record(step))
        return pb.GetRunResponse(run=view)

    async def _names(self, run: Run) -> tuple[str, ...]:
        """The steps of a run in the order of its document, after each the steps of its rounds."""
        workflow = await self._resources.followed(run)
        inner = shown_of_rounds(run)
        names: list[str] = []
        for step in workflow.ordered:
            if not step.scope:
                names += [step.name, *inner.get(step.name, ())]
        return tuple(names)

    async def _place(self, heads: Iterable[RunHead]) -> None:
        """Tell those that wait for their turn which place they have."""
        lines: dict[tuple[str, str], list[str]] = {}
        for head in heads:
            if head.state != RUN_STATE_QUEUED:
                continue
            line = head.workflow, head.concurrency_key
            if line not in lines:
                lines[line] = await self._repository.waiting(head.workspace, *line, MAX_WAITING)
            if head.run_id in lines[line]:
                head.queue_place = lines[line].index(head.run_id) + 1

    async def list_runs(self, data: bytes) -> pb.ListRunsResponse:
        request = parse(pb.ListRunsRequest, data)
        index, value = "runs", request.workspace
        if request.needs_person:
            index = "person"
        elif request.late:
            index = "late"
        elif await self._live.filed(request.states):
            index = LIVE
        elif request.workflow:
            index, value = "workflow", f"{request.workspace}/{request.workflow}"

        async def ask(limit: int) -> tuple[list[RunHead], str]:
            page = await self._store.query(index, value, token=request.page_token, limit=limit)
            heads = [RunHead.FromString(item.head) for item in page.items]
            return [slim_run(head) for head in heads if _wanted(head, request)], page.next_token

        heads, token = await page_that_fits(ask, _size(request.page_size))
        await self._place(heads)
        return pb.ListRunsResponse(runs=heads, next_page_token=token)

    async def read_run_events(self, data: bytes) -> pb.ReadRunEventsResponse:
        """Events of one run after a sequence; sequences are gapless, so it is also how many to skip."""
        request = parse(pb.ReadRunEventsRequest, data)
        key = run_key(request.workspace, request.run_id)
        if await stored_run(self._store, request.workspace, request.run_id) is None:
            raise TerminalError("NOT_FOUND", f"There is no run {request.run_id!r}.", field="run_id")
        limit = min(request.limit or MAX_PAGE, MAX_PAGE)
        last = self._repository.sequence_in_view(key)
        if (
            last is not None
        ):  # who hears of an event and looks at the run then finds it there; later ones are announced
            limit = max(0, min(limit, last - request.after_sequence))
        response = pb.ReadRunEventsResponse()
        size = 0
        for filed in await self._store.events_of(key, request.after_sequence, limit):
            size += len(filed.data)
            if response.events and size > MAX_ANSWER:
                break
            response.events.append(filed.data)
        return response

    async def list_approvals(self, data: bytes) -> pb.ListApprovalsResponse:
        request = parse(pb.ListApprovalsRequest, data)
        index = "open" if request.open_only else "approvals"

        async def ask(limit: int) -> tuple[list[Approval], str]:
            page = await self._store.query(index, request.workspace, token=request.page_token, limit=limit)
            found = await self._repository.shown(Approval.FromString(item.head) for item in page.items)
            wanted = [item for item in found if item.state == APPROVAL_STATE_OPEN or not request.open_only]
            return [slim_approval(item) for item in wanted], page.next_token

        found, token = await page_that_fits(ask, _size(request.page_size, 20))
        return pb.ListApprovalsResponse(approvals=found, next_page_token=token)

    async def get_approval(self, data: bytes) -> pb.GetApprovalResponse:
        request = parse(pb.GetApprovalRequest, data)
        stored = await self._store.read(approval_key(request.workspace, request.approval_id))
        found = await self._repository.shown([Approval.FromString(stored.head)] if stored else [])
        if not found:
            raise TerminalError(
                "NOT_FOUND", f"There is no approval {request.approval_id!r}.", field="approval_id"
            )
        return pb.GetApprovalResponse(approval=found[0])

    async def list_failures(self, data: bytes) -> pb.ListFailuresResponse:
        request = parse(pb.ListFailuresRequest, data)

        def ask(limit: int) -> Awaitable[tuple[list[Failure], str]]:
            return self._repository.failures(request.workspace, request.cause, request.page_token, limit)

        found, token = await page_that_fits(ask, _size(request.page_size, 20))
        return pb.ListFailuresResponse(failures=found, next_page_token=token)

    async def get_failure(self, data: bytes) -> pb.GetFailureResponse:
        """One failure with what shares its cause. What the first runs of those have changed is told of."""
        request = parse(pb.GetFailureRequest, data)
        run, workflow = await self._run(request.workspace, request.run_id)
        failure = failures.failure_of(run, workflow)
        if failure is None:
            raise TerminalError("NOT_FAILED", f"Run {run.run_id} is not failed.")
        shared, token = await self._repository.failures(request.workspace, failure.cause, "", MAX_SHARED)
        failure.blast.runs.extend(other.run_id for other in shared)
        failure.blast.more = bool(token)
        for other in [run.run_id, *(item.run_id for item in shared if item.run_id != run.run_id)][
            :MAX_TOUCHED
        ]:
            failure.blast.effects.extend(failures.standing(*await self._run(request.workspace, other)))
        del failure.blast.effects[MAX_EFFECTS:]
        given = run.at(failure.step).input if failure.step else b""
        failure.input = given if len(given) < MAX_ANSWER // 2 else b""
        failure.remedies.extend(failures.remedies(run, workflow, self._now_ms()))
        return pb.GetFailureResponse(failure=failure)

    async def preview_recovery(self, data: bytes) -> RecoverRunResponse:
        """What a recovery would do, or why it is refused."""
        request = parse(RecoverRunRequest, data)
        run, workflow = await self._run(request.workspace, request.run_id)
        what = recovery_of(request)
        again = failures.preview(run, workflow, what, self._now_ms())
        target = failures.worker_of_edit(run, workflow, what)
        return RecoverRunResponse(state=run.state, again=again[:MAX_SHOWN], target=target)

    async def preview_migration(self, data: bytes) -> MigrateRunResponse:
        """What stands against it that a run follows another version, and whom it would ask anew."""
        request = parse(MigrateRunRequest, data)
        run, workflow = await self._run(request.workspace, request.run_id)
        what = await migration_of(request, self._resources)
        what = migrate.with_plans(run, what)
        move = migrate.plan(run, workflow, what)
        return MigrateRunResponse(
            state=run.state,
            from_version=run.workflow_version,
            to_version=what.workflow.version,
            breaks=move.breaks[:MAX_SHOWN],
            again=move.again[:MAX_SHOWN],
        )

    async def preview_undo(self, data: bytes) -> pb.PreviewUndoResponse:
        """What an undo would do, as far as the run can tell; a page of it."""
        request = parse(pb.PreviewUndoRequest, data)
        run, workflow = await self._run(request.workspace, request.run_id)
        undo_plan.refused(run, redo=request.redo)
        response, size = pb.PreviewUndoResponse(), 0
        planned = undo_plan.plan(run, workflow, list(request.steps), redo=request.redo)
        for item in itertools.islice(planned, request.after, None):
            size += item.ByteSize() + 8
            if response.planned and size > MAX_ANSWER:
                response.more = True
                break
            response.planned.append(item)
        return response

    async def _run(self, workspace: str, run_id: str) -> tuple[Run, Workflow]:
        stored = await self._repository.view(workspace, run_id)
        if stored is None:
            raise TerminalError("NOT_FOUND", f"There is no run {run_id!r}.", field="run_id")
        run = stored.run
        return run, await self._resources.followed(run)

    async def show_queues(self, data: bytes) -> pb.ShowQueuesResponse:
        parse(pb.ShowQueuesRequest, data)
        return await self._queues()

    async def list_accounts(self, data: bytes) -> ListAccountsResponse:
        request = parse(ListAccountsRequest, data)
        size = _size(request.page_size)
        found = await self._accounts.listed(request.prefix, request.page_token, size)
        token = found[-1].name if len(found) == size else ""
        return ListAccountsResponse(accounts=found, next_page_token=token)

    async def list_resolutions(self, data: bytes) -> pb.ListResolutionsResponse:
        request = parse(pb.ListResolutionsRequest, data)

        async def ask(limit: int) -> tuple[list[Resolution], str]:
            page = await self._store.query(
                "resolutions", request.workspace, token=request.page_token, limit=limit
            )
            return [Resolution.FromString(item.head) for item in page.items], page.next_token

        found, token = await page_that_fits(ask, _size(request.page_size, 50))
        return pb.ListResolutionsResponse(resolutions=found, next_page_token=token)

    async def read_events(self, data: bytes) -> ReadEventsResponse:
        request = parse(ReadEventsRequest, data)
        response = ReadEventsResponse(head=await self._store.event_head(request.partition))
        size = 0
        for filed in await self._store.events(
            request.partition, request.after, min(request.limit or 500, 500)
        ):
            size += len(filed.data) + 16
            if response.events and size > MAX_ANSWER:
                break
            response.events.append(
                FiledEvent(partition=filed.partition, position=filed.position, event=filed.data)
            )
        return response

    async def list_resources(self, data: bytes) -> res.ListResourcesResponse:
        request = parse(res.ListResourcesRequest, data)
        kind = kind_named(request.kind) if request.kind else ""
        found, token = await page_that_fits(
            lambda limit: self._resources.page(request.workspace, kind, request.page_token, limit),
            _size(request.page_size),
        )
        return res.ListResourcesResponse(resources=found, next_page_token=token)

    async def get_resource(self, data: bytes) -> res.GetResourceResponse:
        request = parse(res.GetResourceRequest, data)
        kind = kind_named(request.kind)
        resource = await self._resources.get(request.workspace, kind, request.name, request.version)
        if resource is None:
            raise await self._resources.unknown(request.workspace, kind, request.name, request.version)
        return res.GetResourceResponse(resource=resource)

    async def list_schedules(self, data: bytes) -> res.ListSchedulesResponse:
        return await self._schedules.list_schedules(parse(res.ListSchedulesRequest, data))

    _HANDLE: ClassVar = {
        ("run", "get_run"): get_run,
        ("run", "list_runs"): list_runs,
        ("run", "read_run_events"): read_run_events,
        ("run", "list_approvals"): list_approvals,
        ("run", "get_approval"): get_approval,
        ("run", "list_failures"): list_failures,
        ("run", "get_failure"): get_failure,
        ("run", "preview_recovery"): preview_recovery,
        ("run", "preview_migration"): preview_migration,
        ("run", "preview_undo"): preview_undo,
        ("run", "list_resolutions"): list_resolutions,
        ("run", "show_queues"): show_queues,
        ("run", "list_accounts"): list_accounts,
        ("run", "read_events"): read_events,
        ("resource", "list_resources"): list_resources,
        ("resource", "get_resource"): get_resource,
        ("resource", "list_schedules"): list_schedules,
    }


def shown_of_rounds(run: Run) -> dict[str, list[str]]:
    """The steps of rounds by the outermost step whose rounds they are, round by round; of many those under way, those
    that failed, and the first."""
    inner: dict[str, list[str]] = {}
    for name in run.steps:
        if "." in name and not (run.closed and run.steps[name].state == STEP_STATE_PENDING):
            inner.setdefault(name[: min(name.find(end) for end in ".[" if end in name)], []).append(name)
    for owner, names in inner.items():
        if len(names) > MAX_SHOWN:
            names.sort(key=lambda name: (not _matters(run, name), by_round(name)))
        inner[owner] = sorted(names[:MAX_SHOWN], key=by_round)
    return inner


def _matters(run: Run, name: str) -> bool:
    return name in run.live or run.steps[name].state == STEP_STATE_FAILED


def _bound(queries: Queries, handler: object):  # type: ignore[no-untyped-def]
    async def answer(data: bytes, headers: Mapping[str, str]) -> bytes:
        if not queries._ownership.present():
            raise RetryableError("UNAVAILABLE", "This replica is cut off; ask again.", retry_after=0.1)
        return (await handler(queries, data)).SerializeToString()  # type: ignore[operator, no-any-return]

    return answer


def _wanted(head: RunHead, request: pb.ListRunsRequest) -> bool:
    if request.states and head.state not in request.states:
        return False
    return request.workflow in ("", head.workflow) and (bool(head.late_time_ms) or not request.late)


def _size(asked: int, default: int = 100) -> int:
    return min(asked or default, MAX_PAGE)
