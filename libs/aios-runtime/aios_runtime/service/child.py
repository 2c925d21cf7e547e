"""A child process that doesn't outlive who started it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """In the child, before it becomes another program: Linux ends it when the thread that made it ends, SIGKILL
    included."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _load_prctl() -> Callable[[int, int], int]:
    try:
        return ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda _option, _value: 0


_prctl: Final = _load_prctl()
