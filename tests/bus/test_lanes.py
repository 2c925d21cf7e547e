"""The worker's side of a lane: every task is worked on, reported by itself, and acknowledged only then."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from aios.task.v1.task_pb2 import (
    MODE_EXECUTE,
    MODE_SIMULATE,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    Mode,
    Outcome,
    PerformTasks,
    ReportOutcomes,
    Task,
)
from aios_core.errors import RetryableError, TerminalError
from aios_core.minting import now_ms
from aios_runtime import lanes, tracecontext
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.port import MAX_MESSAGE_BYTES, Delivery, Message
from aios_runtime.lanes import LaneWorker, UnansweredError, crash_points
from aios_runtime.outcomes import messages
from tests.bus.serving import Server, until

Work = Callable[..., Awaitable[LaneWorker]]


def task(number: int, **fields: object) -> Task:
    given: dict[str, object] = {"workspace": "main", "run_id": "run_1", "task_id": f"run_1/s{number}/0/0"}
    given |= {
        "step": f"s{number}",
        "dispatch": 1,
        "target": "echo",
        "mode": MODE_EXECUTE,
        "input": b"%d" % number,
    }
    return Task(**{**given, **fields})  # type: ignore[arg-type]


async def send(bus: NatsBus, *tasks: Task, each: int = 1000) -> None:
    subject = subjects.perform("main", subjects.LANE_AGENT)
    parts = [tasks[first : first + each] for first in range(0, len(tasks), each)]
    await bus.publish([Message(subject, PerformTasks(tasks=part).SerializeToString()) for part in parts])


class Outcomes:
    """What the orchestrator gets to hear."""

    def __init__(self) -> None:
        self.all: list[Outcome] = []
        self.messages: list[tuple[str, int]] = []

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            report = ReportOutcomes.FromString(delivery.data)
            self.messages.append((delivery.subject, len(report.outcomes)))
            self.all += report.outcomes
            await delivery.ack()


@pytest.fixture
async def outcomes(orchestrator: NatsBus) -> Outcomes:
    heard = Outcomes()
    await orchestrator.consume("orchestrator__report_outcomes", heard, batch=100, slots=1000)
    return heard


@pytest.fixture
async def work(agent: NatsBus) -> AsyncIterator[Work]:
    workers: list[LaneWorker] = []

    async def start(perform: Callable[[Task], Awaitable[Outcome]], **options: object) -> LaneWorker:
        given: dict[str, object] = {"slots": 100, "batch": 10, "heartbeat_s": 1.0, "worker": "w1"}
        lane = {"service": "agent-runner", "workspace": "main", "lane": subjects.LANE_AGENT}
        worker = LaneWorker(agent, perform=perform, **{**given, **lane, **options})  # type: ignore[arg-type]
        workers.append(worker)
        await worker.start()
        return worker

    yield start
    await agent.close(1)
    for worker in workers:
        await worker.stop()


async def echo(task: Task) -> Outcome:
    await asyncio.sleep(0)
    return Outcome(status=STATUS_SUCCEEDED, output=task.input)


def echo_now(task: Task) -> Outcome | None:
    return Outcome(status=STATUS_SUCCEEDED, output=task.input)


async def at_rest(bus: NatsBus) -> bool:
    js = bus.keeper.alive().jetstream()
    info = await js.consumer_info(subjects.STREAM_CMD, "agent-runner__perform")
    return not info.num_ack_pending and not info.num_pending


async def until_at_rest(bus: NatsBus) -> None:
    async with asyncio.timeout(10):
        while not await at_rest(bus):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("now", [False, True])
async def test_every_task_gets_its_own_outcome_and_those_ready_together_travel_together(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work, now: bool
) -> None:
    tasks = [
        task(number, partition=number % 2, traceparent=f"00-{number:032x}-{1:016x}-01")
        for number in range(400)
    ]
    await send(orchestrator, *tasks, each=20)
    await work(echo, perform_now=echo_now if now else None)
    await until(lambda: len(outcomes.all) == 400)
    assert {(o.task_id, o.output, o.traceparent) for o in outcomes.all} == {
        (t.task_id, t.input, t.traceparent) for t in tasks
    }
    assert {o.worker for o in outcomes.all} == {"w1"}
    assert len(outcomes.messages) < 100
    assert {subject for subject, _ in outcomes.messages} == {
        subjects.report_outcomes("main", n) for n in (0, 1)
    }
    await until_at_rest(orchestrator)


async def test_a_failure_is_the_outcome_of_its_own_task_alone(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    async def perform(task: Task) -> Outcome:
        if task.input == b"1":
            raise TerminalError("BAD_OUTPUT", "Wrong.", field="x")
        if task.input == b"2":
            raise RetryableError("UNAVAILABLE", "Later.", retry_after=3)
        if task.input == b"3":
            raise KeyError("secret")
        return await echo(task)

    await send(orchestrator, *(task(number) for number in range(5)))
    await work(perform)
    await until(lambda: len(outcomes.all) == 5)
    by_input = {o.step: o for o in outcomes.all}
    assert [by_input[f"s{n}"].status for n in (0, 4)] == [STATUS_SUCCEEDED] * 2
    assert [by_input[f"s{n}"].status for n in (1, 2, 3)] == [STATUS_FAILED] * 3
    assert [(by_input[f"s{n}"].error.code, by_input[f"s{n}"].error.retryable) for n in (1, 2, 3)] == [
        ("BAD_OUTPUT", False),
        ("UNAVAILABLE", True),
        ("INTERNAL", True),
    ]
    assert by_input["s2"].error.retry_after == 3
    assert "secret" not in by_input["s3"].error.message


@pytest.mark.parametrize(
    ("unknown", "mode", "status", "code"),
    [
        (False, MODE_EXECUTE, STATUS_FAILED, "STEP_TIMEOUT"),
        (True, MODE_EXECUTE, STATUS_UNKNOWN, "OUTCOME_UNKNOWN"),
        (True, MODE_SIMULATE, STATUS_FAILED, "STEP_TIMEOUT"),
    ],
)
async def test_a_task_is_ended_when_its_time_is_up(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work, unknown: bool, mode: Mode, status: int, code: str
) -> None:
    async def perform(task: Task) -> Outcome:
        await asyncio.Event().wait()
        return Outcome()

    await send(orchestrator, task(1, timeout_ms=30, mode=mode))
    await work(perform, timeout_is_unknown=unknown)
    await until(lambda: len(outcomes.all) == 1)
    assert (outcomes.all[0].status, outcomes.all[0].error.code) == (status, code)


async def test_a_worker_that_knows_better_says_what_a_timeout_means(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    async def perform(task: Task) -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Outcome(status=STATUS_FAILED, summary="nothing was done yet")
        return Outcome()

    await send(orchestrator, task(1, timeout_ms=30))
    await work(perform, timeout_is_unknown=True)
    await until(lambda: len(outcomes.all) == 1)
    assert (outcomes.all[0].status, outcomes.all[0].summary) == (STATUS_FAILED, "nothing was done yet")


async def test_a_task_past_its_deadline_is_not_begun(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    begun: list[str] = []

    async def perform(task: Task) -> Outcome:
        begun.append(task.step)
        return await echo(task)

    await send(orchestrator, task(1, deadline_ms=now_ms() - 1), task(2, deadline_ms=now_ms() + 60_000))
    await work(perform, perform_now=None)
    await until(lambda: len(outcomes.all) == 2)
    assert begun == ["s2"]


@pytest.mark.feature("D2")
async def test_a_task_that_waited_too_long_is_answered_and_not_begun(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    begun: list[str] = []

    async def perform(task: Task) -> Outcome:
        begun.append(task.step)
        return await echo(task)

    now = now_ms()
    await send(orchestrator, task(1, start_by_ms=now - 1), task(2, start_by_ms=now + 60_000))
    await work(perform, perform_now=perform_never)
    await until(lambda: len(outcomes.all) == 2)
    late = next(outcome for outcome in outcomes.all if outcome.step == "s1")
    assert begun == ["s2"] and late.status == STATUS_FAILED
    assert late.error.code == "QUEUE_TIMEOUT" and late.error.retryable


def perform_never(task: Task) -> Outcome | None:
    assert task.step != "s1", "work in no time is not begun too late either"
    return None


async def test_no_more_tasks_than_slots_are_worked_on_at_once(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    running = most = 0

    async def perform(task: Task) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return await echo(task)

    await send(orchestrator, *(task(number) for number in range(200)), each=25)
    await work(perform, slots=7)
    await until(lambda: len(outcomes.all) == 200)
    assert most == 7


async def test_the_trace_of_a_task_is_that_of_its_work(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    seen: dict[str, str] = {}

    async def perform(task: Task) -> Outcome:
        await asyncio.sleep(0.001)
        seen[task.step] = tracecontext.current.get()
        return await echo(task)

    traces = {f"s{number}": f"00-{number + 1:032x}-{1:016x}-01" for number in range(10)}
    await send(orchestrator, *(task(number, traceparent=traces[f"s{number}"]) for number in range(10)))
    await work(perform)
    await until(lambda: len(outcomes.all) == 10)
    assert seen == traces


async def test_work_that_takes_longer_than_the_broker_waits_is_not_given_to_another(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker waits 15 s; here the consumer's own wait is shortened to 1 s, and a heartbeat comes each 0.3 s."""
    js = orchestrator.keeper.alive().jetstream()
    info = await js.consumer_info(subjects.STREAM_CMD, "agent-runner__perform")
    info.config.ack_wait = 1.0
    await js.add_consumer(subjects.STREAM_CMD, info.config)
    begun: list[str] = []

    async def perform(task: Task) -> Outcome:
        begun.append(task.step)
        await asyncio.sleep(2.5)
        return await echo(task)

    await send(orchestrator, task(1))
    await work(perform, heartbeat_s=0.3)
    await until(lambda: len(outcomes.all) == 1)
    assert begun == ["s1"]


