"""A run that waits for money goes on by itself once there is enough, in its turn, and never past a cap."""

import asyncio
from pathlib import Path
from typing import Any, Final, cast

import pytest

from aios.error.v1.error_pb2 import Error
from aios.resource.v1 import resource_pb2 as pb
from aios.run.v1 import state_pb2 as st
from aios.run.v1.commands_pb2 import FundRunRequest
from aios.task.v1.task_pb2 import Status
from aios_core.errors import RetryableError, TerminalError
from aios_orchestrator import funding as waiting
from aios_orchestrator.accounts import AccountBook
from aios_orchestrator.core.decide import Cancel, Fund, Settle
from aios_orchestrator.core.funding import BY_BUDGET
from aios_orchestrator.core.money import Attempt, Cap, Charge, Purse
from aios_orchestrator.funding import Funding
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.repository import Repository
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.timers import Timers
from aios_runtime.store.port import Committed
from tests.orchestrator.deciding import Deciding
from tests.orchestrator.runs import Driver, workflow
from tests.orchestrator.test_accounts import STORES, Clock, opened
from tests.orchestrator.test_spending import ACCOUNT, ONE, purse_with

pytestmark = pytest.mark.feature("F5")

NEXT = "budget/b/2026-12/all"


def raised(purse: Purse, cap: int) -> None:
    purse.charge = Charge((ACCOUNT,), (Cap(ACCOUNT, "b", cap),))


def test_a_raised_cap_closes_the_question_and_the_step_goes_on_once() -> None:
    purse = purse_with(300_000)
    driver = Driver(workflow(ONE), purse=purse)
    asked = driver.approval
    assert (asked.account, driver.last.dispatched) == (ACCOUNT, ())
    driver.give(Fund())
    assert not driver.last.events and driver.approval.approval_id == asked.approval_id
    raised(purse, 900_000)
    driver.give(Fund())
    assert driver.last.dispatched == ("a",) and purse.held(ACCOUNT) == 400_000
    closed = driver.run.approvals[asked.approval_id]
    assert (closed.state, closed.decided_by) == (st.APPROVAL_STATE_ANSWERED, BY_BUDGET)
    assert closed.note == "the cap of budget b for 2026-11 is $0.90 now"
    driver.give(Fund())
    assert not driver.last.events and purse.held(ACCOUNT) == 400_000
    refused = driver.decide(st.APPROVAL_STATE_ANSWERED, {"allow": "once"}, approval=asked).refusal
    assert isinstance(refused, TerminalError) and refused.code == "APPROVAL_USED"
    assert "the cap of budget b for 2026-11 is $0.90 now" in refused.message


def test_of_what_is_not_enough_nothing_is_taken() -> None:
    purse = purse_with(300_000)
    driver = Driver(workflow(ONE), purse=purse)
    raised(purse, 900_000)
    others = purse.hold(Attempt("run_other", "s", 1, 1), 600_000, 0)
    driver.give(Fund())
    assert not driver.last.events and purse.held(ACCOUNT) == 600_000
    assert purse.settle(others, 500_000, 0)
    driver.give(Fund())
    assert driver.last.dispatched == ("a",)


def test_a_new_period_is_reason_enough() -> None:
    purse = purse_with(300_000)
    driver = Driver(workflow(ONE), purse=purse)
    asked = driver.approval.approval_id
    purse.charge = Charge((NEXT,), (Cap(NEXT, "b", 500_000),))
    driver.give(Fund())
    assert driver.last.dispatched == ("a",) and purse.held(NEXT) == 400_000
    assert "another period" in driver.run.approvals[asked].note


def test_a_run_that_was_cancelled_stays_so() -> None:
    purse = purse_with(300_000)
    driver = Driver(workflow(ONE), purse=purse)
    driver.give(Cancel("enough"))
    raised(purse, 900_000)
    driver.give(Fund())
    assert not driver.last.events and driver.run.state == st.RUN_STATE_CANCELLED


def waits_for_others(purse: Purse) -> tuple[Driver, int]:
    """A run that waits for money, and the serial number of the hold that keeps it from that."""
    others = purse.hold(Attempt("run_other", "s", 1, 1), 400_000, 0)
    driver = Driver(workflow(ONE), purse=purse)
    assert driver.run.at("a").unfunded and not driver.run.open_approvals()
    return driver, others


def test_what_others_let_go_of_is_taken_before_the_run_looks_by_itself() -> None:
    purse = purse_with(500_000)
    driver, others = waits_for_others(purse)
    driver.give(Fund())
    assert not driver.last.events
    assert purse.settle(others, 100_000, 0)
    driver.give(Fund())
    assert (driver.last.dispatched, driver.run.at("a").unfunded) == (("a",), False)
    driver.give(Fund())
    assert not driver.last.events and purse.held(ACCOUNT) == 400_000


def test_a_run_that_stops_takes_nothing_of_what_others_let_go_of() -> None:
    purse = purse_with(500_000)
    driver, others = waits_for_others(purse)
    driver.give(Cancel("enough"))
    assert purse.settle(others, 0, 0)
    driver.give(Fund())
    assert not driver.last.events and not driver.run.at("a").unfunded


