"""The files root: folders are opened part by part below it, and no link is ever followed."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from aios_core.errors import TerminalError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a pipe must not hang us
_READ_BYTES: Final = 1024 * 1024


class Root:
    """A folder and everything below it. The path of the root itself may be a link: its owner chose it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def folder(self, *parts: str) -> Iterator[int]:
        """A descriptor of a folder below the root. The parts must be checked names. Raises OSError; ELOOP or ENOTDIR
        for a link."""
        descriptor = os.open(self.path, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for part in parts:
                below = _open_folder(part, descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def missing(self, *parts: str) -> list[int]:
        """The depths of the folders on the way that don't exist: [3] when only the third of three is missing."""
        for depth in range(1, len(parts) + 1):
            try:
                with self.folder(*parts[:depth]):
                    pass
            except FileNotFoundError:
                return list(range(depth, len(parts) + 1))
        return []

    def make(self, *parts: str) -> None:
        """Make the folders that are missing, durably."""
        for depth in range(1, len(parts) + 1):
            with self.folder(*parts[: depth - 1]) as above, contextlib.suppress(FileExistsError):
                os.mkdir(parts[depth - 1], dir_fd=above)
                os.fsync(above)

    def remove_empty(self, *parts: str) -> bool:
        """Remove a folder if it is empty; False when it is not, or is gone."""
        try:
            with self.folder(*parts[:-1]) as above:
                os.rmdir(parts[-1], dir_fd=above)
                os.fsync(above)
        except OSError:
            return False
        return True


def _open_folder(name: str, above: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise


def open_file(directory: int, name: str) -> BinaryIO:
    """A regular file for reading. Raises OSError; TerminalError UNREADABLE when it is something else."""
    descriptor = os.open(name, _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TerminalError("UNREADABLE", f"{name} is not a regular file.", path=name)
    return os.fdopen(descriptor, "rb")


def hash_file(file: BinaryIO) -> str:
    """SHA-256 in hex of a file from where it stands."""
    digest = hashlib.sha256()
    while chunk := file.read(_READ_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
