"""More work than may be done at once: runs that wait for their turn or are left out, tasks of several priorities and
customers, and limits. It draws from a stream of its own, and only under some seeds, so that the others go on as before.
"""

import asyncio
from random import Random
from typing import Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1.state_pb2 import QueueState
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.model import Run
from aios_runtime.store.port import Write
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.person import TRACE, Person
from aios_testing.sim.record import Record
from aios_testing.sim.workload import CROWD

EVERY: Final = 5  # of so many seeds one has a crowd
AT: Final = 1  # which of them
_QUEUE: Final = f"{WORKSPACE}/queue/"


class Crowd:
    """Starts the runs."""

    def __init__(self, rng: Random, person: Person, record: Record) -> None:
        self._rng, self._person, self._record = rng, person, record

    async def run(self) -> None:
        """Apply the documents, and start everything."""
        self._person.busy += 1
        await self._person.apply(CROWD, "crowd")
        starts = [("line", number) for number in range(6)] + [("lone", number) for number in range(3)]
        await asyncio.gather(*(self._start(workflow, number) for workflow, number in starts))
        self._person.busy -= 1

    async def _start(self, workflow: str, number: int) -> None:
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, self._person.horizon * 0.5))
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"{workflow}{number}",
            workflow=workflow,
            input=encode(labeled({"n": number}, OWNER)),
            mode=Mode.MODE_EXECUTE,
            actor="person:owner",
            trigger="manual",
            traceparent=TRACE,
            priority=rng.choice([None, 0, 9]),
        )
        for _ in range(2 if rng.random() < 0.3 else 1):
            started = await self._person.say("start_run", request, pb.StartRunResponse, rng)
            if started is not None:
                self._person.accepted[started.run_id] = workflow
        if started is not None and rng.random() < 0.2:
            cancel = pb.CancelRunRequest(
                workspace=WORKSPACE,
                request_id=f"enough-{workflow}{number}",
                run_id=started.run_id,
                actor="person:owner",
                why="enough",
            )
            await self._person.say("cancel_run", cancel, pb.CancelRunResponse, rng)


class LineWatch:
    """What must hold of runs of which only so many may be under way: never more are, and they are let in in order."""

    def __init__(self, record: Record, runs: dict[str, Run]) -> None:
        self._record, self._runs = record, runs
        self._admitted: dict[str, list[str]] = {}

    def committed(self, write: Write) -> None:
        """Who was let in, if that is what was written."""
        if not write.key.startswith(_QUEUE):
            return
        state = QueueState.FromString(write.head or b"")
        before = self._admitted.get(write.key, [])
        self._admitted[write.key] = list(state.admitted)
        new = [run for run in state.admitted if run not in before]
        waiting = [run.run_id for run in self._line(state.workflow, state.concurrency_key) if run.queued]
        first = [run for run in waiting if run not in before]
        expected = [run for run in new if run in first]
        if first[: len(expected)] != expected:
            self._record.violate("who waits is let in in order", f"{expected} of {first}")

    def changed(self, run: Run) -> None:
        """A run of a line was committed."""
        if run.concurrency is None:
            return
        line = self._line(run.workflow, run.concurrency_key)
        going = [
            other.run_id
            for other in line
            if not (other.closed or other.queued or other.reopened or other.undo_group)
        ]
        if len(going) > run.concurrency.limit:
            self._record.violate("no more are under way than may be", ", ".join(going))
        if len(going) == run.concurrency.limit and any(run.queued for run in line):
            self._record.count("a line was full")

    def _line(self, workflow: str, key: str) -> list[Run]:
        """Its runs, in the order in which they were committed."""
        return [
            run
            for run in self._runs.values()
            if run.workflow == workflow and run.concurrency_key == key and run.concurrency is not None
        ]
