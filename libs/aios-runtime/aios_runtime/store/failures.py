"""What SQLite's errors mean for a caller of the store."""

import errno
from typing import Final

import apsw

from aios_core.errors import AiosError, RetryableError, TerminalError

_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY_ERRNOS: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_PASSING: Final = (
    apsw.IOError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.InterruptError,
    apsw.FullError,
)


def as_error(error: apsw.Error | OSError, path: str, system_errno: int = 0) -> AiosError:
    """The error of the store's port that an error of SQLite or of the file system stands for.

    `system_errno` is the operating system's number behind it, where SQLite kept one.
    """
    number = error.errno if isinstance(error, OSError) and error.errno else system_errno
    if isinstance(error, apsw.FullError) or number in _FULL_ERRNOS:
        return RetryableError(
            "DISK_FULL", f"The disk of the store {path} is full; nothing was applied.", path=path
        )
    if isinstance(error, (apsw.NotADBError, apsw.CorruptError)):
        return TerminalError(
            "CORRUPT_STORE", f"The store {path} is damaged ({error}); restore a backup.", path=path
        )
    if isinstance(error, (apsw.ReadOnlyError, apsw.PermissionsError)) or number in _READ_ONLY_ERRNOS:
        return TerminalError("READ_ONLY", f"The store {path} can't be written.", path=path)
    if isinstance(error, (apsw.CantOpenError, OSError)):
        return TerminalError("DATA_DIR", f"The store {path} can't be opened ({error}).", path=path)
    if isinstance(error, _PASSING):
        return RetryableError(
            "UNAVAILABLE", f"The store {path} failed ({error}); nothing was applied.", path=path
        )
    return TerminalError(
        "INTERNAL", f"The store {path} was misused ({error}); nothing was applied.", path=path
    )


def is_defect(error: Exception) -> bool:
    """Whether a request failed for what it holds, so that the others of its transaction may well succeed."""
    return not isinstance(error, AiosError) or error.code == "INTERNAL"


def left_no_commit(error: apsw.Error) -> bool:
    """Whether a failed COMMIT surely left nothing that recovery could take for a commit.

    The commit mark is in the last frame that is written to the log, and the log is flushed after it. So an error of a
    write says that the mark is not whole; an error of the flush or of what follows says nothing.
    """
    return (
        isinstance(error, apsw.FullError) or getattr(error, "extendedresult", None) == apsw.SQLITE_IOERR_WRITE
    )


def unclear(path: str) -> RetryableError:
    """Whether the last commits are durable is not known until the store is opened again."""
    return RetryableError(
        "UNAVAILABLE",
        f"The disk failed while the store {path} was written, so whether the last changes are there is known only "
        "after a restart; repeat the call with the same request id then.",
        path=path,
        outcome="unknown",
    )
