"""The person takes chosen steps back, whole runs, and what was taken back they put back again.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import RunState
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.35  # of the seeds
TIMES: Final = 14  # in one of them
PAUSE: Final = (2.0, 14.0)  # seconds before each


class Undoing:
    """Looks at runs that were accepted, and at those that are undone or partly so more often."""

    def __init__(self, rng: Random, record: Record, named: str = "") -> None:
        self._rng, self._record, self._named = rng, record, named

    async def look(self, person: "Person") -> None:
        """From time to time."""
        for number in range(TIMES):
            await asyncio.sleep(self._rng.uniform(*PAUSE))
            if person.accepted:
                run = self._rng.choice(sorted(person.accepted))
                person.begin_work(partial(self.act, person, number, run))

    async def act(self, person: "Person", number: int, run: str) -> None:
        """Undo something of one run, or all of it, or redo it; a number is used once."""
        rng = self._rng
        asked = query.GetRunRequest(workspace=WORKSPACE, run_id=run)
        found = await person.ask("get_run", asked, query.GetRunResponse)
        if found is None:
            return
        head = found.run.head
        changed = [step.step for step in head.steps if step.effect_order]
        undone = head.state in (
            RunState.RUN_STATE_UNDONE,
            RunState.RUN_STATE_PARTLY_UNDONE,
            RunState.RUN_STATE_UNDO_INCOMPLETE,
        )
        if rng.random() < (0.7 if undone else 0.1):
            await self._redo(person, number, run)
            return
        steps = rng.sample(changed, min(len(changed), rng.randint(1, 2))) if rng.random() < 0.8 else []
        request = pb.UndoRunRequest(
            workspace=WORKSPACE,
            request_id=f"{self._named}u{number}",
            run_id=run,
            actor="person:owner",
            why="not that",
            steps=steps,
        )
        if await person.say("undo_run", request, pb.UndoRunResponse, rng) is not None:
            self._record.count("undo of chosen steps asked for" if steps else "undo of all asked for")

    async def _redo(self, person: "Person", number: int, run: str) -> None:
        request = pb.RedoRunRequest(
            workspace=WORKSPACE,
            request_id=f"{self._named}v{number}",
            run_id=run,
            actor="person:owner",
            why="after all",
        )
        times = 2 if self._rng.random() < 0.2 else 1
        # What was refused may be done later, when the run stands otherwise; what was done is answered so again.
        answers = [await person.say("redo_run", request, pb.RedoRunResponse, self._rng) for _ in range(times)]
        if all(answer is not None for answer in answers):
            self._record.count("redo asked for")
        elif answers[0] is not None and not person.restored:  # a backup may be older than the first answer
            self._record.violate("a request that comes again is answered again", request.request_id)
