"""Episodes: told once for each event, from the event log alone."""

import pytest

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as run
from aios.run.v1 import state_pb2
from aios.task.v1.task_pb2 import Change
from aios_core.encoding import encode
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import event_hash
from aios_core.ids import partition_of_run
from aios_core.labels import OWNER
from aios_core.values import Leaf, Pointer
from aios_gateway.story import tell
from aios_memory.episodes import Episodes
from aios_memory.narration import _TELLERS, KINDS, episode_of
from aios_runtime.store.port import Store, Write
from tests.memory.serving import WORKSPACE

RUN = "run_7"
PARTITION = partition_of_run(RUN)


def event(sequence: int, **body: object) -> bytes:
    return run.RunEvent(
        schema=1, semantics=1, workspace=WORKSPACE, run_id=RUN, sequence=sequence, time_ms=1000 + sequence,
        actor="service:orchestrator", **body,
    ).SerializeToString()  # fmt: skip


def story() -> list[bytes]:
    artifact = Pointer("ab" * 32, 10)
    return [
        event(
            1,
            run_started=run.RunStarted(
                workflow="monthly-client-report", workflow_version="3", trigger="folder", request="evt_1"
            ),
        ),
        event(2, step_scheduled=run.StepScheduled(step="read", target="files.read", attempt=1)),
        event(
            3,
            step_succeeded=run.StepSucceeded(
                step="read", summary="read 3 files", cost_micros=1200, output=encode(Leaf(artifact, OWNER)),
                changes=[Change(resource="fact:client/acme/b", verb="create", content_sha256=b"\1" * 32)],
            ),
        ),
        event(4, step_failed=run.StepFailed(step="write", error=Error(code="DISK_FULL", message="The disk is full."))),
        event(
            5,
            approval_decided=run.ApprovalDecided(
                step="write", approval_id="apr_1", state=state_pb2.APPROVAL_STATE_APPROVED,
                decided_by="person:owner", note="looks right",
            ),
        ),
    ]  # fmt: skip


@pytest.mark.feature("G10")
async def test_each_event_becomes_one_episode_that_says_who_what_why_and_from_what(store: Store) -> None:
    episodes = Episodes(store, WORKSPACE)
    events = story()
    await episodes.append(PARTITION, 1, events)
    assert await episodes.position(PARTITION) == 5
    told = await episodes.of_run(RUN, 0, 100)
    assert [(episode.sequence, episode.what) for episode in told] == [
        (1, "started monthly-client-report"),
        (2, "gave step read to files.read"),
        (3, "did step read: read 3 files"),
        (4, "step write failed"),
        (5, "person:owner approved write"),
    ]
    assert told[0].why == "asked for by folder with evt_1"
    assert "request:evt_1" in told[0].references
    assert list(told[2].references) == [
        "fact:client/acme/b",
        "artifact:" + "01" * 32,
        "artifact:" + "ab" * 32,
    ]
    assert (told[2].cost_micros, told[2].step, told[2].time_ms) == (1200, "read", 1003)
    assert told[3].why == "The disk is full."
    assert told[4].why == "looks right"
    assert [episode.event_sha256 for episode in told] == [b""] * 4 + [event_hash(events[-1])]
    assert [episode.sequence for episode in await episodes.of_run(RUN, 3, 1)] == [4]


@pytest.mark.feature("G10")
async def test_events_that_come_again_are_told_once_and_a_gap_is_not_passed_over(store: Store) -> None:
    episodes = Episodes(store, WORKSPACE)
    events = story()
    with pytest.raises(RetryableError, match="missing"):
        await episodes.append(PARTITION, 2, events[1:])
    await episodes.append(PARTITION, 1, events[:2])
    await episodes.append(PARTITION, 1, events[:1])
    assert await episodes.position(PARTITION) == 2
    await episodes.append(PARTITION, 2, events[1:4])
    assert await episodes.position(PARTITION) == 4
    await Episodes(store, WORKSPACE).append(PARTITION, 1, events)
    assert [episode.sequence for episode in await episodes.of_run(RUN, 0, 100)] == [1, 2, 3, 4, 5]
    assert await episodes.position(PARTITION) == 5


@pytest.mark.feature("G10")
async def test_the_log_dropped_and_told_again_is_equal(store: Store) -> None:
    episodes = Episodes(store, WORKSPACE)
    events = story()
    for n, stored in enumerate(events, 1):
        await episodes.append(PARTITION, n, [stored])
    before = await episodes.of_run(RUN, 0, 100)
    assert [episode.event_sha256 for episode in before] == [event_hash(stored) for stored in events]
    await episodes.forget()
    assert await episodes.position(PARTITION) == 0
    assert await episodes.of_run(RUN, 0, 100) == []
    await episodes.append(PARTITION, 1, events)
    after = await episodes.of_run(RUN, 0, 100)
    assert after[-1].event_sha256 == before[-1].event_sha256
    for episode in (*before, *after):
        episode.ClearField("event_sha256")
    assert after == before


