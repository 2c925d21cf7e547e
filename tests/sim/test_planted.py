"""The simulator is itself tested: each planted defect is found.

`make test` takes the seeds that found them first; `make drill` (AIOS_DRILL=all) up to 10,000 fresh ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.planted import DEFECTS

ROOT = Path(__file__).resolve().parents[2]
ALL = os.environ.get("AIOS_DRILL") == "all"
SECONDS = 24 * 3600 if ALL else 900


@pytest.mark.drill
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.feature("B1", "B3")
def test_every_planted_defect_is_found_and_none_is_seen_without_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.planted", *(["fresh"] if ALL else [])],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        cwd=ROOT,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONHASHSEED": "0",
        },  # what other tests set decides nothing here
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert set(told) == {plant.__name__ for plant in DEFECTS}
    missed = [name for name, of in told.items() if not of["found"]]
    assert not missed, f"not found: {missed}"
    seen = {name: of["without"] for name, of in told.items() if of["without"]}
    assert not seen, f"these seeds fail without the defect: {seen}"
