"""Tries many random histories of random workflows, on all cores.

    python -m tests.orchestrator.histories --first 0 --count 10000

Of a seed that fails, and of one that is asked for alone (`--count 1`), it prints the workflow, and fewer and smaller
draws that fail as well."""

import argparse
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from tests.orchestrator import draws as drawing
from tests.orchestrator.draws import Draws
from tests.orchestrator.random_documents import document as random_document
from tests.orchestrator.random_histories import lived
from tests.orchestrator.random_world import SEEN

CHUNK: Final = 100  # seeds that a process tries at a time
TRIES: Final = 4_000  # of fewer or smaller draws
SHOWN: Final = 5  # failures


def fails(draws: Draws) -> bool:
    try:
        lived(draws)
    except Exception:
        return True
    return False


def several(first: int, count: int) -> tuple[list[int], Counter[str]]:
    """The seeds that fail, and what was met."""
    SEEN.clear()
    return [seed for seed in range(first, first + count) if fails(drawing.seeded(seed))], Counter(SEEN)


def many(first: int, count: int, jobs: int) -> Iterator[tuple[int, list[int], Counter[str]]]:
    """So far: how many seeds, those that fail, what was met."""
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - start) for start in starts]
    failed: list[int] = []
    met: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs) as pool:
        for at, (more, others) in enumerate(pool.map(several, starts, sizes)):
            failed += more
            met.update(others)
            yield min((at + 1) * CHUNK, count), failed, met


def shown(seed: int) -> None:
    """What a seed comes to, with its workflow; fewer draws, if it fails."""
    draws = drawing.seeded(seed)
    drawn = drawing.shrunk(draws.drawn, fails, TRIES) if fails(draws) else draws.drawn
    document = random_document(drawing.again(drawn))
    print(f"seed {seed}\n{json.dumps(document.data['spec'], indent=1, default=float)}\ndraws = {drawn}")
    try:
        lived(drawing.again(drawn))
        print("It does not fail.")
    except Exception:
        traceback.print_exc(file=sys.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1_000, help="how many seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    told = parser.parse_args()
    began, so_far = time.monotonic(), (0, list[int](), Counter[str]())
    for so_far in many(told.first, told.count, told.jobs):
        tried, failed, _ = so_far
        print(f"\r{tried} of {told.count} seeds, {len(failed)} fail ", end="", file=sys.stderr, flush=True)
    print(f"in {time.monotonic() - began:.0f} s", file=sys.stderr)
    _, failed, met = so_far
    print(", ".join(f"{what} {times}" for what, times in sorted(met.items())))
    for seed in failed[:SHOWN] if told.count > 1 else [told.first]:
        shown(seed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