@pytest.mark.feature("G10")
@pytest.mark.parametrize("together", [1, 7, 100])
async def test_a_long_run_is_read_page_by_page_from_any_place_however_its_events_came(
    store: Store, together: int
) -> None:
    episodes = Episodes(store, WORKSPACE)
    events = [event(n, step_skipped=run.StepSkipped(step=f"s{n}")) for n in range(1, 101)]
    for first in range(0, 100, together):
        await episodes.append(PARTITION, first + 1, events[first : first + together])
    for after in (0, 1, 30, 31, 32, 33, 63, 64, 99, 100):
        told = await episodes.of_run(RUN, after, 20)
        assert [episode.sequence for episode in told] == list(range(after + 1, 101))[:20]
        assert {(episode.run_id, episode.workspace) for episode in told} <= {(RUN, WORKSPACE)}


async def test_episodes_that_version_0_1_0_kept_come_before_those_of_now(store: Store) -> None:
    events = story()
    old = [episode_of(stored) for stored in events[:2]]
    records = {f"{RUN}/{episode.sequence:010}": episode.SerializeToString() for episode in old}
    await store.commit([Write(f"{WORKSPACE}/episodes/{PARTITION:04}", 0, b"2", records)])
    episodes = Episodes(store, WORKSPACE)
    await episodes.append(PARTITION, 3, events[2:])
    told = await episodes.of_run(RUN, 0, 100)
    assert [episode.what for episode in told] == [episode_of(stored).what for stored in events]
    assert told[:2] == old
    assert await episodes.of_run(RUN, 1, 2) == told[1:3]


@pytest.mark.feature("K2")
def test_every_kind_of_event_has_a_sentence_of_its_own() -> None:
    assert set(_TELLERS) == KINDS
    for kind in KINDS:
        made = run.RunEvent(run_id=RUN, sequence=1)
        getattr(made, kind).SetInParent()
        assert "happened" not in episode_of(made.SerializeToString()).what


@pytest.mark.feature("F5", "K2")
def test_a_wait_is_told_with_what_it_is_for() -> None:
    waits = {
        "waits in step say": run.RunEvent(wait_started={"step": "say"}),
        "waits in step say for event paid": run.RunEvent(wait_started={"step": "say", "event_type": "paid"}),
        "waits in step say for money that others hold": run.RunEvent(
            wait_started={"step": "say", "unfunded": True}
        ),
    }
    for what, event in waits.items():
        assert episode_of(event.SerializeToString()).what == what
        assert tell([event])[0].what == what.replace("in step", "at")


def test_an_event_of_an_unknown_kind_still_becomes_an_episode_and_garbage_does_not() -> None:
    assert episode_of(run.RunEvent(run_id=RUN, sequence=9).SerializeToString()).what == "something happened"
    with pytest.raises(TerminalError):
        episode_of(b"\xff\xff\xff")


@pytest.mark.feature("G10")
async def test_events_with_ever_so_many_long_references_hold_up_none_after_them(store: Store) -> None:
    """Their episodes were more than a record, or a write, has room for, and of a sixteenth of all runs memory told no
    event any more."""
    episodes = Episodes(store, WORKSPACE)
    changes = [Change(resource=f"file:{number:04}/{'x' * 1000}", verb="create") for number in range(64)]
    large = [
        event(sequence, step_succeeded=run.StepSucceeded(step="write", changes=changes))
        for sequence in range(1, 601)
    ]
    await episodes.append(PARTITION, 1, [*large, event(601, run_succeeded=run.RunSucceeded())])
    assert await episodes.position(PARTITION) == 601
    found = [episode for after in range(0, 601, 50) for episode in await episodes.of_run(RUN, after, 50)]
    assert [episode.sequence for episode in found] == list(range(1, 602))
    assert all(15_000 < sum(map(len, episode.references)) <= 16 * 1024 for episode in found[:-1])


@pytest.mark.feature("G10")
async def test_an_event_that_a_defect_keeps_from_being_told_holds_up_none_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(told: run.RunEvent) -> tuple[str, str, list[str]]:
        raise ValueError("a defect")

    monkeypatch.setitem(_TELLERS, "step_scheduled", defective)
    episodes = Episodes(store, WORKSPACE)
    await episodes.append(PARTITION, 1, story())
    found = await episodes.of_run(RUN, 0, 100)
    assert [episode.sequence for episode in found] == [1, 2, 3, 4, 5]
    assert found[1].what == "something happened that can't be told"
    assert found[1].actor == "service:orchestrator"
    assert found[2].what == "did step read: read 3 files"
