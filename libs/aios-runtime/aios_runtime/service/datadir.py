"""The data directory: made for its owner alone, and locked by who serves it."""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aios_core.errors import AiosError, RetryableError, TerminalError

LOCK_FILE: Final = "serve.lock"
MODE: Final = 0o700


def place_error(problem: OSError, path: Path, what: str) -> AiosError:
    """Why `path` can't be used, as DISK_FULL, READ_ONLY or DATA_DIR. `what` names it, as in "The data directory"."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return RetryableError(
            "DISK_FULL", f"{what} {path} is on a full disk; free some space and start again."
        )
    if problem.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return TerminalError("READ_ONLY", f"{what} {path} can't be written; give one that you may write.")
    reason = os.strerror(problem.errno) if problem.errno else str(problem)
    return TerminalError("DATA_DIR", f"{what} {path} can't be used: {reason}.")


def prepare(path: Path) -> None:
    """Make the data directory (mode 0700) where it is missing, and prove that it can be written.

    Raises DATA_DIR, READ_ONLY or DISK_FULL.
    """
    try:
        path.mkdir(mode=MODE, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            path.chmod(status.st_mode & MODE)  # others out; what its owner took from itself stays taken
        probe = path / f".probe-{os.getpid()}"
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"aios")
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    except OSError as problem:
        raise place_error(problem, path, "The data directory") from None


class Lock:
    """Who serves a data directory: `all` alone, or single services beside each other, each of them once.

    The kernel gives the locks back when the process ends, however it ends.
    """

    def __init__(self, path: Path, services: tuple[str, ...], *, alone: bool) -> None:
        self._path = path
        self._services = services
        self._alone = alone
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        try:
            self._take(LOCK_FILE, fcntl.LOCK_EX if self._alone else fcntl.LOCK_SH, "AIOS")
            for service in () if self._alone else self._services:
                self._take(f"serve-{service}.lock", fcntl.LOCK_EX, f"The {service} service")
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the locks back."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _take(self, name: str, mode: int, who: str) -> None:
        try:
            descriptor = os.open(self._path / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise place_error(problem, self._path, "The data directory") from None
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            process = f" (process {holder})" if holder.isdigit() else ""
            raise TerminalError(
                "ALREADY_SERVING",
                f"{who} is served from {self._path} already{process}; use that one, or give another --data-dir.",
            ) from None
        if mode == fcntl.LOCK_EX:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
