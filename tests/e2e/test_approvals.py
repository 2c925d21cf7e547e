"""Approvals by several people, and edits, over the API and the command line of a served AIOS."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from aios.api.v1 import api_pb2
from aios.run.v1 import state_pb2 as st
from aios_core.encoding import decode
from aios_core.values import plain
from tests.gateway.serving import reason
from tests.served import Server

TWO_EYES = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: four-eyes}
spec:
  inputs: {type: object, properties: {key: {type: string}}, required: [key]}
  steps:
    - name: words
      agent: echo
      input: {text: "Dear ${inputs.key}"}
    - name: approve
      gate:
        title: Keep it
        why: it is asked
        risk: none
        approves: [keep]
        approvers: {of: [owner, ada], need: 2}
        remind: [1h]
    - name: keep
      memory: write
      input:
        writes:
          - kind: fact
            key: "eyes/${inputs.key}"
            expect: any
            authority: authoritative
            value: {a: "${steps.words.text}"}
"""
SURE = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: sure-enough}
spec:
  inputs: {type: object, properties: {key: {type: string}, sure: {type: string}}, required: [key, sure]}
  steps:
    - name: approve
      gate: {title: Keep it, approves: [keep], confidence: {of: "${inputs.sure}", at_least: 0.8}}
    - name: keep
      memory: write
      input: {writes: [{kind: fact, key: "sure/${inputs.key}", expect: any, authority: authoritative, value: {a: 1}}]}
"""


@pytest.fixture(scope="module")
def applied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    for name, text in (("eyes.yaml", TWO_EYES), ("sure.yaml", SURE)):
        file = tmp_path_factory.mktemp("gates") / name
        file.write_text(text)
        assert server.aios("apply", str(file)).code == 0
    return server


def waiting(server: Server, key: str) -> tuple[str, str]:
    run = server.aios("run", "start", "four-eyes", "--input", f"key={key}", "--wait", "--json").json
    (approval,) = run["pending_approvals"]
    return run["run_id"], approval


async def approve(server: Server, approval: str, request_id: str, token: str | None = None) -> str:
    """The reason of the refusal; "" when it counted."""
    async with server.client(*([token] if token else [])) as api:
        shown = (
            await api.call(api.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=approval))
        ).approval
        request = api_pb2.DecideApprovalRequest(
            request_id=request_id,
            approval_id=approval,
            decision=st.APPROVAL_STATE_APPROVED,
            arguments_sha256=shown.arguments_sha256,
        )
        try:
            await api.call(api.approvals.DecideApproval, request)
        except grpc.aio.AioRpcError as error:
            return reason(error)[0]
        return ""


def token(server: Server, name: str, *more: str) -> str:
    made = server.json("token", "create", name, "--scope", "approve", "--scope", "read", *more)
    return str(made["token"])


@pytest.mark.feature("I2", "I4")
async def test_two_people_approve_and_one_twice_does_not_count(applied: Server) -> None:
    server = applied
    run, approval = waiting(server, "two")
    ada, eve = token(server, "ada", "--user", "ada"), token(server, "eve", "--user", "eve")
    assert await approve(server, approval, "eyes-1") == ""
    assert await approve(server, approval, "eyes-2") == "APPROVED_ALREADY"
    assert await approve(server, approval, "eyes-3", eve) == "NOT_AN_APPROVER"
    shown = server.json("approval", "show", approval)
    assert shown["state"] == "open" and shown["need"] == 2
    assert [item["approver"] for item in shown["assents"]] == ["person:owner"]
    assert [item["code"] for item in shown["refusals"]] == ["APPROVED_ALREADY", "NOT_AN_APPROVER"]
    page = server.aios("approval", "show", approval).out
    assert "2 of owner, ada" in page and "did not count" in page and "bound to" in page
    assert await approve(server, approval, "eyes-4", ada) == ""
    assert server.aios("run", "watch", run, "--json").code == 0
    assert server.json("run", "show", run)["state"] == "succeeded"


@pytest.mark.feature("I4")
async def test_only_the_owner_makes_tokens_for_others(applied: Server) -> None:
    server = applied
    made = server.json("token", "create", "admin", "--scope", "admin", "--user", "ada")["token"]
    async with server.client(made) as api:
        request = api_pb2.CreateTokenRequest(
            request_id="for-bo", name="bo", scopes=["admin"], secret_sha256=b"\1" * 32, user="bo"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.call(api.tokens.CreateToken, request)
    assert reason(caught.value)[0] == "PERMISSION_DENIED"


@pytest.mark.feature("I6")
async def test_what_a_person_makes_of_it_is_what_runs_once_it_is_approved(applied: Server) -> None:
    server = applied
    run, approval = waiting(server, "edited")
    said = server.aios(
        "approval", "edit", approval, "--set", "writes.0.value.a=Good day", "--note", "warmer", "--json"
    )
    assert said.code == 0
    new = said.json
    assert new["edited_from"] == approval and new["state"] == "open"
    (proposed,) = new["proposed"]
    assert (
        proposed["original"]["writes"][0]["value"]["a"] == "Dear edited"
        and proposed["edited_by"] == "person:owner"
    )
    assert server.json("approval", "show", approval)["state"] == "replaced"
    assert await approve(server, approval, "edit-old") == "APPROVAL_STALE"
    wrong = server.aios("approval", "edit", new["approval_id"], "--set", "writes.0.vlaue=1", "--json")
    assert wrong.json["error"]["code"] == "INVALID_ARGUMENT"
    assert await approve(server, new["approval_id"], "edit-1") == ""
    ada = token(server, "ada again", "--user", "ada")
    assert await approve(server, new["approval_id"], "edit-2", ada) == ""
    assert server.aios("run", "watch", run, "--json").code == 0
    async with server.client() as api:
        request = api_pb2.GetRecordRequest(kind="fact", key="eyes/edited")
        record = await api.call(api.memory.GetRecord, request)
    assert "Good day" in str(record)
    told = " ".join(line["what"] for line in server.json("run", "show", run)["timeline"])
    assert "changed what keep would do" in told


READS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: learns}
spec:
  steps:
    - name: past
      memory: read
      input: {reads: [{name: edits, kind: fact, prefix: "correction/four-eyes/keep/", take: last, limit: 100}]}
  outputs: {edits: "${steps.past.edits}"}
"""


