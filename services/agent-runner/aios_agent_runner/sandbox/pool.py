"""The sandbox as the runner sees it: a warm zygote, a bounded number of calls at a time, one method to run one."""

import asyncio
import json
import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aios_agent_runner.sandbox.collect import collect
from aios_agent_runner.sandbox.exchange import Exchange
from aios_agent_runner.sandbox.installation import Installation, find_installation
from aios_agent_runner.sandbox.link import Exit, Hello, Link, lost_call
from aios_agent_runner.sandbox.model import (
    MAX_REQUEST_BYTES,
    Capability,
    Limits,
    SandboxCall,
    SandboxResult,
    SandboxSettings,
    Usage,
)
from aios_agent_runner.sandbox.outcome import response_of
from aios_agent_runner.sandbox.scratch import Scratch, remove
from aios_core.errors import RetryableError, TerminalError

_SELFTEST: Final = "aios_agent_runner.sandbox.selftest:run"
_SELFTEST_LIMITS: Final = Limits(cpu_seconds=5, wall_seconds=10, file_bytes=64 * 1024)
_RESTARTS: Final = 5  # of a zygote within _RESTART_SECONDS; more say that something is broken
_RESTART_SECONDS: Final = 60.0


class SandboxPool:
    """Runs code agents in the sandbox. Use it from one event loop: `async with SandboxPool(settings) as pool`."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._starting = asyncio.Lock()
        self._waiting = 0
        self._number = 0
        self._running: dict[int, Exchange] = {}  # at most `concurrency`
        self._starts: deque[float] = deque(maxlen=_RESTARTS)
        self._link: Link | None = None
        self._hello: Hello | None = None
        self._installation: Installation | None = None
        self._scratch: Scratch | None = None
        self._capabilities: list[Capability] = []

    async def start(self) -> None:
        """Start the zygote and try the promises.

        Raises TerminalError SANDBOX_UNAVAILABLE if one that `settings.require` names is not in force here.
        """
        self._scratch = Scratch.make(self._settings.scratch)
        self._installation = find_installation(self._settings)
        try:
            await self._start_link()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End every call (their `run` raises) and the zygote, and delete what is left of artifacts."""
        if self._link is not None:
            self._link.abort()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    def capabilities(self) -> list[Capability]:
        """What was found when the zygote last started: layers first, then the promises that were tried."""
        return list(self._capabilities)

    @property
    def process_id(self) -> int | None:
        """The process of the zygote that runs now, for whoever measures it."""
        return self._link.process_id if self._link is not None and self._link.alive else None

    async def run(self, call: SandboxCall) -> SandboxResult:
        """Run one call in a process of its own and return its answer.

        Waits for a free slot. Cancelling kills the agent. Raises TerminalError with NOT_FOUND, INVALID_ARGUMENT,
        TOO_LARGE, UNREADABLE (the call), SANDBOX_UNAVAILABLE (this machine), SANDBOX_TIMEOUT, SANDBOX_MEMORY,
        SANDBOX_OUTPUT_TOO_LARGE, AGENT_FAILED, AGENT_BAD_OUTPUT; RetryableError with UNAVAILABLE (too many wait),
        SANDBOX_CRASHED, SANDBOX_TIMEOUT (wall clock), SANDBOX_MEMORY (the machine's).
        """
        self._check(call)
        if self._slots.locked() and self._waiting >= self._settings.queue:
            raise RetryableError(
                "UNAVAILABLE", f"{self._waiting} calls wait for the sandbox already.", retry_after=1.0
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            link = self._link if self._link is not None and self._link.alive else await self._restarted()
            return await self._run_on(link, call)
        finally:
            self._slots.release()

    def _check(self, call: SandboxCall) -> None:
        if call.agent not in self._settings.agents:
            raise TerminalError(
                "NOT_FOUND",
                f"{call.agent[:200]!r} is not among the agents that may run here.",
                agent=call.agent[:200],
            )
        if len(call.request) > MAX_REQUEST_BYTES:
            raise TerminalError(
                "TOO_LARGE",
                f"The request has {len(call.request)} bytes; {MAX_REQUEST_BYTES} are allowed.",
                field="request",
            )
        if call.limits.processes > 1 and not self._in_force("user-namespace", "pid-namespace"):
            raise TerminalError(
                "SANDBOX_UNAVAILABLE",
                "The agent may start processes, but without pid and user namespaces they can't be kept in bounds here.",
                field="processes",
            )

    def _in_force(self, *names: str) -> bool:
        return {c.name for c in self._capabilities if c.in_force}.issuperset(names)

    async def _run_on(self, link: Link, call: SandboxCall) -> SandboxResult:
        self._number += 1
        number = self._number
        assert self._scratch is not None, "the pool was not started"
        assert self._hello is not None, "the pool was not started"
        directory = self._scratch.path / f"call-{number}"
        if not self._hello.new_root:
            directory.mkdir(mode=0o700)
            self._hand_over(directory, self._hello.user)
        exchange = Exchange(number, call, link)
        self._running[number] = exchange
        try:
            exchange.start(str(directory), self._settings)
            exit_ = await self._wait(exchange)
            wall = asyncio.get_running_loop().time() - exchange.began
            response = response_of(call, exchange, exit_)
            artifacts, kept = await self._collect(exchange, number, call.limits.file_bytes)
            usage = Usage(exit_.cpu_seconds, exit_.max_rss_bytes, wall)
            return SandboxResult(response, artifacts, usage, exchange.logs, kept)
        finally:
            self._running.pop(number, None)
            exchange.close()
            exchange.close_out()
            if not self._hello.new_root:
                remove(directory)

    def _hand_over(self, directory: Path, user: int) -> None:
        """Let `user` work in `directory`, which lies in the pool's scratch directory."""
        if user == os.geteuid():
            return
        directory.parent.chmod(0o711)
        try:
            os.chown(directory, user, -1)
        except PermissionError:
            raise TerminalError(
                "SANDBOX_UNAVAILABLE",
                f"Agents run as user {user}, to whom this root may not give a folder; run AIOS as another user.",
                field="scratch",
            ) from None
        closed = [p for p in directory.parents if not p.stat().st_mode & 0o001]
        if closed:
            raise TerminalError(
                "SANDBOX_UNAVAILABLE",
                f"Agents run as user {user}, who can't get to {directory} through {closed[0]}.",
                field="scratch",
            )

    async def _wait(self, exchange: Exchange) -> Exit:
        try:
            return await asyncio.shield(exchange.ended)
        except asyncio.CancelledError:
            if not exchange.ended.done():
                exchange.kill()
                # The slot is free only when the process is gone; that takes at most the time after which a stuck
                # zygote is killed with it.
                await asyncio.wait([exchange.ended])
            if not exchange.ended.cancelled():
                exchange.ended.exception()
            raise

    async def _collect(
        self, exchange: Exchange, number: int, limit: int
    ) -> tuple[dict[str, Path], Path | None]:
        if exchange.out is None or not os.listdir(exchange.out):  # noqa: PTH208 - a descriptor
            return {}, None
        assert self._scratch is not None
        target = self._scratch.path / f"artifacts-{number}"
        try:
            return await asyncio.to_thread(collect, exchange.out, target, limit), target
        except BaseException:
            remove(target)
            raise

    async def _restarted(self) -> Link:
        async with self._starting:
            if self._link is None:
                raise TerminalError("SANDBOX_UNAVAILABLE", "The sandbox is not started.")
            if not self._link.alive:
                await self._start_link()
            return self._link

    async def _start_link(self) -> None:
        if self._scratch is None or self._installation is None:
            raise TerminalError("SANDBOX_UNAVAILABLE", "The sandbox is closed.")
        now = asyncio.get_running_loop().time()
        if len(self._starts) == _RESTARTS and now - self._starts[0] < _RESTART_SECONDS:
            raise RetryableError(
                "SANDBOX_CRASHED",
                f"The sandbox ended {_RESTARTS} times within {_RESTART_SECONDS:g} s.",
                retry_after=_RESTART_SECONDS - (now - self._starts[0]),
            )
        self._starts.append(now)
        link = Link(self._settings, self._exited, lambda: self._lost(link))
        self._link = link
        self._hello = await link.start(self._installation)
        self._capabilities = [Capability(n, force, why) for n, (force, why) in self._hello.layers.items()]
        self._capabilities += await self._try_promises(link)
        missing = sorted(self._settings.require - {c.name for c in self._capabilities if c.in_force})
        if missing:
            link.abort()
            whys = "; ".join(f"{c.name}: {c.why}" for c in self._capabilities if c.name in missing)
            raise TerminalError(
                "SANDBOX_UNAVAILABLE",
                f"Not in force on this machine: {', '.join(missing)} ({whys}).",
                missing=", ".join(missing),
            )

    async def _try_promises(self, link: Link) -> list[Capability]:
        assert self._scratch is not None, "the pool was not started"
        unseen = (Path.home(), Path(f"/proc/{os.getpid()}/environ"), self._scratch.path)
        private = [*unseen, *self._settings.private]
        request = json.dumps({"private": [str(p) for p in private]}).encode()
        with await self._run_on(link, SandboxCall(_SELFTEST, request, limits=_SELFTEST_LIMITS)) as result:
            found: dict[str, str] = json.loads(result.response)
        return [Capability(n, not why, why or "tried and refused") for n, why in found.items()]

    def _exited(self, number: int, exit_: Exit) -> None:
        exchange = self._running.get(number)
        if exchange is not None:
            exchange.finish(exit_)

    def _lost(self, link: Link) -> None:
        if link is self._link:
            for exchange in list(self._running.values()):
                exchange.fail(lost_call())
