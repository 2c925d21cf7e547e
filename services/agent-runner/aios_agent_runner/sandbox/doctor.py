"""Says which layers of the sandbox are in force on this machine, for `aios doctor`."""

import asyncio
from dataclasses import replace

from aios_agent_runner.sandbox.model import Capability, SandboxSettings
from aios_agent_runner.sandbox.pool import SandboxPool


async def probe(settings: SandboxSettings | None = None) -> list[Capability]:
    """Start a sandbox, try its promises, end it; say what was found, whatever is missing.

    Raises TerminalError SANDBOX_UNAVAILABLE if not even an unprotected process could be started.
    """
    settings = settings or SandboxSettings(agents=frozenset())
    async with SandboxPool(replace(settings, require=frozenset())) as pool:
        return pool.capabilities()


def capabilities(settings: SandboxSettings | None = None) -> list[Capability]:
    """`probe` for a caller without an event loop."""
    return asyncio.run(probe(settings))
