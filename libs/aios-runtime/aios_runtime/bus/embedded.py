"""The embedded message bus: nats-server as a child process that lives and dies with its parent.

It listens on the loopback interface alone, each service has a user of its own, and what it holds may be lost: it is
restarted, on the same port, even when its whole directory was deleted.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from aios_runtime.bus.server_config import PING_SECONDS, Layout, render
from aios_runtime.bus.server_process import ServerProcess
from aios_runtime.bus.topology import DEFAULT_CONNECTORS

BACKOFF_SECONDS: Final = (
    0.0,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)  # before the n-th restart in a row; then the last again
STEADY_SECONDS: Final = 30.0
MAX_RESTARTS: Final = 60  # in a row, about 5 minutes: then it is given up
WATCH_SECONDS: Final = (
    1.0  # how often the store is looked for: a server whose files were deleted doesn't notice
)
PORT_ATTEMPTS: Final = 5

log = logging.getLogger("aios.bus.embedded")


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """`port` 0: the one of last time if it is free, else any free one. `binary` empty: the packaged one. A server that
    ran for `steady_seconds` starts the row of restarts afresh; one asks silent clients every `ping_seconds`."""

    host: str = "127.0.0.1"
    port: int = 0
    connectors: Sequence[str] = DEFAULT_CONNECTORS
    binary: str = ""
    steady_seconds: float = STEADY_SECONDS
    ping_seconds: int = PING_SECONDS


@dataclass(frozen=True, slots=True)
class Crash:
    """The server ended unasked. `restarts` counts those in a row; `final`: it is given up."""

    exit_code: int
    reason: str
    restarts: int
    final: bool


class EmbeddedNats:
    """Runs one nats-server under `data_dir/nats`; users and their passwords stand in `data_dir/nats-users`.

    `on_crash` is called for every end of the server that `stop` didn't ask for, `on_trouble` with what `trouble` gives
    when that becomes another. A server whose disk is full or fails is ended, and tried again without end: the work
    goes on when there is space.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: EmbeddedSettings | None = None,
        *,
        on_crash: Callable[[Crash], None] | None = None,
        on_trouble: Callable[[AiosError | None], None] = lambda trouble: None,
    ) -> None:
        self._settings = settings or EmbeddedSettings()
        self._directory = data_dir.absolute() / "nats"
        self._users = data_dir.absolute() / USERS_DIRECTORY
        self._on_crash = on_crash
        self._on_trouble = on_trouble
        self._passwords: dict[str, str] = {}
        self._layout = Layout(
            self._directory, self._settings.host, self._settings.port, self._settings.ping_seconds
        )
        self._server: ServerProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._trouble: AiosError | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the server that runs now."""
        return self._server.pid if self._server is not None else None

    def trouble(self) -> AiosError | None:
        """Why the bus doesn't run now, as DISK_FULL or BUS_FAILED; None when it does."""
        return self._trouble

    async def start(self) -> Endpoint:
        """Start the server; returns when clients can connect.

        Raises PORT_TAKEN, DATA_DIR, READ_ONLY, DISK_FULL or BUS_FAILED.
        """
        self._passwords = load_users(self._users, identities(self._settings.connectors))
        remembered = read_port(self._users / URL_FILE) if self._settings.port == 0 else 0
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = self._settings.port or _free_port(self._settings.host, remembered if attempt == 1 else 0)
            self._layout = replace(self._layout, port=port)
            try:
                await self._launch()
                break
            except AiosError as error:
                if error.code != "PORT_TAKEN" or self._settings.port or attempt == PORT_ATTEMPTS:
                    raise
        url = f"nats://{self._settings.host}:{self._layout.port}"
        endpoint = Endpoint(url, dict(self._passwords), self.trouble)
        write_private(self._users / URL_FILE, endpoint.url + "\n")
        self._keeper = asyncio.create_task(self._keep(), name="embedded nats")
        return endpoint

    async def stop(self) -> None:
        """Stop the server and wait until it has gone."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._server is not None:
            await self._server.stop()

    async def _launch(self) -> None:
        make_directory(self._directory)
        make_directory(self._layout.store)
        write_private(self._layout.config, render(self._layout, self._passwords, self._settings.connectors))
        try:
            self._server = await ServerProcess.start(self._layout, self._settings.binary)
        except OSError as problem:
            raise RetryableError("BUS_FAILED", f"nats-server can't be run: {problem.strerror}.") from problem

    async def _keep(self) -> None:
        """Restart the server whenever it ends, and end it when it can't store any more."""
        loop = asyncio.get_running_loop()
        restarts = 0
        while self._server is not None:
            began = loop.time()
            reason, curable = await self._until_ended(self._server)
            full = self._server.disk_full
            restarts = 1 if loop.time() - began > self._settings.steady_seconds else restarts + 1
            while True:
                code = "DISK_FULL" if full else "BUS_FAILED"
                self._say(RetryableError(code, reason, retry_after=1.0))
                final = restarts > MAX_RESTARTS and not curable
                self._report(Crash(self._server.exit_code, reason, restarts, final))
                if final:
                    return
                await asyncio.sleep(BACKOFF_SECONDS[min(restarts, len(BACKOFF_SECONDS)) - 1])
                try:
                    await self._launch()
                    break
                except AiosError as error:
                    full = curable = error.code == "DISK_FULL"
                    reason = f"The disk of {self._directory} is full." if full else error.message
                    restarts += 1
            self._say(None)

    def _say(self, trouble: AiosError | None) -> None:
        self._trouble = trouble
        self._on_trouble(trouble)

    async def _until_ended(self, server: ServerProcess) -> tuple[str, bool]:
        """Why it ended or had to be ended, and whether space on the disk would cure it."""
        ended = asyncio.ensure_future(server.wait())
        faulty = asyncio.ensure_future(server.faulty.wait())
        store = _identity(self._layout.store)
        reason = ""
        try:
            while not ended.done():
                await asyncio.wait(
                    [ended, faulty], timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if not ended.done() and not faulty.done() and _identity(self._layout.store) == store:
                    continue
                if not ended.done():
                    reason = server.store_fault or "The bus's directory was deleted."
                    server.kill()
                    await ended
        finally:
            ended.cancel()
            faulty.cancel()
        ending = f"The bus ended by itself (exit code {server.exit_code}): {server.last_words()}"
        return reason or ending, bool(server.store_fault)

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
        if self._on_crash is not None:
            self._on_crash(crash)


def _identity(store: Path) -> tuple[int, int]:
    """Which directory the server writes to: one that was deleted and made again is another one."""
    try:
        status = (store / "jetstream").stat()  # the server makes it
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


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
