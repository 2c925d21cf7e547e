"""Killed between the hold and the hand-out, or the outcome and its settling, what was spent is settled once."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.drill.kept import until
from tests.drill.served import Served

ALL = os.environ.get("AIOS_DRILL") == "all"
PASSINGS = tuple(range(1, 9)) if ALL else (2,)
DOCUMENTS = """apiVersion: aios/v1
kind: Workflow
metadata: {name: priced}
spec:
  steps:
    - {name: one, agent: echo, budget: "0.10", input: {n: 1}}
    - {name: two, agent: echo, budget: "0.10", input: {n: "${steps.one.n}"}}
---
apiVersion: aios/v1
kind: Budget
metadata: {name: everything}
spec: {per: total, cap: "0.15"}
"""

pytestmark = pytest.mark.drill


def settled(served: Served, charges: int) -> Any:
    """The budget's account, once so much was settled and nothing is held."""
    return until(
        lambda: served.aios("budget", "history", "everything")[0],
        lambda found: (found["charges"], found["held"]) == (charges, "0.00"),
    )


@pytest.mark.feature("F5", "B1")
@pytest.mark.parametrize("passing", PASSINGS)
@pytest.mark.parametrize("point", ["orchestrator.held", "orchestrator.committed"])
def test_killed_around_a_hold_each_attempt_is_settled_once(tmp_path: Path, point: str, passing: int) -> None:
    file = tmp_path / "priced.yaml"
    file.write_text(DOCUMENTS)
    with Served(tmp_path, f"{point}:{passing}") as served:
        served.aios("apply", str(file), "--request-id", "apply-priced")
        started = served.aios("run", "start", "priced", "--request-id", "first", "--wait")
        assert started["state"] == "succeeded"
        assert settled(served, 2)["charges"] == 2
        assert served.deaths == [point] and served.starts == 2
        # What was held is free again: the same fits under the cap once more.
        again = served.aios("run", "start", "priced", "--request-id", "second", "--wait")
        assert (again["state"], settled(served, 4)["charges"]) == ("succeeded", 4)
