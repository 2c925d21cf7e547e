"""The part of an orchestrator that decides, by itself: its store is in memory, and a wire keeps what it publishes."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1.commands_pb2 import StartRunRequest
from aios.task.v1.task_pb2 import Outcome, PerformTasks, Status, Task
from aios_core.encoding import encode
from aios_core.errors import RetryableError
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.accounts import AccountBook
from aios_orchestrator.announcer import Announcer
from aios_orchestrator.engine import Engine
from aios_orchestrator.items import Answer, StartItem
from aios_orchestrator.kept_answers import KeptAnswers
from aios_orchestrator.limits import Limits
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.publisher import Publisher
from aios_orchestrator.repository import Repository
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.takeover import Takeover
from aios_orchestrator.timers import Timers
from aios_orchestrator.workflow import Workflow
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from aios_runtime.store.port import Result, Write
from aios_testing.store_memory import MemoryStore

WORKFLOW = b"""
apiVersion: aios/v1
kind: Workflow
metadata: {name: w}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - name: a
      agent: echo
      input: {n: 1}
"""


def capped(cap: bytes) -> bytes:
    """The same, with a step that may cost $0.10, and all that is spent under a cap."""
    return (
        WORKFLOW.replace(b"agent: echo", b'agent: echo\n      budget: "0.10"')
        + b"""---
apiVersion: aios/v1
kind: Budget
metadata: {name: everything}
spec: {per: total, cap: "%s"}
"""
        % cap
    )


def outcome_of(task: Task) -> Outcome:
    """A worker has done a task."""
    return Outcome(
        run_id=task.run_id,
        task_id=task.task_id,
        dispatch=task.dispatch,
        step=task.step,
        status=Status.STATUS_SUCCEEDED,
        output=encode(labeled({"n": 1}, OWNER)),
        worker="w",
    )


class Wire:
    """Where tasks go; closed, it takes none."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.open = True

    async def publish(self, messages: Sequence[Message]) -> None:
        await asyncio.sleep(0)
        if not self.open:
            raise RetryableError("BUS_FAILED", "The bus is away.")
        for message in messages:
            if message.subject.startswith(subjects.perform("main", "agent")[:-2]):
                self.tasks += PerformTasks.FromString(message.data).tasks


class SlowStore(MemoryStore):
    """It commits what it was asked to once `go` is set."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        self.asked.set()
        await self.go.wait()
        return await super().commit(writes)


class Deciding:
    """The part of an orchestrator that decides, on a store and a wire of its own."""

    def __init__(self, store: SlowStore | None = None, documents: bytes = WORKFLOW) -> None:
        self.store, self.wire = store or SlowStore(), Wire()
        self._documents = documents
        bus, now = self.wire, lambda: 0
        self.resources = ResourceBook(self.store, "main", now)
        self.repository = Repository(self.store)
        self.publisher = Publisher(bus, "main", KeptAnswers(self.store, "main"), now)  # type: ignore[arg-type]
        self.publisher.fetch = self.fetch
        self.announcer = Announcer(bus, "main")  # type: ignore[arg-type]
        self.accounts = AccountBook(self.repository, self.resources, "main", now)
        self.engine = Engine(
            self.repository,
            self.resources,
            self.publisher,
            self.announcer,
            self.accounts,
            now,
        )

    async def fetch(self, run_id: str) -> tuple[Run, Workflow] | None:
        stored = await self.repository.load("main", run_id)
        return (stored.run, await self.resources.followed(stored.run)) if stored is not None else None

    async def start(self) -> None:
        request = ApplyResourcesRequest(
            workspace="main", yaml=self._documents, file="w.yaml", actor="person:owner"
        )
        await self.resources.apply(request)
        self.store.asked.clear()
        self.engine.start()

    def run(self, run_id: str) -> "asyncio.Task[list[Answer]]":
        request = StartRunRequest(workspace="main", request_id=run_id, workflow="w", actor="person:owner")
        return asyncio.create_task(
            self.engine.submit([StartItem(run_id, request, b"", labeled({"n": 1}, OWNER))])
        )

    def takeover(self) -> Takeover:
        class Mailbox:
            async def taken(self, partitions: object) -> None:
                pass

        return Takeover(
            self.repository,
            self.resources,
            self.engine,
            self.publisher,
            self.announcer,
            Ownership(),
            Mailbox(),  # type: ignore[arg-type]
            "main",
        )

    def timers(self, now_ms: int) -> Timers:
        """At that time; there are no schedules, no lines and no limits."""

        class Quiet:
            async def look(self, due: object = None) -> bool:
                return False

        class Money:
            def look(self) -> None:
                pass

        async def limits() -> Limits:
            return Limits()

        quiet: Any = Quiet()
        money: Any = Money()
        return Timers(
            self.store,
            self.engine,
            self.publisher,
            Ownership(),
            quiet,
            quiet,
            money,
            limits,
            "main",
            lambda: now_ms,
        )

    def out(self) -> list[str]:
        return [task.run_id for task in self.wire.tasks]
