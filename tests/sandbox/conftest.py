"""A pool with agents that mean harm."""

import ast
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aios_agent_runner.sandbox.model import Limits, SandboxCall, SandboxResult, SandboxSettings
from aios_agent_runner.sandbox.pool import SandboxPool

AGENTS = Path(__file__).parent / "agents"
ECHO = "aios_agent_runner.agents.echo:run"


class Harness:
    """Calls agents of `hostile` in a pool."""

    def __init__(self, pool: SandboxPool) -> None:
        self.pool = pool

    async def run(
        self,
        agent: str,
        request: Mapping[str, object] | None = None,
        files: Mapping[str, Path | bytes] | None = None,
        **limits: Any,
    ) -> SandboxResult:
        reference = agent if ":" in agent else f"hostile:{agent}"
        call = SandboxCall(reference, json.dumps(request or {}).encode(), files or {}, Limits(**limits))
        return await self.pool.run(call)

    async def ask(
        self, agent: str, request: Mapping[str, object] | None = None, **rest: Any
    ) -> dict[str, Any]:
        with await self.run(agent, request, **rest) as result:
            response: dict[str, Any] = json.loads(result.response)
            return response

    def in_force(self, name: str) -> bool:
        return any(c.name == name and c.in_force for c in self.pool.capabilities())

    def needs(self, name: str) -> None:
        if not self.in_force(name):
            pytest.skip(f"{name} is not in force here")


def references() -> frozenset[str]:
    tree = ast.parse((AGENTS / "hostile.py").read_text())
    return frozenset({f"hostile:{n.name}" for n in tree.body if isinstance(n, ast.FunctionDef)} | {ECHO})


Make = Callable[..., SandboxSettings]


@pytest.fixture
def make_settings() -> Make:
    def make(**changes: Any) -> SandboxSettings:
        return SandboxSettings(**{"agents": references(), "code_roots": (AGENTS,), **changes})

    return make


@pytest_asyncio.fixture
async def sandbox(make_settings: Make) -> AsyncIterator[Harness]:
    async with SandboxPool(make_settings()) as pool:
        yield Harness(pool)
