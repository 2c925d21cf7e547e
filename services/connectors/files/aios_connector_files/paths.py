"""Names and paths below a root: which are allowed, which are a client's month, which files don't count. Pure."""

import re
from typing import Final

from aios_core.errors import TerminalError

REPORT: Final = "report"  # the folder below a month that the connector writes to, and never reads or watches
OURS: Final = ".aios-"  # what the connector's temporary files start with
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255 - 32  # leaves room for what a copy that is kept aside has behind its name
MAX_DEPTH: Final = 8  # folders below the root

_MONTH: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_TRANSIENT: Final = re.compile(
    r"\..*|~\$.*|.*~|.*\.(?:tmp|part|partial|crdownload|swp)|thumbs\.db|desktop\.ini", re.IGNORECASE
)


def check_path(path: str, field: str = "path") -> tuple[str, ...]:
    """The parts of a path below the root. Raises PATH_OUTSIDE_ROOT for what could leave it, INVALID_ARGUMENT for names
    that can't be."""
    if path.startswith("/") or (len(path) > 1 and path[1] == ":" and path[0].isalpha()):
        raise TerminalError(
            "PATH_OUTSIDE_ROOT",
            f"{field} {path[:200]!r} is absolute; give it relative to the files root.",
            field=field,
        )
    if len(path.encode()) > MAX_PATH_BYTES:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{field} is longer than {MAX_PATH_BYTES} bytes.", field=field
        )
    parts = tuple(path.split("/"))
    if len(parts) > MAX_DEPTH:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{field} {path[:200]!r} is deeper than {MAX_DEPTH} folders.", field=field
        )
    for part in parts:
        check_name(part, field)
    return parts


def check_writable(parts: tuple[str, ...]) -> None:
    """Refuse to write where the client's own files lie: in a month, only what is below its `report/` is ours."""
    if (
        len(parts) > 1
        and is_client(parts[0])
        and is_month(parts[1])
        and (len(parts) < 4 or parts[2] != REPORT)
    ):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"path {'/'.join(parts)!r} is among the client's own files; write below {parts[0]}/{parts[1]}/{REPORT}/.",
            field="path",
        )


def check_name(name: str, field: str) -> str:
    """One part of a path. Returns it."""
    if name == "..":
        raise TerminalError(
            "PATH_OUTSIDE_ROOT", f"{field} contains '..', which leaves its folder.", field=field
        )
    if name in ("", ".") or "/" in name or _CONTROL.search(name) or not _is_text(name):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field} has the part {name[:80]!r}; a name is not empty, not '.', and has no slash or control character.",
            field=field,
        )
    if name.startswith(OURS):
        raise TerminalError(
            "INVALID_ARGUMENT", f"{field}: names starting with {OURS} are the connector's own.", field=field
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{field} has a name longer than {MAX_NAME_BYTES} bytes.", field=field
        )
    return name


def _is_text(name: str) -> bool:
    """False for a name on disk that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_client(name: str) -> str:
    """The folder of a client. Returns it."""
    check_name(name, "client")
    if is_transient(name):
        raise TerminalError(
            "INVALID_ARGUMENT", f"client {name[:80]!r} is a hidden or temporary name.", field="client"
        )
    return name


def check_month(text: str) -> str:
    """A month as `YYYY-MM`. Returns it."""
    if not is_month(text):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"month is {text[:80]!r}; write it as YYYY-MM, such as 2026-10.",
            field="month",
        )
    return text


def is_month(name: str) -> bool:
    """Whether a folder's name is a month."""
    return _MONTH.fullmatch(name) is not None


def is_client(name: str) -> bool:
    """Whether a folder directly below the root is a client's."""
    try:
        check_client(name)
    except TerminalError:
        return False
    return True


def is_transient(name: str) -> bool:
    """Hidden files, locks and half-saved files of other programs: they are nobody's data."""
    return _TRANSIENT.fullmatch(name) is not None
