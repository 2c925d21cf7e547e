"""The floor: a bare dispatcher and a bare worker over JetStream, without engine, store or contracts.

A step is: publish a task, fetch it, publish its result, fetch that, append a transition; all to file-backed streams,
every publish acknowledged. Nobody who keeps work on this broker does less.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

BATCH = 128
PAYLOAD = b"x" * 120
FETCH_S = 5.0


@dataclass(slots=True)
class _Run:
    left: int
    done: "asyncio.Future[None]"


class Floor:
    """Runs of `steps` steps, one after the other in each run."""

    def __init__(self, client: Client, steps: int) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(publish_async_max_pending=4000)
        self._steps = steps
        self._runs: dict[bytes, _Run] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, url: str, steps: int) -> "Floor":
        floor = cls(await nats.connect(url), steps)
        await floor._topology()
        floor._tasks = [asyncio.create_task(floor._work()), asyncio.create_task(floor._settle())]
        return floor

    async def _topology(self) -> None:
        queue = RetentionPolicy.WORK_QUEUE
        await self._js.add_stream(StreamConfig("FLOOR_TASK", subjects=["floor.task.*"], retention=queue))
        await self._js.add_stream(StreamConfig("FLOOR_DONE", subjects=["floor.done.*"], retention=queue))
        await self._js.add_stream(StreamConfig("FLOOR_LOG", subjects=["floor.log.*"]))
        for stream in ("FLOOR_TASK", "FLOOR_DONE"):
            config = ConsumerConfig(
                durable_name="floor", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=10_000
            )
            await self._js.add_consumer(stream, config)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def run(self, name: str) -> None:
        """One run to its end."""
        run = _Run(self._steps, asyncio.get_running_loop().create_future())
        self._runs[name.encode()] = run
        await self._js.publish_async(f"floor.task.{name}", PAYLOAD)
        await run.done
        del self._runs[name.encode()]

    async def _work(self) -> None:
        tasks = await self._js.pull_subscribe_bind("floor", "FLOOR_TASK")
        while True:
            messages = await _fetch(tasks)
            for message in messages:
                await self._js.publish_async("floor.done." + message.subject[11:], message.data)
                await message.ack()

    async def _settle(self) -> None:
        outcomes = await self._js.pull_subscribe_bind("floor", "FLOOR_DONE")
        while True:
            for message in await _fetch(outcomes):
                name = message.subject[11:]
                stored = await self._js.publish_async("floor.log." + name, message.data)
                run = self._runs[name.encode()]
                run.left -= 1
                if run.left:
                    await self._js.publish_async("floor.task." + name, message.data)
                else:
                    stored.add_done_callback(lambda _, run=run: run.done.done() or run.done.set_result(None))
                await message.ack()


async def _fetch(subscription: JetStreamContext.PullSubscription) -> Sequence["nats.aio.msg.Msg"]:
    try:
        return await subscription.fetch(BATCH, timeout=FETCH_S)
    except nats.errors.TimeoutError:
        return []


async def throughput(floor: Floor, runs: int, concurrency: int, prefix: str) -> float:
    """Seconds for so many runs, so many at a time."""
    places = asyncio.Semaphore(concurrency)

    async def one(number: int) -> None:
        async with places:
            await floor.run(f"{prefix}{number}")

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(runs)))
    return time.perf_counter() - started
