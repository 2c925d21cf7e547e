"""Whether a run costs much more than the runs of its workflow did before. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEAST_RUNS: Final = 8  # of fewer nobody knows what is usual
KEPT_RUNS: Final = 50  # the last, by which it is known
LEAST_SPREAD: Final = 10  # the spread is taken for a tenth of the median at least: equal costs differ one day


@dataclass(frozen=True, slots=True)
class Spike:
    """How many spreads above the median is too much, and below what cost (micro-dollars) nobody is asked."""

    times: int
    at_least: int


def usual(costs: Sequence[int], spike: Spike) -> int | None:
    """What a run costs at most that is like those before, micro-dollars; None where there are too few to say. Median
    and median deviation, so that one odd run does not change what is usual."""
    if len(costs) < LEAST_RUNS:
        return None
    middle = _median(costs)
    spread = _median([abs(cost - middle) for cost in costs]) * 14_826 // 10_000  # as of a normal distribution
    return max(middle + spike.times * max(spread, middle // LEAST_SPREAD), spike.at_least)


def _median(numbers: Sequence[int]) -> int:
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(numbers) % 2 else (ordered[half - 1] + ordered[half]) // 2
