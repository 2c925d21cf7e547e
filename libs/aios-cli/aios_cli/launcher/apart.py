"""Services in a second process: `aios serve` starts it, and keeps it running.

Both ends of it are here, since they have to agree on what goes between them. To the child's standard input goes a line
with its settings, then a line that says go, and then one whenever the parent's bus has trouble or has it no more. From
its standard output come the lines that every start prints: that it is ready and where, or what was wrong.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from aios_cli.launcher.settings import ServeSettings
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.service.child import die_with
from aios_runtime.service.port import Health

BACKOFF_SECONDS: Final = (
    0.0,
    0.1,
    0.5,
    1.0,
    2.0,
    5.0,
)  # before the n-th restart in a row; then the last again
STEADY_SECONDS: Final = 30.0  # it ran for so long: the row of restarts begins afresh
MAX_RESTARTS: Final = 20  # in a row: then it is given up
STOP_SECONDS: Final = 8.0  # until one that was asked to end is ended
LINE_BYTES: Final = 1024 * 1024
LOG_FILE: Final = "logs/beside.jsonl"  # of its own: two processes that turn over one file lose lines

_log = logging.getLogger(__name__)


class Apart:
    """The services that are the target of `settings`, the door on its ports among them, as a child process. `give_up`
    hears why when it can't be kept running."""

    def __init__(self, settings: ServeSettings, give_up: Callable[[AiosError], None]) -> None:
        # What goes wrong with it is written to its own log; its output is for this process.
        self._settings = replace(settings, json=True, log_file=LOG_FILE, probe_port=None)
        self._give_up = give_up
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready = False
        self._trouble: AiosError | None = None
        self.grpc_port = settings.grpc_port or 0
        self.http_port = settings.http_port or 0

    async def begin(self) -> None:
        """Start the process, which loads its code and then waits."""
        parent = os.getpid()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aios_cli.launcher.beside",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which ends it in its turn
            preexec_fn=lambda: die_with(parent),
        )
        self._write(packed(replace(self._settings, grpc_port=self.grpc_port, http_port=self.http_port)))

    def tell(self, trouble: AiosError | None) -> None:
        """Why the bus is not there; None when it is again."""
        self._trouble = trouble
        if self._ready:
            self._write(told_of(trouble))

    async def start(self) -> None:
        """Have it serve; returns when it does. Raises what it says was wrong, or UNAVAILABLE when it says nothing."""
        await self._go()
        self._keeper = asyncio.create_task(self._keep(), name="keep the second process")

    async def stop(self) -> None:
        """Ask it to end, insist after a while, and wait until it has."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except ProcessLookupError:
            await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def health(self) -> Health:
        """Whether it runs; what it says of itself it says over the bus."""
        return Health(ready=self._ready, detail="" if self._ready else "its process is being started again")

    async def _go(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        self._write(b"go")
        self._write(told_of(self._trouble))
        line = await process.stdout.readline()
        said = json.loads(line) if line.startswith(b"{") else {}
        if said.get("event") != "ready":
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it has said why, and ends by itself; or it says nothing that is understood
            await process.wait()
            raise _reason(said.get("error"))
        self.grpc_port, self.http_port = _port(said["grpc"]), _port(said["http"])
        self._ready = True
        self._write(told_of(self._trouble))  # it may have become another one meanwhile

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is over, which is seen elsewhere
            self._process.stdin.write(line + b"\n")

    async def _keep(self) -> None:
        """Start it again whenever it ends."""
        loop, restarts = asyncio.get_running_loop(), 0
        while True:
            assert self._process is not None
            began = loop.time()
            await self._process.wait()
            self._ready = False
            restarts = 1 if loop.time() - began > STEADY_SECONDS else restarts + 1
            why = f"it ended by itself (exit code {self._process.returncode})"
            while not self._ready:
                _log.warning("the second process ended", extra={"reason": why, "restarts": restarts})
                if restarts > MAX_RESTARTS:
                    message = f"The process of {self._settings.target} could not be kept running: {why}"
                    self._give_up(RetryableError("UNAVAILABLE", message))
                    return
                await asyncio.sleep(BACKOFF_SECONDS[min(restarts, len(BACKOFF_SECONDS)) - 1])
                try:
                    await self.begin()
                    await self._go()
                except (AiosError, OSError) as error:
                    why, restarts = str(error), restarts + 1


def packed(settings: ServeSettings) -> bytes:
    """Settings as one line; the environment is the child's own."""
    told = {
        field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "environ"
    }
    return json.dumps(told, default=_plain).encode()


def unpacked(line: bytes) -> ServeSettings:
    """What `packed` made."""
    told: dict[str, Any] = json.loads(line)
    for name in _PATHS:
        told[name] = Path(told[name]) if told[name] is not None else None
    return ServeSettings(**told)


def told_of(trouble: AiosError | None) -> bytes:
    """What the bus's trouble is, as one line."""
    return json.dumps([trouble.code, trouble.message] if trouble is not None else None).encode()


def trouble_of(line: bytes) -> AiosError | None:
    """What `told_of` made."""
    told = json.loads(line)
    return RetryableError(told[0], told[1], retry_after=1.0) if told else None


_PATHS: Final = ("data_dir", "files_root", "resources", "nats_users", "token_file", "config")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    assert isinstance(value, Mapping), type(value)
    return dict(value)


def _port(place: str) -> int:
    return int(place.rpartition(":")[2])


def _reason(error: Mapping[str, Any] | None) -> AiosError:
    if error is None:
        return RetryableError("UNAVAILABLE", "The second process ended before it said anything.")
    details = {str(name): str(text) for name, text in error["details"].items()}
    return TerminalError(error["code"], error["message"], **details)
