"""`make bench`: the floor and AIOS in one run on one machine, the same work, with CPU, memory, bytes and flushes.

Figures are the best of a few rounds for throughput, and percentiles over all runs for latency.
"""

import argparse
import asyncio
import json
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from tests.bench import api, broker, flat, language, maps, undo, way
from tests.bench.floor import Floor
from tests.bench.plain_nats import PlainNats
from tests.bench.served import STEPS, Served, cpu_seconds, memory_bytes, read_bytes

Run = Callable[[str], Awaitable[None]]
Figures = dict[str, float]


async def throughput(run: Run, runs: int, concurrency: int, prefix: str) -> float:
    """Steps a second of so many runs, so many at a time."""
    places = asyncio.Semaphore(concurrency)

    async def one(number: int) -> None:
        async with places:
            await run(f"{prefix}-{number}")

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(runs)))
    return runs * STEPS / (time.perf_counter() - started)


async def latency(run: Run, runs: int, prefix: str) -> tuple[float, float]:
    """p50 and p99 in ms of one run at a time."""
    times = []
    for number in range(runs):
        started = time.perf_counter()
        await run(f"{prefix}-{number}")
        times.append((time.perf_counter() - started) * 1000)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


async def measure(run: Run, pids: list[int], bus: int, runs: int, levels: list[int], label: str) -> Figures:
    """The figures of one contender. CPU is that of its own processes, `pids`."""
    say(f"{label}: warming up")
    await throughput(run, max(20, runs // 10), 20, f"{label}-warm")
    p50, p99 = await latency(run, max(20, runs // 10), f"{label}-alone")
    best: Figures = {}
    for level in levels:
        say(f"{label}: {runs} runs, {level} at a time")
        cpu, read = cpu_seconds(pids), read_bytes(bus)
        rate = await throughput(run, runs, level, f"{label}-{level}")
        steps = runs * STEPS
        figures = {
            "steps_per_second": rate,
            "at_concurrency": level,
            "cpu_us_per_step": (cpu_seconds(pids) - cpu) / steps * 1e6,
            "bus_bytes_per_step": (read_bytes(bus) - read) / steps,
        }
        if rate > best.get("steps_per_second", 0):
            best = figures
    return {**best, "p50_ms": p50, "p99_ms": p99}


async def flushes(served: Served, runs: int) -> float | None:
    """Flushes to disk a step of the services, counted by strace; None where there is no strace."""
    if shutil.which("strace") is None:
        return None
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-p", str(served.process.pid)]
    tracer = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert tracer.stderr is not None
    await tracer.stderr.readline()
    await throughput(served.run, runs, 200, "flushes")
    tracer.send_signal(signal.SIGINT)
    report = (await tracer.stderr.read()).decode()
    rows = [line.split() for line in report.splitlines() if line.strip().endswith(("fsync", "fdatasync"))]
    return sum(int(row[3]) for row in rows) / (runs * STEPS)


async def floor_figures(runs: int, levels: list[int]) -> Figures:
    async with PlainNats() as server:
        floor = await Floor.open(server.url, STEPS)
        figures = await measure(floor.run, [server.pid, _own()], server.pid, runs, levels, "floor")
        await floor.close()
        return figures


async def aios_figures(runs: int, levels: list[int]) -> tuple[Figures, Figures, Figures]:
    async with Served() as served:
        start: Figures = {
            "ready_seconds": served.ready_seconds,
            "memory_mib": memory_bytes(served.tree()) / 2**20,
        }
        before = served.stored_bytes()
        trusted = await measure(served.run, served.tree(), served.bus_pid(), runs, levels, "aios")
        counted = await flushes(served, max(100, runs // 5))
        if counted is not None:
            trusted["flushes_per_step"] = counted
        trusted["memory_after_mib"] = memory_bytes(served.tree()) / 2**20

        async def sandboxed(name: str) -> None:
            await served.run(name, "five-sandboxed")

        boxed = await measure(
            sandboxed, served.tree(), served.bus_pid(), max(50, runs // 10), [20], "sandboxed"
        )
        start["stored_bytes"] = served.stored_bytes() - before
        say("api: starts and watches")
        start |= await api.figures(served, starts=runs, at_once=min(runs, 256), watched=min(runs, 1000))
        return start, trusted, boxed


def _own() -> int:
    return int(Path("/proc/self").readlink().name)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"  {text}", file=sys.stderr)


def report(floor: Figures, start: Figures, trusted: Figures, boxed: Figures) -> str:
    """The table that docs/performance.md quotes."""
    names = (
        "steps_per_second",
        "at_concurrency",
        "p50_ms",
        "p99_ms",
        "cpu_us_per_step",
        "bus_bytes_per_step",
        "flushes_per_step",
    )
    lines = [f"{'':22}{'floor':>12}{'AIOS':>12}{'ratio':>8}{'sandboxed':>12}"]
    for name in names:
        cells = [figures.get(name) for figures in (floor, trusted, boxed)]
        ratio = f"{cells[1] / cells[0]:.2f}" if cells[0] and cells[1] and name != "at_concurrency" else ""
        shown = [f"{cell:,.2f}" if cell is not None else "" for cell in cells]
        lines.append(f"{name:22}{shown[0]:>12}{shown[1]:>12}{ratio:>8}{shown[2]:>12}")
    lines.append(
        f"aios serve: ready in {start['ready_seconds']:.2f} s, {start['memory_mib']:.0f} MiB (PSS, all processes);"
    )
    lines.append(f"after the runs {trusted['memory_after_mib']:.0f} MiB.")
    lines += [
        f"{name:40}{start[name]:>12,.2f}" for name in start if name.startswith(("start", "cpu", "seconds"))
    ]
    return "\n".join(lines)


async def main(arguments: argparse.Namespace) -> None:
    levels = [int(level) for level in arguments.levels.split(",")]
    found: Figures = {}
    if arguments.flat:
        found = await flat.figures([int(count) for count in arguments.finished.split(",")], arguments.runs)
    elif arguments.broker:
        found = await broker.figures()
    elif arguments.way:
        found = await way.figures(arguments.runs)
    elif arguments.language:
        found = await language.figures()
    elif arguments.undo:
        found = await undo.figures()
    elif arguments.map:
        floor = await floor_figures(arguments.runs, levels)
        found = {"floor, steps a second": floor["steps_per_second"], **await maps.figures(levels)}
    if found:
        print(
            json.dumps(found)
            if arguments.json
            else "\n".join(f"{name:45}{value:>14,.2f}" for name, value in found.items())
        )
        return
    floor = await floor_figures(arguments.runs, levels)
    start, trusted, boxed = await aios_figures(arguments.runs, levels)
    if arguments.json:
        print(json.dumps({"floor": floor, "start": start, "aios": trusted, "sandboxed": boxed}))
    else:
        print(report(floor, start, trusted, boxed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3000, help="runs of five steps a round")
    parser.add_argument("--levels", default="100,300,600", help="runs at a time, a round each")
    parser.add_argument(
        "--flat",
        action="store_true",
        help="instead: a step's cost beside many finished runs, and late in a long one",
    )
    parser.add_argument(
        "--broker", action="store_true", help="instead: the broker's memory while many messages pass"
    )
    parser.add_argument(
        "--map", action="store_true", help="instead: a map of 10,000 items in one run, and the floor"
    )
    parser.add_argument(
        "--way", action="store_true", help="instead: one run at a time, and its bare way without an engine"
    )
    parser.add_argument(
        "--language", action="store_true", help="instead: the time to check and apply a long workflow"
    )
    parser.add_argument(
        "--undo",
        action="store_true",
        help="instead: the preview of an undo of 1,000 effects, and a simulation",
    )
    parser.add_argument("--finished", default="1000,1000000", help="with --flat: finished runs in the store")
    parser.add_argument("--json", action="store_true")
    uvloop.run(main(parser.parse_args()))
