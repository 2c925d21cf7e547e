"""The same work on MongoDB, killed at each instant of its commits; and the database itself killed in the middle."""

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drill.served import Served, check_killed_at, check_undone, check_written, make_report
from tests.drill.test_crashes import LIVES
from tests.mongo import built_server, some_mongo

SERVICES = ("orchestrator", "memory", "connector-files")
INSTANTS = ("before_commit", "after_commit", "moved")

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One installation for all that die in it."""
    with some_mongo(tmp_path_factory.mktemp("mongodb")) as url:
        environment = {"AIOS_MONGODB_URL": url, "AIOS_MONGODB_DATABASE": f"t{secrets.token_hex(5)}"}
        place = tmp_path_factory.mktemp("served")
        with Served(place, settle_seconds=3600.0, environment=environment) as started:
            yield started


@pytest.mark.feature("B1", "J1", "L2")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("passings", LIVES, ids=lambda passings: "-".join(map(str, passings)))
@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("service", SERVICES)
def test_killed_at_an_instant_of_a_commit_the_work_ends_as_if_nothing_had_happened(
    served: Served, service: str, instant: str, passings: tuple[int, ...]
) -> None:
    check_killed_at(served, f"{service}.store.{instant}", *passings)
    assert not list(served.data.glob("*.db"))


@pytest.mark.feature("B1", "J1", "L2")
def test_a_database_that_dies_again_and_again_loses_nothing(tmp_path: Path) -> None:
    server = built_server(tmp_path / "data.mv").start()
    done = threading.Event()

    def kill() -> None:
        while not done.wait(2.0):
            server.kill()
            server.start()

    killer = threading.Thread(target=kill)
    try:
        with Served(tmp_path, environment={"AIOS_MONGODB_URL": server.url}) as served:
            killer.start()
            try:
                run = make_report(served)
            finally:
                done.set()
                killer.join()
            check_written(served, run)
            check_undone(served, run)
    finally:
        server.kill()
