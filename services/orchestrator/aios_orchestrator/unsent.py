"""What is committed, or may be, and is not on the bus yet: plain data, no clock and no I/O.

Whoever takes over from a replica that let go in good order takes for granted that all it had committed was handed out.
So a replica must know for which partitions that is not so.
"""

from collections.abc import Iterable, Set

from aios_core.ids import partition_of_run


class Unsent:
    """Runs whose tasks are on their way to the bus, and partitions of those that did not get there."""

    def __init__(self) -> None:
        self._notes: dict[int, list[str]] = {}
        self._doubtful: set[int] = set()

    def begin(self, runs: Iterable[str] = ()) -> list[str]:
        """A note of runs with something to send from now on; more of them may be added to it."""
        note = list(runs)
        self._notes[id(note)] = note
        return note

    def end(self, note: list[str]) -> None:
        """All of it is on the bus."""
        self._notes.pop(id(note), None)

    def give_up(self, note: list[str]) -> None:
        """It is not known what of it is, or it never will be; nothing where it came to its end."""
        if self._notes.pop(id(note), None) is not None:
            self._doubtful.update(map(partition_of_run, note))

    def partitions(self) -> frozenset[int]:
        """Those of which something may be missing on the bus."""
        return frozenset(self._doubtful).union(
            partition_of_run(run) for note in self._notes.values() for run in note
        )

    def forget(self, partitions: Set[int]) -> None:
        """Others see to what is missing there."""
        self._doubtful -= partitions
