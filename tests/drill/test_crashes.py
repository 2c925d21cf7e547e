"""Killed at every named instant, the work ends as if nothing had happened, and every change is there exactly once.

One installation dies at one instant after the other, each time in the middle of another client's report. `make test`
passes each point once; `make drill` (AIOS_DRILL=all) fifty times, ten in a row.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drill.kept import until
from tests.drill.served import (
    CLIENT,
    MONTH,
    Served,
    check_killed_at,
    check_redone,
    check_undone,
    check_written,
    make_report,
    start_report,
)
from tests.processes import kill_and_delete

ALL = os.environ.get("AIOS_DRILL") == "all"
# In each of so many lives it dies at that passing, counted from its start or from the last death.
LIVES = ((1,) * 10, (2,) * 10, (3,) * 10, tuple(range(1, 11)), tuple(range(10, 0, -1))) if ALL else ((1,),)
PASSINGS = tuple(range(1, 51)) if ALL else (1,)
POINTS = (
    "orchestrator.received", "orchestrator.decided", "orchestrator.committed", "orchestrator.published",
    "orchestrator.store.before_commit", "orchestrator.store.after_commit",
    "agent-runner.lane.received", "agent-runner.lane.worked", "agent-runner.lane.reported",
    "agent-runner.lane.acknowledged",
    "memory.lane.received", "memory.lane.worked", "memory.lane.reported", "memory.lane.acknowledged",
    "memory.blob_stored", "memory.committed", "memory.episodes_committed",
    "memory.store.before_commit", "memory.store.after_commit",
    "connector-files.lane.received", "connector-files.lane.worked", "connector-files.lane.reported",
    "connector-files.lane.acknowledged",
    "connector.received", "connector.intent", "connector.performed", "connector.outcome",
    "connector-files.store.before_commit", "connector-files.store.after_commit",
    "files.staged", "files.decided",
)  # fmt: skip

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One installation for all that die in it."""
    with Served(tmp_path_factory.mktemp("served"), settle_seconds=3600.0) as started:
        yield started


@pytest.fixture(scope="module")
def in_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same in one process, so that everything dies at the instant of one service."""
    place = tmp_path_factory.mktemp("in-one")
    with Served(place, settle_seconds=3600.0, environment={"AIOS_ONE_PROCESS": "1"}) as started:
        yield started


@pytest.mark.feature("B1", "B3", "D3", "H10")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("passings", LIVES, ids=lambda passings: "-".join(map(str, passings)))
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_instant_the_work_ends_as_if_nothing_had_happened(
    in_one: Served, point: str, passings: tuple[int, ...]
) -> None:
    check_killed_at(in_one, point, *passings)


@pytest.mark.feature("D6", "B1")
@pytest.mark.parametrize("passing", (1, 2, 3, 4, 5) if ALL else (2,))
@pytest.mark.parametrize(
    "point", ["connector.intent", "connector.performed", "connector.outcome", "files.decided"]
)
def test_killed_while_it_puts_back_what_was_undone_it_goes_on(
    served: Served, point: str, passing: int
) -> None:
    """Five files are put back, each a passing."""
    client, before = served.new_client(), len(served.deaths)
    run = make_report(served, client)
    check_undone(served, run, client)
    served.die_at(f"{point}:{passing}")
    check_redone(served, run, client)
    assert served.deaths[before:] == [point]


@pytest.mark.feature("B1", "A2")
@pytest.mark.parametrize("point", ["files.event_noted", "files.event_accepted"])
@pytest.mark.parametrize("passing", PASSINGS if ALL else (1,))
def test_killed_around_an_event_the_folder_starts_one_run(tmp_path: Path, point: str, passing: int) -> None:
    """A month that appears while it is served; `passing` months, so that the last is where it dies."""
    with Served(tmp_path, f"{point}:{passing}", settle_seconds=0.1) as served:
        months = [f"20{10 + number // 12}-{number % 12 + 1:02}" for number in range(passing)]
        for month in months:
            shutil.copytree(served.files / CLIENT / MONTH, served.files / "other" / month)

        def found() -> list[str]:
            runs = served.aios("run", "list", "--limit", "1000")
            return sorted(run["about"] for run in runs if (run["about"] or "").startswith("other/"))

        about = until(found, lambda found: len(found) >= passing and bool(served.deaths))
        assert about == [f"other/{month}" for month in months]
        assert served.starts == 2


@pytest.mark.feature("B1")
@pytest.mark.parametrize("wiped", [False, True], ids=["killed", "killed and wiped"])
def test_a_bus_that_dies_even_with_all_that_it_holds_loses_nothing(served: Served, wiped: bool) -> None:
    client, starts = served.new_client(), served.starts
    start_report(served, client)
    if wiped:
        kill_and_delete(served.bus_pid(), served.data / "nats")
    else:
        os.kill(served.bus_pid(), signal.SIGKILL)
    run = make_report(served, client)
    check_written(served, run, client)
    check_undone(served, run, client)
    assert served.starts == starts


@pytest.mark.feature("B1", "D3")
@pytest.mark.skipif(os.cpu_count() == 1, reason="on one core all services share one process")
@pytest.mark.parametrize("round_", range(50 if ALL else 2))
def test_the_second_process_dies_alone_and_nothing_is_lost(served: Served, round_: int) -> None:
    """Door, memory and agents at once, in the middle of the work, and again before it is taken back."""
    client = served.new_client()
    if round_ % 8 == 7:  # one that dies twenty times in a row, in less than half a minute each, is given up
        served.kill()
    start_report(served, client, *(["--wait"] if round_ % 2 else []))
    starts = served.starts
    os.kill(served.beside_pid(), signal.SIGKILL)
    run = make_report(served, client)
    os.kill(served.beside_pid(), signal.SIGKILL)
    check_written(served, run, client)
    check_undone(served, run, client)
    assert served.starts == starts


@pytest.mark.feature("B1", "D3")
@pytest.mark.parametrize("round_", range(50 if ALL else 2))
def test_everything_killed_at_once_loses_nothing(served: Served, round_: int) -> None:
    client, starts = served.new_client(), served.starts
    start_report(served, client, *(["--wait"] if round_ % 2 else []))
    served.kill()
    run = make_report(served, client)
    served.kill()
    check_written(served, run, client)
    check_undone(served, run, client)
    assert served.starts == starts + 2
