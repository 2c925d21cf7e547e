"""The one way in: who may, until when, and how a refusal is told; against a served AIOS."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aios.api.v1 import api_pb2
from aios.event.v1.event_pb2 import ExternalEvent
from aios.run.v1.state_pb2 import ApprovalState, Recovery
from tests.gateway.serving import Api, reason, value
from tests.served import Server

READERS = {
    "runs.ListRuns": api_pb2.ListRunsRequest(),
    "runs.GetRun": api_pb2.GetRunRequest(run_id="run_x"),
    "runs.ListPlans": api_pb2.ListPlansRequest(run_id="run_x"),
    "runs.GetTimeline": api_pb2.GetTimelineRequest(run_id="run_x"),
    "approvals.ListApprovals": api_pb2.ListApprovalsRequest(),
    "approvals.GetApproval": api_pb2.GetApprovalRequest(approval_id="apr_x"),
    "resources.ListResources": api_pb2.ListResourcesRequest(),
    "resources.GetResource": api_pb2.GetResourceRequest(kind="Workflow", name="greet"),
    "memory.ListRecords": api_pb2.ListRecordsRequest(kind="fact"),
    "memory.GetRecord": api_pb2.GetRecordRequest(kind="fact", key="x"),
    "events.ListResolutions": api_pb2.ListResolutionsRequest(),
    "system.GetStatus": api_pb2.GetStatusRequest(),
    "runs.PreviewUndo": api_pb2.PreviewUndoRequest(run_id="run_x"),
    "runs.CountEffects": api_pb2.CountEffectsRequest(run_ids=["run_x"]),
    "runs.DiffRuns": api_pb2.DiffRunsRequest(run_id="run_x", other_run_id="run_y"),
    "failures.ListFailures": api_pb2.ListFailuresRequest(),
    "failures.GetFailure": api_pb2.GetFailureRequest(run_id="run_x"),
    "queues.ShowQueues": api_pb2.ShowQueuesRequest(),
    "budgets.ListAccounts": api_pb2.ListAccountsRequest(),
    "schedules.ListSchedules": api_pb2.ListSchedulesRequest(),
}
RUNNERS = {
    "runs.StartRun": api_pb2.StartRunRequest(request_id="scope", workflow="greet"),
    "runs.StartRuns": api_pb2.StartRunsRequest(),
    "runs.CancelRun": api_pb2.CancelRunRequest(request_id="scope", run_id="run_x"),
    "runs.UndoRun": api_pb2.UndoRunRequest(request_id="scope", run_id="run_x"),
    "runs.RedoRun": api_pb2.RedoRunRequest(request_id="scope", run_id="run_x"),
    "runs.MigrateRun": api_pb2.MigrateRunRequest(request_id="scope", run_id="run_x"),
    "runs.SimulateRun": api_pb2.SimulateRunRequest(request_id="scope", workflow="greet"),
    "runs.ForkRun": api_pb2.ForkRunRequest(request_id="scope", run_id="run_x"),
    "failures.RecoverRun": api_pb2.RecoverRunRequest(
        request_id="scope", run_id="run_x", recovery=Recovery.RECOVERY_RETRY
    ),
    "schedules.PauseSchedule": api_pb2.PauseScheduleRequest(request_id="scope", name="nightly"),
    "schedules.ResumeSchedule": api_pb2.ResumeScheduleRequest(request_id="scope", name="nightly"),
    "schedules.RunSchedule": api_pb2.RunScheduleRequest(request_id="scope", name="nightly"),
}
OTHERS = {
    "approve": {
        "approvals.DecideApproval": api_pb2.DecideApprovalRequest(request_id="scope", approval_id="apr_x"),
        "approvals.EditApproval": api_pb2.EditApprovalRequest(request_id="scope", approval_id="apr_x"),
    },
    "events": {"events.PublishEvent": api_pb2.PublishEventRequest(event=ExternalEvent(id="1"))},
    "admin": {
        "resources.ApplyResources": api_pb2.ApplyResourcesRequest(request_id="scope", yaml=b""),
        "tokens.ListTokens": api_pb2.ListTokensRequest(),
        "tokens.CreateToken": api_pb2.CreateTokenRequest(request_id="scope", name="x"),
        "system.CloseRestore": api_pb2.CloseRestoreRequest(request_id="scope", restore_id="none"),
        "notify.SetWebhook": api_pb2.SetWebhookRequest(request_id="scope"),
        "notify.GetWebhook": api_pb2.GetWebhookRequest(),
        "notify.TestWebhook": api_pb2.TestWebhookRequest(request_id="scope"),
        "notify.RemoveWebhook": api_pb2.RemoveWebhookRequest(request_id="scope"),
        "tokens.RevokeToken": api_pb2.RevokeTokenRequest(request_id="scope", token_id="x"),
    },
}
BY_SCOPE: dict[str, dict[str, Message]] = {"read": READERS, "run": RUNNERS, **OTHERS}  # type: ignore[dict-item]


STREAMS = {"runs.WatchRun", "memory.GetArtifact"}


def test_every_method_of_the_api_is_among_those_that_are_tried() -> None:
    tried = {name.partition(".")[2] for requests in BY_SCOPE.values() for name in requests}
    streams = {name.partition(".")[2] for name in STREAMS}
    services = api_pb2.DESCRIPTOR.services_by_name.values()
    assert tried | streams == {method.name for service in services for method in service.methods}


async def test_streams_need_a_token_and_its_scope_as_well(server: Server) -> None:
    runner = server.json("token", "create", "no-reader", "--scope", "run")["token"]
    for token, code in (("", grpc.StatusCode.UNAUTHENTICATED), (runner, grpc.StatusCode.PERMISSION_DENIED)):
        async with server.client(token) as api:
            for call in (
                api.runs.WatchRun(api_pb2.WatchRunRequest(run_id="run_x"), metadata=api.metadata),
                api.memory.GetArtifact(api_pb2.GetArtifactRequest(sha256=b"x" * 32), metadata=api.metadata),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call.read()
                assert refused.value.code() == code


def method(api: Api, name: str) -> Callable[..., Any]:
    service, _, call = name.partition(".")
    found: Callable[..., Any] = getattr(getattr(api, service), call)
    return found


async def refusal(api: Api, name: str, request: Message, **given: Any) -> grpc.aio.AioRpcError | None:
    try:
        await api.call(method(api, name), request, **given)
    except grpc.aio.AioRpcError as error:
        return error
    return None


@pytest.mark.parametrize("token", ["", "nonsense", "aios_tok_wrong", "aios_owner_" + "x" * 43])
async def test_without_a_right_token_nothing_is_answered(server: Server, token: str) -> None:
    async with server.client(token) as api:
        for requests in BY_SCOPE.values():
            for name, request in requests.items():
                error = await refusal(api, name, request)
                assert error is not None, name
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED
                assert reason(error)[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("scope", sorted(BY_SCOPE))
async def test_a_token_opens_the_calls_of_its_scope_and_no_other(server: Server, scope: str) -> None:
    token = server.json("token", "create", f"only-{scope}", "--scope", scope)["token"]
    async with server.client(token) as api:
        for needed, requests in BY_SCOPE.items():
            for name, request in requests.items():
                error = await refusal(api, name, request)
                denied = error is not None and error.code() == grpc.StatusCode.PERMISSION_DENIED
                assert denied == (needed != scope), name
                if denied:
                    assert error is not None
                    assert needed in (error.details() or "")
                    assert reason(error)[0] == "PERMISSION_DENIED"


async def test_a_revoked_token_opens_nothing_at_once(server: Server) -> None:
    made = server.json("token", "create", "soon-gone", "--scope", "read")
    async with server.client(made["token"]) as api:
        assert await refusal(api, "runs.ListRuns", api_pb2.ListRunsRequest()) is None
        server.json("token", "revoke", made["token_id"])
        error = await refusal(api, "runs.ListRuns", api_pb2.ListRunsRequest())
        assert error is not None
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_secrets_are_in_their_own_files_and_nowhere_else_in_the_data(server: Server) -> None:
    made = server.json("token", "create", "secret", "--scope", "read")["token"]
    users = {path for path in (server.data / "nats-users").iterdir() if path.name != "url"}
    secrets = {made.rpartition("_")[2]: set(), server.token: {server.data / "token"}}
    secrets |= {path.read_text().strip(): {path, server.data / "nats" / "server.conf"} for path in users}
    for path in server.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret, places in secrets.items():
                assert path in places or secret.encode() not in content, path
            if any(path in places for places in secrets.values()):
                assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.feature("B2")
async def test_every_mutation_is_safe_to_repeat_and_refuses_other_content(server: Server) -> None:
    async with server.client() as api:
        start = api_pb2.StartRunRequest(
            request_id="m-start", workflow="ask-first", input=value({"name": "M"})
        )
        run = (await api.call(api.runs.StartRun, start)).run
        shown = await api.call(
            api.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=run.pending_approvals[0])
        )
        decide = api_pb2.DecideApprovalRequest(
            request_id="m-decide",
            approval_id=run.pending_approvals[0],
            decision=ApprovalState.APPROVAL_STATE_APPROVED,
            arguments_sha256=shown.approval.arguments_sha256,
        )
        other_run = await api.start("ask-first", "m-other", name="Other")
        mutations: list[tuple[str, Any, Any]] = [
            ("runs.StartRun", start, {"workflow": "greet"}),
            (
                "runs.SimulateRun",
                api_pb2.SimulateRunRequest(request_id="m-sim", workflow="greet", input=value({"name": "M"})),
                {"input": value({"name": "N"})},
            ),
            ("approvals.DecideApproval", decide, {"note": "another"}),
            ("runs.UndoRun", api_pb2.UndoRunRequest(request_id="m-undo", run_id=run.run_id), {"why": "else"}),
            ("runs.RedoRun", api_pb2.RedoRunRequest(request_id="m-redo", run_id=run.run_id), {"why": "else"}),
            (
                "runs.CancelRun",
                api_pb2.CancelRunRequest(request_id="m-cancel", run_id=other_run.run.run_id),
                {"why": "else"},
            ),
            (
                "resources.ApplyResources",
                api_pb2.ApplyResourcesRequest(request_id="m-apply", yaml=OWN, file="own.yaml"),
                {"yaml": OWN.replace(b"Mine", b"Yours")},
            ),
            (
                "tokens.CreateToken",
                api_pb2.CreateTokenRequest(
                    request_id="m-token", name="m", scopes=["read"], secret_sha256=b"x" * 32
                ),
                {"name": "n"},
            ),
        ]
        for name, request, change in mutations:
            await api.ended(run.run_id) if name in ("runs.UndoRun", "runs.RedoRun") else None
            await api.call(method(api, name), request)
            await api.call(method(api, name), request)
            other = type(request)()
            other.CopyFrom(request)
            for field, content in change.items():
                if isinstance(content, Message):
                    getattr(other, field).CopyFrom(content)
                else:
                    setattr(other, field, content)
            error = await refusal(api, name, other)
            assert error is not None, name
            assert reason(error)[0] == "REQUEST_ID_REUSED", (name, error.details())
            assert error.code() == grpc.StatusCode.ALREADY_EXISTS


OWN = b"""apiVersion: aios/v1
kind: Workflow
metadata: {name: repeated, title: Mine}
spec: {inputs: {type: object}, steps: [{name: say, transform: {text: hi}}], outputs: {text: "${steps.say.text}"}}
"""


async def test_a_deadline_that_is_over_ends_the_call_and_a_long_one_is_cut(server: Server) -> None:
    async with server.client() as api:
        error = await refusal(api, "runs.ListRuns", api_pb2.ListRunsRequest(), timeout=0.0001)
        assert error is not None
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert await refusal(api, "runs.ListRuns", api_pb2.ListRunsRequest(), timeout=100_000) is None


async def test_an_error_has_a_reason_a_remedy_and_the_field_that_is_wrong(server: Server) -> None:
    async with server.client() as api:
        request = api_pb2.StartRunRequest(request_id="wrong", workflow="greet", input=value({"nmae": "x"}))
        error = await refusal(api, "runs.StartRun", request)
        assert error is not None
        code, metadata, fields = reason(error)
        assert (error.code(), code) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert metadata["remedy"]
        assert fields == ["nmae"]


async def test_what_does_not_decode_or_is_too_large_is_refused_with_a_reason(server: Server) -> None:
    async with server.client() as api:
        send = api.channel.unary_unary("/aios.api.v1.RunService/StartRun")
        for raw, code in ((b"\xff\xff\xff", "UNDECODABLE"), (b"\0" * 300_000, "TOO_LARGE")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(raw, metadata=api.metadata, timeout=10)
            assert reason(refused.value)[0] == code


async def test_health_and_reflection_answer_without_a_token(server: Server) -> None:
    async with server.client("") as api:
        health = health_pb2_grpc.HealthStub(api.channel)  # type: ignore[no-untyped-call]
        for service in ("", "aios.api.v1.RunService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)  # type: ignore[no-untyped-call]
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        listed = [service.name async for answer in call for service in answer.list_services_response.service]
        assert {"aios.api.v1.RunService", "aios.api.v1.ApprovalService", "grpc.health.v1.Health"} <= set(
            listed
        )


async def test_pages_are_bounded_and_a_token_of_another_list_is_refused(server: Server) -> None:
    async with server.client() as api:
        for number in range(3):
            await api.start("greet", f"page-{number}", name="Ada")
        page = await api.call(api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=2))
        assert len(page.runs) == 2
        assert page.next_page_token
        huge = await api.call(api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=2_000_000_000))
        assert len(huge.runs) <= 200
        error = await refusal(api, "runs.ListRuns", api_pb2.ListRunsRequest(page_token="nonsense"))
        assert error is not None
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_watch_goes_on_after_the_last_event_that_was_seen(server: Server) -> None:
    async with server.client() as api:
        started = await api.start("ask-first", "watched", name="Ada")
        first = []
        request = api_pb2.WatchRunRequest(run_id=started.run.run_id)
        call = api.runs.WatchRun(request, timeout=20, metadata=api.metadata)
        async for answer in call:
            first.append(answer.event.sequence)
            if answer.event.WhichOneof("body") == "approval_requested":
                break
        call.cancel()
        await api.call(
            api.runs.CancelRun, api_pb2.CancelRunRequest(request_id="watched-c", run_id=started.run.run_id)
        )
        rest = [answer.event.sequence for answer in await api.watch(started.run.run_id, after=first[-1])]
        assert first + rest == list(range(1, len(first + rest) + 1))
        assert await api.watch(started.run.run_id, after=rest[-1]) == []


async def test_a_watch_of_no_run_is_not_found(server: Server) -> None:
    async with server.client() as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.watch("run_nothing")
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
