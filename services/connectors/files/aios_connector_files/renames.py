"""Atomic renames that never overwrite: renameat2 where the kernel and the file system have it, link where not.

Flags of renameat2(2): RENAME_NOREPLACE fails with EEXIST, RENAME_EXCHANGE swaps two names. A file system that lacks a
flag answers EINVAL, an old kernel ENOSYS.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Final, cast

_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def _load() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or a C library before glibc 2.28
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return cast("Callable[[int, bytes, int, bytes, int], int]", function)


_renameat2: Final = _load()


def move(directory: int, source: str, target: str) -> None:
    """Rename within a folder (a descriptor); FileExistsError when the target is there, whoever made it and when."""
    if not _call(directory, source, target, _NOREPLACE):
        os.link(source, target, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(source, dir_fd=directory)


def exchange(directory: int, one: str, other: str) -> bool:
    """Swap two names of a folder in one step; False where the file system can't."""
    return _call(directory, one, other, _EXCHANGE)


def _call(directory: int, source: str, target: str, flag: int) -> bool:
    if _renameat2 is None:
        return False
    if _renameat2(directory, os.fsencode(source), directory, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), source, None, target)
