"""SystemService: what needs a person, what runs, what it cost, who is well, and the end of a restore."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1 import queries_pb2
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import check_request_id
from aios_gateway import views
from aios_gateway.api.notify import shown_webhook
from aios_gateway.notify.book import Book
from aios_gateway.peers import Call
from aios_gateway.views import ACTIVE
from aios_runtime.service.health import health_subject

RECENT_RUNS: Final = 10
OPEN_APPROVALS: Final = 50
OPEN_FAILURES: Final = 50
PAGE_RUNS: Final = 100
MAX_PAGES: Final = 20  # of runs, the newest first, whose cost a status adds up
HEALTH_SECONDS: Final = 1.0
RUNS_NAMED: Final = 3
CONNECTOR: Final = "connector-"


async def get_status(
    call: Call, services: Sequence[str], version: str, now_ms: int, book: Book
) -> api_pb2.GetStatusResponse:
    open_approvals = queries_pb2.ListApprovalsRequest(
        workspace=call.workspace, open_only=True, page_size=OPEN_APPROVALS
    )
    failed = queries_pb2.ListFailuresRequest(workspace=call.workspace, page_size=OPEN_FAILURES)
    late = queries_pb2.ListRunsRequest(workspace=call.workspace, late=True, page_size=PAGE_RUNS)
    approvals, failures, lates, webhook, runs, health = await asyncio.gather(
        call.ask("run", "list_approvals", open_approvals, queries_pb2.ListApprovalsResponse),
        call.ask("run", "list_failures", failed, queries_pb2.ListFailuresResponse),
        call.ask("run", "list_runs", late, queries_pb2.ListRunsResponse),
        shown_webhook(book),
        _runs(call),
        asyncio.gather(*(_health(call, service) for service in services)),
    )
    month = _month_start_ms(now_ms)
    return api_pb2.GetStatusResponse(
        needs_you=approvals.approvals,
        running=[run for run in runs if run.state in ACTIVE],
        recent=[run for run in runs if run.state not in ACTIVE][:RECENT_RUNS],
        cost_month_micros=sum(run.cost_micros for run in runs if run.create_time_ms >= month),
        cost_total_micros=sum(run.cost_micros for run in runs),
        version=version,
        services=[api_pb2.ServiceHealth(service="gateway", ready=True), *health],
        failures=failures.failures,
        late=[views.run_of(head) for head in lates.runs if head.state in ACTIVE],
        webhook=webhook,
    )


async def close_restore(
    call: Call, request: api_pb2.CloseRestoreRequest, services: Sequence[str]
) -> api_pb2.CloseRestoreResponse:
    """Close it at each connector. One that does not answer fails the call: the same request again closes the rest.

    Raises RESTORE_OPEN while a run from before the restore has not ended.
    """
    check_request_id(request.request_id)
    if not request.restore_id:
        raise TerminalError(
            "INVALID_ARGUMENT",
            "restore_id is empty; `aios doctor` shows that of the open one.",
            field="restore_id",
        )
    connectors = [service for service in services if service.startswith(CONNECTOR)]
    if not request.anyway:
        await _check_ended(call, request.restore_id, connectors)
    answers = [
        await call.ask(connector, "close_restore", request, api_pb2.CloseRestoreResponse)
        for connector in connectors
    ]
    return api_pb2.CloseRestoreResponse(closed=[closed for answer in answers for closed in answer.closed])


async def _check_ended(call: Call, restore_id: str, connectors: Sequence[str]) -> None:
    health = await asyncio.gather(*(_health(call, connector) for connector in connectors))
    restores = [told.restore for told in health if told.restore.restore_id == restore_id]
    since = max((restore.restore_time_ms for restore in restores), default=0)
    left = [run.run_id for run in await _runs(call) if run.state in ACTIVE and run.create_time_ms < since]
    if left:
        named = ", ".join(left[:RUNS_NAMED]) + (" …" if len(left) > RUNS_NAMED else "")
        raise TerminalError(
            "RESTORE_OPEN",
            f"{len(left)} runs from before the restore have not ended: {named}. What they do next may have been done "
            "after the backup, so decide or cancel them first, or say --anyway.",
        )


async def _runs(call: Call) -> list[api_pb2.Run]:
    """The newest runs, as many as `MAX_PAGES` pages hold."""
    runs: list[api_pb2.Run] = []
    token = ""
    for _ in range(MAX_PAGES):
        question = queries_pb2.ListRunsRequest(
            workspace=call.workspace, page_size=PAGE_RUNS, page_token=token
        )
        answer = await call.ask("run", "list_runs", question, queries_pb2.ListRunsResponse)
        runs += [views.run_of(head) for head in answer.runs]
        token = answer.next_page_token
        if not token:
            break
    return runs


async def _health(call: Call, service: str) -> api_pb2.ServiceHealth:
    subject = health_subject(service, call.workspace)
    try:
        answer = await call.bus.ask(subject, b"", min(HEALTH_SECONDS, call.timeout))
    except AiosError as error:
        return api_pb2.ServiceHealth(
            service=service, ready=False, detail=f"{service} does not answer ({error.code})"
        )
    return api_pb2.ServiceHealth.FromString(answer)


def _month_start_ms(now_ms: int) -> int:
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp() * 1000)
