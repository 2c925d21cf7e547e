"""What must hold of the places on lanes: what has ended keeps none, and one that is free is taken."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aios_orchestrator.delivery import Delivery
from aios_orchestrator.publisher import Publisher
from aios_testing.sim.record import Record

SETTLES: Final = 5.0  # seconds, once all runs are over, in which what they had out is counted down
TAKEN: Final = 2.0  # seconds in which a task that waits takes a place that is free


class Places:
    """Looks at what the living replicas of the orchestrator count as out, once all runs are over: others can't have
    those places, where a limit leaves a lane few of them. Before that, at what waits for a place. `publishers` gives
    theirs, by their names."""

    def __init__(
        self,
        record: Record,
        publishers: Callable[[], Iterable[tuple[str, Publisher]]],
        time: Callable[[], float],
    ) -> None:
        self._record, self._publishers, self._time = record, publishers, time
        self._since: float | None = None
        self._free: dict[tuple[Publisher, str], float] = {}

    def look(self) -> None:
        """Whether a task waits while there is a place for it, since earlier looks; after the faults have stopped."""
        now, free = self._time(), dict[tuple[Publisher, str], float]()
        for name, publisher in self._publishers():
            for lane in _with_room(publisher.delivery, int(now * 1000)):
                this = publisher, lane  # of one life
                free[this] = self._free.get(this, now)
                if now - free[this] > TAKEN:
                    self._record.violate("a place that is free is taken", f"{name}: {lane}")
        self._free = free

    def left(self) -> list[str]:
        """The places that are still kept."""
        kept = [
            f"{name} counts {key.step} of {key.run_id} as out"
            for name, publisher in self._publishers()
            for key in publisher.delivery.all_out()
        ]
        if not kept:
            self._since = None
        elif self._since is None:
            self._since = self._time()
        elif self._time() - self._since > SETTLES:
            self._record.violate("what has ended keeps no place", kept[0])
        return kept


def _with_room(delivery: Delivery, now: int) -> Iterator[str]:
    """Lanes in which a task waits that might go by now."""
    for lane in delivery.held_back():
        if delivery._room(lane, now) > 0 and any(map(delivery._may, delivery._lanes[lane])):
            yield lane
