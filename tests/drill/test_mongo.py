"""The same work on MongoDB, killed at each instant of its commits; and the database itself killed in the middle."""

import secrets
import threading
from pathlib import Path

import pytest

from tests.drill.served import Served, check_undone, check_written, make_report
from tests.drill.test_crashes import PASSINGS
from tests.mongo import built_server, some_mongo

SERVICES = ("orchestrator", "memory", "connector-files")
INSTANTS = ("before_commit", "after_commit", "moved")
EARLY = {"orchestrator": 8}  # commits that come before the work begins, renewals of its leases among them

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> object:
    with some_mongo(tmp_path_factory.mktemp("mongodb")) as address:
        yield address


@pytest.mark.feature("B1", "J1", "L2")
@pytest.mark.parametrize("passing", PASSINGS)
@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("service", SERVICES)
def test_killed_at_an_instant_of_a_commit_the_work_ends_as_if_nothing_had_happened(
    tmp_path: Path, url: str, service: str, instant: str, passing: int
) -> None:
    point = f"{service}.store.{instant}"
    environment = {"AIOS_MONGODB_URL": url, "AIOS_MONGODB_DATABASE": f"t{secrets.token_hex(5)}"}
    with Served(tmp_path, f"{point}:{passing + EARLY.get(service, 0)}", environment=environment) as served:
        run = make_report(served)
        check_written(served, run)
        check_undone(served, run)
        assert not list(served.data.glob("*.db"))
        if passing == 1:
            assert served.marker.read_text() == point, "the point was never passed"
            assert served.starts == 2


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
