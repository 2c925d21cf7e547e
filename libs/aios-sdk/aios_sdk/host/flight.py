"""A piece of work on one effect, and what the operator allows it."""

from dataclasses import dataclass

from aios_core.errors import RetryableError


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows. `needs_approval`: whatever changes something must bring an approval. `sole_owner`: no
    other process can act under this ledger (its store is locked by this one)."""

    needs_approval: bool = True
    sole_owner: bool = True


class Flight:
    """A piece of work under one key. `begun`: an INTENT stands. `abandoned`: nobody waits, so none may be made."""

    def __init__(self) -> None:
        self.begun = False
        self.abandoned = False

    def begin(self) -> None:
        """From here on the effect may happen. Raises STEP_TIMEOUT when nobody waits any more."""
        if self.abandoned:
            raise RetryableError(
                "STEP_TIMEOUT", "The time for it was over before it began; nothing was done."
            )
        self.begun = True


class StillOpen(Exception):
    """An INTENT stands, and what came of it can't be found out or recorded now."""
