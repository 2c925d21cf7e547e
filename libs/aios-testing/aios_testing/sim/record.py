"""What one simulation leaves behind: what broke, what was visited, and a hash over everything that happened."""

import hashlib
from collections import Counter
from collections.abc import Callable


class Record:
    """The memory of one simulation. `transitions` counts deliveries, acknowledgements, committed writes, events filed,
    and calls that reached the outside world."""

    def __init__(self, time: Callable[[], float], *, keep: bool = False) -> None:
        self.time = time
        self._hash = hashlib.sha256()
        self._keep = keep
        self.lines: list[str] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.transitions = 0
        self.broken: Callable[[], None] = lambda: None

    def count(self, what: str) -> None:
        """A rare path was visited."""
        self.counts[what] += 1

    def tell(self, what: str) -> None:
        """Something happened; it goes into the trace."""
        line = f"{self.time():.6f} {what}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def violate(self, invariant: str, what: str) -> None:
        """An invariant does not hold; the simulation ends."""
        self.tell(f"VIOLATED {invariant}: {what}")
        self.violations.append(f"{invariant}: {what}")
        self.broken()

    @property
    def trace_sha256(self) -> str:
        """Over every line so far, in hex."""
        return self._hash.hexdigest()
