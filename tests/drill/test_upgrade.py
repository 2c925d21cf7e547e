"""A rolling upgrade: processes of an old and of the present version side by side, on one bus and one database."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from aios.run.v1.state_pb2 import RUN_STATE_SUCCEEDED
from tests.drill.cluster import check_histories
from tests.drill.replicated import Running, running

ROOT = Path(__file__).parents[2]
# By version: the revision that it is, of those from which one can upgrade without stopping everything.
REVISIONS: dict[str, str] = json.loads((ROOT / "tests" / "histories" / "revisions.json").read_text())
RUNS = 40  # between two replacements
# In which they are replaced, by seed.
ORDERS = range(1, 11) if os.environ.get("AIOS_DRILL") == "all" else (3,)
SOURCES = ("libs", "services")

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]


def _packages(root: Path) -> str:
    """A PYTHONPATH of all packages of a tree."""
    places = [
        *root.glob("libs/*/"),
        *root.glob("services/*/"),
        *root.glob("services/connectors/*/"),
    ]
    return os.pathsep.join(str(place) for place in places)


@pytest.fixture(params=REVISIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The PYTHONPATH of an old version, taken from the history of the repository."""
    revision = REVISIONS[request.param]
    made = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, *SOURCES], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(
            f"version {request.param} is not in this clone: fetch the whole history, which has {revision}"
        )
    root = tmp_path / "old"
    root.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(root)], input=made.stdout, check=True)
    path = _packages(root)
    found = subprocess.run(
        [sys.executable, "-c", "import aios_orchestrator; print(aios_orchestrator.__file__)"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=True,
        text=True,
    )
    assert found.stdout.startswith(str(root)), "it is the old version that would run"
    return path


@pytest.mark.feature("B1", "D3", "L2")
@pytest.mark.parametrize("seed", ORDERS)
async def test_an_old_and_a_new_version_side_by_side_lose_and_double_nothing(
    tmp_path: Path, old: str, seed: int
) -> None:
    """One process after the other is replaced, in any order, while runs of three kinds go on; so old and new talk to
    each other in every pair, and take over each other's partitions, runs and tasks."""
    async with running(tmp_path, variables={"PYTHONPATH": old}) as here:
        person = here.person
        async with person.approving():
            order = list(here.cluster.parts)
            random.Random(seed).shuffle(order)
            await _some(here, 0)
            for number, name in enumerate(order, start=1):
                some = asyncio.create_task(_some(here, number))
                await asyncio.to_thread(here.cluster.parts[name].renew, {"PYTHONPATH": ""})
                await some
            ended = await person.all_succeed(600)
        assert ended == (len(order) + 1) * (RUNS + 2 * (RUNS // 4))
        events = await check_histories(here.endpoint, person.started, RUN_STATE_SUCCEEDED)
        notes = here.cluster.files / "notes"
        for path in notes.iterdir():
            assert len(path.read_text().splitlines()) == 1, path.name
        assert len(list(notes.iterdir())) == (len(order) + 1) * (RUNS // 4)
        assert not person.put_off, "a start waits for the take-over; its caller is not told to come again"
        print(
            f"{len(order)} processes replaced: {ended} runs, {events} events,"
            f" the slowest call {person.slowest:.1f} s"
        )


async def _some(here: Running, number: int) -> None:
    first = number * RUNS
    await asyncio.gather(
        here.person.start("echoes", range(first, first + RUNS)),
        here.person.start("waits", range(first, first + RUNS // 4)),
        here.person.start("keeps", range(first, first + RUNS // 4)),
    )
