"""An installation that is killed and comes back, and the whole work done on it: written, counted, taken back."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import aios_cli
from tests.drill.kept import TRIES, Kept

SAMPLE = Path(aios_cli.__file__).parent / "sample"
CLIENT, MONTH = "acme", "2026-07"
REPORT = ("index.jsonl", "report.html", "report.md", "review.html", "review.md")


class Installation(Protocol):
    """What the work needs of a served AIOS, however many processes it is."""

    files: Path

    def aios(self, *arguments: str) -> Any: ...


def report_of(served: Installation) -> Path:
    """Where the report is written."""
    return served.files / CLIENT / MONTH / "report"


class Served(Kept):
    """One installation, all of it in one process, over a copy of a sample month."""

    def __init__(
        self,
        place: Path,
        crash_at: str = "",
        meanwhile: Callable[["Served"], None] = lambda served: None,
        settle_seconds: float = 5.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`meanwhile` is called after each death, before the next start."""
        self.files = place / "files"
        shutil.copytree(SAMPLE / CLIENT / MONTH, self.files / CLIENT / MONTH)
        super().__init__(
            place / "data",
            ["--files-root", str(self.files)],
            environment={"AIOS_CONNECTOR_FILES_SETTLE_SECONDS": str(settle_seconds), **(environment or {})},
            marker=place / "crashed",
            crash_at=crash_at,
            meanwhile=lambda: meanwhile(self),
        )

    @property
    def report(self) -> Path:
        return report_of(self)


def make_report(served: Installation) -> str:
    """The whole work, by a client that repeats what got no answer. Returns the run's id."""
    started = served.aios(
        "run", "start", "monthly-client-report", "--input", f"client={CLIENT}", "--input", f"month={MONTH}",
        "--request-id", "drill-start", "--wait",
    )  # fmt: skip
    run = str(started["run_id"])
    shown = served.aios("run", "show", run)
    for _ in range(TRIES):
        if shown["pending_approvals"]:
            break
        shown = served.aios("run", "show", run)
    (approval,) = shown["pending_approvals"]
    served.aios("approval", "approve", approval, "--request-id", "drill-approve")
    ended = served.aios("run", "start", "monthly-client-report", "--input", f"client={CLIENT}", "--input",
        f"month={MONTH}", "--request-id", "drill-start", "--wait")  # fmt: skip
    assert ended["run_id"] == run
    assert ended["state"] == "succeeded", ended
    return run


def check_written(served: Installation, run: str) -> None:
    """Counted from outside: every file once, with the bytes that were approved, and one line in the index."""
    assert sorted(path.name for path in report_of(served).iterdir()) == sorted(REPORT)
    (line,) = (report_of(served) / "index.jsonl").read_text().splitlines()
    assert json.loads(line)["run_id"] == run
    outputs = served.aios("run", "show", run)["outputs"]
    for name, file in (("report", "report.md"), ("review", "review.md"), ("report_html", "report.html")):
        digest = subprocess.run(
            ["sha256sum", report_of(served) / file], capture_output=True, check=True, text=True
        )
        assert digest.stdout.split()[0] == outputs[name]["$artifact"]


def check_redone(served: Installation, run: str) -> None:
    """Put back: everything is as the run had made it."""
    redone = served.aios("run", "redo", run, "--request-id", "drill-redo")
    for _ in range(TRIES):
        if redone["state"] in ("succeeded", "partly_undone"):
            break
        redone = served.aios("run", "show", run)
    assert redone["state"] == "succeeded", redone
    check_written(served, run)


def check_undone(served: Installation, run: str) -> None:
    """Taken back: nothing of it is left."""
    undone = served.aios("run", "undo", run, "--request-id", "drill-undo")
    for _ in range(TRIES):
        if undone["state"] in ("undone", "undo_incomplete"):
            break
        undone = served.aios("run", "show", run)
    assert undone["state"] == "undone", undone
    assert not report_of(served).exists()
