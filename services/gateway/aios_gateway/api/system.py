"""SystemService: what needs a person, what runs, what it cost, and who is well."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1 import queries_pb2
from aios.run.v1.state_pb2 import RunState
from aios_core.errors import AiosError
from aios_gateway import views
from aios_gateway.peers import Call
from aios_runtime.service.health import health_subject

RECENT_RUNS: Final = 10
OPEN_APPROVALS: Final = 50
OPEN_FAILURES: Final = 50
PAGE_RUNS: Final = 100
MAX_PAGES: Final = 20  # of runs, the newest first, whose cost a status adds up
HEALTH_SECONDS: Final = 1.0
ACTIVE: Final = (RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_CANCELLING, RunState.RUN_STATE_UNDOING)


async def get_status(
    call: Call, _: api_pb2.GetStatusRequest, services: Sequence[str], version: str, now_ms: int
) -> api_pb2.GetStatusResponse:
    open_approvals = queries_pb2.ListApprovalsRequest(
        workspace=call.workspace, open_only=True, page_size=OPEN_APPROVALS
    )
    failed = queries_pb2.ListFailuresRequest(workspace=call.workspace, page_size=OPEN_FAILURES)
    approvals, failures, runs, health = await asyncio.gather(
        call.ask("run", "list_approvals", open_approvals, queries_pb2.ListApprovalsResponse),
        call.ask("run", "list_failures", failed, queries_pb2.ListFailuresResponse),
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
