"""Caps are raised in their documents while runs wait for money, and nobody answers what these runs ask: they have to go
on by themselves. It draws from a stream of its own, and only under some seeds, so that the others go on as before.
"""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1.state_pb2 import Approval, ApprovalKind
from aios.task.v1.task_pb2 import MODE_EXECUTE
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record
from aios_testing.sim.workload import DEAR, RAISED

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.2  # of the seeds
MOST: Final = 4  # runs in one of them
FIRST: Final = 700  # the number of the first


class Raising:
    """Starts runs that cost more than their budget has, and raises the cap twice: the second time there is enough."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record
        self._said = ""  # the documents that were applied last
        self._turn = asyncio.Lock()

    async def look(self, person: "Person") -> None:
        """Start them all."""
        person.begin_work(partial(self._all, person))

    def waits(self, approval: Approval) -> bool:
        """Whether nobody answers it."""
        return approval.workflow == "dear" and approval.kind == ApprovalKind.APPROVAL_KIND_BUDGET

    async def _all(self, person: "Person") -> None:
        await self._apply(person, DEAR, "dear")
        for number in range(FIRST, FIRST + self._rng.randint(2, MOST)):
            person.begin_work(partial(self._run, person, number))
        for number, raised in enumerate(RAISED):
            await asyncio.sleep(self._rng.uniform(5.0, person.horizon * 0.4))
            await self._apply(person, raised, f"raise-{number}")

    async def _run(self, person: "Person", number: int) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, person.horizon * 0.5))
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"d{number}",
            workflow="dear",
            input=encode(labeled({"n": number}, OWNER)),
            mode=MODE_EXECUTE,
            actor="person:owner",
            trigger="manual",
        )
        answer = await person.say("start_run", request, pb.StartRunResponse, self._rng)
        if answer is not None:
            person.accepted[answer.run_id] = request.workflow

    def again(self, person: "Person") -> None:
        """A backup was restored, which may be older than what was applied: the person applies it once more."""
        person.begin_work(partial(self._again, person))

    async def _again(self, person: "Person") -> None:
        async with self._turn:
            if self._said:  # not those before it, which would lower what the last one raised
                await person.apply(self._said, "again")

    async def _apply(self, person: "Person", documents: str, request_id: str) -> None:
        async with self._turn:
            await person.apply(documents, request_id)
            self._said = documents
