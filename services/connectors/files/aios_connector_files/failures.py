"""What the operating system refuses, in words: which file, what was wrong, what to do."""

import errno
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
FULL_RETRY: Final = 30.0  # seconds: a person frees space


def reading(error: OSError, path: str) -> AiosError:
    """The failure of reading `path` (relative to the root)."""
    if error.errno in _FORBIDDEN:
        return TerminalError(
            "UNREADABLE",
            f"{path} can't be read: permission denied. Give AIOS the right to read it.",
            path=path,
        )
    if error.errno == errno.ELOOP:
        return TerminalError("PATH_OUTSIDE_ROOT", f"{path} is a link; links are not followed.", path=path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return TerminalError("NOT_FOUND", f"There is no {path} below the files root.", path=path)
    if error.errno == errno.EIO:
        return RetryableError(
            "UNREADABLE", f"The disk failed while {path} was read.", retry_after=5.0, path=path
        )
    return TerminalError("UNREADABLE", f"{path} can't be read: {_words(error)}.", path=path)


def writing(error: OSError, path: str) -> AiosError:
    """The failure of writing `path`; nothing of it was changed."""
    if error.errno in _FULL:
        return RetryableError(
            "DISK_FULL",
            f"The disk is full: {path} was not written. Free space.",
            retry_after=FULL_RETRY,
            path=path,
        )
    if error.errno == errno.EROFS or error.errno in _FORBIDDEN:
        why = "the file system is read-only" if error.errno == errno.EROFS else "permission denied"
        return TerminalError("READ_ONLY", f"{path} can't be written: {why}; nothing was changed.", path=path)
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return TerminalError(
            "PATH_OUTSIDE_ROOT",
            f"A part of {path} is a link or a file where a folder must be; nothing was changed.",
            path=path,
        )
    if error.errno == errno.ENOENT:
        return TerminalError("NOT_FOUND", f"The folder of {path} is gone; nothing was changed.", path=path)
    if error.errno == errno.EISDIR:
        return TerminalError("CONFLICT", f"{path} is a folder; nothing was changed.", path=path)
    return TerminalError(
        "ACTION_FAILED", f"{path} can't be written: {_words(error)}; nothing was changed.", path=path
    )


def _words(error: OSError) -> str:
    return (error.strerror or "unknown failure").lower()
