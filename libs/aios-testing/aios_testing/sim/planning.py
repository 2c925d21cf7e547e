"""Runs whose steps an agent plans: the person approves, rejects and edits plans, and asks for others while they are
followed. And what must hold of them.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import ApprovalState, Recovery
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import decode_trusted, encode
from aios_core.ids import effect_key, run_id
from aios_core.labels import OWNER
from aios_core.step_names import home_of, is_inside
from aios_core.values import labeled, plain
from aios_orchestrator.model import Run
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.planner import MORE
from aios_testing.sim.record import Record
from aios_testing.sim.world import World

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.3  # of the seeds
MOST: Final = 2  # runs in one of them
LOOKS: Final = 10  # at each
NOTES: Final = ("shorter", "longer", "other", "impossible")
PLANNED: Final = "work.plan"


class Planning:
    """Starts such runs, and has them planned anew."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record

    async def begin(self, person: "Person") -> None:
        """All of them."""
        for number in range(self._rng.randint(1, MOST)):
            person.begin_work(partial(self._run, person, number))

    async def _run(self, person: "Person", number: int) -> None:
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, person.horizon * 0.3))
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"p{number}",
            workflow="planned",
            input=encode(labeled({"n": rng.randint(0, 9)}, OWNER)),
            actor="person:owner",
            trigger="manual",
        )
        if await person.say("start_run", request, pb.StartRunResponse, rng) is None:
            return
        run = run_id(WORKSPACE, "manual", request.request_id)
        person.accepted[run] = request.workflow
        for look in range(LOOKS):
            await asyncio.sleep(rng.uniform(0.5, 12.0))
            if rng.random() < 0.3:
                await self.revise(person, run, f"{number}-{look}")
            elif rng.random() < 0.3:
                await self._edit(person, run, f"{number}-{look}")

    async def revise(self, person: "Person", run: str, name: str) -> None:
        """Ask for another plan; a name is used once."""
        request = pb.RecoverRunRequest(
            workspace=WORKSPACE,
            request_id=f"pr{name}",
            run_id=run,
            actor="person:owner",
            recovery=Recovery.RECOVERY_REPLAN,
            why=self._rng.choice(NOTES),
        )
        times = 2 if self._rng.random() < 0.2 else 1
        answers = [
            await person.say("recover_run", request, pb.RecoverRunResponse, self._rng) for _ in range(times)
        ]
        if all(answer is not None for answer in answers):
            self._record.count("asked for another plan")
        elif answers[0] is not None and not person.restored:  # a backup may be older than the first answer
            self._record.violate("a request that comes again is answered again", request.request_id)

    async def _edit(self, person: "Person", run: str, name: str) -> None:
        """Add a step to the plan that waits, if one does."""
        asked = query.GetRunRequest(workspace=WORKSPACE, run_id=run)
        found = await person.ask("get_run", asked, query.GetRunResponse)
        if found is None:
            return
        for approval in found.run.approvals:
            if approval.state != ApprovalState.APPROVAL_STATE_OPEN or not approval.HasField("plan"):
                continue
            arguments: Any = plain(decode_trusted(approval.proposed[0].arguments))
            steps = arguments["plan"]["steps"]
            other = {**arguments["plan"], "steps": [*steps, {**MORE, "name": f"more-{len(steps)}"}]}
            request = pb.EditApprovalRequest(
                workspace=WORKSPACE,
                request_id=f"pe{name}",
                run_id=run,
                approval_id=approval.approval_id,
                actor="person:owner",
                arguments_sha256=approval.arguments_sha256,
                input=encode(labeled({**arguments, "plan": other}, OWNER)),
            )
            if await person.say("edit_approval", request, pb.EditApprovalResponse, self._rng) is not None:
                self._record.count("edited a plan")


class PlanWatch:
    """What must hold of plans."""

    def __init__(self, record: Record, world: World) -> None:
        self._record, self._world = record, world

    def happened(self, run: Run, step: str, key: str) -> None:
        """A planned step changed something: its plan was approved as it is, and has it."""
        plan = run.plans.get(PLANNED)
        if not is_inside(step, PLANNED):
            return
        if plan is None or not any(
            approval.step == "work.approve"
            and approval.state == ApprovalState.APPROVAL_STATE_APPROVED
            and approval.plan.version == plan.version
            for approval in run.approvals.values()
        ):
            self._record.violate("nothing of a plan before it is approved", key)
            return
        own = step.removeprefix(f"{PLANNED}.").partition("[")[0]
        if own not in {item["name"] for item in json.loads(plan.plan)["steps"]}:
            self._record.violate("nothing that the plan does not have", key)
        if plan.parent:
            self._record.count("changed something by a later plan")

    def changed(self, before: Run | None, run: Run) -> None:
        """What has begun or is finished stays, whatever plan takes the place of the one before."""
        if before is None or before.plans.get(PLANNED) is run.plans.get(PLANNED) or not before.plans:
            return
        plan, old = run.plans[PLANNED], before.plans[PLANNED]
        if plan.plan == old.plan:
            return
        self._record.count("another plan is followed")
        for step in before.steps.values():
            if step.effect_order and home_of(step.name)[0] == PLANNED and step.name not in run.steps:
                self._record.violate("what is finished is in the new plan", f"{run.run_id} {step.name}")

    def at_the_end(self, run: Run, denied: set[str]) -> None:
        """What was left out of a plan stands for nothing."""
        if run.mode == MODE_SIMULATE:
            return
        plans: Mapping[str, Any] = run.plans
        for plan in plans.values():
            for name, last in plan.groups.items():
                for group in range(1, last + 1):
                    key = effect_key(run.run_id, name, 0, group)
                    if self._world.stand(key) and key not in denied:
                        self._record.violate("what was left out of a plan stands for nothing", key)
