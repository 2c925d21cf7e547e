"""`aios serve` that is killed and comes back, and a client that does not give up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aios_cli

SAMPLE = Path(aios_cli.__file__).parent / "sample"
CLIENT, MONTH = "acme", "2026-07"
REPORT = ("index.jsonl", "report.html", "report.md", "review.html", "review.md")
TRIES = 40  # of a client's command, each of which waits for a server by itself
START_SECONDS = 30


class Served:
    """One installation. While it is entered, a server that dies is started again, without its crash point."""

    def __init__(
        self,
        place: Path,
        crash_at: str = "",
        meanwhile: Callable[["Served"], None] = lambda served: None,
        settle_seconds: float = 5.0,
    ) -> None:
        """`meanwhile` is called after each death, before the next start."""
        self.data, self.files, self.marker = place / "data", place / "files", place / "crashed"
        shutil.copytree(SAMPLE / CLIENT / MONTH, self.files / CLIENT / MONTH)
        self.starts = 0
        self._crash_at = crash_at
        self._meanwhile = meanwhile
        self._settle_seconds = str(settle_seconds)
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Served":
        self._keeper.start()
        assert self._up.wait(START_SECONDS), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self.process is not None:
            self.process.terminate()
        self._keeper.join(START_SECONDS)

    @property
    def report(self) -> Path:
        return self.files / CLIENT / MONTH / "report"

    def aios(self, *arguments: str) -> Any:
        """A command until a server has answered it; what it printed as JSON. Safe to repeat by its request id."""
        command = [sys.executable, "-m", "aios_cli", "--data-dir", str(self.data), *arguments, "--json"]
        answer: Any = None
        for _ in range(TRIES):
            assert self._up.wait(START_SECONDS), "the server did not come back"
            done = subprocess.run(command, capture_output=True, check=False, timeout=120)
            answer = (
                json.loads(done.stdout)
                if done.stdout
                else {"error": {"code": "NOTHING", "text": done.stderr}}
            )
            error = answer.get("error") if isinstance(answer, dict) else None
            if not error or error["code"] not in (
                "NO_SERVER",
                "UNAVAILABLE",
                "DEADLINE_EXCEEDED",
                "BUS_FAILED",
            ):
                return answer
        raise AssertionError(f"nobody ever answered {arguments}: {answer}")

    def kill(self) -> None:
        """SIGKILL the server, its bus and its sandboxes, all at once."""
        assert self.process is not None
        self._up.clear()
        os.killpg(self.process.pid, signal.SIGKILL)

    def bus_pid(self) -> int:
        """The process id of the embedded nats-server."""
        assert self.process is not None
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"nats-server" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError("there is no nats-server")

    def _keep(self) -> None:
        crash_at = self._crash_at
        while not self._stopping.is_set():
            environment = {
                **os.environ,
                "AIOS_CRASH_MARKER": str(self.marker),
                "AIOS_CONNECTOR_FILES_SETTLE_SECONDS": self._settle_seconds,
            }
            if crash_at:
                environment["AIOS_CRASH_AT"] = crash_at
            command = [
                sys.executable,
                "-m",
                "aios_cli",
                "serve",
                "--data-dir",
                str(self.data),
                "--files-root",
            ]
            self.process = subprocess.Popen(
                [*command, str(self.files), "--grpc-port", "0", "--http-port", "0", "--json"],
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            self.starts += 1
            assert self.process.stdout is not None
            if self.process.stdout.readline():
                self._up.set()
            self.process.wait()
            self._up.clear()
            crash_at = ""
            self._meanwhile(self)


def make_report(served: Served) -> str:
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


def check_written(served: Served, run: str) -> None:
    """Counted from outside: every file once, with the bytes that were approved, and one line in the index."""
    assert sorted(path.name for path in served.report.iterdir()) == sorted(REPORT)
    (line,) = (served.report / "index.jsonl").read_text().splitlines()
    assert json.loads(line)["run_id"] == run
    outputs = served.aios("run", "show", run)["outputs"]
    for name, file in (("report", "report.md"), ("review", "review.md"), ("report_html", "report.html")):
        digest = subprocess.run(
            ["sha256sum", served.report / file], capture_output=True, check=True, text=True
        )
        assert digest.stdout.split()[0] == outputs[name]["$artifact"]


def check_undone(served: Served, run: str) -> None:
    """Taken back: nothing of it is left."""
    undone = served.aios("run", "undo", run, "--request-id", "drill-undo")
    for _ in range(TRIES):
        if undone["state"] in ("undone", "undo_incomplete"):
            break
        undone = served.aios("run", "show", run)
    assert undone["state"] == "undone", undone
    assert not served.report.exists()
