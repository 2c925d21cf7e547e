"""The accounts of a workspace: never more held and spent than a cap allows, by how many writers and crashes ever."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from aios.resource.v1 import resource_pb2 as pb
from aios_orchestrator.accounts import OLD_MS, AccountBook, accounts_key, receipt
from aios_orchestrator.core.money import Attempt, Purse
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import parse_documents
from aios_orchestrator.model import Run
from aios_orchestrator.repository import Repository, run_key
from aios_orchestrator.resources import ResourceBook
from aios_runtime.store.mongo import open_mongo_store
from aios_runtime.store.port import Committed, Store, Write
from aios_runtime.store.sqlite import open_store
from tests.mongo import some_mongo
from tests.orchestrator.deciding import Deciding

NOW: Final = 1_764_000_000_000  # in November 2025
BUDGET: Final = """apiVersion: aios/v1
kind: Budget
metadata: {name: all}
spec: {cap: "1.00"}
"""
CAP: Final = 1_000_000
WORKFLOW: Final = compile_workflow(
    parse_documents(
        b"{apiVersion: aios/v1, kind: Workflow, metadata: {name: w}, spec: {steps: [{name: s, agent: a}]}}",
        "w",
    )[0]
)
STORES: Final = ("sqlite", "mongodb")


class Clock:
    now = NOW


@asynccontextmanager
async def opened(kind: str, place: Path) -> AsyncIterator[Store]:
    if kind == "sqlite":
        store: Store = await open_store(place / "store.db", service="test", now_ms=lambda: NOW)
        yield store
        await store.close()
        return
    with some_mongo(place) as url:
        name = f"test-{secrets.token_hex(6)}"
        store = await open_mongo_store(url, database=name, service="test", now_ms=lambda: NOW)
        yield store
        await store.close()


async def book_on(store: Store, clock: Clock) -> AccountBook:
    """A process's view of the accounts, with the budget applied."""
    resources = ResourceBook(store, "main", lambda: clock.now)
    await resources.apply(pb.ApplyResourcesRequest(workspace="main", yaml=BUDGET.encode(), file="b.yaml"))
    return AccountBook(Repository(store), resources, "main", lambda: clock.now)


def run_of(name: str) -> Run:
    return Run("main", name, 0, "w", "1", 1)


async def hold(book: AccountBook, run: str, micros: int, tries: int = 50) -> int:
    """Hold money for a run's step, as a batch of decisions does; 0 when there is not enough."""
    for _ in range(tries):
        purse = await book.open()
        await book.charge(purse, run_of(run), WORKFLOW, NOW)
        if purse.short(micros) is not None:
            return 0
        serial = purse.hold(Attempt(run, "s", 1, 1), micros, NOW)
        if await book.write(purse):
            return serial
    raise AssertionError("others are always quicker")


async def seen(book: AccountBook) -> tuple[int, int]:
    (item,) = await book.listed("budget/all/", "", 10)
    return item.held_micros, item.settled_micros


@pytest.mark.feature("F5")
@pytest.mark.parametrize("kind", STORES)
def test_writers_that_contend_never_pass_the_cap(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(kind, tmp_path) as store:
            clock = Clock()
            books = [await book_on(store, clock) for _ in range(4 if store.shared else 1)]
            got = await asyncio.gather(*(hold(books[n % len(books)], f"run-{n}", 300_000) for n in range(12)))
            held = [serial for serial in got if serial]
            assert len(held) == len(set(held)) == 3  # a fourth would pass 1.00
            assert await seen(books[0]) == (900_000, 0)
            await asyncio.gather(*(books[0].settle([(serial, 250_000)]) for serial in held))
            await asyncio.gather(*(book.settle([(held[0], 250_000)]) for book in books))  # redelivered
            assert await seen(books[-1]) == (0, 750_000)
            assert await hold(books[-1], "late", 250_000)
            assert await hold(books[0], "later", 1) == 0

    asyncio.run(main())


@pytest.mark.feature("F5")
@pytest.mark.parametrize("kind", STORES)
def test_what_a_crash_leaves_is_settled_or_let_go_once(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(kind, tmp_path) as store:
            clock = Clock()
            book = await book_on(store, clock)
            spent, lost, unborn = [await hold(book, name, 100_000) for name in ("spent", "lost", "unborn")]
            # One run committed its outcome and died before it settled; the other died before it committed.
            from aios_orchestrator.codec import head_of

            for name, serial in (("spent", spent), ("lost", 0)):
                records = {"input": b"", **({receipt(serial): b"70000"} if serial else {})}
                head = head_of(run_of(name)).SerializeToString()
                (result,) = await store.commit([Write(run_key("main", name), 0, head, records=records)])
                assert isinstance(result, Committed)
            await book.sweep(OLD_MS)
            assert await seen(book) == (300_000, 0)  # they are too young
            clock.now += OLD_MS
            again = await book_on(store, clock)
            await again.sweep(OLD_MS)
            assert await seen(again) == (0, 70_000)
            # Who was about to commit a decision that counts on what was let go does not come through any more.
            head = head_of(run_of("lost")).SerializeToString()
            (late,) = await store.commit([Write(run_key("main", "lost"), 1, head)])
            assert not isinstance(late, Committed)
            head = head_of(run_of("unborn")).SerializeToString()
            (late,) = await store.commit([Write(run_key("main", "unborn"), 0, head)])
            assert not isinstance(late, Committed)
            await again.settle([(lost, 5), (spent, 70_000)])
            assert await seen(again) == (0, 70_000)
            assert unborn

    asyncio.run(main())


@pytest.mark.feature("F5")
def test_a_hold_that_is_asked_for_again_is_not_let_go_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sqlite", tmp_path) as store:
            clock = Clock()
            book = await book_on(store, clock)
            first = await hold(book, "run", 100_000)
            purse = await book.open()
            purse.drop(first)  # somebody looks, and finds it of no use
            assert await hold(book, "run", 100_000) == first
            assert not await book.write(purse)
            assert (await store.read(accounts_key("main"))) is not None
            assert await seen(book) == (100_000, 0)

    asyncio.run(main())


def test_a_purse_counts_each_hold_once() -> None:
    from aios.run.v1.budget_pb2 import Accounts

    purse = Purse(Accounts(), {})
    first = purse.hold(Attempt("r", "s", 1, 1), 5, 0)
    assert purse.hold(Attempt("r", "s", 1, 1), 5, 0) == first
    assert purse.settle(first, 3, 0)
    assert not purse.settle(first, 3, 0)
    assert purse.hold(Attempt("r", "s", 1, 1), 5, 0) == first + 1  # a serial number is given once


@pytest.mark.feature("F5")
async def test_no_budget_is_left_out_however_many_documents_there_are() -> None:
    here = Deciding()
    many = 1_010
    await here.store.commit(
        [
            Write(f"main/resource/Budget/b{number:05}", 0, _budget(number).SerializeToString())
            for number in range(many)
        ]
    )
    assert len(await here.resources.budgets("main")) == many


def _budget(number: int) -> pb.Resource:
    text = f'apiVersion: aios/v1\nkind: Budget\nmetadata: {{name: b{number:05}}}\nspec: {{cap: "1"}}\n'
    return pb.Resource(kind="Budget", name=f"b{number:05}", document=text.encode())
