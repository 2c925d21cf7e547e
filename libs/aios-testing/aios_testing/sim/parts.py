"""The processes of the simulated installation, put together as the services' own modules do it."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.task.v1.task_pb2 import Outcome, Task
from aios_agent_runner.contract import Agent, Spec
from aios_agent_runner.runner import Runner
from aios_core.errors import RetryableError
from aios_memory.artifacts import Artifacts
from aios_memory.episodes import Episodes
from aios_memory.steps import Steps
from aios_memory.store import Records
from aios_memory.writing import Writing
from aios_orchestrator import module, resources
from aios_orchestrator.budget import Budget, compile_budget
from aios_orchestrator.document import parse_documents
from aios_runtime.bus import subjects
from aios_runtime.bus.subscribers import EventSubscriber
from aios_runtime.lanes import LaneWorker, crash_points
from aios_runtime.outbox import OutboxRelay, committed
from aios_runtime.service.port import Context
from aios_runtime.store.port import Committed, OutboxMessage, Write
from aios_sdk.host.flight import Rules
from aios_sdk.host.lane import ConnectorLane
from aios_testing.sim.loop import EPOCH_MS
from aios_testing.sim.planner import planner
from aios_testing.sim.providers import connector
from aios_testing.sim.store import Disk
from aios_testing.sim.workload import DOCUMENTS
from aios_testing.sim.world import World
from aios_testing.store_memory import MemoryStore

WORKSPACE: Final = "main"
SLOTS: Final = 8  # tasks that a worker takes at once
NOTED: Final = subjects.run_events("main", 0).replace(".run.", ".sim.")
NOTES: Final = 12  # that the clerk writes, two messages each
NOTE_SECONDS: Final = 4.0  # between two of them; less where things go wrong for a shorter time
CONNECTORS: Final = ("mail", "pay", "book")
SLOW_WORK: Final = 14.0  # seconds; the agent steps' limit is 10

crash_points("memory")


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of process: the disk that it stores on ('' for none), and how it starts."""

    name: str
    disk: str
    start: Callable[[Context, "Outside"], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Outside:
    """What a part meets besides its context."""

    world: World
    draw: Callable[[str], bool]
    sleep: Callable[[float], Awaitable[None]]
    now_ms: Callable[[], int]
    note_seconds: float


class _Book(resources.ResourceBook):
    """Documents are compiled once a process of the simulator: their versions are hashes of what they say."""

    _shared: OrderedDict[tuple[str, str, str], Any] = OrderedDict()  # noqa: RUF012
    _known: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, store: Any, workspace: str, now_ms: Callable[[], int]) -> None:
        super().__init__(store, workspace, now_ms)
        self._workflows = self._shared
        self._intents = self._known

    async def budgets(self, workspace: str) -> tuple[Budget, ...]:
        """These change while it runs, so that each process has those of its own disk."""
        known = self._budgets.get(workspace)
        if known is None:
            found = await self.listed(workspace, "Budget")
            known = self._budgets[workspace] = tuple(_budget(item.name, item.document) for item in found)
        return known


@cache
def _budget(name: str, document: bytes) -> Budget:
    return compile_budget(parse_documents(document, name)[0])


@contextmanager
def compiled_once() -> Iterator[None]:
    """Within it orchestrators share what they compile."""
    name = "ResourceBook"  # what the module has imported
    before = getattr(module, name)
    setattr(module, name, _Book)
    try:
        yield
    finally:
        setattr(module, name, before)


class _Orchestrator(module.Orchestrator):
    async def _apply(self, resources: resources.ResourceBook) -> None:
        """The disk has them from the start; to parse them again at each of many starts would only take time."""


async def apply_documents(store: Any) -> None:
    """Put the workflows and intents of the workload into an orchestrator's store."""
    book = resources.ResourceBook(store, WORKSPACE, lambda: 0)
    for name, text in DOCUMENTS.items():
        request = ApplyResourcesRequest(
            workspace=WORKSPACE, yaml=text.encode(), file=name, actor="person:owner"
        )
        await book.apply(request)
    await _Book(store, WORKSPACE, lambda: 0).intents(WORKSPACE)


@cache
def _template() -> Disk:
    """An orchestrator's disk with the workload's documents on it."""
    disk = Disk("template", lambda: EPOCH_MS)
    coroutine = apply_documents(MemoryStore(lambda: EPOCH_MS, disk))
    try:
        coroutine.send(None)  # such a store answers at once
    except StopIteration:
        return disk
    raise RuntimeError("the documents could not be applied at once")


def copy_documents(disk: Disk) -> None:
    """Put the documents on a new disk."""
    disk.copy_from(_template())


async def _orchestrator(context: Context, outside: Outside) -> object:
    service = _Orchestrator(context)
    await service.start()
    return service


