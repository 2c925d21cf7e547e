"""Planted defects of queues: who is let in, and what is out."""

from typing import Any

from aios.run.v1.state_pb2 import RunHead
from aios_orchestrator import delivery, publisher, turns
from tests.sim.planting import replaced


def line_is_jumped() -> Any:
    """Of those that wait the last one is let in first."""
    whole = turns.Turns._turn

    async def turn(self: turns.Turns, line: turns.Line) -> None:
        store = self._store

        class Backwards:
            """The store with what waits the other way round."""

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def query(self, index: str, value: str, **more: Any) -> Any:
                more["newest_first"] = index == "waiting"
                return await store.query(index, value, **more)

        self._store = Backwards()  # type: ignore[assignment]
        try:
            await whole(self, line)
        finally:
            self._store = store

    return replaced((turns.Turns, "_turn", turn))


def who_goes_on_is_not_counted() -> Any:
    """Those that were let in before are forgotten with each look."""

    async def still_here(self: turns.Turns, admitted: Any) -> dict[str, RunHead]:
        return {}

    async def others(self: turns.Turns, line: turns.Line, let_in: Any) -> int:
        return 0

    return replaced((turns.Turns, "_still_here", still_here), (turns.Turns, "_others", others))


def place_not_given_back() -> Any:
    """What a workflow or a customer has out is not counted down, so that at its limit it stands still."""
    original = delivery.Delivery.settled

    def settled(self: delivery.Delivery, run_id: str, step: str) -> str | None:
        used = self._used.copy()
        lane = original(self, run_id, step)
        self._used = used
        return lane

    return replaced((delivery.Delivery, "settled", settled))


def what_became_anothers_is_counted() -> Any:
    """A task keeps its place where another replica decides for its run by the time that its commit is known."""
    original = publisher.Publisher._tasks

    async def tasks(self: publisher.Publisher, changed: Any, note: Any) -> Any:
        self.owns = lambda run_id: True
        note.moved.clear()
        return await original(self, changed, note)

    return replaced((publisher.Publisher, "_tasks", tasks))


def next_room_of_a_rate_is_not_looked_for() -> Any:
    """What a rate holds back goes when something else happens."""
    original = publisher.Publisher._tasks

    async def tasks(self: publisher.Publisher, changed: Any, note: Any) -> Any:
        self.room_at = lambda at: None
        return await original(self, changed, note)

    return replaced((publisher.Publisher, "_tasks", tasks))
