"""Rates of the bus alone, over a real embedded server: `python tests/bench/bus_rates.py`."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from aios.task.v1.task_pb2 import STATUS_SUCCEEDED, Outcome, PerformTasks, ReportOutcomes, Task
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import EmbeddedNats
from aios_runtime.bus.port import Delivery, Message
from aios_runtime.lanes import LaneWorker

MESSAGES = 20_000
ROUND_TRIPS = 2_000
PAYLOAD = b"x" * 200


async def publishing(bus: NatsBus) -> None:
    for size in (1, 16, 256, 4096):
        count = min(MESSAGES, size * 400)
        messages = [Message(subjects.run_events("main", 0), PAYLOAD) for _ in range(count)]
        began = time.perf_counter()
        for first in range(0, count, size):
            await bus.publish(messages[first : first + size])
        report(f"publish and confirmation, {size} at once", count, began)


async def consuming(bus: NatsBus, agent: NatsBus) -> None:
    done = asyncio.Event()
    left = MESSAGES

    async def handle(deliveries: Sequence[Delivery]) -> None:
        nonlocal left
        left -= len(deliveries)
        for delivery in deliveries:
            await delivery.ack()
        if not left:
            done.set()

    await bus.publish(
        [Message(subjects.perform("main", subjects.LANE_MEMORY), PAYLOAD) for _ in range(MESSAGES)]
    )
    began = time.perf_counter()
    await agent.consume("memory__perform", handle, batch=64, slots=1024)
    await done.wait()
    report("fetch and acknowledgement, 64 at once", MESSAGES, began)


async def round_trips(bus: NatsBus, gateway: NatsBus) -> None:
    async def handle(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await bus.reply(delivery, b"ok")
            await delivery.ack()

    async def answer(data: bytes, headers: Mapping[str, str]) -> bytes:
        return data

    await bus.consume("orchestrator__commands", handle, batch=64, slots=256)
    await bus.answer(subjects.query("run", "get_run", "main"), answer, queue="orchestrator")
    start = subjects.run_command("start_run", "main", 0)
    question = subjects.query("run", "get_run", "main")
    commands, questions = [], []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        await gateway.command(Message(start, PAYLOAD), 5)
        commands.append(time.perf_counter() - began)
        began = time.perf_counter()
        await gateway.ask(question, PAYLOAD, 5)
        questions.append(time.perf_counter() - began)
    for name, times in (("command and its answer", commands), ("question and its answer", questions)):
        cut = statistics.quantiles(times, n=100)
        print(f"{name + ', one at a time':<48} p50 {cut[49] * 1000:6.2f} ms   p99 {cut[98] * 1000:6.2f} ms")


async def lane(bus: NatsBus, agent: NatsBus) -> None:
    waiting = 0
    done = asyncio.Event()

    async def outcomes(deliveries: Sequence[Delivery]) -> None:
        nonlocal waiting
        for delivery in deliveries:
            waiting -= len(ReportOutcomes.FromString(delivery.data).outcomes)
            await delivery.ack()
        if not waiting:
            done.set()

    async def perform(task: Task) -> Outcome:
        return Outcome(status=STATUS_SUCCEEDED, output=task.input)

    def perform_now(task: Task) -> Outcome | None:
        return Outcome(status=STATUS_SUCCEEDED, output=task.input) if task.target == "now" else None

    await bus.consume("orchestrator__report_outcomes", outcomes, batch=256, slots=2048)
    worker = LaneWorker(
        agent,
        service="agent-runner",
        workspace="main",
        lane=subjects.LANE_AGENT,
        perform=perform,
        perform_now=perform_now,
        slots=1024,
        batch=64,
    )
    await worker.start()
    subject = subjects.perform("main", subjects.LANE_AGENT)
    for target in ("now", "task"):
        for each in (1, 64):
            fields = {
                "workspace": "main",
                "run_id": "run_x",
                "target": target,
                "input": PAYLOAD,
                "timeout_ms": 60_000,
            }
            tasks = [Task(task_id=f"run_x/{n}/0/0", **fields) for n in range(MESSAGES)]  # type: ignore[arg-type]
            parts = [
                PerformTasks(tasks=tasks[n : n + each]).SerializeToString() for n in range(0, MESSAGES, each)
            ]
            waiting = MESSAGES
            done.clear()
            began, cpu = time.perf_counter(), time.process_time()
            for first in range(0, len(parts), 256):
                await bus.publish([Message(subject, part) for part in parts[first : first + 256]])
            await done.wait()
            used = (time.process_time() - cpu) / MESSAGES * 1e6
            how = "in the loop's turn" if target == "now" else "as asyncio tasks"
            report(
                f"lane, {each} tasks a message, {how}",
                MESSAGES,
                began,
                f"   {used:5.0f} µs CPU a task (Python)",
            )
    await worker.stop()


def report(name: str, count: int, began: float, more: str = "") -> None:
    print(f"{name:<48} {count / (time.perf_counter() - began):>9,.0f} /s{more}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedNats(Path(folder))
        began = time.perf_counter()
        endpoint = await server.start()
        print(f"{'start of the server':<48} {(time.perf_counter() - began) * 1000:9.1f} ms")
        began = time.perf_counter()
        bus = await NatsBus.connect(endpoint.credentials("orchestrator"), service="orchestrator")
        print(f"{'connection and topology':<48} {(time.perf_counter() - began) * 1000:9.1f} ms")
        names = ("agent-runner", "memory", "gateway")
        others = [await NatsBus.connect(endpoint.credentials(name), service=name) for name in names]
        agent, memory, gateway = others
        await publishing(bus)
        await consuming(bus, memory)
        await round_trips(bus, gateway)
        await lane(bus, agent)
        for other in (bus, *others):
            await other.close()
        await server.stop()


if __name__ == "__main__":
    uvloop.run(main())
