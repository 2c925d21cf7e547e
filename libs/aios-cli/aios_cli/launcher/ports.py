"""Ports: an explicit one is taken or refused; a default one that is taken moves to the next that is free."""

import errno
import socket
from dataclasses import dataclass
from typing import Final

from aios_core.errors import TerminalError

TRIES: Final = 50  # ports after a default one that are tried


@dataclass(frozen=True, slots=True)
class Chosen:
    """A port to listen on. `moved` when it is not the default because that was taken."""

    port: int
    moved: bool = False


def choose(host: str, wanted: int | None, default: int, name: str, *, besides: int = 0) -> Chosen:
    """The port for `name` on `host`: see `ServeSettings` for what None and 0 mean; 0 stays 0, for who binds it.

    A default port never moves to `besides`, which another door has. Raises PORT_TAKEN.
    """
    if wanted is not None:
        if wanted:
            _try(host, wanted, name)
        return Chosen(wanted)
    for port in range(default, min(default + TRIES, 65_536)):
        if port == besides:
            continue
        try:
            _try(host, port, name)
            return Chosen(port, moved=port != default)
        except TerminalError as problem:
            if problem.code != "PORT_TAKEN":
                raise
    raise TerminalError(
        "PORT_TAKEN",
        f"The {name} ports {default} to {default + TRIES - 1} on {host} are all in use; give another.",
    )


def _try(host: str, port: int, name: str) -> None:
    """Bind and let go, without SO_REUSEPORT, with which two servers could share a port and split its clients."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                raise TerminalError(
                    "PORT_TAKEN",
                    f"The {name} port {port} on {host} is in use; stop the other program, or give another port.",
                    field=f"{name}_port",
                ) from None
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"Can't listen on {host} port {port} ({name}): {problem.strerror or problem}.",
                field="host",
            ) from None