def test_the_pause_before_another_attempt_is_not_cut_short() -> None:
    purse = purse_with(10_000_000)
    steps = '- {name: a, agent: x, budget: "0.40", retry: {limit: 3, backoff: 10m}}'
    driver = Driver(workflow(steps), purse=purse)
    driver.fail("a", retryable=True)
    assert driver.run.at("a").state == st.STEP_STATE_WAITING
    driver.give(Fund())
    assert not driver.last.events


def test_each_item_of_a_map_goes_on_as_far_as_the_money_goes() -> None:
    purse = purse_with(300_000)
    steps = (
        "- name: all\n  map:\n    over: [1, 2, 3]\n    on_failure: collect\n    steps:\n"
        '      - {name: a, agent: x, budget: "0.40"}\n'
    )
    driver = Driver(workflow(steps), purse=purse)
    assert len(driver.run.open_approvals()) == 3
    raised(purse, 900_000)
    driver.give(Fund())
    assert driver.last.dispatched == ("all[0].a", "all[1].a")
    assert driver.approval.step == "all[2].a"


DOCUMENTS: Final = """{apiVersion: aios/v1, kind: Workflow, metadata: {name: w}, spec: {
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]},
  steps: [{name: a, agent: x, budget: "%s"}%s]}}
---
{apiVersion: aios/v1, kind: Budget, metadata: {name: all}, spec: {cap: "%s"}}
"""


class Office:
    """Runs in a store that asked for money, and one process that looks at them."""

    def __init__(self, repository: Repository, clock: Clock) -> None:
        self.clock, self.repository = clock, repository
        self.resources = ResourceBook(repository.store, "main", lambda: clock.now)
        self.book = AccountBook(repository, self.resources, "main", lambda: clock.now)
        self.funding = self.process()
        self.runs: dict[str, Driver] = {}
        self.out_of_reach = ""

    def process(self) -> Funding:
        return Funding(
            self.repository,
            self.book,
            self.resources,
            self.fund,
            Ownership(),
            "main",
            lambda: self.clock.now,
        )

    async def apply(self, cap: str, cost: str = "0.40", more: str = "") -> None:
        text = (DOCUMENTS % (cost, more, cap)).encode()
        await self.resources.apply(pb.ApplyResourcesRequest(workspace="main", yaml=text, file="d.yaml"))

    async def _decided(self, run: Driver, what: Fund | Cancel | Settle | None) -> Driver:
        """A decision on a run, on the accounts as they are, committed as the engine does."""
        flow = await self.resources.workflow("main", "w")
        purse = await self.book.open()
        await self.book.charge(purse, run.run, flow, self.clock.now)
        before = await self.repository.load("main", run.run.run_id) if what else None
        if what is None:
            run = Driver(flow, purse=purse, run_id=run.run.run_id)
        else:
            run.purse = purse
            run.give(what)
        assert await self.book.write(purse)
        writes = self.repository.writes(before, run.run, run.run.own, [], {}, flow)
        results = await self.repository.store.commit(writes[:1])
        assert isinstance(results[0], Committed)
        self.repository.keep(run.run, results[0].revision)
        return run

    async def start(self, name: str) -> None:
        flow = await self.resources.workflow("main", "w")
        self.runs[name] = await self._decided(Driver(flow, run_id=name), None)

    async def fund(self, request: FundRunRequest) -> None:
        if request.run_id == self.out_of_reach:
            raise RetryableError("UNAVAILABLE", "Its replica is gone.")
        await self._decided(self.runs[request.run_id], Fund())

    async def look(self) -> list[str]:
        """The runs that have gone on after a look."""
        await self.funding._turn()
        return self.gone_on()

    def gone_on(self) -> list[str]:
        return [name for name, run in self.runs.items() if run.run.at("a").state == st.STEP_STATE_DISPATCHED]


async def three_wait(office: Office) -> None:
    await office.apply("0.30")
    for name in ("run_c", "run_a", "run_b"):
        await office.start(name)
    assert await office.look() == []


