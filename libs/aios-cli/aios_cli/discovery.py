"""Which server a command talks to, and with which token."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aios_cli.exits import NoServerError
from aios_cli.launcher import address
from aios_cli.options import Given
from aios_core.errors import TerminalError

MAX_TOKEN_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """A server: `grpc` is host:port. `data_dir` is known for one of this machine."""

    grpc: str
    token: str = field(repr=False)
    http: str = ""
    data_dir: Path | None = None
    pid: int = 0


def find(given: Given, environ: Mapping[str, str] = os.environ) -> Place:
    """The server that was named: by --address, by a data directory, by AIOS_ADDRESS, else the one of this machine.

    Raises NO_SERVER when there is none, UNREADABLE or UNAUTHENTICATED when its token can't be had.
    """
    if given.address:
        return Place(given.address, _token_of_environment(environ))
    if given.data_dir is None and not environ.get("AIOS_DATA_DIR") and environ.get("AIOS_ADDRESS"):
        return Place(environ["AIOS_ADDRESS"], _token_of_environment(environ))
    found = address.find(given.data_dir, environ)
    if found is None or not found.grpc:
        raise NoServerError(_nobody(given, environ))
    token = environ.get("AIOS_TOKEN") or _read_token(Path(found.token_file))
    return Place(found.grpc, token, found.http, Path(found.data_dir), found.pid)


def _nobody(given: Given, environ: Mapping[str, str]) -> str:
    if given.data_dir is not None:
        return f"No AIOS here; start it with `aios serve --data-dir {given.data_dir}`."
    if environ.get("AIOS_DATA_DIR"):
        return f"No AIOS here (AIOS_DATA_DIR is {environ['AIOS_DATA_DIR']}); start it with `aios serve`."
    return "No AIOS here; start it with `aios serve`, or try `aios demo`."


def _token_of_environment(environ: Mapping[str, str]) -> str:
    token = environ.get("AIOS_TOKEN", "")
    if not token and environ.get("AIOS_TOKEN_FILE"):
        return _read_token(Path(environ["AIOS_TOKEN_FILE"]))
    if not token:
        raise TerminalError(
            "UNAUTHENTICATED", "There is no token for that server: set AIOS_TOKEN or AIOS_TOKEN_FILE."
        )
    return token


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not text"
        raise TerminalError("UNREADABLE", f"The token file {path} can't be read: {reason}.") from None
