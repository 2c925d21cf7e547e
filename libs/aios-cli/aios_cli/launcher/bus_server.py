"""The bus of a cluster: `python -m aios_cli.launcher.bus_server --users DIR --directory DIR [--host H] [--port P]`.

It becomes a nats-server with the users and permissions that the embedded one has. `--users` is a folder with a file for
each identity, which holds its password.
"""

import argparse
import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

from aios_cli.launcher.report import exit_code
from aios_core.errors import AiosError, TerminalError
from aios_runtime.bus.endpoint import make_directory, write_private
from aios_runtime.bus.permissions import identities
from aios_runtime.bus.server_config import REPLICATED_PING_SECONDS, Layout, render
from aios_runtime.bus.topology import DEFAULT_CONNECTORS

PORT: Final = 4222


def prepare(users: Path, layout: Layout) -> None:
    """Write the server's configuration. Raises UNREADABLE when a password is missing, or what the place raises."""
    passwords = {}
    for name in identities(DEFAULT_CONNECTORS):
        try:
            passwords[name] = (users / name).read_text(encoding="utf-8").strip()
        except OSError as problem:
            raise TerminalError(
                "UNREADABLE", f"The bus password of {name} in {users} can't be read: {problem.strerror}."
            ) from None
    make_directory(layout.directory)
    make_directory(layout.store)
    write_private(layout.config, render(layout, passwords, DEFAULT_CONNECTORS))


def main() -> int:
    """Prepare, then become the server; returns only when that can't be."""
    parser = argparse.ArgumentParser(prog="bus_server", description="The message bus of a cluster.")
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - the services are in other pods
    parser.add_argument("--port", type=int, default=PORT)
    given = parser.parse_args()
    layout = Layout(given.directory, given.host, given.port, REPLICATED_PING_SECONDS)
    try:
        prepare(given.users, layout)
        server = Path(sysconfig.get_path("scripts")) / "nats-server"
        os.execv(server, [str(server), "--config", str(layout.config)])  # noqa: S606 - it takes this process's place
    except AiosError as problem:
        print(f"The bus can't start: {problem}", file=sys.stderr)
        return exit_code(problem)


if __name__ == "__main__":
    sys.exit(main())
