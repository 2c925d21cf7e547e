"""What must hold of money: an account never has more held and settled than its cap, nothing is handed out that is not
held, what an attempt has cost is settled once, and what is free is taken."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from aios.resource.v1.resource_pb2 import Resource
from aios.run.v1.budget_pb2 import Account, Accounts, Hold
from aios.run.v1.events_pb2 import RunEvent
from aios_core.money import usd
from aios_orchestrator.accounts import accounts_key
from aios_orchestrator.budget import charge_of, compile_budget
from aios_orchestrator.core.funding import BY_BUDGET
from aios_orchestrator.document import parse_documents
from aios_orchestrator.model import Run
from aios_runtime.store.port import Write
from aios_testing.sim.parts import WORKSPACE
from aios_testing.sim.record import Record
from aios_testing.sim.workload import DOCUMENTS

KEY = accounts_key(WORKSPACE)
_BUDGETS = f"{WORKSPACE}/resource/Budget/"
_FIRST: Final = "budgets.yaml"
MOST: Final = usd("0.10")  # that a step of the workload holds
TAKEN: Final = 10.0  # seconds in which a run that waits takes money that is free


class AccountWatch:
    """Looks at every committed change of the accounts, and at every event of a run."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._holds: dict[int, Hold] = {}
        self._sums: dict[str, Account] = {}
        first = parse_documents(DOCUMENTS[_FIRST].encode(), _FIRST)
        self._budgets = {document.name: compile_budget(document) for document in first}
        self._waiting: dict[str, Run] = {}  # for money, or for a person's word about it
        self._free: dict[str, float] = {}  # since when a run waits although there is enough
        self._deciders: Sequence[object] = ()
        self._charged: dict[int, Hold] = {}  # what runs were handed out with
        self._owed: dict[str, int] = defaultdict(int)

    def committed(self, write: Write) -> None:
        """Something was changed."""
        if write.key.startswith(_BUDGETS) and write.head is not None:
            self._applied(Resource.FromString(write.head))
        if write.key != KEY:
            return
        holds = {hold.serial: hold for hold in Accounts.FromString(write.head or b"").holds}
        let_go = [hold for serial, hold in self._holds.items() if serial not in holds]
        before = {name: account.charges for name, account in self._sums.items()}
        for name, data in write.records.items():
            account = Account.FromString(data or b"")
            if account.cap_micros > self._sums.get(account.name, Account()).cap_micros:
                self._record.count("a cap was raised")
            self._sums[name.removeprefix("a/")] = account
        self._holds = holds
        for hold in let_go:
            name = hold.accounts[0]
            if self._sums.get(name, Account()).charges == before.get(name, 0):
                self._record.count("a hold was let go of")
        held: dict[str, int] = defaultdict(int)
        for hold in holds.values():
            for name in hold.accounts:
                held[name] += hold.micros
        for name in {*held, *self._sums}:
            self._check(name, held[name])

    def _applied(self, resource: Resource) -> None:
        (document,) = parse_documents(resource.document, resource.name)
        self._budgets[resource.name] = compile_budget(document)

    def _check(self, name: str, held: int) -> None:
        kind, budget, *_ = name.split("/")
        if kind != "budget":
            return
        account = self._sums.get(name, Account())
        cap = self._cap(name, budget)
        if held + account.settled_micros > cap:
            what = f"{name}: {held} held, {account.settled_micros} settled of {cap}"
            self._record.violate("no account passes its cap", what)

    def _cap(self, account: str, budget: str) -> int:
        return max(self._budgets[budget].cap, self._sums.get(account, Account()).cap_micros)

    def look(self, time: float, now_ms: int, deciders: Sequence[object]) -> None:
        """Whether the only run that waits for money does so although there is enough, since earlier looks; after the
        faults have stopped. Where several wait, what is free may be kept for one of the others. `deciders` are the
        living replicas of the orchestrator."""
        free = {}
        if deciders and deciders == self._deciders and len(self._waiting) == 1:
            ((run_id, run),) = self._waiting.items()
            if self._enough(run, now_ms):
                self._record.count("free money was waited for")
                free[run_id] = self._free.get(run_id, time)
                if time - free[run_id] > TAKEN:
                    self._record.violate("money that is free is taken", run_id)
        self._free, self._deciders = free, deciders

    def _enough(self, run: Run, now_ms: int) -> bool:
        for cap in charge_of(run.workflow, run.customer, self._budgets.values(), now_ms).caps:
            held = sum(hold.micros for hold in self._holds.values() if cap.account in hold.accounts)
            settled = self._sums.get(cap.account, Account()).settled_micros
            if held + settled + MOST > self._cap(cap.account, cap.budget):
                return False
        return True

    def filed(self, event: RunEvent, before: Run, after: Run) -> None:
        """An event of a run was committed."""
        body = str(event.WhichOneof("body"))
        if body == "step_scheduled":
            self._scheduled(event)
        elif body == "approval_requested" and event.approval_requested.approval.title.startswith("Budget"):
            self._record.count("a run asked for money")
        elif body == "wait_started" and event.wait_started.unfunded:
            self._record.count("a run waited for money that others held")
        elif body == "approval_decided" and event.approval_decided.decided_by == BY_BUDGET:
            self._record.count("a run went on once there was money")
        if after.unfunded and not after.stopping:  # then it takes nothing more
            self._waiting[event.run_id] = after
        else:
            self._waiting.pop(event.run_id, None)
        step = str(getattr(getattr(event, body), "step", ""))
        known = before.at(step) if step else None
        if known is not None and known.charge and not after.at(step).charge:
            for name in self._charged[known.charge].accounts:
                self._owed[name] += after.at(step).cost - known.cost

    def _scheduled(self, event: RunEvent) -> None:
        told = event.step_scheduled
        hold = self._holds.get(told.charge)
        if hold is None and not told.hold_micros:
            return
        if hold is None or (hold.run_id, hold.step, hold.micros) != (
            event.run_id,
            told.step,
            told.hold_micros,
        ):
            self._record.violate("what is handed out is held", f"{event.run_id} {told.step}: {told.charge}")
            return
        self._charged[told.charge] = hold

    def left(self) -> list[str]:
        """What is still held, of runs that there are and of those that never came to be."""
        return [f"{hold.run_id} holds for {hold.step}" for hold in self._holds.values()]

    def at_the_end(self) -> None:
        """Once everything is quiet, what was settled is what the runs have cost."""
        settled = {
            name: account.settled_micros for name, account in self._sums.items() if account.settled_micros
        }
        owed = {name: cost for name, cost in self._owed.items() if cost}
        if settled != owed:
            wrong = sorted(name for name in {*settled, *owed} if settled.get(name) != owed.get(name))
            what = ", ".join(f"{name}: {settled.get(name, 0)} of {owed.get(name, 0)}" for name in wrong)
            self._record.violate("what was spent is settled once", what)
