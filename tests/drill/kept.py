"""A process of `aios serve` that comes back when it dies, and a client that does not give up."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from aios_cli.launcher import address

TRIES = 40  # of a client's command, each of which waits for a server by itself
START_SECONDS = 30
NO_ANSWER = ("NO_SERVER", "UNAVAILABLE", "DEADLINE_EXCEEDED", "BUS_FAILED", "NOTHING")


class Kept:
    """While it is entered, a server that dies is started again, without its crash point."""

    def __init__(
        self,
        data: Path,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        marker: Path,
        crash_at: str = "",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """`meanwhile` is called after each death, before the next start."""
        self.data, self.marker = data, marker
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", "aios_cli", "serve", "--data-dir", str(data), *arguments]
        self._command += ["--grpc-port", "0", "--http-port", "0", "--json"]
        self._environment = {**os.environ, "AIOS_CRASH_MARKER": str(marker), **environment}
        self._crash_at = crash_at
        self._meanwhile = meanwhile
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        self.wait_until_up()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for _ in range(START_SECONDS):
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()  # it may have been started again in this instant
            self._keeper.join(1.0)
            if not self._keeper.is_alive():
                return
        self.kill()
        self._keeper.join(START_SECONDS)

    def wait_until_up(self) -> None:
        assert self._up.wait(START_SECONDS), f"{self.data.name} did not start"

    def kill(self) -> None:
        """SIGKILL the server, its bus and its sandboxes, all at once."""
        assert self.process is not None
        self._up.clear()
        os.killpg(self.process.pid, signal.SIGKILL)

    def kill_for_good(self) -> None:
        """SIGKILL, and nobody starts it again."""
        self._stopping.set()
        self.kill()

    def renew(self, environment: Mapping[str, str]) -> None:
        """Let it end, and come back with these environment variables changed; an empty one is taken away. Returns
        when it is up."""
        changed = {**self._environment, **environment}
        self._environment = {name: value for name, value in changed.items() if value}
        assert self.process is not None
        self._up.clear()  # set again by its keeper, when the next one is up
        self.process.terminate()
        self.wait_until_up()

    def stop(self, with_signal: int) -> int:
        """Let it end, for good; its exit code."""
        self._stopping.set()
        assert self.process is not None
        self.process.send_signal(with_signal)
        return self.process.wait(START_SECONDS)

    def aios(self, *arguments: str) -> Any:
        """A command until a server has answered it; what it printed as JSON. Safe to repeat by its request id."""
        command = [sys.executable, "-m", "aios_cli", "--data-dir", str(self.data), *arguments, "--json"]
        answer: Any = None
        for _ in range(TRIES):
            self.wait_until_up()
            done = subprocess.run(command, capture_output=True, check=False, timeout=120)
            answer = (
                json.loads(done.stdout)
                if done.stdout
                else {"error": {"code": "NOTHING", "text": done.stderr.decode()}}
            )
            error = answer.get("error") if isinstance(answer, dict) else None
            if not error or error["code"] not in NO_ANSWER:
                return answer
        raise AssertionError(f"nobody ever answered {arguments}: {answer}")

    def door(self) -> tuple[str, str]:
        """Where the server that runs now takes gRPC, and the owner's token. Raises OSError while there is none."""
        if not self._up.is_set():
            raise FileNotFoundError(f"{self.data.name} is not up")
        found = address.read(self.data)
        if found is None:
            raise FileNotFoundError(f"{self.data.name} is not up")
        return found.grpc, Path(found.token_file).read_text().strip()

    def bus_pid(self) -> int:
        """The process id of its embedded nats-server."""
        assert self.process is not None
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"nats-server" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError("there is no nats-server")

    def _keep(self) -> None:
        crash_at = {"AIOS_CRASH_AT": self._crash_at} if self._crash_at else {}
        while not self._stopping.is_set():
            self.process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                env=self._environment | crash_at,
                start_new_session=True,
            )
            self.starts += 1
            assert self.process.stdout is not None
            if self.process.stdout.readline():
                self._up.set()
            self.process.wait()
            self._up.clear()
            crash_at = {}
            self._meanwhile()
