"""A run on which nothing can be decided, by a defect or because it can't be kept, keeps no other from going on."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from aios.event.v1.event_pb2 import Resolution
from aios.run.v1.commands_pb2 import HearEventRequest, StartRunRequest
from aios.run.v1.state_pb2 import ApprovalKind, ApprovalState, RunState, StepState
from aios.task.v1.task_pb2 import Change, Outcome, ReportOutcomes, Status
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import PARTITIONS, partition_of_run, run_id
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator import deciding, timers
from aios_orchestrator.commands import Commands
from aios_orchestrator.core.decide import Cancel, Input, Settle, Start, Tick, decide
from aios_orchestrator.handlers import Handlers
from aios_orchestrator.items import Item, StartItem
from aios_orchestrator.mailbox import Mailbox
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.routing import Router
from aios_orchestrator.unfit import in_place_of
from aios_runtime.store.port import Result, Write
from aios_testing.store_memory import MemoryStore
from tests.orchestrator.deciding import WORKFLOW, Deciding, SlowStore, capped, outcome_of
from tests.orchestrator.runs import Driver, workflow

pytestmark = pytest.mark.feature("B1", "D2")

R, S = RunState, Status
BAD = "run_bad"
MONEY = capped(b"9.00")
TWO = WORKFLOW + b"    - {name: b, agent: echo, input: {n: 2}, needs: []}\n"


def defect(monkeypatch: pytest.MonkeyPatch, is_met: Callable[[Run, Input], bool]) -> None:
    """What the core says to such an input of a run is a defect."""

    def defective(run: Run, of: Any, what: Input, *rest: Any) -> Any:
        if is_met(run, what):
            raise AssertionError("a defect")
        return decide(run, of, what, *rest)

    monkeypatch.setattr(deciding, "decide", defective)


def bad(kind: type) -> Callable[[Run, Input], bool]:
    """Any such input of the bad run."""
    return lambda run, what: run.run_id == BAD and isinstance(what, kind)


def told(what: Input) -> Sequence[Outcome]:
    return (what.outcome, *what.more) if isinstance(what, Settle) else ()


def succeeded(step: str) -> Callable[[Run, Input], bool]:
    """That a step of the bad run has succeeded."""
    return lambda run, what: (
        run.run_id == BAD and any(one.step == step and one.status == S.STATUS_SUCCEEDED for one in told(what))
    )


def starts(*runs: str) -> list[StartItem]:
    value = labeled({"n": 1}, OWNER)
    request = [
        StartRunRequest(workspace="main", request_id=run, workflow="w", actor="person:owner") for run in runs
    ]
    return [StartItem(run, asked, b"", value) for run, asked in zip(runs, request, strict=True)]


def outcome(here: Deciding, run: str) -> Outcome:
    """A worker has done the task of a run."""
    (task,) = [task for task in here.wire.tasks if task.run_id == run]
    return outcome_of(task)


async def states(here: Deciding, *runs: str) -> list[str]:
    found = []
    for run in runs:
        stored = await here.repository.view("main", run)
        found.append(R.Name(stored.run.state).removeprefix("RUN_STATE_") if stored is not None else "")
    return found


async def test_starts_beside_one_that_can_not_be_decided_go_on_and_it_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that were decided in one go were refused with it."""
    defect(monkeypatch, bad(Start))
    here = Deciding(documents=MONEY)
    await here.start()
    here.store.go.clear()
    first = here.run("run_first")
    await here.store.asked.wait()
    alone, together = here.run(BAD), asyncio.create_task(here.engine.submit(starts("run_a", BAD, "run_b")))
    await asyncio.sleep(0)
    here.store.go.set()
    answers = await together
    assert [answer.refusal.code if answer.refusal else "" for answer in answers] == ["", "INTERNAL", ""]
    (refused,) = await alone
    assert refused.refusal is not None and "AssertionError" in refused.refusal.message
    await first
    assert sorted(here.out()) == ["run_a", "run_b", "run_first"]
    assert await states(here, "run_a", BAD, "run_b") == ["RUNNING", "", "RUNNING"]
    held = (await here.accounts.open()).holds.values()
    assert sorted(hold.run_id for hold in held) == ["run_a", "run_b", "run_first"]
    await here.engine.stop()


