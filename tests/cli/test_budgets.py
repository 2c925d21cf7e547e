"""`aios budget …` against a served AIOS: what was spent is seen, and over the cap a person is asked."""

from pathlib import Path

import grpc.aio
import pytest

from aios.api.v1 import api_pb2
from tests.drill.kept import until
from tests.served import Server

DOCUMENTS = """apiVersion: aios/v1
kind: Workflow
metadata: {name: priced-%(name)s}
spec:
  inputs: {type: object, properties: {client: {type: string}}, required: [client]}
  customer: "${inputs.client}"
  steps: [{name: say, agent: echo, budget: "0.40", input: {at: "${inputs.client}"}}]
---
apiVersion: aios/v1
kind: Budget
metadata: {name: %(name)s}
spec: {scope: customer, of: %(name)s, per: month, cap: "%(cap)s"}
"""


def applied(server: Server, place: Path, name: str, cap: str) -> None:
    file = place / f"{name}.yaml"
    file.write_text(DOCUMENTS % {"name": name, "cap": cap})
    assert [item["change"] for item in server.json("apply", str(file))["applied"]] == ["created", "created"]


def start(server: Server, name: str) -> str:
    return str(server.json("run", "start", f"priced-{name}", "--input", f"client={name}")["run_id"])


@pytest.mark.feature("F4", "F5")
def test_over_the_cap_the_run_asks_and_goes_on_when_it_is_raised(server: Server, tmp_path: Path) -> None:
    applied(server, tmp_path, "frost", "0.10")
    run = start(server, "frost")
    (asked,) = [item for item in server.json("approval", "list") if item["run_id"] == run]
    assert asked["kind"] == "budget"
    assert "waits for money" in server.aios("approval", "show", asked["approval_id"]).out
    account = named(server, "budget/frost/")
    assert (account["held"], account["settled"], account["cap"], account["left"]) == (
        "0.00",
        "0.00",
        "0.10",
        "0.10",
    )
    server.json("approval", "answer", asked["approval_id"], "2.50")
    assert "finished" in server.aios("run", "watch", run).out
    account = named(server, "budget/frost/")
    assert (account["cap"], account["raised"], account["held"], account["charges"]) == (
        "2.50",
        True,
        "0.00",
        1,
    )
    shown = server.aios("budget", "show", "--by", "customer").out
    assert "/customer/frost" in shown
    assert "priced-frost" in server.aios("budget", "show", "--by", "workflow").out
    assert "$0.10 per month, customer frost" in server.aios("budget", "list").out


@pytest.mark.feature("F5")
def test_a_cap_that_is_raised_in_its_document_lets_all_go_on_that_wait(
    server: Server, tmp_path: Path
) -> None:
    applied(server, tmp_path, "thaw", "0.10")
    runs = [start(server, "thaw") for _ in range(3)]
    asked = {item["run_id"]: item["approval_id"] for item in server.json("approval", "list")}
    file = tmp_path / "raised.yaml"
    file.write_text((DOCUMENTS % {"name": "thaw", "cap": "0.50"}).partition("---\n")[2])
    server.json("apply", str(file))
    for run in runs:
        until(lambda run=run: server.json("run", "show", run), lambda shown: shown["state"] == "succeeded")
        closed = server.json("approval", "show", asked[run])
        assert (closed["state"], closed["decided_by"]) == ("answered", "policy:budget")
        assert "the cap of budget thaw for" in closed["note"] and "$0.50" in closed["note"]
    account = named(server, "budget/thaw/")
    assert (account["held"], account["charges"], account["cap"]) == ("0.00", 3, "0.50")
    late = server.aios("approval", "answer", asked[runs[0]], "once")
    assert late.code != 0 and "the cap of budget thaw" in late.err


@pytest.mark.feature("F5")
def test_stop_ends_the_run_and_nothing_is_spent(server: Server, tmp_path: Path) -> None:
    applied(server, tmp_path, "stopped", "0.10")
    run = start(server, "stopped")
    (asked,) = [item for item in server.json("approval", "list") if item["run_id"] == run]
    server.json("approval", "answer", asked["approval_id"], "stop")
    shown = server.json("run", "show", run)
    assert shown["state"] == "cancelled"
    assert named(server, "budget/stopped/")["charges"] == 0


@pytest.mark.feature("F4")
def test_what_was_spent_is_told_by_run_task_and_period(server: Server, tmp_path: Path) -> None:
    applied(server, tmp_path, "told", "9")
    run = start(server, "told")
    assert "finished" in server.aios("run", "watch", run).out
    assert server.json("run", "show", run)["customer"] == "told"
    assert f"run/{run}" in [item["name"] for item in server.json("budget", "show", "--by", "run")]
    assert server.json("budget", "show", "--by", "task", "--run", run) == []  # an echo costs nothing
    assert server.aios("budget", "show", "--by", "task").code != 0
    (period,) = server.json("budget", "history", "told")
    assert (period["charges"], period["cap"], period["left"]) == (1, "9.00", "9.00")
    assert server.aios("budget", "history", "never").code != 0
    assert server.json("budget", "show", "--by", "customer", "--month", "2001-01") == []
    arguments = ("--input", "client=told", "--customer", "else")
    other = server.json("run", "start", "priced-told", *arguments)["run_id"]
    assert server.json("run", "show", other)["customer"] == "else"


@pytest.mark.feature("F5")
async def test_a_cap_is_raised_by_whoever_may_approve_alone(server: Server) -> None:
    token = server.json("token", "create", "runs-only", "--scope", "run")["token"]
    async with server.client(token) as api:
        request = api_pb2.RecoverRunRequest(request_id="raise", run_id="run_x", cap_micros=9_000_000)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await api.call(api.failures.RecoverRun, request)
    assert told.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "approve" in (told.value.details() or "")


def named(server: Server, prefix: str) -> dict:  # type: ignore[type-arg]
    (found,) = [item for item in server.json("budget", "show") if item["name"].startswith(prefix)]
    return dict(found)
