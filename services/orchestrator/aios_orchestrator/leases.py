"""Which replica of the orchestrator decides for which partition: plain data and pure functions, no clock and no I/O.

A lease says who should decide, so that one replica keeps a run in memory and counts its tasks. It is not what keeps two
from changing a run at once: that is the revision check of the store, for an owner that was paused and does not know
yet that it is none any more.
"""

from collections.abc import Callable, Mapping, Set
from typing import Final

from aios.run.v1.leases_pb2 import Lease, Leases
from aios_core.ids import PARTITIONS

LEASE_MS: Final = 3_000  # without a renewal, until others take a replica for dead
BEAT_MS: Final = 500  # between two renewals


class Sightings:
    """When each replica was last seen to renew its place, by the clock of the one who looks."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[str, int], int]] = {}

    def alive(self, table: Leases, now: int) -> frozenset[str]:
        """Look at the table; returns the replicas whose beat is new, or was for less than a lease."""
        seen = {}
        for name, replica in table.replicas.items():
            beat = (replica.instance, replica.beat)
            known = self._seen.get(name)
            seen[name] = known if known is not None and known[0] == beat else (beat, now)
        self._seen = seen
        return frozenset(name for name, (_, since) in seen.items() if now - since < LEASE_MS)


def renewed(
    table: Leases,
    me: str,
    instance: str,
    alive: Set[str],
    beat: int = 0,
    behind: Callable[[], Set[int]] = frozenset,
    bus: str = "",
) -> Leases:
    """The table after one replica has renewed its place: it drops the dead ones, lets go of what it has too much of,
    and takes what is free as far as its share goes. `beat` is the last one of this process: none comes again, even
    where others have dropped it meanwhile, or who saw it before would take it for dead. `bus` and what `behind` gives:
    see `left`."""
    after = _copy(table)
    for name in set(after.replicas) - alive - {me}:
        del after.replicas[name]
    after.replicas[me].beat = max(after.replicas[me].beat, beat) + 1
    after.replicas[me].instance = instance
    mine = [(at, lease) for at, lease in enumerate(after.leases) if lease.owner == me]
    share = shares(after.replicas)[me]
    if given := mine[share:]:
        late = behind()
        for at, lease in given:
            _let_go(lease, at not in late, bus)
    missing = share - len(mine)
    for lease in after.leases:
        if missing > 0 and lease.owner not in after.replicas:
            if lease.owner:
                _let_go(lease, False)
            lease.owner, lease.epoch = me, lease.epoch + 1
            missing -= 1
    return after


def left(table: Leases, me: str, behind: Set[int] = frozenset(), bus: str = "") -> Leases:
    """The table after a replica has gone of its own will. `behind` are partitions in which not all that it has
    committed is on the bus, of this incarnation: whoever takes them hands out all of it again, as after a death."""
    after = _copy(table)
    after.replicas.pop(me, None)
    for at, lease in enumerate(after.leases):
        if lease.owner == me:
            _let_go(lease, at not in behind, bus)
    return after


def at_work(lease: Lease, bus: str) -> bool:
    """Whether what the last owner had handed out is on the bus that there is, or with who works on it."""
    return lease.released and lease.bus == bus


def _let_go(lease: Lease, in_order: bool, bus: str = "") -> None:
    lease.owner, lease.released, lease.bus = "", in_order, bus if in_order else ""


def shares(replicas: Mapping[str, object]) -> dict[str, int]:
    """How many partitions each replica should have: as equal as can be, and all of them together."""
    each, more = divmod(PARTITIONS, len(replicas))
    return {name: each + (at < more) for at, name in enumerate(sorted(replicas))}


def owned(table: Leases, me: str) -> dict[int, int]:
    """The partitions of a replica, with the epoch of each."""
    return {partition: lease.epoch for partition, lease in enumerate(table.leases) if lease.owner == me}


def _copy(table: Leases) -> Leases:
    after = Leases()
    after.CopyFrom(table)
    after.leases.extend(Lease() for _ in range(PARTITIONS - len(after.leases)))
    return after
