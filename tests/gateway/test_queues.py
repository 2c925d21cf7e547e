"""Runs that wait for their turn, from the start of one to the place that a person sees."""

import asyncio

import grpc
import pytest

from aios.api.v1 import api_pb2
from aios.event.v1.event_pb2 import ExternalEvent, Resolution
from aios.run.v1.state_pb2 import RunState
from aios_core.json_values import dumps
from aios_core.values import Plain
from tests.gateway.serving import Api, reason, value
from tests.served import Server

pytestmark = pytest.mark.feature("B1", "B2")

DOCUMENTS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: one-by-one}
spec:
  inputs: {type: object, properties: {about: {type: string}, n: {type: integer, default: 0}}, required: [about]}
  concurrency: {policy: queue, key: "${inputs.about}", limit: 2, waiting: 3}
  steps:
    - {name: hold, ask: {title: "Go on?", questions: [{id: q, text: "Go on?", options: [yes]}]}}
  outputs: {n: "${inputs.n}"}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: only-one}
spec:
  concurrency: {policy: skip}
  steps:
    - {name: hold, ask: {title: "Go on?", questions: [{id: q, text: "Go on?", options: [yes]}]}}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: free}
spec:
  inputs: {type: object, properties: {n: {type: integer}}}
  steps:
    - {name: hold, ask: {title: "Go on?", questions: [{id: q, text: "Go on?", options: [yes]}]}}
---
apiVersion: aios/v1
kind: Intent
metadata: {name: in-turn, title: One after the other}
spec:
  workflow: free
  concurrency: queue
  parameters: {type: object, properties: {n: {type: integer}}, required: [n]}
  rules:
    - {name: came, event: turn.came, parameters: {n: "${event.data.n}"}}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: by-name}
spec:
  inputs: {type: object, properties: {who: {type: string}, how: {type: string, default: post}}, required: [who]}
  steps:
    - {name: hold, ask: {title: "Go on?", questions: [{id: q, text: "Go on?", options: [yes]}]}}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: for-whom}
spec:
  inputs: {type: object, properties: {who: {}}, required: [who]}
  customer: "${inputs.who}"
  steps: [{name: words, transform: "Thank you"}]
---
apiVersion: aios/v1
kind: Intent
metadata: {name: two-a-name, title: Two for one}
spec:
  workflow: by-name
  concurrency: {policy: queue, key: "${inputs.who}/${inputs.how}", limit: 2}
  parameters: {type: object, properties: {who: {type: string}}, required: [who]}
  rules:
    - {name: wrote, event: name.wrote, parameters: {who: "${event.data.who}"}}
---
apiVersion: aios/v1
kind: Intent
metadata: {name: last-a-name, title: The last for one}
spec:
  workflow: by-name
  concurrency: {policy: replace, key: "${inputs.who}"}
  parameters: {type: object, properties: {who: {type: string}}, required: [who]}
  rules:
    - {name: called, event: name.called, parameters: {who: "${event.data.who}"}}
---
apiVersion: aios/v1
kind: Intent
metadata: {name: one-a-name, title: One for one}
spec:
  workflow: by-name
  concurrency: {policy: skip, key: "${inputs.who}"}
  parameters: {type: object, properties: {who: {type: string}}, required: [who]}
  rules:
    - {name: knocked, event: name.knocked, parameters: {who: "${event.data.who}"}}
