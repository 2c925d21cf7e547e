"""Lists of things that are large: no answer is too large to be given, and nothing is left out of them."""

import asyncio
from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios.memory.v1.memory_pb2 import ListEpisodesRequest, ListEpisodesResponse
from aios.run.v1.state_pb2 import RunState
from aios_runtime.bus import subjects
from tests.gateway.serving import Api, World, value
from tests.gateway.test_runs import approve

pytestmark = pytest.mark.feature("L3")

MANY = 24
TEXT = "words " * 4_000
WORKFLOWS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: long-words}
spec:
  inputs: {type: object, properties: {text: {type: string}}, required: [text]}
  steps:
    - name: keep
      gate: {title: Remember it, approves: [write]}
    - name: write
      memory: write
      input:
        writes: [{kind: fact, key: words, expect: any, value: {text: "${inputs.text}"}}]
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: wide}
spec:
  inputs: {type: object, properties: {}}
  steps:
    - name: all
      map:
        over: %s
        at_once: 400
        steps:
          - {name: later-on-a-day-that-is-far-away, wait: {until: "2100-01-01T00:00:00Z"}}
"""


async def pages(api: Api, method: Any, request: Any, items: str) -> list[Any]:
    found: list[Any] = []
    while True:
        answer = await api.call(method, request)
        found += getattr(answer, items)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def apply(api: Api, text: str) -> None:
    await api.call(
        api.resources.ApplyResources,
        api_pb2.ApplyResourcesRequest(request_id=f"apply-{hash(text)}", yaml=text.encode(), file="w.yaml"),
    )


async def test_approvals_of_long_texts_are_listed_page_by_page(api: Api) -> None:
    await apply(api, WORKFLOWS % "[1]")
    for number in range(MANY):
        await api.start("long-words", f"r{number}", text=f"{number} {TEXT}")
    request = api_pb2.ListApprovalsRequest(open_only=True, page_size=50)
    assert (
        len(
            {item.approval_id for item in await pages(api, api.approvals.ListApprovals, request, "approvals")}
        )
        == MANY
    )
    status = await api.call(api.system.GetStatus, api_pb2.GetStatusRequest())
    assert len(status.needs_you) == MANY and status.ByteSize() < 100_000


async def test_runs_with_much_under_way_are_listed_page_by_page(api: Api) -> None:
    await apply(api, WORKFLOWS % list(range(400)))
    for number in range(12):
        await api.start("wide", f"r{number}")
    runs = await pages(api, api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=100), "runs")
    assert len(runs) == 12
    status = await api.call(api.system.GetStatus, api_pb2.GetStatusRequest())
    assert len(status.running) == 12 and status.ByteSize() < 100_000


async def test_documents_are_listed_however_much_they_say(api: Api) -> None:
    documents = [
        f"apiVersion: aios/v1\nkind: Workflow\nmetadata: {{name: w{number:02}, title: '{TEXT}'}}\n"
        f"spec: {{inputs: {{type: object, properties: {{}}}}, steps: [{{name: a, agent: echo}}]}}\n"
        for number in range(MANY)
    ]
    for document in documents:
        await apply(api, document)
    for size in (0, 7):
        request = api_pb2.ListResourcesRequest(kind="Workflow", page_size=size)
        found = await pages(api, api.resources.ListResources, request, "resources")
        assert {f"w{number:02}" for number in range(MANY)} <= {item.name for item in found}


async def test_an_approval_that_is_large_alone_is_listed_and_shown(api: Api) -> None:
    await apply(api, WORKFLOWS % "[1]")
    for number in range(2):
        await api.start("long-words", f"r{number}", text=f"{number} {TEXT * 6}")
    request = api_pb2.ListApprovalsRequest(open_only=True, page_size=50)
    for item in await pages(api, api.approvals.ListApprovals, request, "approvals"):
        (proposed,) = item.proposed
        assert item.title == "Remember it" and not proposed.arguments and proposed.arguments_sha256
        asked = api_pb2.GetApprovalRequest(approval_id=item.approval_id)
        shown = (await api.call(api.approvals.GetApproval, asked)).approval
        assert len(shown.proposed[0].arguments) > len(TEXT * 6)


async def test_a_run_whose_input_and_outputs_are_large_is_read_whole(api: Api) -> None:
    text = "words " * 25_000
    await apply(
        api,
        """
apiVersion: aios/v1
kind: Workflow
metadata: {name: again}
spec:
  inputs: {type: object, properties: {text: {type: string}}, required: [text]}
  steps: [{name: same, transform: {text: "${inputs.text}"}}]
  outputs: {text: "${steps.same.text}"}
""",
    )
    started = await api.start("again", "r", text=text)
    run = await api.ended(started.run.run_id)
    assert str(run.input).count(text) == str(run.outputs).count(text) == 1


async def test_many_runs_with_much_under_way_are_started_at_once(api: Api) -> None:
    await apply(api, WORKFLOWS % list(range(400)))
    starts = [
        api_pb2.StartRunRequest(request_id=f"w{number}", workflow="wide", input=value({}))
        for number in range(60)
    ]
    answer = await api.call(api.runs.StartRuns, api_pb2.StartRunsRequest(requests=starts), 60.0)
    assert len({result.started.run.run_id for result in answer.results}) == 60
    assert not any(result.HasField("error") for result in answer.results)


async def test_an_event_that_is_larger_than_a_message_reaches_everybody_and_holds_up_nothing(
    world: World, api: Api
) -> None:
    """A gate that shows more than one message holds: its approval is read, decided and told of, as are the runs
    beside it."""
    text, names = "x" * 18_000, [f"write{number}" for number in range(20)]
    writes = "".join(
        f"    - {{name: {name}, needs: [keep], memory: write, input: {{writes: [{{kind: fact, key: {name}, "
        'expect: any, value: {text: "${inputs.text}"}}]}}\n'
        for name in names
    )
    await apply(
        api,
        f"""
apiVersion: aios/v1
kind: Workflow
metadata: {{name: long}}
spec:
  inputs: {{type: object, properties: {{text: {{type: string}}}}, required: [text]}}
  steps:
    - {{name: keep, gate: {{title: Remember it all, approves: [{", ".join(names)}]}}}}
{writes}""",
    )
    started = await api.start("long", "large", text=text)
    for number in range(40):  # some of them have its place in the log
        await api.start("greet", f"g{number}", name="Bob")
    asked_run = api_pb2.GetRunRequest(run_id=started.run.run_id)
    (approval_id,) = (await api.call(api.runs.GetRun, asked_run)).run.pending_approvals
    asked = api_pb2.GetApprovalRequest(approval_id=approval_id)
    shown = (await api.call(api.approvals.GetApproval, asked)).approval
    assert [len(step.arguments) > len(text) for step in shown.proposed] == [True] * 20
    await approve(api, approval_id)
    ended = await api.ended(started.run.run_id)
    assert ended.error_code == "" and ended.state == RunState.RUN_STATE_SUCCEEDED
    request = api_pb2.GetTimelineRequest(run_id=started.run.run_id)
    lines = (await api.call(api.runs.GetTimeline, request)).entries
    assert "needs your approval: Remember it all" in [line.what for line in lines]
    bus, subject = world.buses["gateway"], subjects.query("memory", "list_episodes", "main")
    async with asyncio.timeout(20):
        runs = (await api.call(api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=100))).runs
        for run in runs:
            question = ListEpisodesRequest(workspace="main", run_id=run.run_id).SerializeToString()
            while not ListEpisodesResponse.FromString(await bus.ask(subject, question, 5.0)).episodes:
                await asyncio.sleep(0.05)