async def test_what_can_not_be_answered_comes_again_later_and_later(
    orchestrator: NatsBus, work: Work, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a provider that is away is not asked every two seconds for as long as it is."""
    monkeypatch.setattr(lanes, "GIVEN_BACK_S", (0.0, 0.2, 0.4))
    times: list[float] = []

    async def perform(task: Task) -> Outcome:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 5:
            raise UnansweredError("the provider is away")
        return Outcome(status=STATUS_SUCCEEDED)

    await work(perform)
    await send(orchestrator, task(1))
    await until(lambda: len(outcomes.all) == 1)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert [gap >= least for gap, least in zip(gaps, (0.0, 0.2, 0.4, 0.4), strict=True)] == [True] * 4, gaps


async def test_what_is_no_task_is_a_dead_letter_and_the_lane_goes_on(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    subject = subjects.perform("main", subjects.LANE_AGENT)
    await orchestrator.publish(
        [
            Message(subject, b"\xff\xff\xff"),
            Message(subject, b""),
            Message(subject, PerformTasks(tasks=[Task(run_id="r")]).SerializeToString()),
        ]
    )
    await send(orchestrator, task(1))
    await work(echo)
    await until(lambda: len(outcomes.all) == 1)
    js = orchestrator.keeper.alive().jetstream()
    async with asyncio.timeout(5):
        while (await js.stream_info(subjects.STREAM_DLQ)).state.messages < 3:
            await asyncio.sleep(0.01)
    await until_at_rest(orchestrator)


async def test_an_outcome_that_is_too_large_is_reported_as_that(
    orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    async def perform(task: Task) -> Outcome:
        size = MAX_MESSAGE_BYTES if task.step == "s1" else 100_000
        return Outcome(status=STATUS_SUCCEEDED, output=bytes(size), undo_token=b"u", cost_micros=5)

    await send(orchestrator, *(task(number) for number in range(6)))
    await work(perform)
    await until(lambda: len(outcomes.all) == 6)
    large = next(o for o in outcomes.all if o.step == "s1")
    assert (large.status, large.error.code, large.undo_token, large.cost_micros) == (
        STATUS_FAILED,
        "TOO_LARGE",
        b"u",
        5,
    )
    assert sum(o.status == STATUS_SUCCEEDED for o in outcomes.all) == 5


async def test_outcomes_wait_for_a_bus_that_is_away(
    server: Server, orchestrator: NatsBus, outcomes: Outcomes, work: Work
) -> None:
    go_on = asyncio.Event()
    begun: list[str] = []

    async def perform(task: Task) -> Outcome:
        begun.append(task.step)
        await go_on.wait()
        return await echo(task)

    await send(orchestrator, *(task(number) for number in range(10)))
    await work(perform)
    await until(lambda: len(begun) == 10)
    os.kill(server.pid or 0, signal.SIGKILL)
    go_on.set()
    await until(lambda: {o.step for o in outcomes.all} == {f"s{n}" for n in range(10)}, 30)


def test_reports_keep_within_a_message() -> None:
    many = [("main", 0, Outcome(task_id=str(n), output=bytes(n % 50_000))) for n in range(2000)]
    made = messages(many)
    assert all(len(message.data) < MAX_MESSAGE_BYTES for message in made)
    reported = [o.task_id for message in made for o in ReportOutcomes.FromString(message.data).outcomes]
    assert reported == [str(n) for n in range(2000)]


WORKER = """
    import asyncio, sys
    from pathlib import Path
    from aios.task.v1.task_pb2 import STATUS_SUCCEEDED, Outcome
    from aios_runtime.bus.connection import NatsBus
    from aios_runtime.bus.endpoint import load_endpoint
    from aios_runtime.lanes import LaneWorker

    async def perform(task):
        with open(sys.argv[2], "a") as log:
            log.write(task.step + "\\n")
        return Outcome(status=STATUS_SUCCEEDED, output=task.input)

    async def main():
        place = load_endpoint(Path(sys.argv[1]))
        bus = await NatsBus.connect(place.credentials("agent-runner"), service="agent-runner")
        lane = {"service": "agent-runner", "workspace": "main", "lane": "agent"}
        worker = LaneWorker(bus, **lane, perform=perform, slots=4, batch=4)
        await worker.start()
        await asyncio.Event().wait()

    asyncio.run(main())
"""


@pytest.mark.drill
@pytest.mark.feature("B1")
@pytest.mark.parametrize("point", crash_points("agent-runner"))
async def test_a_worker_killed_at_any_point_loses_no_task(
    server: Server, orchestrator: NatsBus, outcomes: Outcomes, tmp_path: Path, point: str
) -> None:
    js = orchestrator.keeper.alive().jetstream()
    info = await js.consumer_info(subjects.STREAM_CMD, "agent-runner__perform")
    info.config.ack_wait = 1.0  # of 15 s, so that the test need not wait for it
    await js.add_consumer(subjects.STREAM_CMD, info.config)
    await send(orchestrator, *(task(number) for number in range(8)), each=2)
    log = tmp_path / "log"

    def start(crash_at: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "AIOS_CRASH_AT": crash_at}
        arguments = [sys.executable, "-c", textwrap.dedent(WORKER), str(server.data_dir), str(log)]
        return subprocess.Popen(arguments, env=environment)

    first = start(point)
    assert await asyncio.to_thread(first.wait, 20) == -signal.SIGKILL
    second = start("")
    try:
        await until(lambda: {o.step for o in outcomes.all} == {f"s{n}" for n in range(8)}, 20)
        await until_at_rest(orchestrator)
    finally:
        second.kill()
        second.wait()
    assert json.dumps(sorted(set(log.read_text().split()))) == json.dumps([f"s{n}" for n in range(8)])
