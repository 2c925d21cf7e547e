"""Runs of workflows that only some seeds have, besides those that every seed draws from.

They are drawn from a stream of their own, so that the other seeds go on as they did before.
"""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aios.run.v1 import commands_pb2 as pb
from aios.task.v1.task_pb2 import MODE_EXECUTE
from aios_core.encoding import encode
from aios_core.ids import run_id
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record
from aios_testing.sim.workload import ASIDE

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.3  # of the seeds
MOST: Final = 2  # runs in one of them
FIRST: Final = 800  # the number of the first


class Aside:
    """Starts such runs, and cancels or undoes some of them."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record

    async def look(self, person: "Person") -> None:
        """Start them all."""
        for number in range(FIRST, FIRST + self._rng.randint(1, MOST)):
            person.begin_work(partial(self._run, person, number))

    async def _run(self, person: "Person", number: int) -> None:
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, person.horizon * 0.3))
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"a{number}",
            workflow=rng.choice(ASIDE),
            input=encode(labeled({"n": number}, OWNER)),
            mode=MODE_EXECUTE,
            actor="person:owner",
            trigger="manual",
        )
        answer = await person.say("start_run", request, pb.StartRunResponse, rng)
        if answer is None:
            return
        person.accepted[answer.run_id] = request.workflow
        self._record.count(f"ran {request.workflow} aside")
        run, fate = run_id(WORKSPACE, "manual", request.request_id), rng.random()
        if fate < 0.1:
            await asyncio.sleep(rng.uniform(0.0, 20.0))
            await person.cancel(run, rng)
        elif fate < 0.5:
            await asyncio.sleep(rng.uniform(20.0, 80.0))
            await person.undo(run, rng)
