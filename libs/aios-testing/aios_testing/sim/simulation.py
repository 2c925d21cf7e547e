"""One simulation: from a seed to a record of what happened."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from aios.run.v1.state_pb2 import Approval
from aios_core.errors import AiosError
from aios_orchestrator.module import Orchestrator
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.publisher import Publisher
from aios_runtime.bus.port import Bus
from aios_runtime.service.connected import nothing, stop_in_order
from aios_runtime.service.group import STOP_SECONDS
from aios_runtime.service.port import Context
from aios_runtime.store.port import Store
from aios_testing.sim import faults, habits
from aios_testing.sim.broker import CALM, Broker
from aios_testing.sim.bus import SimBus
from aios_testing.sim.faults import Fault, Plan
from aios_testing.sim.invariants import Invariants
from aios_testing.sim.leases import LeaseWatch
from aios_testing.sim.loop import EPOCH_MS, Node, SimLoop
from aios_testing.sim.measuring import timed
from aios_testing.sim.parts import (
    CONNECTORS,
    DISKS,
    LEAVING,
    NOTE_SECONDS,
    NOWHERE,
    PARTS,
    REPLICAS,
    SHARING,
    WORKSPACE,
    Outside,
    compiled_once,
    copy_documents,
)
from aios_testing.sim.person import Person
from aios_testing.sim.places import Places
from aios_testing.sim.quiet import quiet
from aios_testing.sim.record import Record
from aios_testing.sim.sender import Sender
from aios_testing.sim.store import Disk, SimStore
from aios_testing.sim.world import World

REBOOT: Final = (0.3, 2.0, 10.0, 40.0)  # seconds until a process that died starts again
PATIENCE: Final = 3600.0  # seconds in which everything must finish once the faults have stopped
LOOK: Final = 1.0  # seconds between two looks whether it has
SETTLED: Final = 10.0  # seconds after the last fault until it is looked whether what is free is taken


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed."""

    seed: int
    plan: Plan
    violations: tuple[str, ...]
    counts: dict[str, int]
    transitions: int
    steps: int
    seconds: float
    trace_sha256: str
    lines: tuple[str, ...] = ()


def drawn(seed: int, *, brief: bool = False) -> Plan:
    """What goes wrong under a seed."""
    horizon = faults.BRIEF if brief else faults.HORIZON
    plan = faults.draw(Random(f"plan {seed}"), tuple(PARTS), DISKS, REPLICAS, horizon)
    plan = faults.with_cuts(plan, Random(f"cut {seed}"), SHARING)
    places = [place for place in LEAVING if plan.replicas or place not in REPLICAS]
    return faults.with_leaves(plan, Random(f"leave {seed}"), places)


