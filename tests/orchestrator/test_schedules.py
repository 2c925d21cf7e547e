"""Schedules over a store: each time is started once, whatever is killed, and as the policy says."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from aios.resource.v1 import resource_pb2 as pb
from aios.run.v1.commands_pb2 import CancelRunRequest, StartRunRequest
from aios.run.v1.state_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_RUNNING,
    RUN_STATE_SUCCEEDED,
    RunHead,
    RunState,
)
from aios_core.errors import TerminalError
from aios_core.ids import run_id
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.repository import run_key
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.schedule import MISSED_MS
from aios_orchestrator.schedules import AGAIN_MS, Schedules
from aios_runtime.store.port import Result, Write
from aios_testing.store_memory import MemoryStore

HOUR = 3_600_000
BEGIN = 10 * HOUR + 5
DOCUMENTS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: w}
spec: {inputs: {type: object, properties: {at: {type: string}}}, steps: [{name: a, wait: {event: x}}]}
---
apiVersion: aios/v1
kind: Schedule
metadata: {name: s}
spec: {every: 1h, workflow: w, input: {at: "${event.time}"}, concurrency: %s, missed: %s}
"""


class Killed(BaseException):
    """The process is no more."""


class Place:
    """A store, the runs that were started, and a kill that comes after so many more things were done."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.store = MemoryStore(lambda: self.now)
        self.asked: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.left = 1 << 30
        commit = self.store.commit

        async def counted(writes: Sequence[Write]) -> list[Result]:
            self._do()
            results = await commit(writes)
            self._do()
            return results

        self.store.commit = counted  # type: ignore[method-assign]
        self.begin()

    def _do(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def begin(self) -> None:
        """A process in its next life."""
        self.left = 1 << 30
        self.book = ResourceBook(self.store, "main", lambda: self.now)
        self.schedules = Schedules(
            self.store, self.book, Ownership(), self._start, self._cancel, "main", lambda: self.now
        )

    async def apply(self, concurrency: str, missed: str = "run-once") -> None:
        text = (DOCUMENTS % (concurrency, missed)).encode()
        await self.book.apply(pb.ApplyResourcesRequest(workspace="main", yaml=text, actor="person:owner"))

    async def _start(self, request: StartRunRequest) -> None:
        self._do()
        self.asked[request.request_id] += 1
        run = run_id("main", request.trigger, request.request_id)
        if await self.store.read(run_key("main", run)) is None:
            await self.put(run, RUN_STATE_RUNNING)
        self._do()

    async def _cancel(self, request: CancelRunRequest) -> None:
        self._do()
        self.cancelled.append(request.run_id)
        await self.put(request.run_id, RUN_STATE_CANCELLED)

    async def put(self, run: str, state: RunState) -> None:
        key = run_key("main", run)
        known = await self.store.read(key)
        head = RunHead(workspace="main", run_id=run, state=state).SerializeToString()
        await type(self.store).commit(self.store, [Write(key, known.revision if known else 0, head)])

    async def end(self, time: str) -> None:
        await self.put(run_id("main", "schedule:s", time), RUN_STATE_SUCCEEDED)

    async def look(self) -> None:
        due = await self.store.due(self.now, 10)
        await self.schedules.look([item for item in due if "/schedule/" in item.key])

    async def at(self, hour: int, after: int = 0) -> None:
        """A look when the time of an hour has come."""
        self.now = hour * HOUR + after
        await self.look()

    async def view(self) -> Any:
        answer = await self.schedules.list_schedules(
            pb.ListSchedulesRequest(workspace="main", name="s", times=2)
        )
        return answer.schedules[0]


@pytest.fixture
def place() -> Place:
    return Place()


def hours(*hours: int) -> list[str]:
    return [f"1970-01-01T{hour}:00:00Z" for hour in hours]


@pytest.mark.feature("D1", "D3")
@pytest.mark.parametrize("policy", ["allow", "queue", "skip", "replace"])
@pytest.mark.parametrize("kill_after", range(14))
async def test_killed_at_any_instant_each_time_is_started_and_under_one_id(
    policy: str, kill_after: int
) -> None:
    place = Place()
    await place.apply(policy)
    await place.look()
    await place.at(11)
    place.left = kill_after
    try:
        await place.at(12)
        await place.at(12, 2 * AGAIN_MS)
    except Killed:
        pass
    place.begin()
    await place.at(12, 3 * AGAIN_MS)
    if policy == "queue":
        assert list(place.asked) == hours(11)
        await place.end(hours(11)[0])
        await place.at(12, 5 * AGAIN_MS)
    expected = hours(11) if policy == "skip" else hours(11, 12)
    assert sorted(place.asked) == expected
    view = await place.view()
    assert (view.state.runs, view.state.skipped) == (len(expected), policy == "skip")
    assert place.asked[hours(11)[0]] == 1
    if policy == "replace":
        assert set(place.cancelled) == {run_id("main", "schedule:s", hours(11)[0])}


@pytest.mark.feature("D1")
async def test_what_is_queued_starts_in_order_as_the_run_before_ends_also_after_a_restart(
    place: Place,
) -> None:
    await place.apply("queue")
    await place.look()
    for hour in (11, 12, 13):
        await place.at(hour)
    assert list(place.asked) == hours(11)
    place.begin()
    await place.end(hours(11)[0])
    await place.at(13, 2 * AGAIN_MS)
    assert list(place.asked) == hours(11, 12)
    await place.at(13, 4 * AGAIN_MS)
    assert list(place.asked) == hours(11, 12)
    await place.end(hours(12)[0])
    await place.at(13, 6 * AGAIN_MS)
    assert list(place.asked) == hours(11, 12, 13)


@pytest.mark.feature("D1", "D3")
async def test_after_a_long_stop_what_was_missed_is_run_as_the_document_says(place: Place) -> None:
    await place.apply("allow", "run-all")
    await place.look()
    place.begin()
    await place.at(14, MISSED_MS * 2)
    assert list(place.asked) == hours(11, 12, 13, 14)


async def test_a_clock_that_was_wrong_and_is_set_right_is_noticed_by_the_next_look_at_all(
    place: Place,
) -> None:
    await place.apply("allow", "skip")
    await place.look()
    await place.at(5000)
    place.begin()
    await place.at(11, 5)
    assert (await place.view()).state.next_time_ms == 12 * HOUR
    await place.at(12)
    assert place.asked[hours(12)[0]] == 1


@pytest.mark.feature("D1")
async def test_a_person_pauses_resumes_and_runs_it_now(place: Place) -> None:
    await place.apply("allow")
    await place.look()

    async def change(action: str, request: str) -> pb.ChangeScheduleResponse:
        return await place.schedules.change(
            pb.ChangeScheduleRequest(
                workspace="main", request_id=request, name="s", action=action, actor="person:o"
            )
        )

    assert (await change("pause", "1")).schedule.paused
    assert list((await place.view()).next_times_ms) == []
    place.begin()
    await place.at(11)
    assert not place.asked
    first, again = await change("run", "2"), await change("run", "2")
    assert (first.run_id, first.duplicate, again.duplicate) == (again.run_id, False, True)
    assert place.asked == {"now/2": 1}
    assert list((await change("resume", "3")).schedule.next_times_ms) == [12 * HOUR]
    await place.at(12)
    assert sorted(place.asked) == ["1970-01-01T12:00:00Z", "now/2"]
    with pytest.raises(TerminalError) as unknown:
        await place.schedules.change(
            pb.ChangeScheduleRequest(workspace="main", request_id="4", name="so", action="pause")
        )
    assert (unknown.value.code, "Did you mean 's'" in unknown.value.message) == ("NOT_FOUND", True)


async def test_a_run_that_can_not_be_started_is_told_and_the_next_time_comes(place: Place) -> None:
    await place.apply("allow")
    await place.look()

    async def refuse(request: StartRunRequest) -> None:
        raise TerminalError("INVALID_ARGUMENT", "input.at: is missing.")

    place.schedules._start = refuse
    await place.at(11)
    view = await place.view()
    assert view.state.problem == "input.at: is missing. [INVALID_ARGUMENT]"
    assert view.state.next_time_ms == 12 * HOUR
    place.begin()
    await place.at(12)
    assert ((await place.view()).state.problem, list(place.asked)) == ("", hours(12))


async def test_a_schedule_that_can_not_be_read_any_more_does_not_hold_up_the_others(place: Place) -> None:
    await place.apply("allow")
    await place.look()
    schedules = place.book.schedules

    async def none(workspace: str) -> tuple[Any, ...]:
        return ()

    place.book.schedules = none  # type: ignore[method-assign]
    await place.at(11)
    assert not place.asked
    assert await place.store.next_due() is None
    place.book.schedules = schedules  # type: ignore[method-assign]
    place.begin()
    await place.at(11, 10)
    assert list(place.asked) == hours(11)
    assert await place.store.next_due() == 12 * HOUR


async def test_a_schedule_that_rested_goes_on_although_nothing_else_has_changed(place: Place) -> None:
    await place.apply("allow")
    await place.look()
    await place.schedules._try("no-such")
    key = "main/schedule/s"
    stored = await place.store.read(key)
    assert stored is not None
    await place.store.commit([Write(key, stored.revision, stored.head)])
    assert await place.store.next_due() is None
    place.begin()
    await place.look()
    assert await place.store.next_due() == 11 * HOUR


async def test_a_schedule_of_a_workflow_that_there_is_not_is_refused(place: Place) -> None:
    text = b"apiVersion: aios/v1\nkind: Schedule\nmetadata: {name: s}\nspec: {every: 1h, workflow: none}\n"
    with pytest.raises(TerminalError) as refused:
        await place.book.apply(pb.ApplyResourcesRequest(workspace="main", yaml=text))
    assert "There is no workflow 'none'" in refused.value.message
