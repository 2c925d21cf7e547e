"""Many runs started in one call: each is answered by itself, in its place."""

import asyncio

import grpc
import pytest

from aios.api.v1 import api_pb2
from tests.gateway.serving import reason, value
from tests.served import Server

MANY = 230  # more than one command to the orchestrator carries


def greet(request_id: str, **inputs: object) -> api_pb2.StartRunRequest:
    return api_pb2.StartRunRequest(request_id=request_id, workflow="greet", input=value(inputs))  # type: ignore[arg-type]


@pytest.mark.feature("B2", "L3")
async def test_each_of_many_starts_is_answered_by_itself_in_its_place(server: Server) -> None:
    requests = [greet(f"many-{number}", name=f"n{number}") for number in range(MANY)]
    requests[7] = greet("many-7")
    requests[8].workflow = "no-such-workflow"
    requests[9] = greet("not a request id", name="x")
    requests[10] = greet("many-0", name="n0")
    requests[11] = greet("many-0", name="somebody else")
    async with server.client() as api:
        answer = await api.call(api.runs.StartRuns, api_pb2.StartRunsRequest(requests=requests), 30.0)
        results = list(answer.results)
        assert len(results) == MANY
        wrong = {at: result.error.code for at, result in enumerate(results) if result.HasField("error")}
        assert wrong == {
            7: "INVALID_ARGUMENT",
            8: "NOT_FOUND",
            9: "INVALID_ARGUMENT",
            11: "REQUEST_ID_REUSED",
        }
        started = [result.started for result in results if result.HasField("started")]
        assert len({item.run.run_id for item in started}) == MANY - 5
        assert results[10].started.duplicate
        assert results[10].started.run.run_id == results[0].started.run.run_id
        ended = await asyncio.gather(*(api.ended(item.run.run_id) for item in started[-20:]))
        assert {run.state for run in ended} == {2}
        again = await api.call(api.runs.StartRuns, api_pb2.StartRunsRequest(requests=requests[:5]), 30.0)
        assert all(result.started.duplicate for result in again.results)


@pytest.mark.feature("B2")
async def test_one_that_was_started_before_makes_no_duplicates_of_those_beside_it(server: Server) -> None:
    async with server.client() as api:
        old = await api.call(api.runs.StartRun, greet("before", name="old"))
        await api.ended(old.run.run_id)
        requests = [greet("beside-1", name="new"), greet("before", name="old"), greet("beside-2", name="new")]
        answer = await api.call(api.runs.StartRuns, api_pb2.StartRunsRequest(requests=requests), 30.0)
        assert [result.started.duplicate for result in answer.results] == [False, True, False]
        assert answer.results[1].started.run.run_id == old.run.run_id


@pytest.mark.feature("B2")
async def test_a_start_is_repeated_safely_although_the_workflow_wants_another_input_by_now(
    server: Server,
) -> None:
    def document(wanted: str) -> api_pb2.ApplyResourcesRequest:
        yaml = (
            "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: changes-its-input}\nspec:\n"
            f"  inputs: {{type: object, properties: {{{wanted}: {{type: string}}}}, required: [{wanted}]}}\n"
            f'  steps: [{{name: s, transform: "${{inputs.{wanted}}}"}}]\n'
        )
        return api_pb2.ApplyResourcesRequest(request_id=f"wants-{wanted}", yaml=yaml.encode(), file="w.yaml")

    async with server.client() as api:
        start = api_pb2.StartRunRequest(
            request_id="wants", workflow="changes-its-input", input=value({"a": "x"})
        )
        await api.call(api.resources.ApplyResources, document("a"))
        first = await api.call(api.runs.StartRun, start)
        await api.ended(first.run.run_id)
        await api.call(api.resources.ApplyResources, document("b"))
        again = await api.call(api.runs.StartRun, start)
        assert again.duplicate
        assert again.run.run_id == first.run.run_id


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_call_without_starts_or_with_too_many_is_refused_whole(server: Server, count: int) -> None:
    requests = [greet(f"r{number}", name="n") for number in range(count)]
    async with server.client() as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.call(api.runs.StartRuns, api_pb2.StartRunsRequest(requests=requests), 30.0)
        assert reason(refused.value)[0] == "INVALID_ARGUMENT"
        assert reason(refused.value)[2] == ["requests"]


async def test_starts_at_the_same_time_of_one_request_start_one_run(server: Server) -> None:
    async with server.client() as api:
        answers = await asyncio.gather(
            *(api.call(api.runs.StartRun, greet("at-once", name="n")) for _ in range(20))
        )
        assert len({answer.run.run_id for answer in answers}) == 1
        assert sum(not answer.duplicate for answer in answers) == 1


@pytest.mark.feature("D5")
async def test_a_start_with_a_document_for_an_input_is_refused_with_the_way_out(server: Server) -> None:
    request = greet("a-document", name="x")
    request.input.root.map.entries[0].value.text = "x" * 200_000
    async with server.client() as api:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.call(api.runs.StartRun, request)
        assert reason(caught.value)[0] == "TOO_LARGE"
        assert "Store it as an artifact" in (caught.value.details() or "")
