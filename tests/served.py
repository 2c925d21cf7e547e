"""One `aios serve` for many tests, and the command line in this process, as fast as it can be called."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aios_cli.app import main
from tests.gateway.serving import WORKFLOWS, Api

STOP_SECONDS = 20
HEADER = "date,project,task,hours,rate,currency\n"
TIMESHEET = HEADER + "{month}-03,Shop,design,2,100,EUR\n{month}-04,Shop,build,3.5,90,EUR\n"


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        assert self.err == "", self.err
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs. Its folders come to rest after an hour, so that no run begins unasked."""

    place: Path
    ready: dict[str, Any]

    @property
    def data(self) -> Path:
        return self.place / "data"

    @property
    def files(self) -> Path:
        return self.place / "files"

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    @property
    def http(self) -> str:
        return f"http://{self.ready['http']}"

    def aios(self, *arguments: str) -> Said:
        """A command of this server's owner."""
        return run("--data-dir", str(self.data), *arguments)

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        return self.aios(*arguments, "--json").json

    def client(self, token: str | None = None) -> Api:
        return Api(self.ready["grpc"], self.token if token is None else token)

    def month(self, client: str, month: str, **files: str) -> Path:
        """A client's month with a time sheet and more files, each by the name before `.csv`."""
        folder = self.files / client / month
        folder.mkdir(parents=True)
        for name, text in {"timesheet": TIMESHEET.format(month=month), **files}.items():
            (folder / f"{name}.csv").write_text(text)
        return folder


def run(*arguments: str) -> Said:
    """The command line in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    texts = []
    for stream in (out, err):
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        texts.append(stream.buffer.getvalue().decode())
    return Said(code, *texts)


def served(place: Path) -> Iterator[Server]:
    """The body of a session's fixture."""
    (place / "resources").mkdir()
    (place / "resources" / "workflows.yaml").write_text(WORKFLOWS)
    command = [sys.executable, "-m", "aios_cli", "serve", "--data-dir", str(place / "data"), "--json"]
    command += ["--files-root", str(place / "files"), "--resources", str(place / "resources")]
    process = subprocess.Popen(
        [*command, "--grpc-port", "0", "--http-port", "0"],
        stdout=subprocess.PIPE,
        env={**os.environ, "AIOS_CONNECTOR_FILES_SETTLE_SECONDS": "3600"},
    )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert ready.get("event") == "ready", ready
        yield Server(place, ready)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