@pytest.mark.parametrize("kind", STORES)
def test_a_raised_cap_lets_the_oldest_go_on_first_and_no_more_than_it_allows(
    kind: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with opened(kind, tmp_path) as store:
            office = Office(Repository(store), Clock())
            await three_wait(office)
            await office.apply("0.90")
            assert await office.look() == ["run_c", "run_a"]
            (account,) = await office.book.listed("budget/all/", "", 10)
            assert (account.held_micros, account.cap_micros) == (800_000, 900_000)
            office.funding = office.process()  # and after a crash nobody goes on twice
            assert await office.look() == ["run_c", "run_a"]
            await office.apply("1.20")
            assert await office.look() == ["run_c", "run_a", "run_b"]
            page = await store.query("unfunded", "main")
            assert not page.items

    asyncio.run(main())


def test_a_crash_between_the_raise_and_the_look_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            office = Office(Repository(store), Clock())
            await three_wait(office)
            await office.apply("9.00")
            runs = office.runs
            office = Office(Repository(store), Clock())  # the process died, and another one began
            office.runs = runs
            assert await office.look() == ["run_c", "run_a", "run_b"]

    asyncio.run(main())


def test_a_month_that_turns_over_lets_them_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            clock = Clock()
            office = Office(Repository(store), clock)
            await office.apply("0.45")
            serial = (await office.book.open()).serial
            await office.start("run_first")
            await office.book.settle([(serial + 1, 400_000)])
            await office.start("run_second")
            assert await office.look() == ["run_first"]
            clock.now += 31 * 24 * 3_600_000
            assert await office.look() == ["run_first", "run_second"]

    asyncio.run(main())


def test_who_is_out_of_reach_is_waited_for_and_not_passed(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            office = Office(Repository(store), Clock())
            await three_wait(office)
            office.out_of_reach = "run_c"
            await office.apply("0.50")
            with pytest.raises(RetryableError):
                await office.look()
            assert office.gone_on() == []
            office.out_of_reach = ""
            assert await office.look() == ["run_c"]


def test_what_others_let_go_of_is_for_who_is_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            office = Office(Repository(store), Clock())
            await three_wait(office)
            await office.apply("0.50")
            assert await office.look() == ["run_c"]
            (hold,) = (await office.book.open()).holds.values()
            await office.book.settle([(hold.serial, 10_000)])
            assert await office.look() == ["run_c", "run_a"]

    asyncio.run(main())


@pytest.mark.parametrize("kind", STORES)
def test_who_never_had_to_ask_goes_on_as_well_once_others_let_go(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(kind, tmp_path) as store:
            office = Office(Repository(store), Clock())
            await office.apply("0.50")
            for name in ("run_c", "run_a", "run_b"):
                await office.start(name)
            assert not any(run.run.open_approvals() for run in office.runs.values())
            assert await office.look() == ["run_c"]
            (hold,) = (await office.book.open()).holds.values()
            await office.book.settle([(hold.serial, 10_000)])
            runs, office = office.runs, Office(Repository(store), office.clock)  # another process
            office.runs = runs
            assert await office.look() == ["run_c", "run_a"]
            assert len((await store.query("unfunded", "main")).items) == 1
            await office._decided(office.runs["run_b"], Cancel("enough"))
            assert not (await store.query("unfunded", "main")).items

    asyncio.run(main())


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_nothing_is_kept_for_a_run_that_stops(how: str, tmp_path: Path) -> None:
    """It awaits what is under way, which can take days where a person is asked about it."""

    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            office = Office(Repository(store), Clock())
            await office.apply(
                "0.50", more=", {name: b, agent: y, needs: []}, {name: c, agent: y, needs: []}"
            )
            for name in ("run_zero", "run_first", "run_second"):
                await office.start(name)
            first = office.runs["run_first"]
            error = Error(code="NEVER", message="It failed.")
            failed = Settle(first.outcome("b", status=Status.STATUS_FAILED, error=error))
            await office._decided(first, failed if how == "failed" else Cancel("enough"))
            assert first.run.stopping and first.run.unfunded and not first.run.closed
            (hold,) = (await office.book.open()).holds.values()
            await office.book.settle([(hold.serial, 10_000)])
            assert await office.look() == ["run_zero", "run_second"]

    asyncio.run(main())


def test_it_looks_until_nobody_waits_any_more_for_what_others_hold(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            office = Office(Repository(store), Clock())
            await three_wait(office)
            await office.apply("0.50")
            office.funding.look()
            while office.gone_on() != ["run_c", "run_a", "run_b"]:
                for hold in (await office.book.open()).holds.values():
                    await office.book.settle([(hold.serial, 0)])
                await asyncio.sleep(0)
            assert office.funding._task is not None
            await office.funding._task

    asyncio.run(main())


def test_it_is_looked_every_five_seconds_whatever_else_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, unused = 0, cast("Any", None)
    monkeypatch.setattr(waiting, "lease_ms", lambda: now)

    async def main() -> None:
        nonlocal now
        here = Deciding()
        async with opened("sqlite", tmp_path) as store:
            funding = Office(Repository(store), Clock()).funding
            timers = Timers(
                here.store, unused, here.publisher, *[unused] * 3, funding, unused, "main", lambda: 0
            )
            for _ in range(2):
                assert await timers._wait_s() == 0
                funding.look()
                looks = funding._task
                assert looks is not None
                await looks
                now += 3_000
                funding.look()
                assert funding._task is looks and await timers._wait_s() == 2
                now += 2_000
        await here.engine.stop()

    asyncio.run(main())


def test_a_cap_that_a_person_sets_for_one_run_lets_the_others_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            office = Office(Repository(store), Clock())
            await three_wait(office)
            purse = await office.book.open()
            flow = await office.resources.workflow("main", "w")
            await office.book.charge(purse, office.runs["run_b"].run, flow, office.clock.now)
            purse.allow(400_000, office.clock.now, 900_000)
            assert await office.book.write(purse)
            assert await office.look() == ["run_c", "run_a"]

    asyncio.run(main())
