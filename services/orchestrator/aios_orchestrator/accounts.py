"""The accounts of a workspace in the store, and what puts them right after a crash.

Held → run committed → handed out → outcome committed → settled. A hold is committed before the run that counts on
it; so what dies in between leaves money held that nobody spends, never money spent that nobody holds. What a settled
attempt has cost stands in the run, under the serial number of its hold, in the same commit as its outcome: a hold whose
settling was lost is settled by it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aios.run.v1.budget_pb2 import Account, Accounts, AccountView, CostHistory, Hold
from aios.run.v1.state_pb2 import RunHead
from aios_core.errors import AiosError
from aios_orchestrator.budget import charge_of
from aios_orchestrator.core.money import Purse, accounts_of
from aios_orchestrator.model import Run
from aios_orchestrator.repository import Repository, keep_from, run_key, stored_run
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.workflow import Workflow
from aios_runtime.store.port import Committed, Store, Write

SWEEP_S: Final = 15.0  # between two looks for holds that nobody counts on
OLD_MS: Final = 30_000  # a hold that is younger may be of a decision that is under way
TRIES: Final = 10  # of a change that others make at the same time
MAX_SUMS: Final = 1_000  # accounts in memory

log = logging.getLogger(__name__)


def accounts_key(workspace: str) -> str:
    """The aggregate of a workspace's accounts."""
    return f"{workspace}/accounts/all"


def receipt(serial: int) -> str:
    """The record of a run that says what the attempt with that hold has cost, micro-dollars."""
    return f"charge/{serial}"