def _connector(name: str) -> Callable[[Context, Outside], Awaitable[object]]:
    async def start(context: Context, outside: Outside) -> object:
        store = await context.open_store(name)
        rules = Rules(needs_approval=name != "book")
        lane = ConnectorLane(context, connector(name, outside.world), store, slots=SLOTS, rules=rules)
        await lane.start()
        return lane

    return start


async def _clerk(context: Context, outside: Outside) -> object:
    """A service that says what it commits through the outbox, a number at a time."""
    store = await context.open_store("clerk")
    relay = OutboxRelay(store, context.bus)
    key = f"{context.workspace}/note/all"
    while await store.pending(1):
        try:
            sent = await relay.drain()
        except RetryableError:
            sent = 0
        if not sent:  # no bus, or the relay is at it by itself
            await outside.sleep(outside.note_seconds)
    while True:
        await outside.sleep(outside.note_seconds)
        stored = await store.read(key)
        number = stored.revision if stored is not None else 0
        if number >= NOTES:
            return relay
        notes = [OutboxMessage(NOTED, b"", f"note-{2 * number + at}") for at in range(2)]
        write = Write(key, number, b"notes", outbox=notes)
        try:
            (result,) = await store.commit([write])
        except RetryableError:
            continue
        if isinstance(result, Committed):
            await relay.publish(committed(write, result))


@cache
def _agents() -> dict[str, Agent]:
    return {name: Agent(name, "1", Spec(runtime="trusted", entry=name)) for name in module_trusted()}


async def _agent_runner(context: Context, outside: Outside) -> object:
    unused: Any = None  # sandboxes, models and artifacts: an agent that only echoes needs none of them
    runner = Runner(
        agents=_agents(),
        trusted=module_trusted(),
        pool=unused,
        model=unused,
        artifacts=unused,
        bus=context.bus,
    )

    async def perform(task: Task) -> Outcome:
        if outside.draw("work_fails"):
            raise RetryableError("MODEL_FAILED", "The model can't answer now.")
        if outside.draw("work_slow"):
            await outside.sleep(SLOW_WORK)
        outcome = await runner.perform(task)
        outcome.cost_micros = task.hold_micros
        return outcome

    worker = LaneWorker(
        context.bus,
        service="agent-runner",
        workspace=context.workspace,
        lane=subjects.LANE_AGENT,
        perform=perform,
        perform_now=runner.perform_now if context.service == "agent-2" else None,
        slots=SLOTS,
        batch=SLOTS,
        worker=context.instance,
        now_ms=context.now_ms,
        version_of=runner.version_of,
    )
    await worker.start()
    return worker


def module_trusted() -> dict[str, Callable[[Any], Any]]:
    """The trusted agents."""
    return {"echo": lambda request: request, "planner": planner}


async def _memory(context: Context, outside: Outside) -> object:
    store = await context.open_store("memory")
    no_blobs: Any = None  # nothing in the workload points to an artifact
    records = Records(store, context.workspace)
    steps = Steps(
        context.workspace,
        records,
        Writing(store, records),
        Artifacts(store, no_blobs, context.workspace, context.now_ms),
        context.now_ms,
    )
    worker = LaneWorker(
        context.bus,
        service="memory",
        workspace=context.workspace,
        lane=subjects.LANE_MEMORY,
        perform=steps.perform,
        slots=SLOTS,
        batch=SLOTS,
        worker=context.instance,
    )
    await worker.start()
    episodes = Episodes(store, context.workspace)
    await EventSubscriber(
        context.bus,
        context.workspace,
        consumer=subjects.consumer("memory", "run_events"),
        load_position=episodes.load_position,
        handle=episodes.append,
    ).start()
    return worker


PARTS: Final = {
    part.name: part
    for part in (
        Part("orchestrator", "orchestrator", _orchestrator),
        Part("orchestrator-2", "orchestrator", _orchestrator),
        Part("agent-1", "", _agent_runner),
        Part("agent-2", "", _agent_runner),
        Part("memory", "memory", _memory),
        Part("clerk", "clerk", _clerk),
        *(Part(f"{name}-1", name, _connector(name)) for name in CONNECTORS),
        *(Part(f"{name}-2", name, _connector(name)) for name in CONNECTORS),
    )
}
REPLICAS: Final = frozenset(f"{name}-2" for name in ("orchestrator", *CONNECTORS))
SHARING: Final = ("orchestrator", "orchestrator-2") * 3 + tuple(
    f"{name}-{n}" for name in CONNECTORS for n in (1, 2)
)
"""The processes that share a store with another one; those that keep leases in it more often."""
LEAVING: Final = ("orchestrator", "orchestrator-2") * 5 + tuple(PARTS)
"""The processes that are told to stop; those that keep leases more often."""
DISKS: Final = tuple(dict.fromkeys(part.disk for part in PARTS.values() if part.disk))
NOWHERE: Final = Path("simulated")
