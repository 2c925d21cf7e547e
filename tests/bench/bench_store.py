"""What a commit of the embedded store costs: `python -m tests.bench.bench_store [--writes N] [--finished N]`.

The typical write is a step of a run: a head of 600 bytes, two new records of 200, two events of 300, one outbox message
of 400, one change of an index; five of them make a run. Its message is marked as sent right after. `--finished` fills
the store with finished runs first, to show that the cost does not grow with them.
"""

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import apsw

from aios_runtime.store.port import Committed, NewEvent, OutboxMessage, Write
from aios_runtime.store.sqlite import SqliteStore, open_store

STEPS = 5
STATES = ("open", "waiting")
HEAD, RECORD, EVENT, MESSAGE = b"h" * 600, b"r" * 200, b"e" * 300, b"m" * 400


class CountingFile(apsw.VFSFile):
    """A file whose flushes are counted."""

    syncs = 0

    def xSync(self, flags: int) -> None:  # noqa: N802 (the name is apsw's)
        CountingFile.syncs += 1
        super().xSync(flags)


class CountingDisk(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("counting", "")

    def xOpen(self, name: object, flags: list[int]) -> CountingFile:  # noqa: N802
        return CountingFile("", name, flags)  # type: ignore[arg-type]


@dataclass
class Figures:
    """What a run of the workload took; times in seconds."""

    writes: int
    wall: float
    cpu: float
    latencies: list[float]
    syncs: int | None

    def show(self, title: str, harness: float) -> None:
        ordered = sorted(self.latencies)
        p50, p99 = statistics.median(ordered), ordered[len(ordered) * 99 // 100]
        flushes = "" if self.syncs is None else f", {self.syncs / self.writes:.3f} fsyncs"
        print(
            f"{title}: {self.writes / self.wall:,.0f} commits/s, p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms,"
            f" {(self.cpu / self.writes - harness) * 1e6:.0f} µs CPU a write{flushes}"
        )


def step(number: int, revision: int) -> Write:
    """The write of a run's step; keys are hashes, the worst order for an index."""
    key = f"main/run/{hashlib.blake2b(b'%d' % number, digest_size=13).hexdigest()}"
    return Write(
        key,
        revision,
        HEAD,
        records={f"step/{revision}/in": RECORD, f"step/{revision}/out": RECORD},
        events=[NewEvent(number % 16, EVENT), NewEvent(number % 16, EVENT)],
        outbox=[OutboxMessage("aios.cmd.task.v1.perform.main.agent.5", MESSAGE, f"{key}/{revision}")],
        index={"state": STATES[revision % 2] if revision + 1 < STEPS else "done"},
    )


async def harness(writes: int) -> float:
    """CPU seconds that the workload itself takes a write."""
    began = time.process_time()
    for number in range(writes):
        step(number // STEPS, number % STEPS)
        await asyncio.sleep(0)
    return (time.process_time() - began) / writes


async def work(store: SqliteStore, writes: int, concurrency: int, numbers: "count[int]") -> Figures:
    latencies: list[float] = []
    runs = iter(range(writes // STEPS))

    async def one_after_the_other() -> None:
        for _ in runs:
            number = next(numbers)
            for revision in range(STEPS):
                write = step(number, revision)
                began = time.perf_counter()
                (result,) = await store.commit([write])
                latencies.append(time.perf_counter() - began)
                assert isinstance(result, Committed)
                await store.mark_sent(result.outbox_ids)

    syncs = CountingFile.syncs
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Figures(len(latencies), wall, cpu, latencies, CountingFile.syncs - syncs or None)


async def fill(store: SqliteStore, finished: int, numbers: "count[int]") -> None:
    """Commit finished runs, many at a time."""
    for first in range(0, finished, 200):
        runs = [next(numbers) for _ in range(min(200, finished - first))]
        batch = [step(number, revision) for number in runs for revision in range(STEPS)]
        results = await store.commit(batch)
        await store.mark_sent([number for result in results for number in getattr(result, "outbox_ids", ())])


async def bench(folder: Path, writes: int, finished: int) -> None:
    base = await harness(10_000)
    numbers = count()
    path = folder / "bench.db"
    store = await open_store(path, service="bench", now_ms=lambda: time.time_ns() // 1_000_000)
    if finished:
        began = time.perf_counter()
        await fill(store, finished, numbers)
        print(f"filled with {finished:,} finished runs in {time.perf_counter() - began:.0f} s")
    await work(store, 1000, 50, numbers)
    before = next(numbers)
    for concurrency, times in ((1, 10), (20, 1), (200, 1)):
        figures = await work(store, writes // times, concurrency, numbers)
        figures.show(f"{concurrency:>3} at once", base)
    rows = (next(numbers) - before) * STEPS
    await reads(store, numbers)
    await store.close()
    print(f"the file: {path.stat().st_size / 1e6:,.0f} MB")
    disk = CountingDisk()
    counted = await open_store(folder / "counted.db", service="bench", now_ms=lambda: 0, vfs="counting")
    for concurrency in (1, 20, 200):
        figures = await work(counted, 4000, concurrency, count(10**9 + concurrency * 10**6))
        print(f"{concurrency:>3} at once: {(figures.syncs or 0) / figures.writes:.3f} fsyncs a write")
    await counted.close()
    disk.unregister()
    print(
        f"storage: {(folder / 'counted.db').stat().st_size / 12_000:,.0f} bytes a write; {rows:,} writes measured"
    )


async def reads(store: SqliteStore, numbers: "count[int]") -> None:
    """How long reads take, in the event loop's thread."""
    head = await store.event_head(3)
    known = [step(number, 0).key for number in range(next(numbers) - 1000, next(numbers) - 500)]
    for title, read in (
        ("read", lambda key: store.read(key)),
        ("record", lambda key: store.record(key, "step/1/out")),
        ("query of 20", lambda _: store.query("state", "done", limit=20)),
        ("next due", lambda _: store.next_due()),
        ("50 events", lambda _: store.events(3, head - 50, 50)),
    ):
        began = time.perf_counter()
        for key in known:
            await read(key)
        print(f"{title}: {(time.perf_counter() - began) / len(known) * 1e6:.0f} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=20_000)
    parser.add_argument("--finished", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files are made; a disk, not memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        asyncio.run(bench(Path(made), arguments.writes, arguments.finished))
