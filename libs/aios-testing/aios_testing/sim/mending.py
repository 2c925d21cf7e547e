"""The person deals with what failed: tries it again, goes on without it, gives another input, goes back.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import Recovery, StepState
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.4  # of the seeds
LOOK_SECONDS: Final = (4.0, 9.0, 20.0)
LOOKS: Final = 60  # at what failed
TIMES: Final = 2  # that one run is had go on
ACTIONS: Final = (
    *(Recovery.RECOVERY_RETRY,) * 5,
    *(Recovery.RECOVERY_SKIP,) * 2,
    *(Recovery.RECOVERY_EDIT,) * 3,
    *(Recovery.RECOVERY_REWIND,) * 4,
)


class Mending:
    """Looks at what failed, and from time to time at any run that was accepted."""

    def __init__(self, rng: Random, record: Record, named: str = "m") -> None:
        self._rng, self._record, self._named = rng, record, named
        self._times: dict[str, int] = {}
        self._requests = 0

    async def look(self, person: "Person") -> None:
        """From time to time."""
        rng = self._rng
        for _ in range(LOOKS):
            await asyncio.sleep(rng.choice(LOOK_SECONDS))
            failed = await person.ask(
                "list_failures",
                query.ListFailuresRequest(workspace=WORKSPACE),
                query.ListFailuresResponse,
            )
            runs = [failure.run_id for failure in failed.failures] if failed is not None else []
            if person.accepted and rng.random() < 0.3:
                runs.append(rng.choice(sorted(person.accepted)))
            for run in runs:
                if self._times.get(run, 0) < TIMES:
                    self._times[run] = self._times.get(run, 0) + 1
                    person.begin_work(partial(self.mend, person, run))

    async def mend(self, person: "Person", run: str, recovery: "Recovery.ValueType | None" = None) -> None:
        """Have one run go on, that way or in whatever way is drawn."""
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.1, 8.0))
        recovery = rng.choice(ACTIONS) if recovery is None else recovery
        asked = query.GetRunRequest(workspace=WORKSPACE, run_id=run)
        found = await person.ask("get_run", asked, query.GetRunResponse)
        if found is None:
            return
        begun = [step.step for step in found.run.head.steps if step.state != StepState.STEP_STATE_PENDING]
        self._requests += 1
        request = pb.RecoverRunRequest(
            workspace=WORKSPACE,
            request_id=f"{self._named}{self._requests}",
            run_id=run,
            actor="person:owner",
            recovery=recovery,
            step=rng.choice(begun) if begun and recovery == Recovery.RECOVERY_REWIND else "",
            cap_micros=1_000_000 if rng.random() < 0.3 else 0,
        )
        if recovery == Recovery.RECOVERY_EDIT or (
            recovery == Recovery.RECOVERY_REWIND and rng.random() < 0.3
        ):
            request.value = encode(labeled({"n": 5}, OWNER))
        times = 2 if rng.random() < 0.2 else 1
        # What was refused may be done later, when the run stands otherwise; what was done is answered so again.
        answers = [await person.say("recover_run", request, pb.RecoverRunResponse, rng) for _ in range(times)]
        if all(answer is not None for answer in answers):
            self._record.count(f"mended: {Recovery.Name(recovery)}")
        elif answers[0] is not None and not person.restored:  # a backup may be older than the first answer
            self._record.violate("a request that comes again is answered again", request.request_id)