async def test_what_can_not_be_kept_is_refused_alone() -> None:
    class Narrow(SlowStore):
        async def commit(self, writes: Sequence[Write]) -> list[Result]:
            if any(write.key.endswith(BAD) for write in writes):
                raise TerminalError("TOO_LARGE", "The run is too large.")
            return await super().commit(writes)

    here = Deciding(Narrow(), MONEY)
    await here.start()
    answers = await here.engine.submit(starts("run_a", BAD, "run_b"))
    assert [answer.refusal.code if answer.refusal else "" for answer in answers] == ["", "TOO_LARGE", ""]
    assert await states(here, "run_a", BAD, "run_b") == ["RUNNING", "", "RUNNING"]
    assert sorted(hold.run_id for hold in (await here.accounts.open()).holds.values()) == ["run_a", "run_b"]
    await here.engine.stop()


class Letter:
    """A report of outcomes as the bus delivers it, and what became of it."""

    subject = "aios.cmd.orchestrator.v1.report_outcomes.main"

    def __init__(self, *outcomes: Outcome) -> None:
        self.data = ReportOutcomes(outcomes=outcomes).SerializeToString()
        self.became = ""

    async def ack(self) -> None:
        self.became = "acknowledged"

    async def retry(self, delay_s: float = 0) -> None:
        self.became = "again"

    async def dead(self, error: AiosError) -> None:
        self.became = f"put aside: {error.code}"


async def reported(here: Deciding, *letters: Letter) -> list[str]:
    router = Router(here.wire, Ownership(), Commands(here.engine, here.resources), here.repository, "main")  # type: ignore[arg-type]
    await Handlers(here.wire, router).outcomes(letters)  # type: ignore[arg-type]
    return [letter.became for letter in letters]


