"""The runner's end of the zygote: starts the process, sends it commands, hears which call ended how."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aios_agent_runner.sandbox import wire
from aios_agent_runner.sandbox.installation import PACKAGES, Installation
from aios_agent_runner.sandbox.model import SandboxSettings
from aios_core.errors import RetryableError, TerminalError

_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); from aios_agent_runner.sandbox.zygote import main; main()"
)
# -P, -s, -S: no current directory, no user site, no .pth code; -B: write nothing.
_FLAGS: Final = ("-P", "-s", "-S", "-B")
# One hash seed, so that the same input gives the same order of a set in every run.
_ENVIRONMENT: Final = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Hello:
    """What the zygote found: layers by name (in force, why), whether it has a root of its own, its user id."""

    layers: dict[str, tuple[bool, str]]
    new_root: bool
    user: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended. `status`: of wait(2), or `wire.NOT_FORKED`."""

    status: int
    cpu_seconds: float
    max_rss_bytes: int


class Link:
    """One zygote process. `on_exit(call, exit)` comes once for each spawned call, `on_lost()` once, at its end."""

    def __init__(
        self, settings: SandboxSettings, on_exit: Callable[[int, Exit], None], on_lost: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._process: subprocess.Popen[bytes] | None = None
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.alive = False

    @property
    def process_id(self) -> int:
        """The process that the runner started; the zygote is its child where there are pid namespaces."""
        assert self._process is not None, "the link was not started"
        return self._process.pid

    async def start(self, installation: Installation) -> Hello:
        """Start the process and wait until it is ready. Raises TerminalError SANDBOX_UNAVAILABLE."""
        with self._theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a few ms; asyncio would add a thread that waits
                [sys.executable, *_FLAGS, "-c", _BOOT, str(PACKAGES)],
                stdin=self._theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a Ctrl-C is for the runner, which then ends its calls in order
            )
        self.alive = True
        config = {
            "uid": self._settings.uid,
            "roots": installation.roots,
            "path": installation.path,
            "preload": self._settings.preload,
            "temporary": tempfile.gettempdir(),
            "warm": self._settings.warm,
        }
        self._control.setblocking(False)
        self._control.send(wire.CONFIG + json.dumps(config).encode())
        self._loop.add_reader(self._control.fileno(), self._hear)
        try:
            return await asyncio.wait_for(self._hello, self._settings.start_seconds)
        except TimeoutError:
            self.abort()
            raise TerminalError(
                "SANDBOX_UNAVAILABLE", f"The sandbox was not ready within {self._settings.start_seconds:g} s."
            ) from None

    def spawn(self, call: int, descriptor: int) -> None:
        """Give `call` a child of its own, which gets `descriptor` as its call socket.

        Raises RetryableError SANDBOX_CRASHED if the zygote is gone.
        """
        try:
            socket.send_fds(self._control, [wire.COMMAND.pack(wire.SPAWN, call)], [descriptor])
        except OSError:
            self.abort()
            raise lost_call() from None

    def kill(self, call: int) -> None:
        """Kill the child of `call` and all that it started, if it still runs."""
        if self.alive:
            try:
                self._control.send(wire.COMMAND.pack(wire.KILL, call))
            except OSError:
                self.abort()

    def abort(self) -> None:
        """Kill the zygote and with it every child; `on_lost` is called if that was not known yet."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        assert self._process is not None
        # With a pid namespace our child waits for the zygote, which ends with its namespace because the control
        # socket is closed; killing both leaves nothing to wait for.
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if not self._hello.done():
            self._hello.set_exception(
                TerminalError("SANDBOX_UNAVAILABLE", "The sandbox ended while it started.")
            )
        self._on_lost()

    def _hear(self) -> None:
        while self.alive:
            try:
                packet = self._control.recv(wire.MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            self._handle(packet)

    def _handle(self, packet: bytes) -> None:
        kind = packet[:1]
        if kind == wire.EXIT:
            _, call, status, user, system, peak = wire.EXITED.unpack(packet)
            self._on_exit(call, Exit(status, user + system, peak * 1024))
        elif kind == wire.HELLO and not self._hello.done():
            fields = json.loads(packet[1:])
            layers = {name: (bool(force), str(why)) for name, (force, why) in fields["layers"].items()}
            self._hello.set_result(Hello(layers, fields["new_root"], fields["user"]))
        elif kind == wire.FAILED and not self._hello.done():
            why = packet[1:].decode(errors="replace")
            self._hello.set_exception(
                TerminalError("SANDBOX_UNAVAILABLE", f"The sandbox could not start: {why}.")
            )
            self.abort()
        else:
            self.abort()


def lost_call() -> RetryableError:
    """The error of a call whose zygote went away under it."""
    return RetryableError(
        "SANDBOX_CRASHED", "The sandbox ended while the agent ran; it is started again.", retry_after=0.1
    )


def describe_status(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
