"""Killed at every named instant, the work ends as if nothing had happened, and every change is there exactly once.

`make test` passes each point once; `make drill` (AIOS_DRILL=all) at many of its passings.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.drill.kept import TRIES
from tests.drill.served import (
    CLIENT,
    MONTH,
    Served,
    check_redone,
    check_undone,
    check_written,
    make_report,
)

ALL = os.environ.get("AIOS_DRILL") == "all"
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

# Passings that come before the work begins: what a store commits at its first start.
EARLY = {"orchestrator.store.before_commit": 3, "orchestrator.store.after_commit": 3}

pytestmark = pytest.mark.drill


@pytest.mark.feature("B1", "B3", "D3", "H10")
@pytest.mark.parametrize("passing", PASSINGS)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_instant_the_work_ends_as_if_nothing_had_happened(
    tmp_path: Path, point: str, passing: int
) -> None:
    nth = passing + EARLY.get(point, 0)
    with Served(tmp_path, f"{point}:{nth}") as served:
        run = make_report(served)
        check_written(served, run)
        check_undone(served, run)
        if passing == 1:
            assert served.marker.read_text() == point, "the point was never passed"
            assert served.starts == 2


@pytest.mark.feature("D6", "B1")
@pytest.mark.parametrize("passing", (11, 12, 13, 14, 15) if ALL else (12,))
@pytest.mark.parametrize(
    "point", ["connector.intent", "connector.performed", "connector.outcome", "files.decided"]
)
def test_killed_while_it_puts_back_what_was_undone_it_goes_on(
    tmp_path: Path, point: str, passing: int
) -> None:
    """Five files are written and taken back, each a passing; what comes after that is of the redo."""
    with Served(tmp_path, f"{point}:{passing}") as served:
        run = make_report(served)
        check_undone(served, run)
        assert served.starts == 1, "it dies later"
        check_redone(served, run)
        assert served.marker.read_text() == point and served.starts == 2


@pytest.mark.feature("B1", "A2")
@pytest.mark.parametrize("point", ["files.event_noted", "files.event_accepted"])
@pytest.mark.parametrize("passing", PASSINGS if ALL else (1,))
def test_killed_around_an_event_the_folder_starts_one_run(tmp_path: Path, point: str, passing: int) -> None:
    """A month that appears while it is served; `passing` months, so that the last is where it dies."""
    with Served(tmp_path, f"{point}:{passing}", settle_seconds=0.1) as served:
        months = [f"20{10 + number // 12}-{number % 12 + 1:02}" for number in range(passing)]
        for month in months:
            shutil.copytree(served.files / CLIENT / MONTH, served.files / "other" / month)
        found: list[Any] = []
        for _ in range(TRIES * 10):
            found = [
                run
                for run in served.aios("run", "list")
                if run["about"] and run["about"].startswith("other/")
            ]
            if len(found) >= passing and served.marker.exists():
                break
        assert sorted(run["about"] for run in found) == [f"other/{month}" for month in months]
        assert served.starts == 2


@pytest.mark.feature("B1")
@pytest.mark.parametrize("wiped", [False, True], ids=["killed", "killed and wiped"])
def test_a_bus_that_dies_even_with_all_that_it_holds_loses_nothing(tmp_path: Path, wiped: bool) -> None:
    with Served(tmp_path) as served:
        start = (
            "run",
            "start",
            "monthly-client-report",
            "--input",
            "client=acme",
            "--input",
            "month=2026-07",
        )
        served.aios(*start, "--request-id", "drill-start")
        if wiped:
            shutil.rmtree(served.data / "nats", ignore_errors=True)
        os.kill(served.bus_pid(), signal.SIGKILL)
        run = make_report(served)
        check_written(served, run)
        check_undone(served, run)
        assert served.starts == 1


@pytest.mark.feature("B1", "D3")
@pytest.mark.parametrize("round_", range(50 if ALL else 2))
def test_everything_killed_at_once_loses_nothing(tmp_path: Path, round_: int) -> None:
    with Served(tmp_path) as served:
        start = (
            "run",
            "start",
            "monthly-client-report",
            "--input",
            "client=acme",
            "--input",
            "month=2026-07",
        )
        served.aios(*start, "--request-id", "drill-start", *(["--wait"] if round_ % 2 else []))
        served.kill()
        run = make_report(served)
        served.kill()
        check_written(served, run)
        check_undone(served, run)
        assert served.starts == 3
