"""Runs through the gRPC API, with the real orchestrator behind it."""

import asyncio

import grpc
import grpc.aio
import pytest

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import ApprovalState, RunState
from aios_core.encoding import decode
from aios_core.labels import Trust
from aios_core.values import leaves, plain
from tests.gateway.serving import Api, World, reason, value

APPROVED = ApprovalState.APPROVAL_STATE_APPROVED


@pytest.mark.feature("L3")
async def test_a_client_starts_a_run_and_reads_its_outputs(api: Api) -> None:
    started = await api.start("greet", name="Ada", times=3)
    run = await api.ended(started.run.run_id)
    assert run.state == RunState.RUN_STATE_SUCCEEDED
    assert plain(decode(run.outputs.SerializeToString())) == {"text": "hello Ada", "times": 3}
    assert len(run.trace_id) == 32
    assert run.trigger == "manual"
    assert run.actor == "person:owner"


@pytest.mark.feature("B2")
async def test_the_same_request_id_gives_the_same_run_and_other_content_is_refused(api: Api) -> None:
    first = await api.start("greet", "same", name="Ada")
    again = await api.start("greet", "same", name="Ada")
    assert again.duplicate and not first.duplicate
    assert again.run.run_id == first.run.run_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.start("greet", "same", name="Bob")
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert reason(refused.value)[0] == "REQUEST_ID_REUSED"


