"""The benchmark itself works: a short run of it gives every figure. No figure is judged here."""

import asyncio
import json
import subprocess
import sys

from tests.bench import undo

KEYS = {"steps_per_second", "at_concurrency", "p50_ms", "p99_ms", "cpu_us_per_step", "bus_bytes_per_step"}


def test_a_short_benchmark_gives_every_figure_of_the_floor_and_of_aios() -> None:
    command = [sys.executable, "-m", "tests.bench", "--runs", "60", "--levels", "30", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120)
    figures = json.loads(done.stdout)
    for contender in ("floor", "aios", "sandboxed"):
        assert set(figures[contender]) >= KEYS
        assert all(figure > 0 for name, figure in figures[contender].items() if name != "cpu_us_per_step")
    assert figures["start"]["ready_seconds"] > 0
    assert figures["start"]["memory_mib"] > 0


def test_a_short_look_at_flatness_gives_every_figure() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.bench",
        "--flat",
        "--finished",
        "10,2000",
        "--runs",
        "40",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=170)
    figures = json.loads(done.stdout)
    assert all(figure > 0 for figure in figures.values())
    assert sum("finished" in name for name in figures) == 4
    assert sum("a step, the" in name for name in figures) == 2


def test_a_short_look_at_an_undo_gives_every_figure_and_asks_in_several_questions() -> None:
    figures = asyncio.run(undo.figures(effects=300))
    assert len(figures) == 6 and all(figure > 0 for figure in figures.values())
