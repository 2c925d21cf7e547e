"""The embedded store, and the model in memory, keep the promises of the store's port."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store
from aios_testing.store_contract import (
    Clock,
    EventContract,
    InboxContract,
    ListingContract,
    Opener,
    StoreContract,
    WriteContract,
)
from aios_testing.store_machine import StoreMachine
from aios_testing.store_memory import MemoryStore
from tests.often import tries


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path, clock: Clock) -> Opener:
        return lambda: open_store(tmp_path / "test.db", service="test", now_ms=clock)


class TestMemoryStore(WriteContract, InboxContract, EventContract, ListingContract):
    @pytest.fixture
    def opened(self, clock: Clock) -> Opener:
        async def opened() -> Store:
            return MemoryStore(clock)

        return opened


class SqliteMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    async def open(self) -> Store:
        return await open_store(self.folder / "test.db", service="test", now_ms=self.clock)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


TestRandomHistories = SqliteMachine.TestCase
TestRandomHistories.settings = settings(max_examples=tries(40), stateful_step_count=25, deadline=None)
