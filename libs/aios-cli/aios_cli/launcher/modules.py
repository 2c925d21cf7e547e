"""The module table: every service, what it stands on, and which settings of the launcher become its options.

It is the one place that knows which services a target starts, for one process and for a cluster alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aios_core.errors import TerminalError

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Module:
    """A service. `package` has `create(context) -> Service`.

    `after` are services that must be ready before it, where they run in the same process. `beside` are those that a
    whole AIOS has in its second process. `door` marks the one that clients talk to: it gets the gRPC and HTTP ports.
    `options` maps its option names to settings of the launcher. `keeps` are its folders below the data
    directory, of files under their SHA-256; `proof` has `prove(…)`, which tells whether its store is whole.
    """

    name: str
    package: str
    stores: bool
    after: tuple[str, ...] = ()
    beside: bool = False
    door: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[str, ...] = ()
    proof: str = ""


MODULES: Final[dict[str, Module]] = {
    module.name: module
    for module in (
        Module("agent-runner", "aios_agent_runner.module", stores=False, after=("memory",), beside=True),
        Module(
            "memory",
            "aios_memory.module",
            stores=True,
            beside=True,
            keeps=("artifacts",),
            proof="aios_memory.proof",
        ),
        Module(
            "connector-files",
            "aios_connector_files.module",
            stores=True,
            after=("memory",),
            options={"root": "files_root"},
            keeps=("connector-files/kept",),
        ),
        Module(
            "orchestrator",
            "aios_orchestrator.module",
            stores=True,
            after=("memory",),
            options={"resources": "resources"},
            proof="aios_orchestrator.proof",
        ),
        Module(
            "gateway",
            "aios_gateway.module",
            stores=True,
            after=("orchestrator", "memory"),
            beside=True,
            door=True,
            options={
                "grpc_host": "host",
                "http_host": "host",
                "grpc_port": "grpc_port",
                "http_port": "http_port",
                "owner_token_file": "token_file",
            },
        ),
    )
}


def targets() -> list[str]:
    """What `--target` may name."""
    return [ALL, *MODULES]


def select(target: str) -> tuple[Module, ...]:
    """The modules of a target: `all`, one service, or several separated by commas. Raises INVALID_ARGUMENT."""
    names = [name.strip() for name in target.split(",") if name.strip()]
    if names == [ALL]:
        return tuple(MODULES.values())
    unknown = [name for name in names if name not in MODULES]
    if unknown or not names:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"No such target: {', '.join(unknown) or repr(target)}. There are {', '.join(targets())}.",
            field="target",
        )
    return tuple(module for name, module in MODULES.items() if name in names)
