"""What a workspace may still spend: money is held before a task is handed out, and settled once its outcome is known.

A purse is a copy of the accounts that decisions change, and that is committed before they are: what is held is held
before anybody can spend it. Nothing here waits, writes or looks anything up.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from aios.run.v1.budget_pb2 import Account, Accounts, Hold
from aios_orchestrator.core.spike import KEPT_RUNS

MAX_HELD_BYTES: Final = 900 * 1024  # of all holds of a workspace: they are one document


@dataclass(frozen=True, slots=True)
class Cap:
    """What a budget allows in an account, micro-dollars, unless a person has set another cap for the account."""

    account: str
    budget: str
    micros: int


@dataclass(frozen=True, slots=True)
class Charge:
    """The accounts that a charge names, and the caps of those that have one."""

    accounts: tuple[str, ...]
    caps: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a step of a run: it holds money once."""

    run_id: str
    step: str
    group: int
    number: int


@dataclass(frozen=True, slots=True)
class Short:
    """An account that has not enough left, all in micro-dollars. `cap` is the one in force."""

    account: str
    budget: str
    cap: int
    held: int
    settled: int

    def for_good(self, micros: int) -> bool:
        """Whether so much would not fit either if nothing of what is held were spent."""
        return self.settled + micros > self.cap


class Purse:
    """The accounts of a workspace while decisions are made on them. `sums` has those accounts that are looked at."""

    def __init__(self, accounts: Accounts, sums: Mapping[str, Account], revision: int = 0) -> None:
        self.revision = revision
        """Of the accounts that it is a copy of."""
        self.serial = self._opened = accounts.serial
        self.sums = dict(sums)
        self.holds = {hold.serial: hold for hold in accounts.holds}
        self.changed: set[str] = set()
        """The accounts of which more is changed than what is held."""
        self.dirty = False
        self.costs: dict[str, list[int]] = {}
        """What the last runs of a workflow have cost, micro-dollars, of those workflows that are looked at."""
        self.finished: set[str] = set()
        """The workflows of which a run has ended."""
        self.charge = Charge(())
        """What the run that is decided on charges."""
        self._by_attempt = {_attempt(hold): hold.serial for hold in accounts.holds}
        self._bytes = 0
        self._held: dict[str, int] = {}
        for hold in accounts.holds:
            self._count(hold, 1)

    def held(self, account: str) -> int:
        """What is held of an account, micro-dollars."""
        return self._held.get(account, 0)

    def settled(self, account: str) -> int:
        """What was spent of an account, micro-dollars."""
        known = self.sums.get(account)
        return known.settled_micros if known is not None else 0

    def cap(self, cap: Cap) -> int:
        """The cap in force: what a person has set for the account, or what the budget says."""
        known = self.sums.get(cap.account)
        return max(known.cap_micros, cap.micros) if known is not None else cap.micros

    @property
    def full(self) -> bool:
        """Whether no further hold fits into the document."""
        return self._bytes >= MAX_HELD_BYTES

    def holds_for(self, attempt: Attempt) -> bool:
        """Whether an attempt has its hold already: its decision was made before, and perhaps not committed."""
        return attempt in self._by_attempt

    def short(self, micros: int) -> Short | None:
        """The account that has not so much left, if there is one; of several one that waiting does not help."""
        found = [
            Short(cap.account, cap.budget, self.cap(cap), self.held(cap.account), self.settled(cap.account))
            for cap in self.charge.caps
        ]
        lacking = [item for item in found if item.held + item.settled + micros > item.cap]
        return min(lacking, key=lambda item: not item.for_good(micros), default=None)

    def hold(self, attempt: Attempt, micros: int, now_ms: int) -> int:
        """Hold money for an attempt, for which there is enough; returns the serial number. Again is the same hold: it
        is only marked as asked for now, so that nobody lets go of it meanwhile."""
        serial = self._by_attempt.get(attempt)
        self.dirty = True
        if serial is not None:
            again = Hold()
            again.CopyFrom(self.holds[serial])
            again.time_ms = max(now_ms, again.time_ms + 1)
            self.holds[serial] = again
            return serial
        self.serial += 1
        hold = Hold(
            serial=self.serial,
            run_id=attempt.run_id,
            step=attempt.step,
            attempt_group=attempt.group,
            attempt=attempt.number,
            micros=micros,
            accounts=self.charge.accounts,
            time_ms=now_ms,
        )
        self.holds[self.serial] = hold
        self._by_attempt[attempt] = self.serial
        self._count(hold, 1)
        return self.serial

    def made_for(self, runs: Set[str]) -> list[Hold]:
        """The holds that are new in it, of some runs."""
        return [hold for hold in self.holds.values() if hold.serial > self._opened and hold.run_id in runs]

    def allow(self, micros: int, now_ms: int, cap: int = 0) -> None:
        """Set the caps of those accounts that have not so much left: to `cap`, or to just what is needed (0)."""
        while (lacking := self.short(micros)) is not None:
            needed = lacking.held + lacking.settled + micros
            if cap and cap < needed:
                return
            self._sum(lacking.account, now_ms).cap_micros = cap or needed

    def finish(self, workflow: str, cost: int) -> None:
        """A run of a workflow has succeeded, and cost so much."""
        self.costs[workflow] = [*self.costs[workflow], cost][-KEPT_RUNS:]
        self.finished.add(workflow)
        self.dirty = True

    def settle(self, serial: int, cost: int, now_ms: int) -> bool:
        """What was held was spent, or less of it. Settled again, or unknown, changes nothing: whether it did."""
        hold = self.drop(serial)
        if hold is None:
            return False
        for name in hold.accounts:
            known = self._sum(name, now_ms)
            known.settled_micros += cost
            known.charges += 1
        return True

    def drop(self, serial: int) -> Hold | None:
        """Let go of what is held."""
        hold = self.holds.pop(serial, None)
        if hold is not None:
            del self._by_attempt[_attempt(hold)]
            self._count(hold, -1)
            self.dirty = True
        return hold

    def accounts(self) -> Accounts:
        """What is stored of it, besides the sums."""
        return Accounts(serial=self.serial, holds=self.holds.values())

    def _sum(self, name: str, now_ms: int) -> Account:
        if name not in self.changed:
            self.changed.add(name)
            own = Account(name=name)
            if name in self.sums:
                own.CopyFrom(self.sums[name])
            self.sums[name] = own
        self.dirty = True
        known = self.sums[name]
        known.update_time_ms = max(now_ms, known.update_time_ms)
        return known

    def _count(self, hold: Hold, sign: int) -> None:
        self._bytes += sign * hold.ByteSize()
        for name in hold.accounts:
            self._held[name] = self._held.get(name, 0) + sign * hold.micros


def _attempt(hold: Hold) -> Attempt:
    return Attempt(hold.run_id, hold.step, hold.attempt_group, hold.attempt)


def accounts_of(holds: Iterable[Hold]) -> list[str]:
    """The accounts that holds count in, each once."""
    return list(dict.fromkeys(name for hold in holds for name in hold.accounts))
