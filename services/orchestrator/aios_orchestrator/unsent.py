"""What is committed, or may be, and is not on the bus yet: plain data, no clock and no I/O.

Whoever takes over from a replica that let go in good order takes for granted that all it had committed was handed out.
So a replica must know for which partitions that is not so.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from aios_core.ids import partition_of_run


@dataclass(slots=True, eq=False)
class Note:
    """Runs with something to send; more of them may be added. `moved` are the partitions that became others' since it
    was begun, even where they have come back: what was decided before is not this replica's to watch over any more."""

    runs: list[str]
    moved: set[int] = field(default_factory=set)

    def lost(self, run_id: str) -> bool:
        """Whether others have decided for the run meanwhile."""
        return bool(self.moved) and partition_of_run(run_id) in self.moved


class Unsent:
    """Runs whose tasks are on their way to the bus, and partitions of those that did not get there."""

    def __init__(self) -> None:
        self._notes: set[Note] = set()
        self._doubtful: set[int] = set()

    def begin(self, runs: Iterable[str] = ()) -> Note:
        """A note of runs with something to send from now on."""
        note = Note(list(runs))
        self._notes.add(note)
        return note

    def end(self, note: Note) -> None:
        """All of it is on the bus."""
        self._notes.discard(note)

    def give_up(self, note: Note) -> None:
        """It is not known what of it is, or it never will be; nothing where it came to its end."""
        if note in self._notes:
            self._notes.discard(note)
            self._doubtful.update(map(partition_of_run, note.runs))

    def partitions(self) -> frozenset[int]:
        """Those of which something may be missing on the bus."""
        return frozenset(self._doubtful).union(
            partition_of_run(run) for note in self._notes for run in note.runs
        )

    def forget(self, partitions: Set[int]) -> None:
        """Others decide there from now on, and see to what is missing."""
        self._doubtful -= partitions
        for note in self._notes:
            note.moved |= partitions
