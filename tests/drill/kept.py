"""A process of `aios serve` that comes back when it dies, and a client that does not give up."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from aios_cli.launcher import address
from tests.processes import below
from tests.served import run

PATIENCE_SECONDS = 120  # of a client that repeats its command
PAUSE = 0.05
START_SECONDS = 30
NO_ANSWER = ("NO_SERVER", "UNAVAILABLE", "DEADLINE_EXCEEDED", "BUS_FAILED", "NOTHING")


def patiently() -> Iterator[None]:
    """Come back again and again, until patience has ended."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        yield
        time.sleep(PAUSE)


def until(ask: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Ask until the answer is enough, or patience has ended; the last answer."""
    answer = None
    for _ in patiently():
        answer = ask()
        if enough(answer):
            break
    return answer


class Kept:
    """While it is entered, a server that dies is started again. It dies where it is told to, at `die_at`."""

    def __init__(
        self,
        data: Path,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        marker: Path,
        die_at: str = "",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """`die_at` is told before it is started; `meanwhile` is called after each death, before the next start."""
        self.data, self.marker = data, marker
        self.starts = 0
        self.deaths: list[str] = []  # the names of the instants at which it has died
        self._then: list[str] = []  # where it dies in its next lives
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", "aios_cli", "serve", "--data-dir", str(data), *arguments]
        self._command += ["--grpc-port", "0", "--http-port", "0", "--json"]
        self._told = marker.with_suffix(".at")
        self._environment = {
            **os.environ,
            "AIOS_CRASH_AT": f"@{self._told}",
            "AIOS_CRASH_MARKER": str(marker),
            **environment,
        }
        if die_at:
            self.die_at(die_at)
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

    @property
    def is_up(self) -> bool:
        """Whether it has said that it is ready, and was not seen to die since."""
        return self._up.is_set()

    def wait_until_up(self) -> None:
        """As long as it takes, if it is started again meanwhile: it may have been told to die before it is ready."""
        starts = self.starts
        while not self._up.wait(START_SECONDS):
            assert self.starts > starts, f"{self.data.name} did not start"
            starts = self.starts

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

    def die_at(self, point: str, *then: str) -> None:
        """From now on it dies at that named instant, `<name>:<n>` at its n-th passing, once; in its next lives at
        those of `then`."""
        self._then = list(then)
        written = self._told.with_suffix(".new")
        written.write_text(point)
        written.rename(self._told)

    def aios(self, *arguments: str) -> Any:
        """A command until a server has answered it; what it printed as JSON. Safe to repeat by its request id."""

        def answer() -> Any:
            self.wait_until_up()
            said = run("--data-dir", str(self.data), *arguments, "--json")
            return json.loads(said.out) if said.out else {"error": {"code": "NOTHING", "text": said.err}}

        def answered(answer: Any) -> bool:
            error = answer.get("error") if isinstance(answer, dict) else None
            return not error or error["code"] not in NO_ANSWER

        last = until(answer, answered)
        assert answered(last), f"nobody ever answered {arguments}: {last}"
        return last

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
        return self._child("nats-server")

    def beside_pid(self) -> int:
        """The process id of its second process."""
        return self._child("aios_cli.launcher.beside")

    def _child(self, command: str) -> int:
        assert self.process is not None
        (child,) = below(self.process.pid, command)
        return child

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self.process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
            self.starts += 1
            assert self.process.stdout is not None
            if self.process.stdout.readline():
                self._up.set()
            while self.process.poll() is None:
                self._note_death()  # of its second process, which it starts again itself
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(PAUSE)
            self._up.clear()
            self._note_death()
            self._meanwhile()

    def _note_death(self) -> None:
        """Where one of its processes has died where it was told to, the next one is told its instant."""
        died_at = self.marker.read_text() if self.marker.exists() else ""
        if died_at:
            self.deaths.append(died_at)
            self.marker.unlink()
            if self._then:
                self.die_at(*self._then)