async def test_a_step_whose_outcome_can_not_be_taken_in_fails_and_those_beside_it_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was put aside, with what was reported in the same message, and its work was done again."""
    here = Deciding()
    await here.start()
    await here.engine.submit(starts("run_a", BAD, "run_b"))
    defect(monkeypatch, succeeded("a"))
    letters = [Letter(outcome(here, "run_a"), outcome(here, BAD)), Letter(outcome(here, "run_b"))]
    assert await reported(here, *letters) == ["acknowledged", "acknowledged"]
    assert await states(here, "run_a", BAD, "run_b") == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    stored = await here.repository.view("main", BAD)
    assert stored is not None
    assert stored.run.error.code == "INTERNAL"
    assert (
        stored.run.error.message == "What came of it can't be taken in: The decision failed: AssertionError."
    )
    await here.engine.stop()


async def test_where_not_even_that_can_be_decided_the_report_is_put_aside_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Deciding()
    await here.start()
    await here.engine.submit(starts("run_a", BAD, "run_b"))
    defect(monkeypatch, bad(Settle))
    letters = [Letter(outcome(here, "run_a")), Letter(outcome(here, BAD), outcome(here, "run_b"))]
    assert await reported(here, *letters) == ["acknowledged", "put aside: INTERNAL"]
    assert await states(here, "run_a", BAD, "run_b") == ["SUCCEEDED", "RUNNING", "SUCCEEDED"]
    await here.engine.stop()


@pytest.mark.feature("D2", "B6")
@pytest.mark.parametrize(
    "changed", [{"undo_token": b"token"}, {"changes": [Change(resource="file:a", verb="create")]}]
)
def test_of_what_may_have_changed_something_a_person_is_asked(changed: dict[str, Any]) -> None:
    run = Driver(
        workflow(
            "- {name: ok, gate: {title: Write, approves: [it]}}\n- {name: it, connector: files.write, effect: write}"
        )
    )
    run.decide(ApprovalState.APPROVAL_STATE_APPROVED)
    done = run.outcome("it", undo_token=b"")
    for name, value in changed.items():
        getattr(done, name).extend(value) if name == "changes" else setattr(done, name, value)
    item = in_place_of(
        Item("main", "run_test", Settle(done), "service:w"), TerminalError("INTERNAL", "A defect.")
    )
    assert item is not None
    run.give(item.input)
    assert run.run.at("it").state == StepState.STEP_STATE_UNKNOWN
    assert run.approval.kind == ApprovalKind.APPROVAL_KIND_UNKNOWN


def test_what_is_no_outcome_has_nothing_in_its_place() -> None:
    assert in_place_of(Item("main", BAD, Cancel("x"), "a"), TerminalError("INTERNAL", "A defect.")) is None


class Replicas:
    """The others, as a replica that decides for the even partitions alone reaches them: one meets a defect in the bad
    run, one is away."""

    shared, me = True, "me"

    def __init__(self, bad_run: str, away: int) -> None:
        self._bad, self._away = bad_run, away
        self.settled: list[str] = []

    def owner(self, partition: int) -> str:
        return "away" if partition == self._away else "other" if partition % 2 else "me"

    async def while_owner(self, replica: str, partitions: object, work: Any) -> Any:
        return await work

    async def settle(self, reports: Sequence[tuple[str, Sequence[Outcome]]]) -> list[AiosError | None]:
        return [self._take(outcomes) for _, outcomes in reports]

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        outcomes = ReportOutcomes.FromString(data).outcomes
        if self.owner(partition_of_run(outcomes[0].run_id)) == "away":
            raise RetryableError("UNAVAILABLE", "It is away.")
        if (why := self._take(outcomes)) is not None:
            raise why
        return b""

    def _take(self, outcomes: Sequence[Outcome]) -> AiosError | None:
        self.settled += [one.run_id for one in outcomes if one.run_id != self._bad]
        bad_one = any(one.run_id == self._bad for one in outcomes)
        return TerminalError("INTERNAL", "A defect.") if bad_one else None


@pytest.mark.parametrize("whose", [0, 1])
async def test_between_replicas_the_report_that_can_not_be_taken_in_is_put_aside_alone(whose: int) -> None:
    """And none is of which a part may be settled yet."""
    names = [run_id("main", "test", str(number)) for number in range(200)]
    bad_run, good, *_ = [name for name in names if partition_of_run(name) % 2 == whose]
    lost = next(
        name for name in names if partition_of_run(name) not in map(partition_of_run, (bad_run, good))
    )
    replicas: Any = Replicas(bad_run, partition_of_run(lost))
    places: Any = SimpleNamespace(store=replicas)
    router = Router(replicas, replicas, replicas, places, "main")
    letters = [
        Letter(*(Outcome(run_id=run) for run in runs)) for runs in ((good,), (bad_run,), (bad_run, lost))
    ]
    await Handlers(replicas, router).outcomes(letters)  # type: ignore[arg-type]
    assert [letter.became for letter in letters] == ["acknowledged", "put aside: INTERNAL", "again"]
    assert good in replicas.settled


async def test_of_outcomes_that_came_together_those_of_the_run_that_can_be_are_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Deciding(documents=TWO)
    await here.start()
    await here.engine.submit(starts(BAD))
    defect(monkeypatch, succeeded("b"))
    assert await reported(here, Letter(*map(outcome_of, here.wire.tasks))) == ["acknowledged"]
    stored = await here.repository.view("main", BAD)
    assert stored is not None
    assert stored.run.at("a").state == StepState.STEP_STATE_SUCCEEDED
    assert stored.run.at("b").state == StepState.STEP_STATE_FAILED
    await here.engine.stop()


async def test_of_outcomes_that_came_together_the_one_that_can_not_be_taken_in_is_not_forgotten_over_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Deciding(documents=TWO)
    await here.start()
    await here.engine.submit(starts(BAD))
    defect(monkeypatch, lambda run, what: any(one.step == "a" for one in told(what)))
    assert await reported(here, Letter(*map(outcome_of, here.wire.tasks))) == ["put aside: INTERNAL"]
    stored = await here.repository.view("main", BAD)
    assert stored is not None
    assert stored.run.at("b").state == StepState.STEP_STATE_SUCCEEDED
    await here.engine.stop()


async def test_who_has_gone_before_each_was_decided_by_itself_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Deciding()
    await here.start()
    defect(monkeypatch, bad(Start))
    here.store.go.clear()
    gone = asyncio.create_task(here.engine.submit(starts("run_a", BAD)))
    await here.store.asked.wait()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    here.store.go.set()
    (after,) = await here.run("run_b")
    assert after.refusal is None
    assert await states(here, "run_a", BAD, "run_b") == ["RUNNING", "", "RUNNING"]
    await here.engine.stop()


async def test_a_timer_that_can_not_be_decided_stops_no_other_and_is_looked_at_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timers, "PAUSE_S", 0.0)
    waits = WORKFLOW.replace(b"agent: echo\n      input: {n: 1}", b"wait: 5s")
    here = Deciding(documents=waits)
    await here.start()
    await here.engine.submit(starts("run_a", BAD, "run_b"))
    here.engine.decider._now_ms = lambda: 6_000
    defect(monkeypatch, bad(Tick))

    clock = here.timers(6_000)
    assert await clock._due()
    assert await states(here, "run_a", BAD, "run_b") == ["SUCCEEDED", "RUNNING", "SUCCEEDED"]
    monkeypatch.setattr(deciding, "decide", decide)  # another version of it
    assert await clock._due()
    assert await states(here, BAD) == ["SUCCEEDED"]
    await here.engine.stop()


@pytest.mark.parametrize("at_work", [False, True])
async def test_a_run_that_can_not_be_read_stops_no_take_over(
    monkeypatch: pytest.MonkeyPatch, at_work: bool
) -> None:
    before = Deciding()
    await before.start()
    await before.engine.submit(starts("run_a", BAD, "run_b"))
    await before.engine.stop()
    after = Deciding(before.store)
    after.engine.start()
    followed = after.resources.followed

    async def unreadable(run: Run) -> Any:
        if run.run_id == BAD:
            raise ValueError("damaged")
        return await followed(run)

    monkeypatch.setattr(after.resources, "followed", unreadable)
    await after.takeover().taken(dict.fromkeys(range(PARTITIONS), at_work))
    assert sorted(after.out()) == ([] if at_work else ["run_a", "run_b"])
    watched = {key.run_id for key in after.publisher.delivery.all_out()}
    assert watched == {"run_a", "run_b"}
    await after.engine.stop()


async def test_an_event_that_one_can_not_hear_is_heard_by_the_others() -> None:
    told: list[str] = []

    async def hear(request: HearEventRequest) -> None:
        if request.event.event_id == "bad":
            raise TerminalError("INTERNAL", "A defect.")
        told.append(request.event.event_id)

    store = MemoryStore(lambda: 0)
    for name in ("bad", "good"):
        event = Resolution(id=name, event_id=name, correlations=["c"])
        waiting = Write(f"main/run/{name}", 0, b"", index={"event:c": "", "await:c": "main"})
        marked = Write(f"main/event/{name}", 0, event.SerializeToString(), index={"unheard": "main"})
        await store.commit([waiting, marked])
    mailbox = Mailbox(store, hear, "main")
    await mailbox._deliver()
    page = await store.query("unheard", "main", limit=9)
    assert told and set(told) == {"good"}
    assert [Resolution.FromString(item.head).event_id for item in page.items] == ["bad"]
