"""How a service finds the bus and proves who it is: addresses, identities and the files of their passwords."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aios_core.errors import AiosError, RetryableError
from aios_runtime.service.datadir import place_error

USERS_DIRECTORY: Final = "nats-users"  # beside the server's own, so that its loss changes no password
URL_FILE: Final = "url"
PASSWORD_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class Credentials:
    """How one identity connects."""

    url: str
    user: str
    password: str = field(repr=False)


def _unknown() -> None:
    """Why a bus that another process runs is not there: who connects to it can't know."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the bus is, and the passwords of its identities.

    `trouble` tells why it doesn't run now, if it is ours to run.
    """

    url: str
    passwords: Mapping[str, str] = field(repr=False)
    trouble: Callable[[], AiosError | None] = field(default=_unknown, repr=False, compare=False)

    def credentials(self, identity: str) -> Credentials:
        """Those of `gateway`, `orchestrator`, `memory`, `agent-runner`, `connector-<name>` or `external`."""
        return Credentials(self.url, identity, self.passwords[identity])


def load_endpoint(data_dir: Path) -> Endpoint:
    """The bus that another process serves from this data directory. Raises BUS_FAILED when there is none."""
    users = data_dir / USERS_DIRECTORY
    try:
        url = (users / URL_FILE).read_text().strip()
        words = {file.name: file.read_text().strip() for file in users.iterdir() if file.name != URL_FILE}
    except OSError as problem:
        raise RetryableError(
            "BUS_FAILED", f"No bus was ever started in {data_dir}: {problem.strerror}."
        ) from None
    return Endpoint(url, words)


def read_port(file: Path) -> int:
    """The port of last time; 0 when there was none."""
    try:
        port = file.read_text().strip().rpartition(":")[2]
    except OSError:
        return 0
    return int(port) if port.isdecimal() and len(port) < 6 and int(port) < 65536 else 0


def load_users(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """The password of each identity; made, in a file for its owner alone, where there is none yet."""
    make_directory(directory)
    passwords = {}
    for name in names:
        file = directory / name
        try:
            word = file.read_text().strip()
        except FileNotFoundError:
            word = ""
        except OSError as problem:
            raise place_error(problem, file, "The password file") from None
        if not word:
            word = secrets.token_urlsafe(PASSWORD_BYTES)
            write_private(file, word + "\n")
        passwords[name] = word
    return passwords


def make_directory(path: Path) -> None:
    """Make it for its owner alone. Raises DATA_DIR, READ_ONLY or DISK_FULL."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise place_error(problem, path, "The bus's place") from None


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; nobody but its owner may ever read it."""
    fresh = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
        fresh.replace(path)
    except OSError as problem:
        raise place_error(problem, path, "The bus's place") from None