class AccountBook:
    """Reads and writes the accounts of one workspace. Of several writers the store's revision decides."""

    def __init__(
        self, repository: Repository, resources: ResourceBook, workspace: str, now_ms: Callable[[], int]
    ) -> None:
        self._repository = repository
        self._store: Store = repository.store
        self._resources = resources
        self._workspace = workspace
        self._now_ms = now_ms
        self._key = accounts_key(workspace)
        self._known: Accounts | None = None
        self._revision = 0
        self._sums: dict[str, Account] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self.owns: Callable[[str], bool] = lambda run_id: True

    async def start(self) -> None:
        """Begin to look for holds that nobody counts on; where no other process writes, and before anything is
        decided, all that a crash has left are such."""
        if not self._store.shared:
            await self._try(0)
        self._sweeping = asyncio.create_task(self._sweep(), name="orchestrator-accounts")

    async def stop(self) -> None:
        """Stop looking."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def open(self) -> Purse:
        """The accounts as they are stored now, to be changed."""
        await self._resources.refresh()
        if self._known is None or self._store.shared:
            stored = await self._store.read(self._key)
            revision = stored.revision if stored is not None else 0
            if self._known is None or revision != self._revision:
                self._known = Accounts.FromString(stored.head) if stored is not None else Accounts()
                self._revision, self._sums = revision, {}
        if len(self._sums) > MAX_SUMS:
            self._sums = {}
        return Purse(self._known, self._sums, self._revision)

    async def charge(self, purse: Purse, run: Run | RunHead, workflow: Workflow, now_ms: int) -> None:
        """Have the purse ready for a decision on a run."""
        budgets = await self._resources.budgets(self._workspace)
        purse.charge = charge_of(run.workflow, run.customer, budgets, now_ms)
        await self._look(purse, purse.charge.accounts)
        if workflow.spike is not None:
            await self._look_back(purse, run.workflow)

    async def _look(self, purse: Purse, names: Iterable[str]) -> None:
        for name in names:
            if name not in purse.sums:
                data = await self._store.record(self._key, f"a/{name}")
                purse.sums[name] = Account.FromString(data) if data is not None else Account(name=name)
                if self._known is not None and self._revision == purse.revision:
                    self._sums[name] = purse.sums[name]

    async def _look_back(self, purse: Purse, workflow: str) -> None:
        if workflow not in purse.costs:
            data = await self._store.record(self._key, f"h/{workflow}")
            purse.costs[workflow] = list(CostHistory.FromString(data or b"").costs_micros)

    async def write(self, purse: Purse) -> bool:
        """Make a purse durable that was opened last; False when somebody else was quicker, and nothing is changed."""
        if not purse.dirty:
            return True
        accounts = purse.accounts()
        records = {f"a/{name}": purse.sums[name].SerializeToString() for name in sorted(purse.changed)}
        for workflow in sorted(purse.finished):
            history = CostHistory(costs_micros=purse.costs[workflow])
            records[f"h/{workflow}"] = history.SerializeToString()
        head = accounts.SerializeToString()
        self._known = None  # whether it stands is not known until the store says so
        (result,) = await self._store.commit([Write(self._key, purse.revision, head, records=dict(records))])
        if not isinstance(result, Committed):
            return False
        if result.revision > self._revision:
            self._known, self._revision, self._sums = accounts, result.revision, purse.sums
        return True

    async def listed(self, prefix: str, after: str, limit: int) -> list[AccountView]:
        """Accounts whose names begin so, those after a name, in the order of their names. What is only held, and never
        was settled, is among them."""
        purse = await self.open()
        under = f"a/{prefix}"
        data = await self._store.records(self._key, under, after=f"a/{after}" if after else "", limit=limit)
        sums = {name[2:]: Account.FromString(found) for name, found in data.items()}
        last = max(sums, default="") if len(sums) == limit else ""
        caps = await self._caps(purse, sums)
        for name in {*accounts_of(purse.holds.values()), *caps}:
            if name.startswith(prefix) and name > after and (not last or name < last):
                sums.setdefault(name, Account(name=name))
        return [_view(sums[name], purse, caps.get(name)) for name in sorted(sums)[:limit]]

    async def _caps(self, purse: Purse, sums: Iterable[str]) -> dict[str, int]:
        """What the documents allow, by account: of those accounts, of what is held, and of what is not begun yet."""
        budgets = {budget.name: budget for budget in await self._resources.budgets(self._workspace)}
        names = {*sums, *accounts_of(purse.holds.values())}
        caps = {
            name: budgets[part].cap
            for name in names
            if name.startswith("budget/") and (part := name.split("/", 2)[1]) in budgets
        }
        for budget in budgets.values():
            own = budget.account(budget.of, budget.of, self._now_ms())
            if own:
                caps[own] = budget.cap
        return caps

    async def settle(
        self,
        costs: Sequence[tuple[int, int]],
        finished: Sequence[tuple[str, int]] = (),
        lost: Sequence[Hold] = (),
    ) -> None:
        """Settle holds by their serial numbers, each with its cost; `finished` are workflows of which a run succeeded,
        with its cost. `lost` was held for decisions that others were quicker than, and is let go of, unless somebody
        has asked for the same hold since: it has another time then. What can't be written now is found again by the
        receipts of the runs, and by the look for what nobody counts on; what is usual is known without a run as
        well."""
        try:
            for _ in range(TRIES):
                purse = await self.open()
                await self._look(purse, accounts_of(_held(purse, costs)))
                for serial, cost in costs:
                    purse.settle(serial, cost, self._now_ms())
                for hold in lost:
                    if purse.holds.get(hold.serial) == hold:
                        purse.drop(hold.serial)
                for workflow, cost in finished:
                    await self._look_back(purse, workflow)
                    purse.finish(workflow, cost)
                if await self.write(purse):
                    return
        except AiosError as error:
            log.warning("what was spent is settled later: %s", error.message)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self._try(OLD_MS)

    async def _try(self, old_ms: int) -> None:
        try:
            await self.sweep(old_ms)
        except AiosError as error:
            log.warning("the look for money that nobody counts on is put off: %s", error.message)
        except Exception:
            log.exception("the look for money that nobody counts on failed")

    async def sweep(self, old_ms: int) -> None:
        """Settle what was spent and not settled, and let go of what is held for no run, of this replica's runs."""
        purse = await self.open()
        now = self._now_ms()
        old = [hold for hold in purse.holds.values() if hold.time_ms + old_ms <= now]
        for hold in filter(lambda hold: self.owns(hold.run_id), old):
            if not await self._counted_on(hold):
                cost = await self._store.record(run_key(self._workspace, hold.run_id), receipt(hold.serial))
                if cost is not None:
                    await self._look(purse, hold.accounts)
                    purse.settle(hold.serial, int(cost), now)
                elif await self._fenced(hold):
                    purse.drop(hold.serial)
        await self.write(purse)

    async def _counted_on(self, hold: Hold) -> bool:
        """Whether a step of the run is handed out with it; it may have another name by now."""
        stored = await stored_run(self._store, self._workspace, hold.run_id)
        head = RunHead.FromString(stored.head if stored is not None else b"")
        return any(step.charge == hold.serial for step in head.steps)

    async def _fenced(self, hold: Hold) -> bool:
        """Whether no decision can be committed any more that counts on a hold: the run is written anew as it is, or its
        place taken where there is none, so that whoever decided on what stood before loses."""
        stored = await self._store.read(run_key(self._workspace, hold.run_id))
        if stored is None:
            return await keep_from(self._store, self._workspace, hold.run_id)
        if await self._counted_on(hold):
            return False
        write = Write(stored.key, stored.revision, stored.head, due_ms=stored.due_ms)
        (result,) = await self._store.commit([write])
        self._repository.forget(self._workspace, hold.run_id)
        return isinstance(result, Committed)


def _view(known: Account, purse: Purse, cap: int | None) -> AccountView:
    return AccountView(
        name=known.name,
        held_micros=purse.held(known.name),
        settled_micros=known.settled_micros,
        cap_micros=max(cap, known.cap_micros) if cap is not None else 0,
        capped=cap is not None,
        raised=cap is not None and known.cap_micros > cap,
        charges=known.charges,
    )


def _held(purse: Purse, costs: Iterable[tuple[int, int]]) -> list[Hold]:
    return [purse.holds[serial] for serial, _ in costs if serial in purse.holds]
