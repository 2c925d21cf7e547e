"""What must hold of the replicas of the orchestrator: each partition has one owner at a time, and changes hands only
when that one let go of it or has fallen silent."""

from collections.abc import Callable, Iterable

from aios.run.v1.leases_pb2 import Leases
from aios_core.ids import PARTITIONS
from aios_orchestrator.leases import LEASE_MS
from aios_orchestrator.ownership import Ownership, lease_key
from aios_runtime.store.port import Committed, Write
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record

KEY = lease_key(WORKSPACE)


class LeaseWatch:
    """Looks at every committed change of the table. `owners` gives who runs now, paused or not."""

    def __init__(
        self, record: Record, owners: Callable[[], Iterable[Ownership]], time: Callable[[], float]
    ) -> None:
        self._record, self._owners, self._time = record, owners, time
        self._table = Leases()
        self._revision = 0
        self._renewed: dict[str, float] = {}

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
            if not new.owner:
                self._record.count("a partition is let go of")
            elif old.owner:
                self._record.count("a partition is taken over")
                if self._time() - self._renewed.get(old.owner, 0.0) < LEASE_MS / 1000:
                    self._record.violate("a lease lasts", f"{partition} of {old.owner}, by {new.owner}")
            else:
                self._record.count("a partition is taken")

    def one_owner(self) -> None:
        """No two replicas hold the same partition, whatever they have heard of each other."""
        owners = [owner for owner in self._owners() if owner.me]
        if len(owners) < 2:
            return
        held: set[int] = set()
        for owner in owners:
            own = {partition for partition in range(PARTITIONS) if owner.owns(partition)}
            if twice := held & own:
                self._record.violate("one owner at a time", str(min(twice)))
            held |= own
