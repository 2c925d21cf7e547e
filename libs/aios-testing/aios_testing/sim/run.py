"""Many seeds on all cores: what broke, how often rare paths were visited, and the command that repeats a failure."""

import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from aios_testing.sim.faults import Plan
from aios_testing.sim.simulation import Result, Simulation, drawn

CHUNK: Final = 10  # seeds that a core takes at once
COLLECT: Final = 10  # seeds between two garbage collections
SHOWN: Final = 5  # failing seeds that are told

Planting = Callable[[], AbstractContextManager[None]]


@dataclass(slots=True)
class Total:
    """Over all seeds so far. `core_seconds` is what the processes used together."""

    seeds: int = 0
    transitions: int = 0
    core_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def add(self, other: "Total") -> None:
        """Take the part of another process in."""
        self.seeds += other.seeds
        self.transitions += other.transitions
        self.core_seconds += other.core_seconds
        self.counts.update(other.counts)
        self.failures += other.failures


def simulate(seed: int, plan: Plan | None = None, *, keep: bool = False, brief: bool = False) -> Result:
    """One seed; with a plan only what that says goes wrong. With `keep` the result has the whole trace; a `brief` one
    is another story, with less in it."""
    return Simulation(seed, plan or drawn(seed, brief=brief), keep=keep).run()


def chunk(seeds: Iterable[int], *, brief: bool = False) -> Total:
    """Some seeds in this process."""
    total = Total()
    began = time.process_time()
    for number, seed in enumerate(seeds):
        result = simulate(seed, brief=brief)
        total.seeds += 1
        total.transitions += result.transitions
        total.counts.update(result.counts)
        if result.violations:
            total.failures.append((seed, result.violations))
        if number % COLLECT == COLLECT - 1:
            gc.collect()
    total.core_seconds = time.process_time() - began
    return total


def many(
    first: int, count: int, jobs: int = 0, enough: int = SHOWN, *, brief: bool = False
) -> Iterator[Total]:
    """The totals so far, after each chunk of seeds, on `jobs` processes (0: as many as there are cores).

    It ends early once `enough` seeds have failed. The order in which a set of strings is gone through must not differ
    between processes: each is started with the same hash seed.
    """
    total = Total()
    os.environ["PYTHONHASHSEED"] = "0"
    chunks = [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(jobs or os.cpu_count()) as pool:
        for part in pool.imap_unordered(partial(chunk, brief=brief), chunks):
            total.add(part)
            yield total
            if len(total.failures) >= enough:
                return


def command(seed: int, names: Iterable[str] = (), *, brief: bool = False) -> str:
    """What repeats a seed to the byte."""
    chosen = ",".join(names)
    only = f" --only '{chosen}'" if chosen else ""
    short = " --brief" if brief else ""
    return f"PYTHONHASHSEED=0 .venv/bin/python -m aios_testing.sim --seed {seed}{short}{only}"


def planted(plant: Planting | None, seeds: Iterable[int]) -> Result | None:
    """The first failing result among seeds while a defect is planted; None when there is none."""
    with plant() if plant is not None else nullcontext():
        for number, seed in enumerate(seeds):
            result = simulate(seed)
            if result.violations:
                return result
            if number % COLLECT == COLLECT - 1:
                gc.collect()
    return None


def same_hashes() -> None:
    """Start this program again under the hash seed that makes runs comparable, unless it has it."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "aios_testing.sim", *sys.argv[1:]])  # noqa: S606
