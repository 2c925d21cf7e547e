"""Takes over the files that an agent left in `out`, trusting nothing there: no link is followed, no device opened."""

import os
import stat
from pathlib import Path
from typing import Final

from aios_agent_runner.sandbox.model import MAX_NAME_DEPTH, check_file_name
from aios_core.errors import TerminalError

MAX_ARTIFACTS: Final = 1000  # files of one call


def collect(out: int, target: Path, limit: int) -> dict[str, Path]:
    """Copy the files beneath the directory descriptor `out` into the new directory `target`; return them by name.

    At most `MAX_ARTIFACTS` files and `limit` bytes. Raises TerminalError AGENT_BAD_OUTPUT for anything that is not a
    plain file or directory, SANDBOX_OUTPUT_TOO_LARGE past a limit; then `target` may hold part of them.
    """
    target.mkdir(mode=0o700)
    found: dict[str, Path] = {}
    _take(out, "", target, found, [limit])
    return dict(sorted(found.items()))


def _take(directory: int, prefix: str, target: Path, found: dict[str, Path], left: list[int]) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = _checked_name(prefix + entry.name)
            kind = os.stat(entry.name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                inner = _open(entry.name, directory, name, os.O_DIRECTORY)
                try:
                    (target / name).mkdir(mode=0o700)
                    _take(inner, name + "/", target, found, left)
                finally:
                    os.close(inner)
            elif stat.S_ISREG(kind):
                if len(found) == MAX_ARTIFACTS:
                    raise TerminalError(
                        "SANDBOX_OUTPUT_TOO_LARGE",
                        f"The agent wrote more than {MAX_ARTIFACTS} files to `out`.",
                    )
                source = _open(entry.name, directory, name, 0)
                try:
                    found[name] = _copy(source, target / name, name, left)
                finally:
                    os.close(source)
            else:
                raise _refused(name, f"is {_kind(kind)}; `out` may hold files and directories only")


def _checked_name(name: str) -> str:
    try:
        return check_file_name(name)
    except ValueError as error:
        shown = name.encode(errors="surrogateescape")[:120]
        raise TerminalError(
            "AGENT_BAD_OUTPUT",
            f"An artifact's name {shown!r} can't be used: {error} (depth {MAX_NAME_DEPTH} at most).",
        ) from None


def _open(name: str, directory: int, shown: str, flags: int) -> int:
    try:
        return os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=directory
        )
    except OSError as error:
        raise _refused(shown, f"can't be read ({error.strerror})") from None


def _copy(source: int, target: Path, name: str, left: list[int]) -> Path:
    status = os.fstat(source)
    if not stat.S_ISREG(status.st_mode):
        raise _refused(name, f"is {_kind(status.st_mode)}; `out` may hold files and directories only")
    if status.st_nlink != 1:  # a second name of a file that the agent didn't write
        raise _refused(name, "is a hard link")
    left[0] -= status.st_size
    if left[0] < 0:
        raise TerminalError(
            "SANDBOX_OUTPUT_TOO_LARGE", "The agent's files in `out` are larger than its limit."
        )
    done = 0
    copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while done < status.st_size and (sent := os.sendfile(copy, source, done, status.st_size - done)):
            done += sent
    finally:
        os.close(copy)
    return target


def _refused(name: str, why: str) -> TerminalError:
    return TerminalError("AGENT_BAD_OUTPUT", f"The artifact {name!r} {why}.", artifact=name)


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
