"""One person, and the systems that send events: they start, decide (late, twice, wrongly), cancel, undo and answer.

They never die. What got no answer they say again, under the same request id.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final, TypeVar

from google.protobuf.message import Message as Proto

from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1 import commands_pb2 as pb
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import Approval, ApprovalKind, ApprovalState
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import encode
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import run_id
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from aios_testing.sim.aside import Aside
from aios_testing.sim.bus import SimBus
from aios_testing.sim.composing import Composing
from aios_testing.sim.faults import Plan
from aios_testing.sim.forking import Forking
from aios_testing.sim.mending import Mending
from aios_testing.sim.migrating import Migrating
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.planning import Planning
from aios_testing.sim.raising import Raising
from aios_testing.sim.record import Record
from aios_testing.sim.signing import Signing
from aios_testing.sim.undoing import Undoing
from aios_testing.sim.workload import WORKFLOWS
from aios_testing.sim.world import World

ANSWER_SECONDS: Final = 8.0  # until a command is said again
ASK_SECONDS: Final = 5.0  # until a question has no answer
LOOK_SECONDS: Final = (1.0, 3.0, 8.0)  # between two looks at what waits
CHECK_SECONDS: Final = 45.0  # before a person looks whether something happened
TRACE: Final = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"

A = ApprovalState
M = TypeVar("M", bound=Proto)


class Person:
    """Everything that comes from outside. `accepted` are the runs that were answered for."""

    def __init__(self, bus: SimBus, rng: Random, world: World, record: Record, plan: Plan) -> None:
        self.bus, self._rng, self._world, self._record = bus, rng, world, record
        self.horizon = plan.horizon
        self.most_runs, self.most_events = (2, 1) if plan.brief else (4, 2)
        self.late = (
            0.03 if plan.brief else 0.1
        )  # of the decisions: in virtual time as well waiting has its price
        self.accepted: dict[str, str] = {}
        self.events: dict[str, bytes] = {}  # the data of those that were accepted, by id
        self.denied: set[str] = set()  # effects of which the person said that they had not happened
        self.unsure: frozenset[str] = frozenset()  # effects of which a restored backup does not know all
        self.busy = 0
        self.mending: Mending | None = None
        self.forking: Forking | None = None
        self.migrating: Migrating | None = None
        self.undoing: Undoing | None = None
        self.aside: Aside | None = None
        self.signing: Signing | None = None
        self.planning: Planning | None = None
        self.raising: Raising | None = None
        self.composing: Composing | None = None
        self._decided: set[str] = set()
        self.restored = False
        self._requests = 0

    def remember(self) -> Callable[[], None]:
        """What has the person forget the answers since; what is open then they decide, once more if need be."""
        accepted, events = dict(self.accepted), dict(self.events)

        def back() -> None:
            self.accepted.clear()
            self.accepted.update(accepted)
            self.events.clear()
            self.events.update(events)
            self._decided.clear()
            self.restored = True
            if self.raising is not None:
                self.raising.again(self)

        return back

    def begin(self) -> list[Awaitable[None]]:
        """What runs from the start."""
        rng = self._rng
        works: list[Awaitable[None]] = [self._look()]
        for number in range(rng.randint(2, self.most_runs)):
            works.append(self._run(number, rng.uniform(0.0, self.horizon * 0.3)))
        for number in range(rng.randint(0, self.most_events)):
            works.append(self._event(number, rng.uniform(0.0, self.horizon * 0.4)))
        if rng.random() < 0.4:
            works.append(self._bare(rng.uniform(0.0, self.horizon * 0.8)))
        if self.mending is not None:
            works.append(self.mending.look(self))
        if self.aside is not None:
            works.append(self.aside.look(self))
        if self.forking is not None:
            works.append(self.forking.look(self))
        if self.migrating is not None:
            works.append(self.migrating.look(self))
        if self.undoing is not None:
            works.append(self.undoing.look(self))
        if self.signing is not None:
            works.append(self.signing.begin(self))
        if self.planning is not None:
            works.append(self.planning.begin(self))
        if self.raising is not None:
            works.append(self.raising.look(self))
        if self.composing is not None:
            works.append(self.composing.begin(self))
        return works

    async def _run(self, number: int, at: float) -> None:
        self.busy += 1
        rng = self._rng
        await asyncio.sleep(at)
        request = pb.StartRunRequest(
            workspace=WORKSPACE,
            request_id=f"r{number}",
            workflow=rng.choice(WORKFLOWS),
            input=encode(labeled({"n": number}, OWNER)),
            mode=Mode.MODE_SIMULATE if rng.random() < 0.05 else Mode.MODE_EXECUTE,
            actor="person:owner",
            trigger="manual",
            traceparent=TRACE,
        )
        times = 2 if rng.random() < 0.2 else 1
        await asyncio.gather(*(self._start(request) for _ in range(times)))
        run = run_id(WORKSPACE, "manual", request.request_id)
        fate = rng.random()
        if fate < 0.15:
            await asyncio.sleep(rng.uniform(0.0, 20.0))
            await self.cancel(run)
        elif fate < 0.5:
            await asyncio.sleep(rng.uniform(1.0, self.horizon * 2 / 3))
            await self.undo(run, times=2 if request.mode == Mode.MODE_SIMULATE else 60)
        self.busy -= 1

    async def _start(self, request: pb.StartRunRequest) -> None:
        """What is answered is accepted at once: a backup that is restored later is not to bring it back."""
        answer = await self.say("start_run", request, pb.StartRunResponse)
        if answer is not None:
            self.accepted[answer.run_id] = request.workflow

    async def _event(self, number: int, at: float) -> None:
        self.busy += 1
        await asyncio.sleep(at)
        event = ExternalEvent(
            workspace=WORKSPACE,
            id=f"e{number}",
            source="outside",
            type="sim.wanted" if self._rng.random() < 0.8 else "sim.unknown",
            data=b'{"n": %d}' % number,
            received_by="person:owner",
            traceparent=TRACE,
        )
        request = AcceptEventRequest(event=event).SerializeToString()
        for _ in range(2 if self._rng.random() < 0.3 else 1):
            while True:
                try:
                    data = await self.bus.ask(subjects.accept(WORKSPACE), request, ANSWER_SECONDS)
                    break
                except RetryableError:
                    await asyncio.sleep(1.0)
            resolution = AcceptEventResponse.FromString(data).resolution
            self.events[event.id] = event.data
            if resolution.run_id:
                self.accepted[resolution.run_id] = "fan"
        self.busy -= 1

    async def _bare(self, at: float) -> None:
        """An event that is only published: as durable as the broker, so it counts unless that loses what it holds."""
        self.busy += 1
        await asyncio.sleep(at)
        headers = {"ce-id": "bare", "ce-source": "outside", "ce-type": "sim.wanted", "ce-specversion": "1.0"}
        headers |= {"content-type": "application/json", subjects.HEADER_TRACE: TRACE}
        message = Message(subjects.external(WORKSPACE, "outside", "wanted"), b'{"n":77}', "bare", headers)
        # From the first try on: what the broker took and lost, it takes for a repetition when it comes again.
        broker, lost = self.bus.broker, self.bus.broker.lost
        while True:
            try:
                await self.bus.publish([message])
                break
            except RetryableError:
                await asyncio.sleep(1.0)
        await asyncio.sleep(min(60.0, self.horizon))
        if broker.lost == lost:
            self.events["bare"] = b'{"n":77}'
        self.busy -= 1

    async def apply(self, documents: str, request_id: str) -> None:
        """Apply documents, said again until there is an answer. Raises what they are refused with."""
        request = ApplyResourcesRequest(
            workspace=WORKSPACE, request_id=request_id, yaml=documents.encode(), actor="person:owner"
        )
        subject = subjects.resource_command("apply_resources", WORKSPACE)
        message = Message(subject, request.SerializeToString())
        while True:
            try:
                await self.bus.command(message, ANSWER_SECONDS)
                return
            except RetryableError:
                await asyncio.sleep(1.0)

    async def ask(self, name: str, request: Proto, answer: type[M]) -> M | None:
        """A question about runs, asked once; None when there is no answer, or a refusal."""
        subject = subjects.query("run", name, WORKSPACE)
        try:
            return answer.FromString(await self.bus.ask(subject, request.SerializeToString(), ASK_SECONDS))
        except AiosError:
            return None

    async def say(self, name: str, request: Proto, answer: type[M], rng: Random | None = None) -> M | None:
        """Until there is an answer; None when it is refused. `rng` draws the pauses."""
        answered = await self._answered(name, request, answer, rng)
        return None if isinstance(answered, TerminalError) else answered

    async def _answered(
        self, name: str, request: Proto, answer: type[M], rng: Random | None
    ) -> M | TerminalError:
        rng = rng or self._rng
        message = Message(subjects.run_command(name, WORKSPACE, 0), request.SerializeToString())
        while True:
            before = self.restored
            try:
                answered = await self.bus.command(message, ANSWER_SECONDS)
                if self.restored == before:  # what was answered since the backup counts no more
                    return answer.FromString(answered)
            except RetryableError:
                await asyncio.sleep(rng.uniform(0.2, 2.0))
            except TerminalError as error:
                self._record.count(f"refused {error.code}")
                return error

    def _request_id(self) -> str:
        self._requests += 1
        return f"q{self._requests}"

    async def cancel(self, run: str, rng: Random | None = None) -> None:
        """Stop a run."""
        request = pb.CancelRunRequest(
            workspace=WORKSPACE, request_id=self._request_id(), run_id=run, actor="person:owner", why="enough"
        )
        if await self.say("cancel_run", request, pb.CancelRunResponse, rng) is not None:
            self._record.count("cancelled by a person")

    async def undo(self, run: str, rng: Random | None = None, times: int = 60) -> None:
        """Take a run back, once it has ended: asked so many times at most, and of one that is not there once. With
        `rng` nothing is drawn from the person's own stream."""
        for _ in range(times):
            request = pb.UndoRunRequest(
                workspace=WORKSPACE,
                request_id=self._request_id(),
                run_id=run,
                actor="person:owner",
                why="back",
            )
            answered = await self._answered("undo_run", request, pb.UndoRunResponse, rng)
            if not isinstance(answered, TerminalError):
                self._record.count("undo asked for")
                if (rng or self._rng).random() < 0.2:
                    await self.say("undo_run", request, pb.UndoRunResponse, rng)
                return
            if answered.code == "NOT_FOUND":
                return
            await asyncio.sleep(5.0)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._rng.choice(LOOK_SECONDS))
            request = query.ListApprovalsRequest(workspace=WORKSPACE, open_only=True, page_size=50)
            subject = subjects.query("run", "list_approvals", WORKSPACE)
            try:
                data = await self.bus.ask(subject, request.SerializeToString(), 5.0)
            except RetryableError:
                continue
            for approval in query.ListApprovalsResponse.FromString(data).approvals:
                if self.raising is not None and self.raising.waits(approval):
                    continue
                if approval.approval_id not in self._decided:
                    self._decided.add(approval.approval_id)
                    several = self.signing if approval.need else None
                    work = partial(several.sign, self) if several is not None else self._decide
                    self.begin_work(partial(work, approval))

    def begin_work(self, work: Callable[[], Awaitable[None]]) -> None:
        """The person is busy with it until it ends."""

        async def run() -> None:
            self.busy += 1
            try:
                await work()
            except Exception as error:
                self._record.violate("no defect", f"the person: {type(error).__name__} {error}"[:400])
            finally:
                self.busy -= 1

        asyncio.get_running_loop().create_task(run())

    async def _decide(self, approval: Approval) -> None:
        rng = self._rng
        late = rng.random() < self.late
        await asyncio.sleep(rng.uniform(100.0, 140.0) if late else rng.uniform(0.1, 12.0))
        if approval.kind == ApprovalKind.APPROVAL_KIND_UNKNOWN:
            await self._answer_unknown(approval)
            return
        if approval.kind == ApprovalKind.APPROVAL_KIND_QUESTION:
            first = (A.APPROVAL_STATE_ANSWERED, {"q": rng.choice(["x", "y"])})
        elif approval.kind == ApprovalKind.APPROVAL_KIND_BUDGET:
            first = (A.APPROVAL_STATE_ANSWERED, {"allow": rng.choice(["once", "once", "1", "4.00", "stop"])})
        else:
            first = (A.APPROVAL_STATE_APPROVED, {})
        if rng.random() < 0.1:
            first = (A.APPROVAL_STATE_REJECTED, {})
        shown = approval.arguments_sha256
        if rng.random() < 0.05 and first[0] == A.APPROVAL_STATE_APPROVED:
            self._record.count("approved something else")
            counted = await self._send(approval, *first, b"\1" * 32)
            if counted and not self.restored:  # after a restore it may have been decided so already
                self._record.violate("an approval counts for what was shown alone", approval.approval_id)
        again = rng.random()
        if again < 0.15:
            self._record.count("decided twice at once")
            other = A.APPROVAL_STATE_REJECTED if again < 0.07 else first[0]
            await asyncio.gather(
                self._send(approval, *first, shown),
                self._send(approval, other, first[1] if other == first[0] else {}, shown),
            )
        else:
            await self._send(approval, *first, shown)

    async def _answer_unknown(self, approval: Approval) -> None:
        await asyncio.sleep(CHECK_SECONDS)
        self._record.count("a person was asked what happened")
        key = self._effect_of(approval)
        if key is None:
            self._record.count("asked about what the backup does not know")
            return
        world = self._world
        found = world.undos if "the undo of" in approval.title else world.effects
        happened = key in (world.redos if "the redo of" in approval.title else found)
        effect = "/".join(key.split("/")[:4])
        if effect in self.unsure and found is not world.effects:
            happened = world.stand(effect) == 0
        elif effect in self.unsure and "the redo of" in approval.title:
            happened = world.stand(effect) == 1
        if not happened:
            self.denied.add(key)
        decision = A.APPROVAL_STATE_ANSWERED
        await self._send(approval, decision, {"happened": "yes" if happened else "no"}, b"")

    _effect_of: Callable[[Approval], str | None]

    async def _send(
        self, approval: Approval, decision: "A.ValueType", answers: dict[str, str], shown: bytes
    ) -> bool:
        """Decide; returns whether it counted, as far as the answer came."""
        request = pb.DecideApprovalRequest(
            workspace=WORKSPACE,
            request_id=self._request_id(),
            run_id=approval.run_id,
            approval_id=approval.approval_id,
            actor="person:owner",
            decision=decision,
            arguments_sha256=shown,
            answers=encode(labeled(dict(answers), OWNER)) if answers else b"",
        )
        said = await self.say("decide_approval", request, pb.DecideApprovalResponse)
        if said is not None and self._rng.random() < 0.2:
            self._record.count("said again under the same id")
            again = await self.say("decide_approval", request, pb.DecideApprovalResponse)
            if again is None and not self.restored:
                self._record.violate("a request that comes again is answered again", request.request_id)
        return said is not None
