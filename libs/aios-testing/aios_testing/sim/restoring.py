"""A backup of the whole installation, and its restore after more has happened: every store is again as it was at one
moment, the bus is empty, and the ledgers are marked. What happened since is in the world alone.

Only some seeds have one, drawn from a stream of its own, so that the others go on as they did before.
"""

from collections.abc import Callable
from copy import copy
from random import Random
from typing import TYPE_CHECKING, Any, Final

from aios_sdk.host.mark import RESTORE_META, RestoreMark
from aios_testing.sim import crowd, sender
from aios_testing.sim.faults import HORIZON
from aios_testing.sim.loop import EPOCH_MS
from aios_testing.sim.parts import CONNECTORS

if TYPE_CHECKING:
    from aios_testing.sim.invariants import Invariants
    from aios_testing.sim.simulation import Simulation

SHARE: Final = (
    0.12  # of the seeds without a crowd and without a sender, of whom much would have to be forgotten
)
BACKUP: Final = (4.0, 40.0)  # seconds: when the backup is made
SINCE: Final = (2.0, 30.0)  # seconds from then until everything is stopped
STOPPED: Final = 3.0  # seconds until it is restored: longer than any call to the outside world is on its way


def drawn(seed: int) -> "Restoring | None":
    """For some seeds one."""
    rng = Random(f"restore {seed}")
    apart = seed % sender.EVERY and seed % crowd.EVERY != crowd.AT
    return Restoring(rng) if apart and rng.random() < SHARE else None


class Restoring:
    """One backup and its restore."""

    def __init__(self, rng: Random, horizon: float = HORIZON) -> None:
        share = horizon / HORIZON
        self._at = rng.uniform(*BACKUP) * share
        self._stop = self._at + rng.uniform(*SINCE) * share
        self._disks: dict[str, Any] = {}
        self._back: list[Callable[[], None]] = []
        self._happened: dict[str, int] = {}

    def begin(self, of: "Simulation") -> None:
        """Plan it."""
        loop = of.loop
        loop.after(self._at, loop.root, self._back_up, of)
        loop.after(self._stop, loop.root, of.stop)
        loop.after(self._stop + STOPPED, loop.root, self._restore, of)

    def _back_up(self, of: "Simulation") -> None:
        of.record.tell("a backup is made")
        self._disks = {name: disk.snapshot() for name, disk in of.disks.items()}
        self._back = [_remembered(of.invariants), of.person.remember()]
        self._happened = _counted(of)

    def _restore(self, of: "Simulation") -> None:
        of.record.tell("the backup is restored")
        of.record.count("fault restore")
        of.stop()
        of.broker.forget()
        for name, disk in of.disks.items():
            disk.become(self._disks[name])
        now_ms = EPOCH_MS + int(of.loop.time() * 1000)
        mark = RestoreMark("restore_1", EPOCH_MS + int(self._at * 1000), now_ms)
        for name in CONNECTORS:
            of.disks[name].put_meta(RESTORE_META, mark.encode())
        for back in self._back:
            back()
        now = _counted(of)
        since = frozenset(key for key, times in now.items() if times != self._happened.get(key, 0))
        of.invariants.effects.since_backup = of.person.unsure = since
        if since:
            of.record.count("a restored ledger knew less than had happened")
        of.start_again()


def _remembered(of: "Invariants") -> Callable[[], None]:
    """What puts back what the invariants have seen of the stores until now."""
    parts: list[tuple[Any, tuple[str, ...]]] = [
        (of, ("_positions", "_notes", "_open", "_waits")),
        (of.effects, ("_used",)),
        (of.lines, ("_admitted",)),
        (of.accounts, ("_holds", "_sums", "_charged", "_owed", "_budgets", "_waiting")),
        (of.leases, ("_table", "_revision", "_renewed", "_taken", "_open") if of.leases is not None else ()),
    ]
    held = [(part, name, copy(getattr(part, name))) for part, names in parts for name in names]
    runs = dict(of.runs)

    def back() -> None:
        for part, name, value in held:
            setattr(part, name, value)
        of.runs.clear()
        of.runs.update(runs)

    return back


def _counted(of: "Simulation") -> dict[str, int]:
    """How often everything has happened, by the key of the effect that it is of."""
    world, found = of.world, dict[str, int]()
    for counts in (world.effects, world.undos, world.redos):
        for key, times in counts.items():
            effect = "/".join(key.split("/")[:4])
            found[effect] = found.get(effect, 0) + times
    return found
