"""Planted defects of money: what is held, settled, and found again after a crash."""

from typing import Any, Final

from aios.run.v1.budget_pb2 import Hold
from aios.run.v1.state_pb2 import STEP_STATE_GATED, StepHead
from aios_orchestrator import accounts, deciding, funding
from aios_orchestrator.core import advance, draft, fold, money
from aios_orchestrator.model import Run, StepRun
from tests.sim.planting import replaced


def cap_not_checked() -> Any:
    """A step holds its money whatever the run's cap says."""
    original = advance.schedule

    def schedule(draft: draft.Draft, step: Any, guard: Any = None) -> None:
        cap, draft.run.cap = draft.run.cap, 1 << 40
        try:
            original(draft, step, guard)
        finally:
            draft.run.cap = cap

    return replaced((advance, "schedule", schedule))


def hold_released_twice() -> Any:
    """A hold is given back, and counted as given back again."""
    original = fold._settle

    def settled(run: Run, step: StepRun, cost: int) -> None:
        hold = step.hold
        original(run, step, cost)
        run.held -= hold

    return replaced((fold, "_settle", settled))


def checked_after_the_money_is_spent() -> Any:
    """What an account has left is asked only of what was settled, not of what is held and may be spent."""

    def short(self: money.Purse, micros: int) -> money.Short | None:
        for cap in self.charge.caps:
            if self.settled(cap.account) >= self.cap(cap):
                return money.Short(cap.account, cap.budget, self.cap(cap), 0, self.settled(cap.account))
        return None

    return replaced((money.Purse, "short", short))


def settled_twice() -> Any:
    """What was settled is held on, and so found and settled again."""
    original = money.Purse.settle

    def settle(self: money.Purse, serial: int, cost: int, now_ms: int) -> bool:
        hold = self.holds.get(serial)
        done = original(self, serial, cost, now_ms)
        if hold is not None:
            self.holds[serial] = hold
        return done

    return replaced((money.Purse, "settle", settle))


def held_in_memory_alone() -> Any:
    """What decisions hold is not committed before they are, so that a crash or another replica loses it."""

    async def hold(self: deciding.Decider) -> bool:
        return True

    return replaced((deciding.Decider, "_hold", hold))


def what_a_crash_leaves_stays_held() -> Any:
    """Nobody looks for what was spent and not settled, or is held for nothing."""

    async def sweep(self: accounts.AccountBook, old_ms: int) -> None:
        pass

    return replaced((accounts.AccountBook, "sweep", sweep))


def let_go_while_it_is_counted_on() -> Any:
    """Whoever lets go of a hold does not make sure that no decision counts on it."""

    async def counted_on(self: accounts.AccountBook, hold: Hold) -> bool:
        return False

    return replaced((accounts.AccountBook, "_counted_on", counted_on))


def a_raised_cap_wakes_nobody() -> Any:
    """A run that asked for money waits for a person's answer, whatever becomes of the cap."""

    async def turn(self: funding.Funding) -> None:
        pass

    return replaced((funding.Funding, "_turn", turn))


def what_others_let_go_of_is_not_looked_for() -> Any:
    """A run that waits for money that others hold is left to the looks of its own."""

    def asked(step: StepHead) -> bool:
        return step.state == STEP_STATE_GATED

    return replaced((funding, "_may_wait", asked))


DEFECTS: Final = {
    cap_not_checked: 29,
    hold_released_twice: 1,
    checked_after_the_money_is_spent: 1,
    settled_twice: 1,
    held_in_memory_alone: 1,
    what_a_crash_leaves_stays_held: 1,
    let_go_while_it_is_counted_on: 19,
    a_raised_cap_wakes_nobody: 18,
    what_others_let_go_of_is_not_looked_for: 177,
}