async def test_a_mutation_without_a_request_id_is_refused_by_name(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.start("greet", "", name="Ada")
    code, metadata, fields = reason(refused.value)
    assert (code, fields) == ("INVALID_ARGUMENT", ["request_id"])
    assert metadata["remedy"]


async def test_a_wrong_input_names_its_field(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.start("greet", nmae="Ada")
    code, _, fields = reason(refused.value)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert code == "INVALID_ARGUMENT" and fields
    assert "nmae" in (refused.value.details() or "")


async def test_a_run_that_is_not_there_is_not_found(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.call(api.runs.GetRun, api_pb2.GetRunRequest(run_id="run_nothing"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.watch("run_nothing")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_clients_labels_are_not_taken_over(api: Api) -> None:
    sent = value({"name": "Ada"})
    for label in sent.labels:
        label.trust = Trust.APPROVED
        label.origins[:] = ["connector:bank"]
    request = api_pb2.StartRunRequest(request_id="r1", workflow="greet", input=sent)
    started = await api.call(api.runs.StartRun, request)
    stored = decode(started.run.input.SerializeToString())
    assert {leaf.label.origins for leaf in leaves(stored)} <= {("person:owner",), ("resource",)}


@pytest.mark.feature("I4")
async def test_an_approval_counts_for_what_was_shown_and_only_once(api: Api) -> None:
    started = await api.start("ask-first", name="Ada")
    (waiting,) = (
        await api.call(api.runs.GetRun, api_pb2.GetRunRequest(run_id=started.run.run_id))
    ).run.pending_approvals
    shown = (
        await api.call(api.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=waiting))
    ).approval
    assert (shown.title, shown.why, shown.risk) == (
        "Remember Ada",
        "it was asked for",
        "it may be the wrong name",
    )
    tampered = bytes([shown.arguments_sha256[0] ^ 1]) + shown.arguments_sha256[1:]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.call(
            api.approvals.DecideApproval,
            api_pb2.DecideApprovalRequest(
                request_id="d0", approval_id=waiting, decision=APPROVED, arguments_sha256=tampered
            ),
        )
    assert reason(refused.value)[0] == "APPROVAL_STALE"
    decision = api_pb2.DecideApprovalRequest(
        request_id="d1", approval_id=waiting, decision=APPROVED, arguments_sha256=shown.arguments_sha256
    )
    first = await api.call(api.approvals.DecideApproval, decision)
    again = await api.call(api.approvals.DecideApproval, decision)
    assert first.approval.state == again.approval.state == APPROVED
    assert first.approval.decided_by == "person:owner"
    run = await api.ended(started.run.run_id)
    assert run.state == RunState.RUN_STATE_SUCCEEDED
    record = await api.call(api.memory.GetRecord, api_pb2.GetRecordRequest(kind="fact", key="person/Ada"))
    assert record.record.version == 1


@pytest.mark.feature("I4")
async def test_a_question_is_answered_in_its_own_terms(api: Api) -> None:
    started = await api.start("question")
    (waiting,) = started.run.pending_approvals
    wrong = api_pb2.DecideApprovalRequest(
        request_id="d1",
        approval_id=waiting,
        decision=ApprovalState.APPROVAL_STATE_ANSWERED,
        answers=value({"color": "green"}),
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.call(api.approvals.DecideApproval, wrong)
    assert reason(refused.value)[0] == "BAD_ANSWER"
    wrong.answers.CopyFrom(value({"color": "blue"}))
    wrong.request_id = "d2"
    await api.call(api.approvals.DecideApproval, wrong)
    run = await api.ended(started.run.run_id)
    assert plain(decode(run.outputs.SerializeToString())) == {"answered": "blue"}


@pytest.mark.feature("D6")
async def test_an_undone_run_says_so_and_what_it_wrote_is_gone(api: Api) -> None:
    started = await api.start("ask-first", name="Ada")
    await approve(api, started.run.pending_approvals[0])
    await api.ended(started.run.run_id)
    undo = api_pb2.UndoRunRequest(request_id="u1", run_id=started.run.run_id, why="a mistake")
    answer = await api.call(api.runs.UndoRun, undo)
    assert list(answer.steps) == ["keep"]
    run = await api.ended(started.run.run_id)
    assert run.state == RunState.RUN_STATE_UNDONE
    record = await api.call(api.memory.GetRecord, api_pb2.GetRecordRequest(kind="fact", key="person/Ada"))
    assert record.record.deleted


@pytest.mark.feature("D10")
async def test_a_simulation_shows_the_changes_and_makes_none(api: Api) -> None:
    request = api_pb2.SimulateRunRequest(request_id="s1", workflow="ask-first", input=value({"name": "Ada"}))
    started = await api.call(api.runs.SimulateRun, request)
    run = await api.ended(started.run.run_id)
    assert run.state == RunState.RUN_STATE_SUCCEEDED
    assert [change.verb for change in run.predicted] == ["create"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.call(api.memory.GetRecord, api_pb2.GetRecordRequest(kind="fact", key="person/Ada"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_cancelled_run_stops_and_keeps_its_reason(api: Api) -> None:
    started = await api.start("ask-first", name="Ada")
    request = api_pb2.CancelRunRequest(request_id="c1", run_id=started.run.run_id, why="not now")
    answer = await api.call(api.runs.CancelRun, request)
    assert answer.run.state == RunState.RUN_STATE_CANCELLED
    timeline = await api.call(api.runs.GetTimeline, api_pb2.GetTimelineRequest(run_id=started.run.run_id))
    assert "not now" in [entry.why for entry in timeline.entries]


@pytest.mark.feature("K2")
async def test_the_timeline_says_in_plain_words_who_did_what_and_why(api: Api) -> None:
    started = await api.start("ask-first", name="Ada")
    await approve(api, started.run.pending_approvals[0], note="looks right")
    await api.ended(started.run.run_id)
    timeline = await api.call(api.runs.GetTimeline, api_pb2.GetTimelineRequest(run_id=started.run.run_id))
    told = [(entry.who, entry.what, entry.why) for entry in timeline.entries]
    assert told[0] == ("you", "started ask-first", "")
    assert told[1] == ("AIOS", "needs your approval: Remember Ada", "it was asked for")
    assert told[2] == ("you", "approved", "looks right")
    assert told[3][0] == "memory"
    assert told[-1] == ("AIOS", "finished", "")
    assert timeline.entries[3].changes


async def test_a_watch_resumes_after_a_sequence_without_a_gap(api: Api) -> None:
    started = await api.start("ask-first", name="Ada")
    seen: list[int] = []
    begun = asyncio.Event()

    async def watch() -> None:
        request = api_pb2.WatchRunRequest(run_id=started.run.run_id)
        async for answer in api.runs.WatchRun(request, timeout=20.0, metadata=api.metadata):
            seen.append(answer.event.sequence)
            begun.set()

    watching = asyncio.create_task(watch())
    await begun.wait()
    await approve(api, started.run.pending_approvals[0])
    await watching
    assert seen == list(range(1, len(seen) + 1))
    resumed = await api.watch(started.run.run_id, after=3)
    assert [answer.event.sequence for answer in resumed] == seen[3:]
    assert resumed[-1].entry.what == "finished"


async def test_many_watchers_share_one_subscription_and_see_the_same(world: World, api: Api) -> None:
    started = await api.start("ask-first", name="Ada")
    watching = [asyncio.create_task(api.watch(started.run.run_id)) for _ in range(20)]
    await approve(api, started.run.pending_approvals[0])
    seen = [[answer.event.sequence for answer in await watch] for watch in watching]
    assert all(sequences == seen[0] for sequences in seen)
    assert seen[0] == list(range(1, len(seen[0]) + 1))


async def test_runs_are_listed_page_by_page_the_newest_first(api: Api) -> None:
    ids = [(await api.start("greet", f"r{number}", name="Ada")).run.run_id for number in range(5)]
    first = await api.call(api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=3))
    second = await api.call(
        api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=3, page_token=first.next_page_token)
    )
    assert [run.run_id for run in [*first.runs, *second.runs]] == ids[::-1]
    assert not second.next_page_token


async def test_the_status_says_what_needs_a_person_and_who_is_well(api: Api) -> None:
    await api.start("ask-first", "a", name="Ada")
    await api.start("greet", "b", name="Bob")
    status = await api.call(api.system.GetStatus, api_pb2.GetStatusRequest())
    assert [approval.title for approval in status.needs_you] == ["Remember Ada"]
    assert [run.workflow for run in status.running] == ["ask-first"]
    assert [run.workflow for run in status.recent] == ["greet"]
    ready = {service.service: service.ready for service in status.services}
    assert ready["gateway"] and ready["orchestrator"] and ready["memory"]
    assert not ready["connector-files"]


async def approve(api: Api, approval_id: str, note: str = "") -> None:
    shown = (
        await api.call(api.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=approval_id))
    ).approval
    request = api_pb2.DecideApprovalRequest(
        request_id=f"d-{approval_id}",
        approval_id=approval_id,
        decision=APPROVED,
        arguments_sha256=shown.arguments_sha256,
        note=note,
    )
    await api.call(api.approvals.DecideApproval, request)
