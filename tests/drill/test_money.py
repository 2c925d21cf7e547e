"""Killed between the hold and the hand-out, or the outcome and its settling, what was spent is settled once."""

import itertools
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
        # One run passes it a few times: as many runs as it takes, and one more, for which what was held must be free.
        for number in itertools.count(1):
            died = bool(served.deaths)
            started = served.aios("run", "start", "priced", "--request-id", f"run-{number}", "--wait")
            assert started["state"] == "succeeded"
            assert settled(served, 2 * number)["charges"] == 2 * number
            if died:
                break
            assert number <= passing
        assert served.deaths == [point] and served.starts == 2


@pytest.mark.feature("F5", "B1")
@pytest.mark.parametrize(
    "point", ["orchestrator.held", "orchestrator.received"] if ALL else ["orchestrator.held"]
)
def test_killed_while_a_raised_cap_lets_it_go_on_it_goes_on_once(tmp_path: Path, point: str) -> None:
    """Nothing is held before the cap is raised: the first hold is that of the run that goes on."""
    file = tmp_path / "priced.yaml"
    file.write_text(DOCUMENTS.replace('cap: "0.15"', 'cap: "0.05"'))
    with Served(tmp_path, f"{point}:{1 if point.endswith('held') else 3}") as served:
        served.aios("apply", str(file), "--request-id", "apply-priced")
        started = served.aios("run", "start", "priced", "--request-id", "first")
        until(lambda: served.aios("run", "show", started["run_id"]), lambda shown: shown["pending_approvals"])
        file.write_text(DOCUMENTS)
        served.aios("apply", str(file), "--request-id", "raise-the-cap")
        ended = until(
            lambda: served.aios("run", "show", started["run_id"]), lambda shown: shown["state"] == "succeeded"
        )
        assert ended["state"] == "succeeded" and not ended["pending_approvals"]
        assert settled(served, 2)["charges"] == 2
        assert served.deaths == [point]
        (asked,) = [
            item for item in served.aios("approval", "list", "--all") if item["run_id"] == started["run_id"]
        ]
        assert (asked["state"], asked["decided_by"]) == ("answered", "policy:budget")
