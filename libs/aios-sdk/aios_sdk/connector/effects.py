"""What an action declares of itself: what it does to the world, how it is taken back, how often it may be called."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Effect(StrEnum):
    """What an action does to the outside world."""

    READ = "read"
    """Nothing."""
    REVERSIBLE = "reversible"
    """A change that its inverse takes back without a trace."""
    COMPENSABLE = "compensable"
    """A change that another change makes good, such as a refund."""
    IRREVERSIBLE = "irreversible"
    """A change that nothing takes back, such as a sent message."""


@dataclass(frozen=True, slots=True)
class Key:
    """Mode A: the other side takes our key, and answers the same call with the same effect for `remembers_ms`."""

    remembers_ms: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """Mode B: the effect can be looked up. It is visible at the latest `lag_ms` after it happened; `conditional` says
    that `perform` names the version it expects, so that a second writer loses instead of doing it twice."""

    lag_ms: int = 0
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """Mode C: no key, no look-up. After a crash in between only a person can tell."""


Idempotency: TypeAlias = Key | Lookup | Nothing


@dataclass(frozen=True, slots=True)
class Rate:
    """What the other side allows: `calls` in a row, and after that `calls` every `per_ms`. All replicas together."""

    calls: int
    per_ms: int

    def __post_init__(self) -> None:
        if self.calls < 1 or self.per_ms < 1:
            raise ValueError("a rate has at least one call, in at least one millisecond")


@dataclass(frozen=True, slots=True)
class Inverse:
    """How an effect is taken back, in words for a person.

    `repeatable`: `undo` first looks at what stands and may be called again after a crash. Otherwise an undo that was
    interrupted is parked, and a person is asked. `remembers_ms`: it may be called again because the other side knows
    the call's key, but no longer than that; then it is parked. 0: for ever.
    """

    says: str
    repeatable: bool
    remembers_ms: int = 0
