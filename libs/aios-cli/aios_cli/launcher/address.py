"""Where a server of this machine is: `server.json` in its data directory, and a note of those served last.

Clients read it at every call, so this module imports little.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from aios_cli.launcher.settings import default_data_dir, state_dir

FILE: Final = "server.json"
LAST: Final = "last-data-dirs"
MAX_NOTED: Final = 16  # data directories in the note, the newest first
MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """A running server. `grpc` and `http` are host:port; `token_file` has the owner's token. `stores_in` names
    where its stores are, if not in the data directory."""

    pid: int
    grpc: str
    http: str
    nats: str
    data_dir: str
    token_file: str
    target: str
    version: str
    started_ms: int
    stores_in: str = ""


def write(data_dir: Path, address: Address, environ: Mapping[str, str] = os.environ) -> None:
    """Publish where the server is, for the owner alone."""
    _write(data_dir / FILE, json.dumps(asdict(address), indent=2) + "\n")
    note = state_dir(environ) / LAST
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = str(data_dir.resolve())
        others = [path for path in _noted(environ) if path != mine]
        _write(note, "".join(f"{path}\n" for path in [mine, *others][:MAX_NOTED]))
    except OSError:
        pass  # without the note a client needs --data-dir, nothing else


def remove(data_dir: Path) -> None:
    """The server has stopped."""
    (data_dir / FILE).unlink(missing_ok=True)


def read(data_dir: Path) -> Address | None:
    """The server of a data directory, or None when none runs there (a file left by a killed one counts as none)."""
    try:
        with (data_dir / FILE).open("rb") as file:
            fields = json.loads(file.read(MAX_BYTES))
        address = Address(**fields)
        os.kill(address.pid, 0)
    except PermissionError:
        return address  # it runs, as another user
    except (OSError, ValueError, TypeError):
        return None
    return address


def find(data_dir: Path | None = None, environ: Mapping[str, str] = os.environ) -> Address | None:
    """The server to talk to: that of `data_dir`, of `$AIOS_DATA_DIR`, else of those that run the one started last."""
    if data_dir is not None:
        return read(data_dir)
    if environ.get("AIOS_DATA_DIR"):
        return read(default_data_dir(environ))
    for path in _noted(environ):
        if (found := read(Path(path))) is not None:
            return found
    return read(default_data_dir(environ))


def _noted(environ: Mapping[str, str]) -> list[str]:
    try:
        with (state_dir(environ) / LAST).open(encoding="utf-8") as file:
            return file.read(MAX_BYTES).splitlines()[:MAX_NOTED]
    except (OSError, UnicodeDecodeError):
        return []


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
