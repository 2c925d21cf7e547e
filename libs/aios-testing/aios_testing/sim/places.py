"""What must hold of the places on lanes: what has ended keeps none."""

from collections.abc import Callable, Iterable
from typing import Final

from aios_orchestrator.publisher import Publisher
from aios_testing.sim.record import Record

SETTLES: Final = 5.0  # seconds, once all runs are over, in which what they had out is counted down


class Places:
    """Looks, once all runs are over, at what the living replicas of the orchestrator count as out: others can't have
    those places, where a limit leaves a lane few of them. `publishers` gives theirs, by their names."""

    def __init__(
        self,
        record: Record,
        publishers: Callable[[], Iterable[tuple[str, Publisher]]],
        time: Callable[[], float],
    ) -> None:
        self._record, self._publishers, self._time = record, publishers, time
        self._since: float | None = None

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
