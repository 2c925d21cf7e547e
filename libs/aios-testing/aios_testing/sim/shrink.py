"""From a failing seed to fewer faults that still break the same invariant."""

from collections.abc import Callable

from aios_testing.sim.run import simulate
from aios_testing.sim.simulation import Result, drawn

TRIES: int = 300  # simulations at most


def shrink(
    seed: int, told: Callable[[str], None] = lambda text: None, *, brief: bool = False
) -> tuple[Result, list[str]]:
    """The smallest failing result that was found, and the names of the faults that it needs.

    Faults are left out in halves, quarters and so on down to single ones, as long as the same invariant breaks.
    """
    plan = drawn(seed, brief=brief)
    best = simulate(seed, plan)
    if not best.violations:
        return best, plan.names()
    wanted = _invariant(best)
    names, tries = plan.names(), 0
    size = max(1, len(names) // 2)
    while True:
        at, smaller = 0, False
        while at < len(names) and tries < TRIES:
            fewer = names[:at] + names[at + size :]
            tries += 1
            result = simulate(seed, plan.only(set(fewer)))
            if result.violations and _invariant(result) == wanted:
                best, names, smaller = result, fewer, True
                told(f"{len(names)} faults are enough")
            else:
                at += size
        if tries >= TRIES or (size == 1 and not smaller):
            return best, names
        size = max(1, size // 2)


def _invariant(result: Result) -> str:
    return result.violations[0].partition(":")[0]
