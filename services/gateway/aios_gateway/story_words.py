"""Words that every line of a story is made of."""

from collections.abc import Sequence
from typing import Final

OK: Final = "ok"
WAITING: Final = "waiting"
WORKING: Final = "working"
PROBLEM: Final = "problem"
UNDONE: Final = "undone"
INFO: Final = "info"

MAX_NAMED: Final = 10  # steps that one line names


def who(actor: str) -> str:
    """An actor in words: `person:owner` is you."""
    kind, _, name = actor.partition(":")
    if kind == "person":
        return "you" if name == "owner" else name
    if kind == "event":
        return f"event from {name}"
    if kind == "schedule":
        return f"schedule {name}"
    return "AIOS" if kind in ("service", "policy", "") else actor


def worker(target: str) -> str:
    """What carries a step out, in words, from its target: `connector.action`, `memory.operation` or an agent's name."""
    owner, dot, _ = target.partition(".")
    if not dot:
        return f"agent {target}" if target else "AIOS"
    return "memory" if owner == "memory" else f"{owner} connector"


def named(steps: Sequence[str]) -> str:
    """Some steps, of many the first."""
    some = ", ".join(steps[:MAX_NAMED])
    return f"{some} and {len(steps) - MAX_NAMED} more" if len(steps) > MAX_NAMED else some
