"""The port's promises over a real server."""

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence

import pytest

from aios.bus.v1.bus_pb2 import DeadLetter
from aios_core.errors import RetryableError, TerminalError
from aios_runtime import tracecontext
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.port import MAX_MESSAGE_BYTES, Delivery, Message
from aios_runtime.bus.replies import MAX_PARTS, Parts, in_parts, unpack
from tests.bus.serving import Connect, Server, until
from tests.processes import freeze, kill_and_delete

TASKS = subjects.perform("main", "agent")
PERFORM = "agent-runner__perform"


class Collector:
    """Acknowledges what it gets and keeps it."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.sizes: list[int] = []

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        self.sizes.append(len(deliveries))
        for delivery in deliveries:
            self.data.append(delivery.data)
            await delivery.ack()


def numbered(count: int, start: int = 0) -> list[Message]:
    return [Message(TASKS, b"%d" % number, f"m{number}") for number in range(start, start + count)]


async def test_what_is_published_is_delivered_once_in_batches(orchestrator: NatsBus, agent: NatsBus) -> None:
    await orchestrator.publish(numbered(2000))
    got = Collector()
    await agent.consume(PERFORM, got, batch=50, slots=200)
    await until(lambda: len(got.data) == 2000)
    assert sorted(got.data) == sorted(b"%d" % n for n in range(2000))
    assert max(got.sizes) <= 50


async def test_a_command_is_answered_after_it_was_handled(orchestrator: NatsBus, connect: Connect) -> None:
    gateway = await connect("gateway")

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await orchestrator.reply(delivery, b"started " + delivery.data)
            await delivery.ack()

    await orchestrator.consume("orchestrator__commands", handle, batch=10, slots=10)
    subject = subjects.run_command("start_run", "main", 3)
    answers = await asyncio.gather(*(gateway.command(Message(subject, b"%d" % n), 5) for n in range(20)))
    assert sorted(answers) == sorted(b"started %d" % n for n in range(20))


async def test_a_refused_command_raises_the_error_of_the_other_side(
    orchestrator: NatsBus, connect: Connect
) -> None:
    gateway = await connect("gateway")

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await orchestrator.reply(delivery, TerminalError("RUN_CLOSED", "The run has ended.", run_id="r1"))
            await delivery.ack()

    await orchestrator.consume("orchestrator__commands", handle, batch=10, slots=10)
    with pytest.raises(TerminalError) as caught:
        await gateway.command(Message(subjects.run_command("cancel_run", "main", 0), b""), 5)
    assert (caught.value.code, caught.value.details["run_id"]) == ("RUN_CLOSED", "r1")


async def test_a_command_survives_a_broker_that_loses_everything(
    server: Server, orchestrator: NatsBus, connect: Connect
) -> None:
    gateway = await connect("gateway")
    waiting = asyncio.create_task(
        gateway.command(Message(subjects.run_command("start_run", "main", 0), b"go"), 20)
    )
    await until(lambda: bool(gateway._commands))
    await orchestrator.publish(numbered(1))
    wipe(server)
    await until(lambda: bool(server.crashes))

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await orchestrator.reply(delivery, b"done")
            await delivery.ack()

    await orchestrator.consume("orchestrator__commands", handle, batch=10, slots=10)
    assert await waiting == b"done"


async def test_a_question_is_answered_and_its_error_raised(orchestrator: NatsBus, connect: Connect) -> None:
    gateway = await connect("gateway")

    async def handle(data: bytes, headers: Mapping[str, str]) -> bytes:
        if data == b"bad":
            raise TerminalError("NOT_FOUND", "No such run.")
        if data == b"huge":
            return bytes(MAX_PARTS * MAX_MESSAGE_BYTES)
        if data == b"bug":
            raise ValueError("oops")
        return data.upper()

    subject = subjects.query("run", "get_run", "main")
    await orchestrator.answer(subject, handle, queue="orchestrator")
    assert await gateway.ask(subject, b"hi", 5) == b"HI"
    for data, code in ((b"bad", "NOT_FOUND"), (b"huge", "TOO_LARGE"), (b"bug", "INTERNAL")):
        with pytest.raises(TerminalError) as caught:
            await gateway.ask(subject, data, 5)
        assert caught.value.code == code


async def test_an_answer_that_is_larger_than_a_message_comes_in_parts(
    orchestrator: NatsBus, connect: Connect
) -> None:
    gateway, large = await connect("gateway"), bytes(range(256)) * 8 * 1024

    async def handle(data: bytes, headers: Mapping[str, str]) -> bytes:
        return large + data

    subject = subjects.query("run", "get_run", "main")
    await orchestrator.answer(subject, handle, queue="orchestrator")
    answers = await asyncio.gather(*(gateway.ask(subject, b"%d" % n, 10) for n in range(8)))
    assert answers == [large + b"%d" % n for n in range(8)]
    with pytest.raises(TerminalError) as caught:  # who asks is an earlier version
        unpack(await gateway.keeper.alive().request(subject, b"", {}, 5))
    assert caught.value.code == "TOO_LARGE"


async def test_a_command_is_answered_in_parts_too(orchestrator: NatsBus, connect: Connect) -> None:
    gateway, large = await connect("gateway"), bytes(MAX_MESSAGE_BYTES * 3)

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await orchestrator.reply(delivery, large)
            await delivery.ack()

    await orchestrator.consume(subjects.consumer("orchestrator", "commands"), handle, batch=1, slots=1)
    message = Message(subjects.run_command("start_run", "main", 3), b"", "large-answer")
    assert await gateway.command(message, 10) == large


def test_parts_come_in_any_order_more_than_once_and_beside_those_of_another_answer() -> None:
    def parts(payload: bytes) -> list[tuple[bytes, str]]:
        asked = {subjects.HEADER_PARTS: "16"}
        return [(data, (part or {})[subjects.HEADER_PART]) for data, part in in_parts("s", payload, asked)]

    one, other = bytes(700_000), b"x" * 600_000
    first, second, third = parts(one)
    answer = Parts()
    assert answer.add(first[1], first[0]) is None
    for wrong in ("", "a", "a/1", "a/-1/2", "a/3/3", "a/0/99", "a/b/c"):
        assert answer.add(wrong, b"?") is None
    assert answer.add(parts(other)[0][1], parts(other)[0][0]) is None
    for data, header in (third, first, first):
        assert answer.add(header, data) is None
    whole = answer.add(second[1], second[0])
    assert whole is not None and unpack(whole) == one


async def test_a_question_that_nobody_answers_fails_at_once(orchestrator: NatsBus, connect: Connect) -> None:
    gateway = await connect("gateway")
    with pytest.raises(RetryableError) as caught:
        await gateway.ask(subjects.query("memory", "get_record", "main"), b"", 5)
    assert caught.value.code == "UNAVAILABLE"


async def test_a_question_without_an_answer_in_time_says_so(orchestrator: NatsBus, connect: Connect) -> None:
    gateway = await connect("gateway")
    never = asyncio.Event()

    async def handle(data: bytes, headers: Mapping[str, str]) -> bytes:
        await never.wait()
        return b""

    subject = subjects.query("run", "get_run", "main")
    await orchestrator.answer(subject, handle, queue="orchestrator")
    with pytest.raises(RetryableError) as caught:
        await gateway.ask(subject, b"", 0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    never.set()


async def test_more_questions_than_can_be_answered_at_once_all_get_an_answer(
    orchestrator: NatsBus, connect: Connect
) -> None:
    gateway = await connect("gateway")
    running = most = 0

    async def handle(data: bytes, headers: Mapping[str, str]) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return data

    subject = subjects.query("run", "get_run", "main")
    await orchestrator.answer(subject, handle, queue="orchestrator")
    answers = await asyncio.gather(*(gateway.ask(subject, b"%d" % n, 5) for n in range(500)))
    assert answers == [b"%d" % n for n in range(500)]
    assert most <= 64


async def test_a_message_over_the_limit_is_refused_before_it_is_sent(orchestrator: NatsBus) -> None:
    with pytest.raises(TerminalError) as caught:
        await orchestrator.publish([Message(TASKS, bytes(MAX_MESSAGE_BYTES), "id")])
    assert caught.value.code == "TOO_LARGE"
    await orchestrator.publish([Message(TASKS, bytes(MAX_MESSAGE_BYTES - 100), "id")])
    assert orchestrator.connected


async def test_what_a_handler_can_not_read_is_kept_as_a_dead_letter(
    orchestrator: NatsBus, agent: NatsBus
) -> None:
    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.data == b"3":
                raise TerminalError("UNDECODABLE", "Not a task.")
            good.append(delivery.data)
            await delivery.ack()

    good: list[bytes] = []
    await orchestrator.publish([*numbered(10), Message(TASKS, b"3", "again", {"X-From": "test"})])
    await agent.consume(PERFORM, handle, batch=10, slots=20)
    await until(lambda: len(good) == 9)
    js = orchestrator.keeper.alive().jetstream()
    await until_stored(orchestrator, subjects.STREAM_DLQ, 2)
    letter = DeadLetter.FromString((await js.get_msg(subjects.STREAM_DLQ, 2, direct=False)).data)  # type: ignore[arg-type]
    assert (letter.data, letter.reason.code, letter.subject) == (b"3", "UNDECODABLE", TASKS)


async def test_a_handler_with_a_defect_is_tried_a_few_times_then_its_message_is_a_dead_letter(
    orchestrator: NatsBus, agent: NatsBus
) -> None:
    tries = 0

    async def handle(deliveries: Sequence[Delivery]) -> None:
        nonlocal tries
        tries += 1
        raise ZeroDivisionError("boom")

    await orchestrator.publish(numbered(1))
    await agent.consume(PERFORM, handle, batch=1, slots=1)
    await until_stored(orchestrator, subjects.STREAM_DLQ, 1)
    assert tries == 5


async def test_what_fails_for_now_comes_again(orchestrator: NatsBus, agent: NatsBus) -> None:
    seen: list[int] = []

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            seen.append(delivery.deliveries)
            if delivery.deliveries < 3:
                raise RetryableError("UNAVAILABLE", "Not now.", retry_after=0.01)
            await delivery.ack()

    await orchestrator.publish(numbered(1))
    await agent.consume(PERFORM, handle, batch=1, slots=1)
    await until(lambda: seen == [1, 2, 3])


async def test_no_more_than_the_slots_are_in_hand_and_the_rest_waits_at_the_broker(
    orchestrator: NatsBus, agent: NatsBus
) -> None:
    held: list[Delivery] = []
    go_on = asyncio.Event()

    async def handle(deliveries: Sequence[Delivery]) -> None:
        held.extend(deliveries)
        await go_on.wait()
        for delivery in deliveries:
            await delivery.ack()

    await orchestrator.publish(numbered(100))
    await agent.consume(PERFORM, handle, batch=3, slots=7)
    await until(lambda: len(held) == 7)
    info = await orchestrator.keeper.alive().jetstream().consumer_info(subjects.STREAM_CMD, PERFORM)
    assert (len(held), info.num_ack_pending, info.num_pending) == (7, 7, 93)
    go_on.set()
    await until(lambda: len(held) == 100)


async def test_a_slow_handler_gets_everything_and_costs_nobody_else(
    orchestrator: NatsBus, agent: NatsBus, connect: Connect
) -> None:
    memory = await connect("memory")
    slow, quick = Collector(), Collector()

    async def handle(deliveries: Sequence[Delivery]) -> None:
        await asyncio.sleep(0.05)
        await slow(deliveries)

    body = bytes(100_000)
    other = subjects.perform("main", subjects.LANE_MEMORY)
    await orchestrator.publish([Message(TASKS, body) for _ in range(100)])
    await orchestrator.publish([Message(other, b"%d" % number) for number in range(1000)])
    await agent.consume(PERFORM, handle, batch=4, slots=8, calls=1)
    await memory.consume("memory__perform", quick, batch=64, slots=256)
    await until(lambda: len(quick.data) == 1000)
    assert len(slow.data) < 100
    await until(lambda: len(slow.data) == 100)
    assert agent.connected


async def test_a_waiting_fetch_sends_nothing(orchestrator: NatsBus, agent: NatsBus) -> None:
    await agent.consume(PERFORM, Collector(), batch=3, slots=7)
    await until(lambda: agent._consumers[0]._asked == 7)
    before = agent.keeper.alive()._client.stats["out_msgs"]
    await asyncio.sleep(0.5)
    assert agent.keeper.alive()._client.stats["out_msgs"] == before


async def test_the_trace_context_goes_with_a_message(orchestrator: NatsBus, agent: NatsBus) -> None:
    seen: list[str] = []

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            seen.append(delivery.headers[subjects.HEADER_TRACE] + " " + tracecontext.current.get())
            await delivery.ack()

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    token = tracecontext.current.set(trace)
    await orchestrator.publish([Message(TASKS, b"")])
    tracecontext.current.reset(token)
    await agent.consume(PERFORM, handle, batch=1, slots=1)
    await until(lambda: seen == [f"{trace} {trace}"])


@pytest.mark.feature("B1")
async def test_nothing_confirmed_is_lost_when_the_server_is_killed_in_the_middle(
    server: Server, orchestrator: NatsBus, agent: NatsBus
) -> None:
    got = Collector()
    await agent.consume(PERFORM, got, batch=50, slots=200)
    confirmed: list[bytes] = []
    failures: list[str] = []
    for number in range(60):
        batch = numbered(50, number * 50)
        if number in (20, 40):
            os.kill(server.pid or 0, signal.SIGKILL)
        async with asyncio.timeout(15):
            while failure := await refusal(orchestrator, batch):
                failures.append(failure)
                await asyncio.sleep(0.01)
        confirmed += [message.data for message in batch]
    assert set(failures) == {"BUS_FAILED"}
    assert len(server.crashes) == 2
    await until(lambda: set(confirmed) <= set(got.data), 30)


async def test_a_wiped_bus_comes_back_empty_and_says_so(
    server: Server, orchestrator: NatsBus, agent: NatsBus
) -> None:
    told: list[tuple[str, bool]] = []

    def listener(name: str):  # type: ignore[no-untyped-def]
        async def callback(wiped: bool) -> None:
            told.append((name, wiped))

        return callback

    orchestrator.on_restart(listener("orchestrator"))
    agent.on_restart(listener("agent"))
    got = Collector()
    await agent.consume(PERFORM, got, batch=50, slots=200)
    await until(lambda: agent.incarnation != "")
    before = orchestrator.incarnation
    os.kill(server.pid or 0, signal.SIGKILL)
    await until(lambda: len(told) == 2)
    assert sorted(told) == [("agent", False), ("orchestrator", False)]
    assert orchestrator.incarnation == before
    wipe(server)
    await until(lambda: len(told) == 4)
    assert sorted(told[2:]) == [("agent", True), ("orchestrator", True)]
    assert orchestrator.incarnation != before
    await orchestrator.publish(numbered(10))
    await until(lambda: len(got.data) == 10)


async def test_a_deleted_directory_is_noticed_while_the_server_runs(
    server: Server, orchestrator: NatsBus
) -> None:
    told: list[bool] = []

    async def callback(wiped: bool) -> None:
        told.append(wiped)

    orchestrator.on_restart(callback)
    freeze(server.pid or 0)
    shutil.rmtree(server.data_dir / "nats")
    os.kill(server.pid or 0, signal.SIGCONT)
    await until(lambda: told == [True])
    await orchestrator.publish(numbered(10))


async def test_an_acknowledgement_for_a_broker_that_lost_everything_does_not_reach_its_successor(
    server: Server, orchestrator: NatsBus, agent: NatsBus
) -> None:
    held: list[Delivery] = []
    go_on = asyncio.Event()
    second: list[bytes] = []

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if not held:
                held.append(delivery)
                await go_on.wait()
            else:
                second.append(delivery.data)
                if len(second) == 1:
                    await held[0].ack()  # the old number 1, while the new number 1 is in hand
                await delivery.retry()

    await orchestrator.publish([Message(TASKS, b"old")])
    await agent.consume(PERFORM, handle, batch=1, slots=5)
    await until(lambda: bool(held))
    before = orchestrator.incarnation
    wipe(server)
    await until(lambda: orchestrator.incarnation != before and orchestrator.keeper.verified.is_set())
    await orchestrator.publish([Message(TASKS, b"new")])
    await until(lambda: len(second) >= 3)
    go_on.set()
    assert set(second) == {b"new"}


async def test_publishing_without_a_server_fails_and_says_that_it_may_be_tried_again(
    server: Server, orchestrator: NatsBus
) -> None:
    await server.stop()
    await until(lambda: not orchestrator.connected)
    with pytest.raises(RetryableError) as caught:
        await orchestrator.publish(numbered(1))
    assert caught.value.code == "BUS_FAILED"


async def test_services_that_start_at_once_make_one_topology(server: Server) -> None:
    credentials = server.endpoint.credentials("orchestrator")
    buses = await asyncio.gather(
        *(NatsBus.connect(credentials, service="orchestrator", declares=True) for _ in range(5))
    )
    assert len({bus.incarnation for bus in buses}) == 1
    await asyncio.gather(*(bus.close(1) for bus in buses))


async def test_a_service_that_is_there_before_the_topology_waits_for_it(
    server: Server, connect: Connect
) -> None:
    agent = await connect("agent-runner")
    got = Collector()
    await agent.consume(PERFORM, got, batch=5, slots=5)
    with pytest.raises(RetryableError):
        await agent.publish([Message(subjects.report_outcomes("main", 0), b"")])
    orchestrator = await connect("orchestrator")
    await orchestrator.publish(numbered(3))
    await until(lambda: len(got.data) == 3)


async def test_closing_gives_back_what_is_not_begun_and_lets_the_rest_finish(
    server: Server, orchestrator: NatsBus, connect: Connect
) -> None:
    first = await NatsBus.connect(server.endpoint.credentials("agent-runner"), service="agent-runner")
    finished: list[bytes] = []

    async def slow(deliveries: Sequence[Delivery]) -> None:
        await asyncio.sleep(0.2)
        for delivery in deliveries:
            finished.append(delivery.data)
            await delivery.ack()

    await orchestrator.publish(numbered(20))
    await first.consume(PERFORM, slow, batch=1, slots=20, calls=2)
    await until(lambda: len(first._consumers[0]._waiting) == 18)
    await first.close(5)
    assert len(finished) == 2
    got = Collector()
    await (await connect("agent-runner")).consume(PERFORM, got, batch=5, slots=50)
    await until(lambda: len(got.data) == 18, 5)


async def test_a_drained_bus_takes_nothing_in_and_publishes_as_before(
    orchestrator: NatsBus, agent: NatsBus, connect: Connect
) -> None:
    """So what a service has decided when it is told to stop goes out before it ends."""
    got, begun, asked = Collector(), asyncio.Event(), asyncio.Event()

    async def slow(question: bytes, headers: Mapping[str, str]) -> bytes:
        begun.set()
        await asked.wait()
        return b"answered"

    gateway = await connect("gateway")
    subject = subjects.query("orchestrator", "list_runs", "main")
    await orchestrator.consume("orchestrator__commands", got, batch=1, slots=10)
    await orchestrator.answer(subject, slow, queue="orchestrator")
    asking = asyncio.create_task(gateway.ask(subject, b"", 5))
    await begun.wait()
    draining = asyncio.create_task(orchestrator.drain(5))
    asked.set()
    await draining
    assert await asking == b"answered", "what was at hand is finished"
    with pytest.raises(RetryableError) as caught:
        await gateway.ask(subject, b"", 5)
    assert caught.value.code == "UNAVAILABLE"
    await gateway.publish([Message(subjects.run_command("start_run", "main", 0), b"later")])
    await orchestrator.publish(numbered(3))
    others = Collector()
    await agent.consume(PERFORM, others, batch=5, slots=5)
    await until(lambda: len(others.data) == 3)
    await orchestrator.drain(5)
    assert not got.data
    again = await connect("orchestrator")
    await again.consume("orchestrator__commands", got, batch=1, slots=10)
    await until(lambda: got.data == [b"later"])


async def test_an_unknown_consumer_is_refused(agent: NatsBus) -> None:
    with pytest.raises(TerminalError, match="agent-runner__perform"):
        await agent.consume("agent-runner__perfrom", Collector(), batch=1, slots=1)


async def test_a_consumer_that_is_ahead_of_its_stream_is_made_anew(
    server: Server, orchestrator: NatsBus, agent: NatsBus
) -> None:
    """Where a directory is deleted under a server, it may still write down how far a consumer is; the next server
    takes that for what became of a stream that begins again at one."""
    got: list[bytes] = []

    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            got.append(delivery.data)
            await delivery.ack()

    await agent.consume(PERFORM, handle, batch=5, slots=5)
    await orchestrator.publish([Message(TASKS, b"old", str(number)) for number in range(20)])
    await until(lambda: len(got) == 20)
    (stream,) = (server.data_dir / "nats").rglob(f"streams/{subjects.STREAM_CMD}")
    state = stream / "obs" / PERFORM / "o.dat"
    os.kill(ended := server.pid or 0, signal.SIGTERM)  # it writes down how far all are
    await until(lambda: server.pid not in (None, ended) and agent.keeper.verified.is_set())
    before, kept = orchestrator.incarnation, state.read_bytes()
    freeze(server.pid or 0)
    shutil.rmtree(stream)
    state.parent.mkdir(parents=True)
    state.write_bytes(kept)
    os.kill(server.pid or 0, signal.SIGKILL)
    await until(lambda: orchestrator.incarnation != before and orchestrator.keeper.verified.is_set())
    await orchestrator.publish([Message(TASKS, b"new")])
    await until(lambda: b"new" in got)


async def refusal(bus: NatsBus, batch: Sequence[Message]) -> str:
    """Why the bus does not take the batch now; empty when it did."""
    try:
        await bus.publish(batch)
    except RetryableError as error:
        return error.code
    return ""


def wipe(server: Server) -> None:
    """Kill the server and delete all that it has."""
    kill_and_delete(server.pid or 0, server.data_dir / "nats")


async def until_stored(bus: NatsBus, stream: str, count: int) -> None:
    async with asyncio.timeout(20):
        while (await bus.keeper.alive().jetstream().stream_info(stream)).state.messages < count:
            await asyncio.sleep(0.01)
