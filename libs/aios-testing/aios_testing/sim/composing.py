"""The person has workflows that were put together at random: starts them, and stops, undoes or mends what they do.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import Recovery, RunState
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_SIMULATE
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_testing.sim.composed import PREFIX, composed
from aios_testing.sim.mending import Mending
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.planning import Planning
from aios_testing.sim.record import Record
from aios_testing.sim.undoing import Undoing

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.3  # of the seeds
MOST: Final = 2  # runs in one of them
DEEDS: Final = 6  # that are done to one at most
PAUSE: Final = (1.0, 15.0)  # seconds before each
_SIMULATED: Final = 0.05  # of the runs
R = RunState
_UNDER_WAY: Final = (R.RUN_STATE_RUNNING, R.RUN_STATE_CANCELLING, R.RUN_STATE_UNDOING, R.RUN_STATE_REDOING)


class Composing:
    """Applies one such workflow and starts a run of it, or several."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record
        self._mending, self._undoing = Mending(rng, record, "cm"), Undoing(rng, record, "c")
        self._planning = Planning(rng, record)
        self._deeds = 0

    async def begin(self, person: "Person") -> None:
        """All of it."""
        person.begin_work(partial(self._apply, person))

    async def _apply(self, person: "Person") -> None:
        rng = self._rng
        name = f"{PREFIX}{rng.randrange(10**9)}"
        await person.apply(composed(rng, name), name)
        for number in range(rng.randint(1, MOST)):
            person.begin_work(partial(self._run, person, name, number))

    async def _run(self, person: "Person", name: str, number: int) -> None:
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, person.horizon * 0.3))
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"c{number}",
            workflow=name,
            input=encode(labeled({"n": number}, OWNER)),
            mode=MODE_SIMULATE if rng.random() < _SIMULATED else MODE_EXECUTE,
            actor="person:owner",
            trigger="manual",
        )
        answer = await person.say("start_run", request, pb.StartRunResponse, rng)
        if answer is None:  # a backup may be older than the workflow
            return
        self._record.count("ran what was composed")
        person.accepted[answer.run_id] = name
        for _ in range(rng.randint(0, DEEDS)):
            await asyncio.sleep(rng.uniform(*PAUSE))
            await self._do_something(person, answer.run_id)
        if rng.random() < 0.3:
            await person.undo(answer.run_id, rng)

    async def _do_something(self, person: "Person", run: str) -> None:
        """What may be done to the run as it is now, mostly."""
        asked = query.GetRunRequest(workspace=WORKSPACE, run_id=run)
        found = await person.ask("get_run", asked, query.GetRunResponse)
        if found is None:
            return
        head = found.run.head
        self._deeds += 1
        deed = self._rng.random()
        if head.state in _UNDER_WAY:
            if deed < 0.1:
                await person.cancel(run, self._rng)
            elif deed < 0.5 and head.planned:
                await self._planning.revise(person, run, f"c{self._deeds}")
        elif head.state == R.RUN_STATE_SUCCEEDED and deed < 0.6:
            await self._mending.mend(person, run, Recovery.RECOVERY_REWIND)
        elif head.state in (R.RUN_STATE_FAILED, R.RUN_STATE_CANCELLED) and deed < 0.7:
            await self._mending.mend(person, run)
        else:
            await self._undoing.act(person, self._deeds, run)
