"""Files and folders around the services: the options file, the folder of connector-files, the log."""

from aios_cli.launcher.modules import MODULES
from aios_cli.launcher.settings import CONFIG_FILE, ServeSettings
from aios_core.errors import TerminalError
from aios_runtime.service import datadir
from aios_runtime.telemetry import logs


def open_log(settings: ServeSettings) -> None:
    """Log where the settings say. Raises DISK_FULL, READ_ONLY or DATA_DIR."""
    if not settings.logs_to_file:
        logs.to_stderr()
        return
    path = settings.data_dir / settings.log_file
    try:
        logs.to_file(path)
    except OSError as problem:
        raise datadir.place_error(problem, path, "The log file") from None


def files_root(settings: ServeSettings) -> None:
    """The folder of connector-files, made for this person alone when it is missing.

    Raises INVALID_ARGUMENT when something else has its name, DATA_DIR, READ_ONLY or DISK_FULL when it can't be made.
    """
    if settings.files.exists() and not settings.files.is_dir():
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"The files root {settings.files} is not a folder; give another.",
            field="files_root",
        )
    try:
        settings.files.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise datadir.place_error(problem, settings.files, "The files root") from None


def read_options(settings: ServeSettings) -> dict[str, dict[str, object]]:
    """The options file, a table for each service. It is `aios.toml` in the data directory unless another is named."""
    path = settings.config or settings.data_dir / CONFIG_FILE
    if settings.config is None and not path.exists():
        return {}
    import tomllib  # 10 ms that a start without such a file need not spend

    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as problem:
        raise TerminalError(
            "UNREADABLE", f"The options file {path} can't be read: {problem.strerror}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise TerminalError("INVALID_ARGUMENT", f"The options file {path} is not TOML: {problem}.") from None
    for name, table in tables.items():
        if name not in MODULES or not isinstance(table, dict):
            raise TerminalError(
                "UNKNOWN_FIELD",
                f"The options file {path} has {name!r}; it takes a table for each of {', '.join(MODULES)}.",
            )
    return tables
