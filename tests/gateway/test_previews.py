"""What an approval's steps would change is shown with it; who does not answer, or for something else, holds nothing."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Approval
from aios.task.v1.task_pb2 import Change, PreviewStepRequest, PreviewStepResponse
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_gateway.api import previews
from aios_runtime.bus import subjects
from aios_runtime.service.port import Context, Health
from tests.gateway.serving import WORKSPACE, Api, World

pytestmark = pytest.mark.feature("I4")

DOCUMENTS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: previewed}
spec:
  inputs: {type: object, properties: {key: {type: string}}, required: [key]}
  steps:
    - name: ok
      gate: {title: "Do it", approves: [done, slow, other, wrong, look, keep, taken, say]}
    - {name: done, connector: files.done, effect: write, input: {n: 1}}
    - {name: slow, connector: files.slow, effect: write, input: {n: 1}}
    - {name: other, connector: files.other, effect: write, input: {n: 1}}
    - {name: wrong, connector: files.wrong, effect: write, input: {n: 1}}
    - {name: look, connector: nowhere.look, input: {n: 1}}
    - name: keep
      memory: write
      input: {writes: [{kind: fact, key: "previewed/${inputs.key}", expect: any, value: {a: 1}}]}
    - name: taken
      memory: write
      input: {writes: [{kind: fact, key: "previewed/taken", expect: 7, value: {a: 1}}]}
    - {name: say, agent: echo, input: {n: 1}}
"""


class Connector:
    """Whoever answers for the connector `files`: in time, never, for something else, or that it can't be."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked = asyncio.Event()

    async def start(self) -> None:
        subject = subjects.query(self._context.service, "preview_step", WORKSPACE)
        await self._context.bus.answer(subject, self._preview, queue="connector")

    async def _preview(self, data: bytes, headers: Mapping[str, str]) -> bytes:
        request = PreviewStepRequest.FromString(data)
        if request.target == "files.slow":
            await self._asked.wait()
        if request.target == "files.wrong":
            raise TerminalError("ACTION_FAILED", "The folder is gone.")
        of = request.input if request.target == "files.done" else b"something else"
        made = Change(resource=f"file:{request.step}", verb="create")
        return PreviewStepResponse(
            input_sha256=sha256(of), changes=[made], summary="it would be made"
        ).SerializeToString()

    async def stop(self) -> None:
        self._asked.set()

    def health(self) -> Health:
        return Health(True)


async def waiting(api: Api) -> str:
    request = api_pb2.ApplyResourcesRequest(yaml=DOCUMENTS.encode(), file="p.yaml", request_id="previews")
    await api.call(api.resources.ApplyResources, request)
    run = (await api.start("previewed", key="a")).run.run_id
    while True:
        found = await api.call(api.runs.GetRun, api_pb2.GetRunRequest(run_id=run))
        if found.run.pending_approvals:
            return str(found.run.pending_approvals[0])
        await asyncio.sleep(0.02)


async def shown(api: Api, approval_id: str, *, preview: bool) -> Approval:
    request = api_pb2.GetApprovalRequest(approval_id=approval_id, preview=preview)
    answer = await api.call(api.approvals.GetApproval, request)
    approval: Approval = answer.approval
    return approval


async def test_each_step_says_what_it_would_change_or_why_nobody_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "PREVIEW_SECONDS", 0.3)
    await world.serve("connector-files", Connector, {})
    async with world.client() as api:
        approval_id = await waiting(api)
        found = await shown(api, approval_id, preview=True)
        told: dict[str, Any] = {item.step: item for item in found.proposed}
        assert [change.resource for change in told["done"].changes] == ["file:done"]
        assert (told["done"].summary, told["done"].no_preview) == ("it would be made", "")
        assert [change.verb for change in told["keep"].changes] == ["create"]
        assert "would write" in told["keep"].summary
        for step, why in {
            "slow": "connector-files does not answer",
            "other": "answered for other arguments",
            "wrong": "connector-files says: The folder is gone.",
            "look": "connector-nowhere does not answer",
            "taken": "memory says: ",
        }.items():
            assert why in told[step].no_preview and not told[step].changes
        assert (told["say"].summary, told["say"].no_preview) == ("", "")  # an agent changes nothing
        # What is approved is what was shown: the preview is no part of it.
        plain = await shown(api, approval_id, preview=False)
        assert plain.arguments_sha256 == found.arguments_sha256
        assert not any(item.changes or item.no_preview for item in plain.proposed)
        request = api_pb2.DecideApprovalRequest(
            request_id="yes", approval_id=approval_id, decision=2, arguments_sha256=found.arguments_sha256
        )
        await api.call(api.approvals.DecideApproval, request)
        decided = await shown(api, approval_id, preview=True)
        assert not any(item.changes or item.no_preview for item in decided.proposed)
