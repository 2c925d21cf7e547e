"""`python -m aios_testing.sim`: many seeds, or one that is told in full."""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from aios_testing.sim.run import SHOWN, Total, command, many, same_hashes, simulate
from aios_testing.sim.shrink import shrink
from aios_testing.sim.simulation import drawn


def main() -> int:
    """0 when every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m aios_testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=0, help="processes; 0: one a core")
    parser.add_argument("--seed", type=int, help="one seed, with its trace")
    parser.add_argument("--only", default="", help="with --seed: these of its faults alone")
    parser.add_argument(
        "--shrink", action="store_true", help="with --seed: look for fewer faults that still fail"
    )
    parser.add_argument(
        "--brief",
        action="store_true",
        help="less to do and less time to go wrong: several times as many seeds",
    )
    parser.add_argument("--counts", action="store_true", help="tell how often each path was visited")
    parser.add_argument("--log", type=Path, help="add the totals to this file, a line of JSON")
    arguments = parser.parse_args()
    same_hashes()
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.only, shrinking=arguments.shrink, brief=arguments.brief)
    return _all(arguments)


def _one(seed: int, only: str, *, shrinking: bool, brief: bool) -> int:
    plan = drawn(seed, brief=brief)
    names = only.split(",") if only else plan.names()
    if shrinking:
        _, names = shrink(seed, lambda text: print(text, file=sys.stderr), brief=brief)
    result = simulate(seed, plan.only(set(names)), keep=True)
    print("\n".join(result.lines))
    print(
        f"\nseed {seed}, {len(names)} faults: {', '.join(f'{n} {r:g}' for n, r in sorted(result.plan.rates.items()))}"
    )
    for event in result.plan.events:
        print(f"  {event}")
    print(
        f"{result.transitions} transitions, {result.seconds:.1f} simulated seconds, trace {result.trace_sha256}"
    )
    for violation in result.violations:
        print(f"VIOLATED {violation}")
    if result.violations:
        print(f"\nrepeat it: {command(seed, names, brief=brief)}")
    return 1 if result.violations else 0


def _all(told: argparse.Namespace) -> int:
    began, total, count = time.monotonic(), Total(), told.seeds
    for total in many(told.first, count, told.jobs, brief=told.brief):
        rate = total.transitions / max(total.core_seconds, 1e-9)
        print(
            f"\r{total.seeds} of {count} seeds, {total.transitions} transitions, {rate:.0f} a second a core,"
            f" {len(total.failures)} failed ",
            end="",
            file=sys.stderr,
            flush=True,
        )
    seconds = time.monotonic() - began
    print(f"in {seconds:.0f} s", file=sys.stderr)
    if told.log is not None:
        _log(told, total, seconds)
    if told.counts:
        for name, times in sorted(total.counts.items()):
            print(f"{times:10}  {name}")
    for seed, violations in total.failures[:SHOWN]:
        again = command(seed, brief=told.brief)
        print(f"seed {seed}: {violations[0]}\n  {again}\n  fewer faults: {again} --shrink")
    return 1 if total.failures else 0


def _log(told: argparse.Namespace, total: Total, seconds: float) -> None:
    entry = {
        "first": told.first,
        "brief": told.brief,
        "seeds": total.seeds,
        "transitions": total.transitions,
        "core_seconds": round(total.core_seconds, 1),
        "seconds": round(seconds, 1),
        "failures": total.failures,
        "counts": Counter(total.counts),
    }
    with told.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
