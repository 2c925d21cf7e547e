"""What must hold of the replicas of the orchestrator: each partition has one owner at a time, and changes hands only
when that one let go of it or has fallen silent; and what is let go of in good order is handed out."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from typing import Final, NamedTuple

from aios.run.v1.leases_pb2 import Lease, Leases
from aios.run.v1.state_pb2 import RunHead
from aios.task.v1.task_pb2 import PerformTasks
from aios_core.ids import partition_of
from aios_orchestrator.delivery import TaskKey
from aios_orchestrator.leases import LEASE_MS
from aios_orchestrator.ownership import Ownership, lease_key
from aios_orchestrator.takeover import tasks_of
from aios_runtime.bus import subjects
from aios_runtime.store.port import Committed, Write
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record

KEY = lease_key(WORKSPACE)
_PERFORM: Final = subjects.perform(WORKSPACE, "", 0).partition("perform")[0] + "perform"


class _Task(NamedTuple):
    """A task that is handed out as committed state says: who committed that, and when."""

    dispatch: int
    by: object
    time: float


class LeaseWatch:
    """Looks at every committed change of the table. `owners` gives who runs now, paused or not, `by` who commits, and
    `bus` the incarnation of the bus that there is."""

    def __init__(
        self,
        record: Record,
        owners: Callable[[], Iterable[Ownership]],
        time: Callable[[], float],
        by: Callable[[], object],
        bus: Callable[[], str],
    ) -> None:
        self._record, self._owners, self._time, self._by, self._bus = record, owners, time, by, bus
        self._taken: dict[int, float] = {}  # partitions, when their owner took them
        self._sent: dict[str, set[tuple[TaskKey, int]]] = defaultdict(set)  # by incarnation of the bus
        self._open: dict[str, tuple[int, dict[TaskKey, _Task]]] = {}  # by run, with its partition
        self._table = Leases()
        self._revision = 0
        self._renewed: dict[str, float] = {}

    def heard(self, bus: str, subject: str, data: bytes) -> None:
        """The bus has taken a message."""
        if subject.startswith(_PERFORM):
            for task in PerformTasks.FromString(data).tasks:
                self._sent[bus].add((TaskKey(task.run_id, task.step), task.dispatch))

    def run(self, head: RunHead) -> None:
        """A run was committed."""
        _, before = self._open.get(head.run_id, (0, {}))
        tasks = {}
        for key, dispatch in tasks_of([head]):
            known = before.get(key)
            same = known is not None and known.dispatch == dispatch
            tasks[key] = known if known is not None and same else _Task(dispatch, self._by(), self._time())
        self._open[head.run_id] = partition_of(head.slot), tasks

    def committed(self, write: Write, result: Committed) -> None:
        """The table was changed."""
        table = Leases.FromString(write.head or b"")
        if result.revision != self._revision + 1:
            self._record.violate("a lease is fenced", f"revision {result.revision} after {self._revision}")
        self._revision = result.revision
        for name, replica in table.replicas.items():
            known = self._table.replicas.get(name)
            if known is None or known.beat != replica.beat:
                self._renewed[name] = self._time()
        before, self._table = self._table, table
        if table.leases != before.leases:
            self._moved(before, table)
        self.one_owner()

    def _moved(self, before: Leases, table: Leases) -> None:
        for partition, (old, new) in enumerate(zip(before.leases, table.leases, strict=False)):
            if old.owner == new.owner:
                continue
            if new.epoch < old.epoch or (new.owner and new.epoch == old.epoch):
                self._record.violate("a lease is fenced", f"{partition}: {old.epoch}, then {new.epoch}")
            if new.owner:
                self._taken[partition] = self._time()
            if not new.owner:
                self._record.count("a partition is let go of")
                self._let_go(partition, new)
            elif old.owner:
                self._record.count("a partition is taken over")
                if self._time() - self._renewed.get(old.owner, 0.0) < LEASE_MS / 1000:
                    self._record.violate("a lease lasts", f"{partition} of {old.owner}, by {new.owner}")
            else:
                self._record.count("a partition is taken")

    def _let_go(self, partition: int, lease: Lease) -> None:
        """Whoever takes it next looks for all that is handed out on the bus, where this is said to be in good order.
        What another process has committed meanwhile, which took itself for the owner, is looked for in time."""
        if not lease.released:
            self._record.count("a partition is let go of with something not handed out")
            return
        if lease.bus != self._bus():
            # Nothing is said of the bus that there is: whoever takes it next hands out all of it again.
            self._record.count("a partition is let go of on a bus that is gone")
            return
        for at, tasks in self._open.values():
            if at != partition:
                continue
            for key, task in tasks.items():
                stray = task.by != self._by() and task.time >= self._taken.get(partition, 0.0)
                if not stray and (key, task.dispatch) not in self._sent[lease.bus]:
                    self._record.violate(
                        "what is let go of in good order is handed out", f"{key.run_id} {key.step}"
                    )

    def one_owner(self) -> None:
        """No two replicas hold the same partition, whatever they have heard of each other."""
        owners = [owner for owner in self._owners() if owner.me]
        if len(owners) < 2:
            return
        held: Set[int] = frozenset()
        for owner in owners:
            own = owner.owned()
            if twice := held & own:
                self._record.violate("one owner at a time", str(min(twice)))
            held = held | own