@pytest.mark.feature("I6")
async def test_a_later_run_reads_what_a_person_made_of_an_earlier_proposal(
    applied: Server, tmp_path: Path
) -> None:
    file = tmp_path / "learns.yaml"
    file.write_text(READS)
    assert applied.aios("apply", str(file)).code == 0
    _, approval = waiting(applied, "learned")
    change = ("--set", "writes.0.value.a=Good evening", "--note", "it is late")
    assert applied.aios("approval", "edit", approval, *change, "--json").code == 0
    async with applied.client() as api, asyncio.timeout(30):
        found: dict[str, Any] = {}
        while not found:  # memory hears of it a moment later
            started = await api.start("learns", f"learns-{time.monotonic_ns()}")
            ended = await api.ended(started.run.run_id)
            outputs: Any = plain(decode(ended.outputs.SerializeToString()))
            for edit in outputs["edits"]:
                found = edit["value"] if edit["value"]["note"] == "it is late" else found
    assert found["proposed"]["writes"][0]["value"] == {"a": "Dear learned"}
    assert found["corrected"]["writes"][0]["value"] == {"a": "Good evening"}
    assert (found["by"], found["target"]) == ("person:owner", "memory.write")


@pytest.mark.feature("I2")
@pytest.mark.parametrize(("sure", "state"), [("0.91", "succeeded"), ("0.79", "running")])
def test_a_gate_passes_by_confidence_and_says_so(applied: Server, sure: str, state: str) -> None:
    inputs = ("--input", f"key={state}", "--input", f"sure={sure}")
    said = applied.aios("run", "start", "sure-enough", *inputs, "--wait", "--json")
    run = said.json
    assert run["state"] == state
    (found,) = [a for a in applied.json("approval", "list", "--all") if a["run_id"] == run["run_id"]]
    told = found["confidence"]
    assert (told["value"], told["at_least"], told["passed"]) == (sure, "0.8", state == "succeeded")


@pytest.mark.feature("I6")
def test_an_edit_in_the_persons_editor(applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    _, approval = waiting(applied, "editor")
    monkeypatch.setenv("VISUAL", "sed -i s/Dear/Hello/")
    said = applied.aios("approval", "edit", approval, "--editor", "--json")
    assert said.code == 0, said.out
    assert said.json["proposed"][0]["arguments"]["writes"][0]["value"]["a"] == "Hello editor"
