"""Events and waiting runs find each other, whichever is committed first and whatever a process did not come to."""

from typing import Any

import pytest

from aios.event.v1.event_pb2 import ExternalEvent
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1.commands_pb2 import HearEventRequest
from aios.run.v1.state_pb2 import RunHead, StepHead, StepState
from aios_core.errors import RetryableError, TerminalError
from aios_core.ids import partition_of_run
from aios_orchestrator.correlation import MAX_CORRELATIONS, correlation_of, index_of
from aios_orchestrator.intake import Intake
from aios_orchestrator.mailbox import PAGE, UNHEARD, Mailbox
from aios_orchestrator.resources import ResourceBook
from aios_runtime.store.port import Write
from aios_testing.store_memory import MemoryStore

SIDE = "event.data.thread"
WORKFLOW = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: talk%s}
spec:
  inputs: {type: object, properties: {thread: {type: string}}, required: [thread]}
  steps: [{name: reply, wait: {event: mail.replied, match: "%s == inputs.thread"}}]
"""


class Place:
    """A store with the workflow, and all that runs are told."""

    def __init__(self) -> None:
        self.now = 1_000
        self.store = MemoryStore(lambda: self.now)
        self.book = ResourceBook(self.store, "main", lambda: self.now)
        self.told: list[tuple[str, list[str]]] = []
        self.refuses = 0
        self.mailbox = self.another()

    def another(self) -> Mailbox:
        """As after a restart."""
        return Mailbox(self.store, self._hear, "main")

    async def _hear(self, request: HearEventRequest) -> None:
        if self.refuses:
            self.refuses -= 1
            raise RetryableError("UNAVAILABLE", "No replica decides for this run now.")
        self.told.append((request.event.event_id, list(request.run_ids)))

    async def apply(self, name: str = "", side: str = SIDE) -> None:
        text = (WORKFLOW % (name, side)).encode()
        await self.book.apply(ApplyResourcesRequest(workspace="main", yaml=text, actor="person:owner"))

    async def accept(self, name: str, thread: str = "a", kind: str = "mail.replied") -> None:
        """Accept an event, and be killed."""

        async def start(request: Any) -> None:
            raise AssertionError("it starts nothing")

        data = b'{"thread": "%s"}' % thread.encode()
        event = ExternalEvent(workspace="main", id=name, source="mail", type=kind, data=data)
        await Intake(self.store, self.book, start, "main", lambda: self.now).accept(event)

    async def wait(self, run: str, thread: str = "a", begun: int = 1_000) -> None:
        """A run as it is stored while it waits."""
        awaits = correlation_of("main", "mail.replied", SIDE, thread)
        assert awaits is not None
        step = StepHead(step="reply", state=StepState.STEP_STATE_WAITING, awaits=awaits)
        head = RunHead(workspace="main", run_id=run, create_time_ms=begun, steps=[step])
        index = {index_of(awaits): "main", "awaiting": f"main/{partition_of_run(run)}"}
        await self.store.commit([Write(f"main/run/{run}", 0, head.SerializeToString(), index=index)])

    async def settle(self, mailbox: Mailbox) -> None:
        if mailbox._task is not None:
            await mailbox._task

    async def unheard(self) -> int:
        return len((await self.store.query(UNHEARD, "main")).items)


@pytest.fixture
async def place() -> Place:
    place = Place()
    await place.apply()
    return place


ALL = dict.fromkeys(range(16), False)


@pytest.mark.feature("D1", "D3", "B1")
async def test_an_event_that_nobody_was_told_of_before_the_kill_is_told_after_the_restart(
    place: Place,
) -> None:
    await place.wait("run_1")
    await place.wait("run_other", thread="b")
    await place.accept("e1")
    assert await place.unheard() == 1
    assert place.told == []
    await place.another().taken(ALL)
    assert place.told[0] == ("e1", ["run_1"])
    assert await place.unheard() == 0


@pytest.mark.feature("D1", "D3")
async def test_a_run_that_was_killed_before_it_looked_for_earlier_events_looks_after_the_restart(
    place: Place,
) -> None:
    await place.accept("e1")
    await place.another().taken(ALL)
    assert place.told == []
    await place.wait("run_1")
    after = place.another()
    await after.taken(ALL)
    await place.settle(after)
    assert place.told == [("e1", ["run_1"])]


@pytest.mark.feature("D1")
async def test_an_event_from_before_the_run_began_is_none_that_it_waits_for(place: Place) -> None:
    await place.accept("e1")
    await place.mailbox.sweep()
    await place.wait("run_1", begun=1_001)
    await place.mailbox.taken(ALL)
    await place.settle(place.mailbox)
    assert place.told == []


@pytest.mark.feature("D1")
async def test_ten_thousand_that_wait_for_others_cost_an_event_nothing(place: Place) -> None:
    for at in range(10_000):
        await place.wait(f"run_{at}", thread=f"t{at}")
    asked = []
    query = place.store.query

    async def counted(index: str, value: str, **more: Any) -> Any:
        page = await query(index, value, **more)
        asked.append(len(page.items))
        return page

    place.store.query = counted  # type: ignore[method-assign]
    await place.accept("e1", thread="t77")
    await place.mailbox.sweep()
    assert place.told == [("e1", ["run_77"])]
    assert sum(asked) == 2  # the event that has the mark, and the run


async def test_what_all_wait_for_reaches_all_page_by_page(place: Place) -> None:
    for at in range(PAGE + 1):
        await place.wait(f"run_{at}")
    await place.accept("e1")
    await place.mailbox.sweep()
    assert sorted(len(runs) for _, runs in place.told) == [1, PAGE]


async def test_an_event_keeps_its_mark_until_it_could_be_heard(place: Place) -> None:
    await place.wait("run_1")
    await place.accept("e1")
    place.refuses = 1
    with pytest.raises(RetryableError):
        await place.mailbox.sweep()
    assert await place.unheard() == 1
    await place.mailbox.sweep()
    assert place.told == [("e1", ["run_1"])]


async def test_an_event_that_no_workflow_waits_for_leaves_no_mark(place: Place) -> None:
    await place.accept("e1", kind="mail.sent")
    assert await place.unheard() == 0


async def test_a_type_is_waited_for_in_a_bounded_number_of_ways(place: Place) -> None:
    for at in range(MAX_CORRELATIONS - 1):
        await place.apply(f"-{at}", f"event.data.f{at}")
    with pytest.raises(TerminalError) as refused:
        await place.apply("-more", "event.data.more")
    assert "wait.match" in refused.value.message
    assert (await place.book.get("main", "Workflow", "talk-more")) is None
    await place.apply("-same", "event.data.f1")
