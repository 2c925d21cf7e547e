"""Decisions that may not count, over the gRPC API: each refused by its reason, recorded, and nothing follows."""

import json

import grpc
import pytest

from aios.api.v1 import api_pb2
from aios.run.v1 import state_pb2
from tests.drill.kept import patiently
from tests.gateway.serving import reason
from tests.served import Said, Server

SHORT_LIVED = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: short-lived}
spec:
  inputs: {type: object}
  steps:
    - name: approve
      gate: {title: Now or never, why: it is asked, risk: none, approves: [keep], expires: 1s}
    - name: keep
      memory: write
      input: {writes: [{kind: fact, key: "never/kept", expect: any, authority: authoritative, value: {a: 1}}]}
"""


def started(server: Server, workflow: str, *inputs: str) -> tuple[str, str]:
    """(run, its open approval)"""
    run = server.aios("run", "start", workflow, *inputs, "--wait", "--json").json
    (approval,) = run["pending_approvals"]
    return run["run_id"], approval


async def decided(
    server: Server,
    request_id: str,
    approval: str,
    sha256: bytes,
    decision: int = state_pb2.APPROVAL_STATE_APPROVED,
) -> tuple[str, str]:
    """("", "approved"), or the gRPC status and the reason of the refusal."""
    async with server.client() as api:
        request = api_pb2.DecideApprovalRequest(
            request_id=request_id, approval_id=approval, decision=decision, arguments_sha256=sha256
        )  # type: ignore[arg-type]
        try:
            await api.call(api.approvals.DecideApproval, request)
        except grpc.aio.AioRpcError as error:
            return error.code().name, reason(error)[0] if error.details() else ""
        return "", "approved"


async def seen(server: Server, approval: str) -> bytes:
    async with server.client() as api:
        shown = await api.call(api.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=approval))
        return bytes(shown.approval.arguments_sha256)


def refusals(server: Server, run: str) -> int:
    return json.dumps(server.json("run", "show", run)["timeline"]).count("did not count")


def facts(server: Server, run: str) -> int:
    """How often the run has written."""
    timeline = server.json("run", "show", run)["timeline"]
    return sum(change["resource"].startswith("fact:") for line in timeline for change in line["changes"])


@pytest.mark.feature("I4")
async def test_an_approval_counts_once_and_writes_once(server: Server) -> None:
    run, approval = started(server, "ask-first", "--input", "name=Once")
    shown = await seen(server, approval)
    assert await decided(server, "once-1", approval, shown) == ("", "approved")
    rejected = state_pb2.APPROVAL_STATE_REJECTED
    used = ("FAILED_PRECONDITION", "APPROVAL_USED")
    assert await decided(server, "once-2", approval, shown, rejected) == used
    assert refusals(server, run) == 1
    ended = server.aios("run", "watch", run, "--json")
    assert ended.code == 0
    assert facts(server, run) == 1
    assert await decided(server, "once-3", approval, shown, rejected) == used, "and not after the run either"
    assert facts(server, run) == 1


@pytest.mark.feature("I4")
async def test_what_was_shown_by_one_run_approves_nothing_in_another(server: Server) -> None:
    (_, mine), (other_run, other) = (
        started(server, "ask-first", "--input", f"name={n}") for n in ("A1", "A2")
    )
    stale = ("FAILED_PRECONDITION", "APPROVAL_STALE")
    assert await decided(server, "foreign", other, await seen(server, mine)) == stale
    assert refusals(server, other_run) == 1
    assert facts(server, other_run) == 0
    assert server.json("approval", "show", other)["state"] == "open"
    assert await decided(server, "nobody", "apr_" + "x" * 26, await seen(server, mine)) == (
        "NOT_FOUND",
        "NOT_FOUND",
    )


@pytest.mark.feature("I4")
async def test_an_approval_that_comes_too_late_does_nothing(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("late") / "short.yaml"
    file.write_text(SHORT_LIVED)
    assert server.aios("apply", str(file)).code == 0
    run, approval = started(server, "short-lived")
    shown = await seen(server, approval)
    state = ""
    for _ in patiently():
        state = server.json("run", "show", run)["state"]
        if state != "running":
            break
    assert state == "cancelled"
    assert server.json("approval", "show", approval)["state"] == "expired"
    assert await decided(server, "late", approval, shown) == ("FAILED_PRECONDITION", "APPROVAL_EXPIRED")
    assert refusals(server, run) == 1
    assert facts(server, run) == 0
    said: Said = server.aios("approval", "approve", approval, "--json")
    assert (said.code, said.json["error"]["code"]) == (5, "APPROVAL_EXPIRED")
