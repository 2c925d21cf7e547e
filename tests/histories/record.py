"""Record what this version leaves behind: `python -m tests.histories.record`, once for each released version.

It makes `tests/histories/<version>/` with the store files of a company that has done a bit of everything, and
`runs.json` with what a person was shown of each run. Later versions must read it as it was meant.
"""

import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from aios_cli.version import VERSION
from tests.drill.served import SAMPLE, Served

HERE: Final = Path(__file__).parent
STORES: Final = ("orchestrator", "memory", "connector-files")
SHOWN: Final = (
    "run_id",
    "state",
    "workflow",
    "workflow_version",
    "mode",
    "about",
    "outputs",
    "cost",
    "sequence",
)


def start(served: Served, client: str, month: str, name: str) -> dict[str, Any]:
    """A report until it ends or needs a person."""
    folder = served.files / client / month
    if not folder.exists():
        shutil.copytree(SAMPLE / client / month, folder)
    started: dict[str, Any] = served.aios(
        "run", "start", "monthly-client-report", "--input", f"client={client}", "--input", f"month={month}",
        "--request-id", name, "--wait",
    )  # fmt: skip
    return started


def approve(served: Served, run: dict[str, Any]) -> dict[str, Any]:
    """Approve what it asks for; the run when it has ended."""
    (approval,) = run["pending_approvals"]
    return dict(served.aios("approval", "approve", approval, "--request-id", f"approve-{approval}", "--wait"))


def work(served: Served) -> None:
    """A bit of everything."""
    done = start(served, "acme", "2026-07", "done")
    approve(served, done)
    undone = start(served, "acme", "2026-08", "undone")
    approve(served, undone)
    served.aios("run", "undo", undone["run_id"], "--request-id", "undo")
    rejected = start(served, "acme", "2026-09", "rejected")
    served.aios(
        "approval", "reject", rejected["pending_approvals"][0], "--request-id", "reject", "--note", "not yet"
    )
    waiting = start(served, "acme", "2026-10", "waiting")
    assert waiting["pending_approvals"]
    asked = start(served, "brandt", "2026-07", "asked")
    while asked["pending_approvals"]:
        approval = served.aios("approval", "show", asked["pending_approvals"][0])
        if approval["kind"] == "question":
            answers = [
                part
                for item in approval["questions"]
                for part in ("--answer", f"{item['id']}={item['options'][0]}")
            ]
            served.aios(
                "approval",
                "answer",
                approval["approval_id"],
                *answers,
                "--request-id",
                f"a-{approval['approval_id']}",
                "--wait",
            )
        else:
            approve(served, asked)
        asked = served.aios("run", "show", asked["run_id"])
    served.aios(
        "run", "simulate", "monthly-client-report", "--input", "client=acme", "--input", "month=2026-10",
        "--request-id", "simulated",
    )  # fmt: skip
    missing = start_missing(served)
    assert missing["state"] == "failed", missing["state"]


def start_missing(served: Served) -> dict[str, Any]:
    """A report of a month that is not there."""
    failed: dict[str, Any] = served.aios(
        "run", "start", "monthly-client-report", "--input", "client=nobody", "--input", "month=2026-07",
        "--request-id", "failed", "--wait",
    )  # fmt: skip
    return failed


def main() -> None:
    place = HERE / VERSION
    if place.exists():
        sys.exit(f"{place} is there already; a released version's histories never change.")
    with tempfile.TemporaryDirectory(prefix="aios-histories-") as folder:
        with Served(Path(folder), settle_seconds=3600) as served:
            work(served)
            shown = [served.aios("run", "show", run["run_id"]) for run in served.aios("run", "list")]
        place.mkdir()
        for name in STORES:
            source = sqlite3.connect(served.data / f"{name}.db")
            source.execute("VACUUM INTO ?", (str(place / f"{name}.db"),))
            source.close()
    runs = [{name: run[name] for name in SHOWN} for run in shown]
    (place / "runs.json").write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    print(f"{place}: {len(runs)} runs, {sum(file.stat().st_size for file in place.iterdir())} bytes")


if __name__ == "__main__":
    main()
