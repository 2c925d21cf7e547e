"""Several people sign: one twice, a stranger, what was edited since, what expired; and gates pass by themselves.

It draws from a stream of its own, and only under some seeds, so that the others go on as they did before.
"""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, Final

from aios.run.v1 import commands_pb2 as pb
from aios.run.v1.state_pb2 import Approval, ApprovalState
from aios_core.encoding import decode_trusted, encode
from aios_core.labels import OWNER
from aios_core.values import labeled, plain
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record

if TYPE_CHECKING:
    from aios_testing.sim.person import Person

SHARE: Final = 0.3  # of the seeds
SIGNERS: Final = ("person:owner", "person:ada")
STRANGER: Final = "person:eve"
OTHER: Final = 1_000  # what an edit adds


class Signing:
    """Starts runs that several people have to sign, and signs them."""

    def __init__(self, rng: Random, record: Record) -> None:
        self._rng, self._record = rng, record
        self._requests = 0

    async def begin(self, person: "Person") -> None:
        """A few runs, at some times."""
        person.busy += 1
        for number in range(self._rng.randint(1, 3)):
            await asyncio.sleep(self._rng.uniform(0.0, person.horizon * 0.1))
            request = pb.StartRunRequest(
                workspace=WORKSPACE,
                request_id=f"sign{number}",
                workflow="signed",
                input=encode(labeled({"n": number}, OWNER)),
                actor="person:owner",
                trigger="manual",
            )
            answer = await person.say("start_run", request, pb.StartRunResponse, self._rng)
            if answer is not None:
                person.accepted[answer.run_id] = request.workflow
        person.busy -= 1

    async def sign(self, person: "Person", approval: Approval) -> None:
        """All who have to, in some order, and some who may not."""
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.1, 60.0))
        signers = [*SIGNERS]
        rng.shuffle(signers)
        if rng.random() < 0.3:
            signers.insert(1, signers[0])
        if rng.random() < 0.3:
            signers.insert(rng.randint(0, len(signers)), STRANGER)
        edit_after = rng.randint(0, 1) if rng.random() < 0.4 else -1
        for at, signer in enumerate(signers):
            if await self._decide(person, approval, signer) and signer == STRANGER:
                self._record.violate("only approvers approve", approval.approval_id)
            if at == edit_after:
                await self._edit(person, approval)
            await asyncio.sleep(rng.uniform(0.0, 5.0))

    async def _decide(self, person: "Person", approval: Approval, signer: str) -> bool:
        request = pb.DecideApprovalRequest(
            workspace=WORKSPACE,
            request_id=self._request_id(),
            run_id=approval.run_id,
            approval_id=approval.approval_id,
            actor=signer,
            decision=ApprovalState.APPROVAL_STATE_APPROVED,
            arguments_sha256=approval.arguments_sha256,
        )
        return await person.say("decide_approval", request, pb.DecideApprovalResponse, self._rng) is not None

    async def _edit(self, person: "Person", approval: Approval) -> None:
        arguments: Any = plain(decode_trusted(approval.proposed[0].arguments))
        request = pb.EditApprovalRequest(
            workspace=WORKSPACE,
            request_id=self._request_id(),
            run_id=approval.run_id,
            approval_id=approval.approval_id,
            actor="person:owner",
            arguments_sha256=approval.arguments_sha256,
            input=encode(labeled({"n": arguments["n"] + OTHER}, OWNER)),
        )
        if await person.say("edit_approval", request, pb.EditApprovalResponse, self._rng) is not None:
            self._record.count("edited by a person")

    def _request_id(self) -> str:
        self._requests += 1
        return f"s{self._requests}"
