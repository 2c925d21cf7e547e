"""What `aios serve` is told, and the places it uses. The environment is read here and nowhere else in the launcher."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from aios_core.errors import TerminalError
from aios_core.ids import DEFAULT_WORKSPACE, check_name

DEFAULT_GRPC_PORT: Final = 7400
DEFAULT_HTTP_PORT: Final = 7401
CONFIG_FILE: Final = "aios.toml"
LOG_FILE: Final = "logs/aios.jsonl"

LogTo = Literal["auto", "file", "stderr"]


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`$AIOS_DATA_DIR`, else `aios` in the user's XDG data folder."""
    given = environ.get("AIOS_DATA_DIR", "")
    if given:
        return Path(given).expanduser()
    base = environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "share") / "aios"


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the note that says which data directories were served last."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "aios"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What to serve and where.

    A port of None is the default or the next free one; 0 any free one; another number exactly that one. `nats_url`
    empty: `all` starts a bus of its own, other targets use the one that `all` has in the same data directory.
    `nats_users` is a folder with a file for each bus identity, which holds its password; None: the bus asks for none.
    `mongodb_url` empty: the services that store do it in SQLite files in the data directory; else each in a database
    `<mongodb_database>-<name>` of its own there. `options` are given to the services by name. `probe_port` None: no
    probes. `log_file` is in the data directory. `otlp_endpoint` empty: no traces leave the process. With `one_process`
    `all` is one process instead of two.
    """

    target: str = "all"
    data_dir: Path = field(default_factory=default_data_dir)
    files_root: Path | None = None
    resources: Path | None = None
    host: str = "127.0.0.1"
    grpc_port: int | None = None
    http_port: int | None = None
    probe_port: int | None = None
    nats_url: str = ""
    nats_users: Path | None = None
    mongodb_url: str = field(default="", repr=False)
    mongodb_database: str = "aios"
    workspace: str = DEFAULT_WORKSPACE
    token_file: Path | None = None
    config: Path | None = None
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    json: bool = False
    log: LogTo = "auto"
    log_file: str = LOG_FILE
    otlp_endpoint: str = ""
    trace_ratio: float = 1.0
    one_process: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @property
    def files(self) -> Path:
        """The folder that connector-files may read and write."""
        return self.files_root or self.data_dir / "files"

    @property
    def tokens(self) -> Path:
        """The file with the owner's first token."""
        return self.token_file or self.data_dir / "token"

    @property
    def logs_to_file(self) -> bool:
        """Whether logs go to the data directory instead of standard error."""
        return self.log == "file" or (self.log == "auto" and self.target == "all")


def from_environment(environ: Mapping[str, str] = os.environ, **given: object) -> ServeSettings:
    """Settings from `AIOS_*` variables, over which `given` (those that are not None) go.

    Raises INVALID_ARGUMENT for a variable that does not read as what it is.
    """
    texts = {
        "target": "AIOS_TARGET",
        "host": "AIOS_HOST",
        "nats_url": "AIOS_NATS_URL",
        "mongodb_url": "AIOS_MONGODB_URL",
        "mongodb_database": "AIOS_MONGODB_DATABASE",
        "workspace": "AIOS_WORKSPACE",
        "log": "AIOS_LOG",
        "otlp_endpoint": "AIOS_OTLP_ENDPOINT",
    }
    paths = {
        "files_root": "AIOS_FILES_ROOT",
        "resources": "AIOS_RESOURCES",
        "token_file": "AIOS_TOKEN_FILE",
        "nats_users": "AIOS_NATS_USERS",
        "config": "AIOS_CONFIG",
    }
    ports = {"grpc_port": "AIOS_GRPC_PORT", "http_port": "AIOS_HTTP_PORT", "probe_port": "AIOS_PROBE_PORT"}
    values: dict[str, object] = {"data_dir": default_data_dir(environ)}
    values |= {name: environ[variable] for name, variable in texts.items() if environ.get(variable)}
    values |= {
        name: Path(environ[variable]).expanduser()
        for name, variable in paths.items()
        if environ.get(variable)
    }
    values |= {
        name: _port(variable, environ[variable]) for name, variable in ports.items() if environ.get(variable)
    }
    if environ.get("AIOS_TRACE_RATIO"):
        values["trace_ratio"] = _ratio(environ["AIOS_TRACE_RATIO"])
    if environ.get("AIOS_ONE_PROCESS"):
        values["one_process"] = _yes("AIOS_ONE_PROCESS", environ["AIOS_ONE_PROCESS"])
    if environ.get("AIOS_MONGODB_URL_FILE"):
        values["mongodb_url"] = _secret("AIOS_MONGODB_URL_FILE", environ["AIOS_MONGODB_URL_FILE"])
    values |= {name: value for name, value in given.items() if value is not None}
    settings = ServeSettings(environ=environ, **values)  # type: ignore[arg-type]
    check_name(settings.workspace, "workspace")
    check_name(settings.mongodb_database, "mongodb_database")
    if settings.log not in ("auto", "file", "stderr"):
        raise TerminalError(
            "INVALID_ARGUMENT", f"log is {settings.log!r}; use auto, file or stderr.", field="log"
        )
    return settings


def _secret(variable: str, file: str) -> str:
    try:
        return Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{variable} names {file!r}, which can't be read ({type(error).__name__})."
        ) from None


def _port(variable: str, text: str) -> int:
    if text.isdecimal() and len(text) < 6 and int(text) <= 65_535:
        return int(text)
    raise TerminalError("INVALID_ARGUMENT", f"{variable} is {text!r}; a port is a number from 0 to 65535.")


def _yes(variable: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise TerminalError("INVALID_ARGUMENT", f"{variable} is {text!r}; give 1, or 0.")
    return text == "1"


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise TerminalError("INVALID_ARGUMENT", f"AIOS_TRACE_RATIO is {text!r}; give a number from 0 to 1.")
    return ratio
