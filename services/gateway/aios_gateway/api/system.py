"""SystemService: what needs a person, what runs, what it cost, who is well, and the end of a restore."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1 import queries_pb2
from aios.run.v1.budget_pb2 import AccountView, ListAccountsRequest, ListAccountsResponse
from aios.run.v1.state_pb2 import Approval, Failure, RunHead, RunState
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import check_request_id
from aios_gateway import views
from aios_gateway.api.notify import shown_webhook
from aios_gateway.lists import first, pages
from aios_gateway.notify.book import Book
from aios_gateway.peers import Call
from aios_runtime.run_states import ACTIVE, ENDED
from aios_runtime.service.health import health_subject

RECENT_RUNS: Final = 10
OPEN_APPROVALS: Final = 50
OPEN_FAILURES: Final = 50
PAGE_RUNS: Final = 100
MAX_PAGES: Final = 20  # of each kind, that a status looks through for those that it shows
MAX_RUNNING: Final = 1_000
MAX_LATE: Final = 100
HEALTH_SECONDS: Final = 1.0
RUNS_NAMED: Final = 3
STEPS_NAMED: Final = 5  # of each run
CONNECTOR: Final = "connector-"


async def get_status(
    call: Call, services: Sequence[str], version: str, now_ms: int, book: Book
) -> api_pb2.GetStatusResponse:
    approvals, failures, webhook, health, spent = await asyncio.gather(
        _approvals(call),
        _failures(call),
        shown_webhook(book),
        asyncio.gather(*(_health(call, service) for service in services)),
        _spent(call),
    )
    running, late, recent = await asyncio.gather(
        _runs(_in_states(call, ACTIVE), MAX_RUNNING),
        _runs(_in_states(call, ACTIVE, late=True), MAX_LATE),
        _runs(_in_states(call, ENDED), RECENT_RUNS),
    )
    return api_pb2.GetStatusResponse(
        needs_you=approvals,
        running=running,
        recent=recent,
        cost_month_micros=spent.get(f"{datetime.fromtimestamp(now_ms / 1000, UTC):%Y-%m}", 0),
        cost_total_micros=sum(spent.values()),
        version=version,
        services=[api_pb2.ServiceHealth(service="gateway", ready=True), *health],
        failures=failures,
        late=late,
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
    left: list[str] = []
    async for page, _ in _in_states(call, ACTIVE):
        left += [head.run_id for head in page if head.create_time_ms < since]
    if left:
        named = ", ".join(left[:RUNS_NAMED]) + (" …" if len(left) > RUNS_NAMED else "")
        raise TerminalError(
            "RESTORE_OPEN",
            f"{len(left)} runs from before the restore have not ended: {named}. What they do next may have been done "
            "after the backup, so decide or cancel them first, or say --anyway.",
        )


async def _approvals(call: Call) -> list[Approval]:
    """The newest that are open, without what is large in them."""
    question = queries_pb2.ListApprovalsRequest(
        workspace=call.workspace, open_only=True, page_size=OPEN_APPROVALS
    )
    found = pages(lambda: call, "list_approvals", question, queries_pb2.ListApprovalsResponse, "approvals")
    approvals: list[Approval] = (await first(found, OPEN_APPROVALS, MAX_PAGES))[0]
    for approval in approvals:
        approval.ClearField("plan")
        for step in approval.proposed:
            for large in ("arguments", "original", "changes"):
                step.ClearField(large)
    return approvals


async def _failures(call: Call) -> list[Failure]:
    """The newest."""
    question = queries_pb2.ListFailuresRequest(workspace=call.workspace, page_size=OPEN_FAILURES)
    found = pages(lambda: call, "list_failures", question, queries_pb2.ListFailuresResponse, "failures")
    return (await first(found, OPEN_FAILURES, MAX_PAGES))[0]


def _in_states(
    call: Call, states: Iterable[RunState.ValueType], *, late: bool = False
) -> AsyncIterator[tuple[list[RunHead], bool]]:
    """Runs in these states, the newest first."""
    question = queries_pb2.ListRunsRequest(
        workspace=call.workspace, states=states, late=late, page_size=PAGE_RUNS
    )
    return pages(lambda: call, "list_runs", question, queries_pb2.ListRunsResponse, "runs")


async def _runs(found: AsyncIterator[tuple[list[RunHead], bool]], most: int) -> list[api_pb2.Run]:
    """The first of them, as far as `MAX_PAGES` pages go, each with a few of its steps."""
    runs = [views.run_of(head) for head in (await first(found, most, MAX_PAGES))[0]]
    for run in runs:
        del run.steps[STEPS_NAMED:]
    return runs


async def _spent(call: Call) -> dict[str, int]:
    """What all runs have cost by month, such as `2026-11`, micro-dollars. Of each month's accounts, which are many, the
    one of the workspace is the last."""

    async def one(prefix: str, after: str) -> AccountView | None:
        question = ListAccountsRequest(workspace=call.workspace, prefix=prefix, page_token=after, page_size=1)
        answer = await call.ask("run", "list_accounts", question, ListAccountsResponse)
        return answer.accounts[0] if answer.accounts else None

    spent: dict[str, int] = {}
    last = ""
    while (first := await one("month/", last)) is not None:
        month = first.name.split("/")[1]
        last = f"month/{month}/workspace"
        account = await one(last, "")
        spent[month] = account.settled_micros if account is not None else 0
    return spent


async def _health(call: Call, service: str) -> api_pb2.ServiceHealth:
    subject = health_subject(service, call.workspace)
    try:
        answer = await call.bus.ask(subject, b"", min(HEALTH_SECONDS, call.timeout))
    except AiosError as error:
        return api_pb2.ServiceHealth(
            service=service, ready=False, detail=f"{service} does not answer ({error.code})"
        )
    return api_pb2.ServiceHealth.FromString(answer)
