"""The store on MongoDB keeps the promises of the store's port."""

import secrets

import pytest
from hypothesis import settings

from aios_runtime.store.mongo import open_mongo_store
from aios_runtime.store.port import Store
from aios_testing.store_contract import Clock, Opener, StoreContract
from aios_testing.store_machine import StoreMachine
from tests.often import tries


class TestMongoStore(StoreContract):
    @pytest.fixture
    def opened(self, mongo_url: str, database: str, clock: Clock) -> Opener:
        return lambda: open_mongo_store(mongo_url, database=database, service="test", now_ms=clock)


@pytest.mark.feature("J1")
@pytest.mark.hypothesis
def test_random_histories_are_those_of_the_model(mongo_url: str) -> None:
    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__()
            self.database = f"test-{secrets.token_hex(6)}"

        async def open(self) -> Store:
            return await open_mongo_store(
                mongo_url, database=self.database, service="test", now_ms=self.clock
            )

    machine = Machine.TestCase
    machine.settings = settings(max_examples=tries(20), stateful_step_count=20, deadline=None)
    machine("runTest").runTest()
