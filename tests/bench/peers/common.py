"""What every peer is asked to do: one workflow of five trivial steps, many times at once and one at a time.

Imported by the peers' own programs, which run on requirements of their own: it needs nothing but Python.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

STEPS = 5
LEVELS = (16, 64, 200)  # runs at once; the best of them counts
RUNS = int(os.environ.get("PEER_RUNS", "300"))  # at each level
ALONE = 60  # runs one after the other
WARM = 20

Run = Callable[[str], Awaitable[None]]


def busy_seconds() -> float:
    """CPU time that the whole machine has used: the peer's servers are not all children of one process."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


async def measure(name: str, run: Run) -> None:
    """Measure a peer and print its figures as a line of JSON."""
    print(json.dumps(await figures(name, run)), flush=True)


async def figures(name: str, run: Run) -> dict[str, Any]:
    """Steps a second, the median of one run alone, and CPU a step."""
    for number in range(WARM):
        await run(f"warm-{number}")
    best, cpu = 0.0, 0.0
    for level in LEVELS:
        left = iter(range(RUNS))

        async def some(level: int = level, left: "object" = left) -> None:
            for number in left:  # type: ignore[attr-defined]
                await run(f"r{level}-{number}")

        began, before = time.perf_counter(), busy_seconds()
        await asyncio.gather(*(some() for _ in range(level)))
        seconds = time.perf_counter() - began
        used = (busy_seconds() - before) / (RUNS * STEPS) * 1e6
        print(
            f"  {name}: {level} at once: {RUNS * STEPS / seconds:.0f} steps/s, {used:.0f} µs", file=sys.stderr
        )
        if RUNS * STEPS / seconds > best:
            best, cpu = RUNS * STEPS / seconds, used
    took = []
    for number in range(ALONE):
        began = time.perf_counter()
        await run(f"alone-{number}")
        took.append((time.perf_counter() - began) * 1000)
    return {
        "name": name,
        "steps_per_second": round(best),
        "p50_ms": round(statistics.median(took), 2),
        "cpu_us_per_step": round(cpu),
    }
