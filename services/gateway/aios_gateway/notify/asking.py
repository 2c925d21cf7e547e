"""What needs a person now, asked of the orchestrator."""

from collections.abc import Sequence
from typing import Any, Final

from aios.run.v1 import queries_pb2 as pb
from aios_gateway.lists import first, pages
from aios_gateway.notify.needs import Need, needs
from aios_gateway.peers import Call
from aios_runtime.run_states import ACTIVE

PAGE: Final = 100
MAX_PAGES: Final = 50  # of each kind


async def needs_now(call: Call) -> tuple[Sequence[Need], bool]:
    """All that needs a person, and whether it is all: of each kind there are `PAGE` × `MAX_PAGES` at most."""

    async def of(name: str, request: Any, answer: type[Any], items: str) -> tuple[list[Any], bool]:
        return await first(pages(call.renewed, name, request, answer, items), PAGE * MAX_PAGES, MAX_PAGES)

    asked: dict[str, Any] = {"workspace": call.workspace, "page_size": PAGE}
    approvals, all_approvals = await of(
        "list_approvals",
        pb.ListApprovalsRequest(**asked, open_only=True),
        pb.ListApprovalsResponse,
        "approvals",
    )
    failures, all_failures = await of(
        "list_failures", pb.ListFailuresRequest(**asked), pb.ListFailuresResponse, "failures"
    )
    late, all_late = await of(
        "list_runs", pb.ListRunsRequest(**asked, late=True, states=ACTIVE), pb.ListRunsResponse, "runs"
    )
    return needs(approvals, failures, late), all_approvals and all_failures and all_late