class _Part:
    """A process through all its lives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        self.bus: SimBus | None = None
        self.store: SimStore | None = None
        self.service: object = None
        self.skew_ms = 0
        self.partitioned = False
        self.lives = 0


class Simulation:
    """All of AIOS under one seed."""

    def __init__(self, seed: int, plan: Plan | None = None, *, keep: bool = False) -> None:
        self.seed = seed
        self.loop = SimLoop(Random(f"order {seed}"))  # type: ignore[abstract]  # what has to do with I/O is not there
        self.record = Record(self.loop.time, keep=keep)
        self.record.broken = self._broken
        self.plan = plan if plan is not None else drawn(seed)
        self._rng = Random(f"life {seed}")
        self.broker = Broker(self.loop, Random(f"net {seed}"), self.record, CONNECTORS)
        self.broker.window, self.broker.keeps_ids = self.plan.window, self.plan.keeps_ids
        self.world = World(self.loop, Random(f"world {seed}"), self.record, self.broker.draw)
        self.disks = {name: Disk(name, self._wall) for name in DISKS}
        copy_documents(self.disks["orchestrator"])
        self.invariants = Invariants(self.record, self.disks, self.world, self.broker)
        if self.plan.replicas:
            disk = self.disks["orchestrator"]
            self.invariants.leases = LeaseWatch(
                self.record,
                self._owners,
                self.loop.time,
                lambda: disk.by,
                lambda: str(self.broker.incarnation),
            )
        self.places = Places(self.record, self._publishers, self.loop.time)
        self.parts = {name: _Part(name) for name in PARTS if self.plan.replicas or name not in REPLICAS}
        self._minted = 0
        self.down = False
        self._look = self.plan.horizon  # when it is looked next whether everything has finished
        self._glance = self.plan.horizon + SETTLED  # when it is looked next at what is free
        self._dead: list[Node] = []
        self.outside = Node("person")
        self.person = Person(
            SimBus(self.broker, self.outside), Random(f"person {seed}"), self.world, self.record, self.plan
        )
        self.person._effect_of = self._effect_of
        self.sender = Sender(Random(f"sender {seed}"), self.person)
        habits.give(self.person, seed, self.record, brief=self.plan.brief)
        self.loop.crashed = self._crashed
        self.loop.defect = self._defect

    def run(self) -> Result:
        """Everything, to its end."""
        loop = self.loop
        self.broker.rates = self.plan.rates
        with quiet(self.record, self._nodes), compiled_once(), timed(loop):
            for part in self.parts.values():
                self._boot(part)
            for fault in self.plan.events:
                loop.after(fault.at, loop.root, self._strike, fault)
            loop.after(self.plan.horizon, loop.root, self._heal)
            for work in self.person.begin():
                loop.spawn(self.outside, work)  # type: ignore[arg-type]
            habits.begin(self)
            finished = loop.run(lambda: self._finished(), self.plan.horizon + PATIENCE + self.plan.set_back)
            if not self.record.violations:
                if not finished:
                    self.record.violate("everything finishes", self._unfinished())
                else:
                    self.invariants.at_the_end(self.person)
                    self.invariants.all_heard(self.sender)
            return self._result()

    def _orchestrators(self) -> Iterator[tuple[str, Any]]:
        for part in self.parts.values():
            if isinstance(part.service, Orchestrator) and part.node is not None and part.node.alive:
                yield part.name, part.service

    def _owners(self) -> Iterator[Ownership]:
        return (service._ownership for _, service in self._orchestrators() if service._ownership is not None)

    def _publishers(self) -> Iterator[tuple[str, Publisher]]:
        found = ((name, service._publisher) for name, service in self._orchestrators())
        return ((name, publisher) for name, publisher in found if publisher is not None)

    def _result(self) -> Result:
        return Result(
            self.seed,
            self.plan,
            tuple(self.record.violations),
            dict(self.record.counts),
            self.record.transitions,
            self.loop.steps,
            self.loop.time(),
            self.record.trace_sha256,
            tuple(self.record.lines),
        )

    def _wall(self) -> int:
        return EPOCH_MS + int(self.loop.time() * 1000)

    def _boot(self, part: _Part) -> None:
        if self.down or (part.node is not None and part.node.alive):
            return
        part.lives += 1
        part.service = None
        node = part.node = Node(part.name)
        node.skew_ms = part.skew_ms
        bus = part.bus = SimBus(self.broker, node)
        bus.partitioned = part.partitioned
        self.record.tell(f"{part.name} starts")
        self.loop.spawn(node, self._start(part, node, bus))

    async def _start(self, part: _Part, node: Node, bus: SimBus) -> None:
        def now_ms() -> int:
            return self._wall() + node.skew_ms

        async def open_store(name: str) -> Store:
            store = part.store = SimStore(
                self.disks[name], node, self.loop, self.broker.rng, self.record, self.broker.draw
            )
            store.shared = self.plan.replicas and f"{name}-2" in REPLICAS
            opened: Any = store
            return opened  # type: ignore[no-any-return]

        def mint(prefix: str) -> str:
            self._minted += 1
            return f"{prefix}_{self._minted}"

        port: Any = bus
        typed: Bus = port
        context = Context(
            part.name, f"{part.name}.{part.lives}", WORKSPACE, NOWHERE, {}, typed, open_store, now_ms, mint
        )
        note_seconds = NOTE_SECONDS * self.plan.horizon / faults.HORIZON
        outside = Outside(self.world, self.broker.draw, asyncio.sleep, now_ms, note_seconds)
        try:
            part.service = await PARTS[part.name].start(context, outside)
        except AiosError as error:
            self.record.tell(f"{part.name} does not start: {error.code}")
            self._kill(part, node)
        except Exception as error:
            self._defect(node, "it does not start", error)

    def _leave(self, part: _Part) -> None:
        """A process is told to stop, as its launcher does it."""
        node, service, bus = part.node, part.service, part.bus
        if node is None or not node.alive or service is None or node.leaving:
            return
        assert bus is not None
        node.leaving = True
        port: Any = bus

        async def leave() -> None:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await stop_in_order(port, getattr(service, "stop", nothing))
                    self.record.count("left in good order")
            except TimeoutError:
                self.record.count("left before it had stopped")
            except Exception as error:
                self._defect(node, "it does not stop", error)
            self.loop.after(0.0, self.loop.root, self._kill, part, node)

        self.loop.spawn(node, leave())

    def stop(self) -> None:
        """Stop all processes; they start when `start_again` says so."""
        self.down = True
        for part in self.parts.values():
            if part.node is not None and part.node.alive:
                self._end(part, part.node)

    def start_again(self) -> None:
        """Start all processes."""
        self.down = False
        for part in self.parts.values():
            self._boot(part)

    def _crashed(self, node: Node) -> None:
        part = self.parts[node.name]
        if part.node is node:
            self.record.count("crash")
            self._kill(part, node)

    def _kill(self, part: _Part, node: Node) -> None:
        if part.node is not node or not node.alive:
            return
        self._end(part, node)
        after = self._rng.choice(REBOOT)
        self.loop.after(after, self.loop.root, self._boot, part)

    def _end(self, part: _Part, node: Node) -> None:
        self.record.tell(f"{part.name} dies")
        self.loop.kill(node)
        assert part.bus is not None
        self.broker.detach(part.bus)
        self._dead.append(node)

    def _strike(self, fault: Fault) -> None:
        self.record.tell(str(fault))
        self.record.count(f"fault {fault.kind}")
        loop, root = self.loop, self.loop.root
        part = self.parts.get(fault.place)
        node = part.node if part is not None else None
        if fault.kind == "crash" and node is not None:
            node.crash_in = int(fault.amount)
        elif fault.kind == "pause" and node is not None:
            loop.pause(node)
            loop.after(fault.amount, root, loop.resume, node)
        elif fault.kind == "partition" and part is not None:
            self._cut(part, True)
            loop.after(fault.amount, root, self._cut, part, False)
        elif fault.kind in ("wipe", "purge", "bus") and not self.broker.away:
            self.broker.leave(wipe=fault.kind == "wipe", purge=fault.kind == "purge")
            loop.after(fault.amount, root, self.broker.come_back)
        elif fault.kind == "clock" and part is not None and node is not None:
            part.skew_ms = node.skew_ms = part.skew_ms + int(fault.amount)
        elif fault.kind == "disk_full":
            self.disks[fault.place].full = True
            loop.after(fault.amount, root, setattr, self.disks[fault.place], "full", False)
        elif fault.kind in faults.CUTS and part is not None and part.store is not None:
            part.store.leave(silent=fault.kind == "store_silent")
            loop.after(fault.amount, root, part.store.come_back)
        elif fault.kind == "leave" and part is not None:
            self._leave(part)
        elif fault.kind == "for_ever":
            self.broker.for_ever = int(fault.amount)

    def _cut(self, part: _Part, cut: bool) -> None:
        part.partitioned = cut
        if part.bus is not None and part.bus.partitioned != cut:
            part.bus.partitioned = cut
            part.bus.cut()
            if not cut:
                part.bus.link()
                for queue in self.broker.queues:
                    self.broker.pump(queue)

    def _heal(self) -> None:
        """The faults stop: from here on everything must finish."""
        self.record.tell("the faults stop")
        self.broker.rates = CALM
        self.broker.for_ever = 0
        if self.broker.away:
            self.broker.come_back()
        for disk in self.disks.values():
            disk.full = False
        for part in self.parts.values():
            self._cut(part, False)
            part.skew_ms = 0
            if part.store is not None:
                part.store.come_back()
            node = part.node
            if node is None or not node.alive:
                continue
            node.skew_ms, node.crash_in = 0, 0
            if node.paused:
                self.loop.resume(node)
        self._replace_broken()

    def _replace_broken(self) -> None:
        """A store that does not know what it holds says so, and who runs it starts its service again."""
        for part in self.parts.values():
            if part.store is not None and part.store.broken and part.node is not None and part.node.alive:
                self.record.count("started again for its store")
                self._kill(part, part.node)
        if self._reasons():
            self.loop.after(10.0, self.loop.root, self._replace_broken)

    def _nodes(self) -> list[Node]:
        living = [part.node for part in self.parts.values() if part.node is not None]
        return [*self._dead, self.loop.root, self.outside, *living]

    def _broken(self) -> None:
        self.loop.stopped = True

    def _finished(self) -> bool:
        if self.loop.time() >= self._glance:
            self._glance = self.loop.time() + LOOK
            self.places.look()
            deciders = [publisher for _, publisher in self._publishers()]
            self.invariants.accounts.look(self.loop.time(), self._wall(), deciders)
        if self.loop.time() < self._look or self.person.busy:
            return False
        self._look = self.loop.time() + LOOK
        return not self._reasons()

    def _reasons(self) -> list[str]:
        reasons = [f"run {run}" for run in self.invariants.unfinished()]
        if self.person.busy:
            reasons.append("the person waits")
        if not reasons:
            for queue in self.broker.queues:
                if queue.waiting or queue.out:
                    reasons.append(f"{queue.entry.name}: {len(queue.waiting)} wait, {len(queue.out)} are out")
            if not self.invariants.all_told():
                reasons.append("memory has not told all events")
            if self.sender.scheduled and not self.invariants.all_ticked():
                reasons.append("the schedule has not come to its end")
            if not self.invariants.all_noted():
                reasons.append("the outbox is not empty")
            reasons += self.invariants.accounts.left() or self.places.left()
        return reasons

    def _unfinished(self) -> str:
        return "; ".join(self._reasons())[:400]

    def _effect_of(self, approval: Approval) -> str | None:
        """What a person is asked about; None when the run is gone, since a backup from before it was restored."""
        run = self.invariants.runs.get(f"{WORKSPACE}/run/{approval.run_id}")
        return habits.effect_of(run, approval) if run is not None else None

    def _defect(self, node: Node, what: str, error: BaseException | None) -> None:
        if node.alive:
            self.record.violate("no defect", f"{node.name}: {what}: {type(error).__name__} {error}"[:400])
