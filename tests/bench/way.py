"""`make bench ARGS=--way`: one run at a time, and the bare way that it goes, without an engine.

The way: a command over the bus, a commit, a task over the bus, its outcome over the bus, a commit, and an announcement
to the client; with nats-py and the embedded store, in one process, on bytes that nobody reads. What AIOS takes beyond
it is decoding, deciding, checking and encoding, and the way between processes.
"""

import asyncio
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from aios_runtime.store.port import NewEvent, Store, Write
from aios_runtime.store.sqlite import open_store
from tests.bench.floor import Floor
from tests.bench.plain_nats import PlainNats
from tests.bench.served import STEPS, Served

HEAD, RECORD, EVENT = b"h" * 600, b"r" * 200, b"e" * 300  # bytes, as a run's are
MESSAGE = b"m" * 900
ROUNDS = 5
LEGS = ("CMD", "TASK", "DONE")


class Way:
    """Runs that are nothing but their way."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client, self._store = client, store
        self._js: JetStreamContext = client.jetstream()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, url: str, store: Store) -> "Way":
        way = cls(await nats.connect(url), store)
        for leg in LEGS:
            subjects, queue = [f"way.{leg.lower()}.*"], RetentionPolicy.WORK_QUEUE
            await way._js.add_stream(StreamConfig(f"WAY_{leg}", subjects=subjects, retention=queue))
            await way._js.add_consumer(
                f"WAY_{leg}", ConsumerConfig(durable_name="way", ack_policy=AckPolicy.EXPLICIT)
            )
        await way._client.subscribe("way.told.*", cb=way._told)
        await way._client.flush()
        way._tasks = [
            asyncio.create_task(way._serve("CMD", "task", 1)),
            asyncio.create_task(way._serve("TASK", "done", 0)),
            asyncio.create_task(way._serve("DONE", "told", STEPS)),
        ]
        return way

    async def run(self, name: str) -> None:
        """One run to its end."""
        done = self._waiting[name] = asyncio.get_running_loop().create_future()
        await self._js.publish_async(f"way.cmd.{name}", MESSAGE)
        await done

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _serve(self, leg: str, then: str, events: int) -> None:
        """Take what comes on a leg, commit if there is something to be, and send it on."""
        fetched = await self._js.pull_subscribe_bind("way", f"WAY_{leg}")
        while True:
            try:
                messages = await fetched.fetch(1, timeout=5)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                name = message.subject.rpartition(".")[2]
                if events:
                    await self._commit(name, first=leg == "CMD", events=events)
                await self._client.publish(f"way.{then}.{name}", MESSAGE)
                await message.ack()

    async def _commit(self, name: str, *, first: bool, events: int) -> None:
        records: dict[str, bytes | None] = {f"step/{at}": RECORD for at in range(events)}
        filed = [NewEvent(0, EVENT) for _ in range(events)]
        expect = 0 if first else 1
        await self._store.commit([Write(f"main/run/{name}", expect, HEAD, records=records, events=filed)])

    async def _told(self, message: Msg) -> None:
        self._waiting.pop(message.subject.rpartition(".")[2]).set_result(None)


async def figures(runs: int) -> dict[str, float]:
    """p50 in ms of one run at a time: the floor, the bare way, and AIOS, by turns, the median of the rounds of each."""
    from tests.bench.__main__ import latency, throughput

    with TemporaryDirectory(prefix="aios-bench-way-") as place:
        store = await open_store(
            Path(place) / "way.db", service="way", now_ms=lambda: int(time.time() * 1000)
        )
        async with PlainNats() as server, Served() as served:
            floor, way = await Floor.open(server.url, STEPS), await Way.open(server.url, store)
            contenders = {"floor": floor.run, "the bare way": way.run, "AIOS": served.run}
            found: dict[str, list[float]] = {name: [] for name in contenders}
            number = count()
            for run in contenders.values():
                await throughput(run, max(20, runs // 3), 20, f"warm-{next(number)}")
            for _ in range(ROUNDS):
                for name, run in contenders.items():
                    found[name].append((await latency(run, max(20, runs // 10), f"alone-{next(number)}"))[0])
            await floor.close()
            await way.close()
        await store.close()
    return {
        f"{name}, p50 of one run in ms, median of {ROUNDS} rounds": sorted(times)[ROUNDS // 2]
        for name, times in found.items()
    }
