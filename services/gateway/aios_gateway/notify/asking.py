"""What needs a person now, asked of the orchestrator."""

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import Message as Proto

from aios.run.v1 import queries_pb2
from aios_gateway.notify.needs import Need, needs
from aios_gateway.peers import Call
from aios_gateway.views import ACTIVE

PAGE: Final = 100
MAX_PAGES: Final = 50  # of each kind


async def needs_now(call: Call) -> tuple[Sequence[Need], bool]:
    """All that needs a person, and whether it is all: of each kind there are `PAGE` × `MAX_PAGES` at most."""
    approvals, all_approvals = await _pages(
        call,
        "list_approvals",
        queries_pb2.ListApprovalsRequest(workspace=call.workspace, open_only=True, page_size=PAGE),
        queries_pb2.ListApprovalsResponse,
        "approvals",
    )
    failures, all_failures = await _pages(
        call,
        "list_failures",
        queries_pb2.ListFailuresRequest(workspace=call.workspace, page_size=PAGE),
        queries_pb2.ListFailuresResponse,
        "failures",
    )
    late, all_late = await _pages(
        call,
        "list_runs",
        queries_pb2.ListRunsRequest(workspace=call.workspace, late=True, states=ACTIVE, page_size=PAGE),
        queries_pb2.ListRunsResponse,
        "runs",
    )
    found = needs(approvals, failures, late)
    return found, all_approvals and all_failures and all_late


async def _pages(
    call: Call, name: str, request: Any, answer: type[Any], items: str
) -> tuple[list[Any], bool]:
    found: list[Proto] = []
    for _ in range(MAX_PAGES):
        page = await call.renewed().ask("run", name, request, answer)
        found += getattr(page, items)
        if not page.next_page_token:
            return found, True
        request.page_token = page.next_page_token
    return found, False
