"""The person applies other versions of the workflows and has runs under way go on under them.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
import itertools
from random import Random
from typing import TYPE_CHECKING, Final

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import RunState
from aios.task.v1.task_pb2 import Mode
from aios_core.errors import RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record
from aios_testing.sim.workload import DOCUMENTS

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.25  # of the seeds
LOOKS: Final = 12  # at what is under way
APPLIED: Final = 3  # versions in one of them
MOVED: Final = 3  # runs that are to follow each
PAUSE: Final = (1.0, 8.0)  # seconds before each look
ASK_SECONDS: Final = 5.0
_GO_ON: Final = (RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_FAILED)
_MORE: Final = "  - {name: more-%d, agent: echo, timeout: 10s, input: {n: %d}}\n"
_NAMES: Final = {"mail": {"draft": "written", "send": "sent"}, "pay": {"charge": "charged", "look": "seen"}}


class Migrating:
    """Adds steps at the end, gives others another name, and back."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record
        self._numbers = itertools.count(1)

    async def look(self, person: "Person") -> None:
        """From time to time."""
        rng = self._rng
        applied = 0
        for _ in range(LOOKS):
            await asyncio.sleep(rng.uniform(*PAUSE))
            found = await self._under_way(person)
            if not found or applied == APPLIED:
                continue
            applied += 1
            workflow = rng.choice(sorted(found))
            names = dict(rng.sample(sorted(_NAMES[workflow].items()), rng.randrange(3)))
            number = next(self._numbers)
            text = DOCUMENTS[f"{workflow}.yaml"]
            for name, to in names.items():
                text = text.replace(f"name: {name}\n", f"name: {to}\n").replace(
                    f"name: {name},", f"name: {to},"
                )
                text = text.replace(f"steps.{name}.", f"steps.{to}.")
                text = text.replace(f"approves: [{name}", f"approves: [{to}")
            text += _MORE % (number, number) if rng.random() < 0.7 else ""
            if not await self._applied(person, text, number):
                continue
            for run in found[workflow][:MOVED]:
                await self._move(person, run, workflow, names)

    async def _under_way(self, person: "Person") -> dict[str, list[str]]:
        """Runs that may go on, by their workflows."""
        request = query.ListRunsRequest(workspace=WORKSPACE, states=_GO_ON, page_size=50)
        subject = subjects.query("run", "list_runs", WORKSPACE)
        found: dict[str, list[str]] = {}
        try:
            data = await person.bus.ask(subject, request.SerializeToString(), ASK_SECONDS)
        except (RetryableError, TerminalError):
            return found
        for head in query.ListRunsResponse.FromString(data).runs:
            if head.workflow in _NAMES and head.mode != Mode.MODE_SIMULATE:
                found.setdefault(head.workflow, []).append(head.run_id)
        return found

    async def _applied(self, person: "Person", text: str, number: int) -> bool:
        request = ApplyResourcesRequest(workspace=WORKSPACE, yaml=text.encode(), file=f"v{number}.yaml")
        subject = subjects.resource_command("apply_resources", WORKSPACE)
        message = Message(subject, request.SerializeToString(), f"apply-{number}")
        while True:
            try:
                await person.bus.command(message, ASK_SECONDS)
                return True
            except RetryableError:
                await asyncio.sleep(self._rng.uniform(0.2, 2.0))
            except TerminalError as error:
                self._record.violate("a version that is good is applied", f"{error.code}: {error.message}")
                return False

    async def _move(self, person: "Person", run: str, workflow: str, names: dict[str, str]) -> None:
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, 3.0))
        request = pb.MigrateRunRequest(
            workspace=WORKSPACE,
            request_id=f"v{next(self._numbers)}",
            run_id=run,
            actor="person:owner",
            workflow=workflow,
            renamed=names if rng.random() < 0.8 else {},
            accept=rng.random() < 0.5,
        )
        times = 2 if rng.random() < 0.2 else 1
        # What was refused may be done later, when the run stands otherwise; what was done is answered so again.
        answers = [await person.say("migrate_run", request, pb.MigrateRunResponse, rng) for _ in range(times)]
        if any(answer is None for answer in answers):
            if answers[0] is not None and not person.restored:  # a backup may be older than the first answer
                self._record.violate("a request that comes again is answered again", request.request_id)
            return
        asked = query.GetRunRequest(workspace=WORKSPACE, run_id=run, full=True)
        subject = subjects.query("run", "get_run", WORKSPACE)
        try:
            data = await person.bus.ask(subject, asked.SerializeToString(), ASK_SECONDS)
        except (RetryableError, TerminalError):
            return
        steps = query.GetRunResponse.FromString(data).run.head.steps
        if any(step.keyed_as and step.effect_order for step in steps):
            self._record.count("renamed a step that had begun")
