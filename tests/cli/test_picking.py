"""A part of an id is enough for what a person sees somewhere: the newest, and what is still open."""

from types import SimpleNamespace
from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Approval
from aios_cli import client, pick
from aios_core.errors import TerminalError

pytestmark = pytest.mark.feature("L3")

MANY = 1_500
OLD = f"{'0' * 19}{MANY - 1:07}"  # the oldest, which goes on
ENDED = f"{MANY - 2:07}"


class Client:
    """Of `MANY` runs and approvals, each listed the newest first, the oldest is open."""

    each = client.Client.each

    def __init__(self) -> None:
        self.runs, self.approvals = (
            SimpleNamespace(ListRuns="runs"),
            SimpleNamespace(ListApprovals="approvals"),
        )

    def call(self, method: str, request: Any) -> Any:
        open_only = bool(request.states) if method == "runs" else request.open_only
        ids = [OLD] if open_only else [f"{number:026}" for number in range(MANY)]
        at = int(request.page_token or 0)
        page, token = ids[at : at + request.page_size], str(at + request.page_size)
        token = token if len(ids) > int(token) else ""
        if method == "runs":
            runs = [api_pb2.Run(run_id=f"run_{name}") for name in page]
            return api_pb2.ListRunsResponse(runs=runs, next_page_token=token)
        approvals = [Approval(approval_id=f"apr_{name}") for name in page]
        return api_pb2.ListApprovalsResponse(approvals=approvals, next_page_token=token)


@pytest.mark.parametrize(("choose", "prefix"), [(pick.run, "run_"), (pick.approval, "apr_")])
def test_what_is_open_is_found_however_old_and_what_is_not_looked_at_is_not_denied(
    choose: Any, prefix: str
) -> None:
    asked: Any = Client()
    assert choose(asked, "0000007") == f"{prefix}{7:026}"
    assert choose(asked, OLD[-7:]) == prefix + OLD
    with pytest.raises(
        TerminalError, match="among the newest 1,000 and the open ones; of others give the whole id"
    ):
        choose(asked, ENDED)
    assert choose(asked, f"{prefix}{'0' * 19}{ENDED}") == f"{prefix}{'0' * 19}{ENDED}"
    with pytest.raises(TerminalError, match="fits 1001: "):
        choose(asked, "00000000")
