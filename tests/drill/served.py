"""An installation that is killed and comes back, and the whole work done on it: written, counted, taken back."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import aios_cli
from tests.drill.kept import Kept, until

SAMPLE = Path(aios_cli.__file__).parent / "sample"
CLIENT, MONTH = "acme", "2026-07"
AT_ONCE = 5  # reports
REPORT = ("index.jsonl", "report.html", "report.md", "review.html", "review.md")


class Installation(Protocol):
    """What the work needs of a served AIOS, however many processes it is."""

    files: Path

    def aios(self, *arguments: str) -> Any: ...


def report_of(served: Installation, client: str = CLIENT) -> Path:
    """Where the report is written."""
    return served.files / client / MONTH / "report"


class Served(Kept):
    """One installation, all of it in one process, over a copy of a sample month."""

    def __init__(
        self,
        place: Path,
        die_at: str = "",
        meanwhile: Callable[["Served"], None] = lambda served: None,
        settle_seconds: float = 5.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`meanwhile` is called after each death, before the next start."""
        self.files = place / "files"
        self._clients = itertools.count(1)
        self._sample(CLIENT)
        super().__init__(
            place / "data",
            ["--files-root", str(self.files)],
            environment={"AIOS_CONNECTOR_FILES_SETTLE_SECONDS": str(settle_seconds), **(environment or {})},
            marker=place / "crashed",
            die_at=die_at,
            meanwhile=lambda: meanwhile(self),
        )

    def new_client(self) -> str:
        """One more client with the sample month; its name."""
        return self._sample(f"client-{next(self._clients)}")

    def _sample(self, client: str) -> str:
        shutil.copytree(SAMPLE / CLIENT / MONTH, self.files / client / MONTH)
        return client

    @property
    def report(self) -> Path:
        return report_of(self)


def start_report(served: Installation, client: str, *more: str) -> Any:
    """Start the report of a client's month, or hear again what became of it."""
    return served.aios(
        "run", "start", "monthly-client-report", "--input", f"client={client}", "--input", f"month={MONTH}",
        "--request-id", f"drill-start-{client}", *more,
    )  # fmt: skip


def make_report(served: Installation, client: str = CLIENT) -> str:
    """The whole work, by a client that repeats what got no answer. Returns the run's id."""
    run = str(start_report(served, client, "--wait")["run_id"])
    shown = until(lambda: served.aios("run", "show", run), lambda shown: shown["pending_approvals"])
    (approval,) = shown["pending_approvals"]
    served.aios("approval", "approve", approval, "--request-id", f"drill-approve-{client}")
    ended = start_report(served, client, "--wait")
    assert ended["run_id"] == run
    assert ended["state"] == "succeeded", ended
    return run


def check_written(served: Installation, run: str, client: str = CLIENT) -> None:
    """Counted from outside: every file once, with the bytes that were approved, and one line in the index."""
    report = report_of(served, client)
    assert sorted(path.name for path in report.iterdir()) == sorted(REPORT)
    (line,) = (report / "index.jsonl").read_text().splitlines()
    assert json.loads(line)["run_id"] == run
    outputs = served.aios("run", "show", run)["outputs"]
    for name, file in (("report", "report.md"), ("review", "review.md"), ("report_html", "report.html")):
        digest = subprocess.run(["sha256sum", report / file], capture_output=True, check=True, text=True)
        assert digest.stdout.split()[0] == outputs[name]["$artifact"]


def check_redone(served: Installation, run: str, client: str = CLIENT) -> None:
    """Put back: everything is as the run had made it."""
    served.aios("run", "redo", run, "--request-id", f"drill-redo-{client}")
    redone = until(
        lambda: served.aios("run", "show", run),
        lambda shown: shown["state"] in ("succeeded", "partly_undone"),
    )
    assert redone["state"] == "succeeded", redone
    check_written(served, run, client)


def check_undone(served: Installation, run: str, client: str = CLIENT) -> None:
    """Taken back: nothing of it is left."""
    served.aios("run", "undo", run, "--request-id", f"drill-undo-{client}")
    undone = until(
        lambda: served.aios("run", "show", run), lambda shown: shown["state"] in ("undone", "undo_incomplete")
    )
    assert undone["state"] == "undone", undone
    assert not report_of(served, client).exists()


def check_killed_at(served: Served, point: str, *passings: int) -> None:
    """It dies at one of these passings in each of its next lives, while the reports of new clients are made and taken
    back, several of them at once where one would not pass it as often."""
    before = len(served.deaths)
    served.die_at(*(f"{point}:{passing}" for passing in passings))
    for _ in range(sum(passings)):
        clients = [served.new_client() for _ in range(min(sum(passings), AT_ONCE))]
        for client in clients:
            start_report(served, client)
        runs = [(make_report(served, client), client) for client in clients]
        for run, client in runs:
            check_written(served, run, client)
            check_undone(served, run, client)
        if len(served.deaths) >= before + len(passings):
            break
    assert served.deaths[before:] == [point] * len(passings)
