"""The person tries runs again from a step. What they do so changes nothing.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import Fork, Supposed, SupposedEnd
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.25  # of the seeds
FORKS: Final = 3  # in one of them
PAUSE: Final = (5.0, 35.0)  # seconds before each
_REJECTED: Final = SupposedEnd.SUPPOSED_END_REJECTED
_FAILED: Final = SupposedEnd.SUPPOSED_END_FAILED
_ENDS: Final = {
    "pay": (("ok", _REJECTED), ("place", _FAILED)),
    "mail": (("ok", _REJECTED),),
    "each": (("all[].ok", _REJECTED), ("all[].send", _FAILED)),
    "signed": (("sure", _REJECTED), ("send", _FAILED)),
}


class Forking:
    """Forks runs that were accepted, whether or not they have ended."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record

    async def look(self, person: "Person") -> None:
        """From time to time."""
        for number in range(FORKS):
            await asyncio.sleep(self._rng.uniform(*PAUSE))
            if person.accepted:
                run = self._rng.choice(sorted(person.accepted))
                person.begin_work(partial(self._fork, person, number, run))

    async def _fork(self, person: "Person", number: int, run: str) -> None:
        asked = query.GetRunRequest(workspace=WORKSPACE, run_id=run)
        found = await person.ask("get_run", asked, query.GetRunResponse)
        if found is None:
            return
        head = found.run.head
        steps = [step.step for step in head.steps if "." not in step.step]
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"f{number}",
            actor="person:owner",
            trigger="fork",
            fork=self._changed(head.workflow, Fork(run_id=run, step=self._rng.choice(["", *steps]))),
        )
        answer = await person.say("start_run", request, pb.StartRunResponse, self._rng)
        if answer is not None:
            person.accepted[answer.run_id] = head.workflow
            self._record.count("forked")
            if request.fork.changes:
                self._record.count("forked another way")
            if any(change.ends for change in request.fork.changes):
                self._record.count("forked with a rejection or a failure")

    def _changed(self, workflow: str, fork: Fork) -> Fork:
        """Where the workflow decides something, it is had to decide otherwise now and then."""
        if workflow in ("fan", "tight") and self._rng.random() < 0.5:
            fork.step = ""
            fork.changes.add(step="fork", take=self._rng.choice(["even", "odd"]))
            if self._rng.random() < 0.5:
                fork.changes.add(step="ask", supposed=Supposed.SUPPOSED_HOLDS)
        elif workflow in _ENDS and self._rng.random() < 0.5:
            fork.step = ""
            step, ends = self._rng.choice(_ENDS[workflow])
            fork.changes.add(step=step, ends=ends)
        return fork
