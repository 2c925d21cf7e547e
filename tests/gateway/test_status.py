"""What a status says is so among any number of runs, and so is that none from before a restore goes on."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios.run.v1 import queries_pb2
from aios.run.v1.budget_pb2 import Account, Accounts
from aios.run.v1.state_pb2 import RUN_STATE_RUNNING, RunHead
from aios_core.errors import TerminalError
from aios_gateway.api import system
from aios_orchestrator.accounts import AccountBook, accounts_key
from aios_orchestrator.queries import Queries
from aios_runtime.store.port import Write
from tests.gateway.serving import Api
from tests.orchestrator.deciding import Deciding


@pytest.mark.feature("L3")
async def test_a_run_that_waits_is_shown_however_many_came_after_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "PAGE_RUNS", 2)
    monkeypatch.setattr(system, "MAX_PAGES", 2)
    await api.start("ask-first", "a", name="Ada")
    for number in range(5):
        await api.start("greet", f"b{number}", name="Bob")
    async with asyncio.timeout(20):
        while True:  # the first time it is looked for among all, of which a status looks through some
            status = await api.call(api.system.GetStatus, api_pb2.GetStatusRequest())
            assert [run.workflow for run in status.recent] == ["greet"] * 4
            if status.running:
                break
    assert [run.workflow for run in status.running] == ["ask-first"]


@pytest.mark.feature("F4")
async def test_what_all_runs_cost_is_what_their_accounts_say() -> None:
    here = Deciding()
    sums = {
        "month/2026-10/customer/acme": 5,
        "month/2026-10/workflow/w": 20,
        "month/2026-10/workspace": 25,
        "month/2026-12/workflow/v": 400,
        "month/2026-12/workflow/w": 300,
        "month/2026-12/workspace": 700,
        "budget/all/2026-12/all": 700,
    }
    records: dict[str, bytes | None] = {
        f"a/{name}": Account(name=name, settled_micros=cost).SerializeToString()
        for name, cost in sums.items()
    }
    await here.store.commit([Write(accounts_key("main"), 0, Accounts().SerializeToString(), records=records)])
    queries: Any = Queries.__new__(Queries)
    queries._accounts = AccountBook(here.repository, here.resources, "main", lambda: 0)

    async def ask(_: str, name: str, question: Any, __: Any) -> Any:
        return await getattr(queries, name)(question.SerializeToString())

    call: Any = SimpleNamespace(workspace="main", ask=ask)
    assert await system._spent(call) == {"2026-10": 25, "2026-12": 700}


@pytest.mark.feature("J5", "B3")
async def test_a_restore_stays_open_while_any_run_from_before_it_goes_on() -> None:
    class Call:
        workspace, timeout = "main", 1.0

        async def ask(self, _: str, __: str, question: Any, ___: Any) -> Any:
            assert isinstance(question, queries_pb2.ListRunsRequest)
            at = int(question.page_token or 0)
            assert RUN_STATE_RUNNING in question.states
            heads = [RunHead(run_id=f"run_{at}", state=RUN_STATE_RUNNING, create_time_ms=1_000 - at)]
            token = str(at + 1) if at < 600 else ""
            return queries_pb2.ListRunsResponse(runs=heads, next_page_token=token)

    async def health(*_: Any) -> bytes:
        restore = api_pb2.OpenRestore(restore_id="r", restore_time_ms=500)
        return api_pb2.ServiceHealth(ready=True, restore=restore).SerializeToString()

    call: Any = Call()
    call.bus = SimpleNamespace(ask=health)
    with pytest.raises(TerminalError, match="100 runs from before the restore have not ended") as refused:
        await system._check_ended(call, "r", ["connector-files"])
    assert refused.value.code == "RESTORE_OPEN"