"""
S = RunState


async def applied(api: Api) -> None:
    request = api_pb2.ApplyResourcesRequest(yaml=DOCUMENTS.encode(), file="q.yaml", request_id="queues-1")
    await api.call(api.resources.ApplyResources, request)


async def run_of(api: Api, run_id: str) -> api_pb2.Run:
    answer = await api.call(api.runs.GetRun, api_pb2.GetRunRequest(run_id=run_id))
    run: api_pb2.Run = answer.run
    return run


async def comes_to(api: Api, run_id: str, state: RunState.ValueType) -> api_pb2.Run:
    """The run once it is in a state; the test ends by its time limit where it never is."""
    while (run := await run_of(api, run_id)).state != state:
        await asyncio.sleep(0.02)
    return run


async def cancel(api: Api, run_id: str) -> None:
    await api.call(api.runs.CancelRun, api_pb2.CancelRunRequest(request_id=f"c-{run_id}", run_id=run_id))


async def test_runs_above_the_limit_wait_in_their_order_and_say_their_place(server: Server) -> None:
    async with server.client() as api:
        await applied(api)
        runs = [
            (await api.start("one-by-one", f"order-{at}", about="order", n=at)).run.run_id for at in range(5)
        ]
        for run in runs[:2]:
            await comes_to(api, run, S.RUN_STATE_RUNNING)
        waiting = [await run_of(api, run) for run in runs[2:]]
        assert [run.state for run in waiting] == [S.RUN_STATE_QUEUED] * 3
        assert [run.queue_place for run in waiting] == [1, 2, 3]
        other = await api.start("one-by-one", "order-other", about="something else")
        await comes_to(api, other.run.run_id, S.RUN_STATE_RUNNING)
        await cancel(api, runs[3])
        await cancel(api, runs[0])
        await comes_to(api, runs[2], S.RUN_STATE_RUNNING)
        assert (await run_of(api, runs[4])).queue_place == 1
        assert (await run_of(api, runs[3])).state == S.RUN_STATE_CANCELLED
        await cancel(api, runs[1])
        await comes_to(api, runs[4], S.RUN_STATE_RUNNING)
        listed = server.json("run", "list", "--workflow", "one-by-one", "--limit", "50")
        assert {run["state"] for run in listed if run["about"] == "order"} == {"cancelled", "running"}


async def test_a_full_queue_refuses_and_the_first_answer_stays_the_answer(server: Server) -> None:
    async with server.client() as api:
        await applied(api)
        first = await api.start("one-by-one", "full-0", about="full")
        second = await api.start("one-by-one", "full-1", about="full")
        for started in (first, second):
            await comes_to(api, started.run.run_id, S.RUN_STATE_RUNNING)
        for at in range(2, 5):
            await api.start("one-by-one", f"full-{at}", about="full")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.start("one-by-one", "full-5", about="full")
        code, details, _ = reason(caught.value)
        assert (code, details["waiting"]) == ("QUEUE_FULL", "3")
        again = await api.start("one-by-one", "full-4", about="full")
        assert again.duplicate
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.start("one-by-one", "full-4", about="another thing")
        assert reason(caught.value)[0] == "REQUEST_ID_REUSED"
        await cancel(api, again.run.run_id)
        assert (await api.start("one-by-one", "full-5", about="full")).run.state == S.RUN_STATE_QUEUED


async def test_a_run_is_left_out_while_another_goes_on_and_says_why(server: Server) -> None:
    async with server.client() as api:
        await applied(api)
        first = await api.start("only-one", "skip-1")
        await comes_to(api, first.run.run_id, S.RUN_STATE_RUNNING)
        second = await api.start("only-one", "skip-2")
        left = await comes_to(api, second.run.run_id, S.RUN_STATE_SKIPPED)
        assert left.error_code == "SKIPPED" and "as many were under way" in left.error_message
        again = await api.start("only-one", "skip-2")
        assert again.duplicate and again.run.run_id == second.run.run_id
        await cancel(api, first.run.run_id)
        third = await api.start("only-one", "skip-3")
        await comes_to(api, third.run.run_id, S.RUN_STATE_RUNNING)


async def test_events_of_an_intent_are_worked_on_one_after_the_other(server: Server) -> None:
    async with server.client() as api:
        await applied(api)
        runs = []
        for at in range(2):
            event = ExternalEvent(id=f"turn-{at}", source="test", type="turn.came", data=b'{"n": %d}' % at)
            request = api_pb2.PublishEventRequest(event=event)
            answer = await api.call(api.events.PublishEvent, request)
            runs.append(answer.resolution.run_id)
        await comes_to(api, runs[0], S.RUN_STATE_RUNNING)
        assert (await run_of(api, runs[1])).state == S.RUN_STATE_QUEUED
        await cancel(api, runs[0])
        await comes_to(api, runs[1], S.RUN_STATE_RUNNING)


@pytest.mark.feature("B6")
async def test_a_limit_is_put_to_work_and_shown(server: Server) -> None:
    document = server.place / "limit.yaml"
    document.write_text(
        "apiVersion: aios/v1\nkind: Limit\nmetadata: {name: shown}\n"
        "spec: {workflow: nothing-else, in_flight: 3, weight: 2}\n"
    )
    assert server.aios("apply", str(document)).code == 0
    async with server.client() as api:
        while True:  # it is read when the clock is looked at next
            shown = await api.call(api.queues.ShowQueues, api_pb2.ShowQueuesRequest())
            if any(limit.name == "shown" for limit in shown.limits):
                break
            await asyncio.sleep(0.05)
    (limit,) = [each for each in server.json("queue", "show")["limits"] if each["name"] == "shown"]
    assert (limit["scope"], limit["of"], limit["limit"], limit["weight"]) == (
        "workflow",
        "nothing-else",
        3,
        2,
    )
    assert "limit shown" in server.aios("queue", "show").out


def test_a_start_says_how_urgent_it_is(server: Server) -> None:
    started = server.json("run", "start", "greet", "-i", "name=Ada", "--priority", "9")
    assert started["priority"] == 9
    assert server.aios("run", "start", "greet", "-i", "name=Ada", "--priority", "10").code != 0


async def came(api: Api, kind: str, number: int, who: str) -> Resolution:
    event = ExternalEvent(
        id=f"{kind}-{number}", source="test", type=kind, data=b'{"who": "%s"}' % who.encode()
    )
    answer = await api.call(api.events.PublishEvent, api_pb2.PublishEventRequest(event=event))
    resolution: Resolution = answer.resolution
    return resolution


async def test_of_an_intent_so_many_for_one_key_are_under_way_and_the_next_waits(server: Server) -> None:
    async with server.client() as api:
        await applied(api)
        ada = [(await came(api, "name.wrote", at, "ada")).run_id for at in range(3)]
        bo = (await came(api, "name.wrote", 3, "bo")).run_id
        for run in (ada[0], ada[1], bo):
            await comes_to(api, run, S.RUN_STATE_RUNNING)
        waits = await run_of(api, ada[2])
        assert (waits.state, waits.queue_place) == (S.RUN_STATE_QUEUED, 1)
        assert waits.concurrency_key == "intent:two-a-name/ada/post"
        # Runs of the workflow that the intent has not started count for themselves.
        other = await api.start("by-name", "by-hand", who="ada")
        await comes_to(api, other.run.run_id, S.RUN_STATE_RUNNING)
        await cancel(api, ada[0])
        await comes_to(api, ada[2], S.RUN_STATE_RUNNING)


@pytest.mark.parametrize("kind", ["name.called", "name.knocked"])
async def test_of_an_intent_the_next_for_one_key_replaces_the_one_before_or_is_left_out(
    server: Server, kind: str
) -> None:
    async with server.client() as api:
        await applied(api)
        first = (await came(api, kind, 0, "ada")).run_id
        other = (await came(api, kind, 1, "bo")).run_id
        await comes_to(api, first, S.RUN_STATE_RUNNING)
        second = (await came(api, kind, 2, "ada")).run_id
        replaces = kind == "name.called"
        await comes_to(api, first, S.RUN_STATE_CANCELLED if replaces else S.RUN_STATE_RUNNING)
        await comes_to(api, second, S.RUN_STATE_RUNNING if replaces else S.RUN_STATE_SKIPPED)
        await comes_to(api, other, S.RUN_STATE_RUNNING)


async def test_a_key_that_is_too_long_starts_nothing_and_says_why(server: Server) -> None:
    async with server.client() as api:
        await applied(api)
        resolution = await came(api, "name.wrote", 9, "a" * 400)
        assert (resolution.outcome, resolution.run_id) == ("question", "")
        assert "concurrency.key: 405 characters" in resolution.question


@pytest.mark.parametrize(
    ("who", "said"),
    [("acme", "acme"), (7, "7"), (None, ""), ("", ""), (True, None), ({"a": 1}, None), ([1], None)],
)
async def test_whom_a_run_is_for_is_a_name_or_refused(server: Server, who: Plain, said: str | None) -> None:
    async with server.client() as api:
        await applied(api)
        request = api_pb2.StartRunRequest(workflow="for-whom", input=value({"who": who}))
        request.request_id = f"for-{dumps(who).hex()}"
        if said is not None:
            assert (await api.call(api.runs.StartRun, request)).run.customer == said
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.call(api.runs.StartRun, request)
        assert reason(caught.value)[0] == "INVALID_ARGUMENT"
        assert reason(caught.value)[2] == ["customer"]
