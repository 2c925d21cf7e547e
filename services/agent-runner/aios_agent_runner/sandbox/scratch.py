"""The directory that a pool keeps its calls' files in. It is locked while its runner lives, so that what a killed one
left behind can be told from what is in use, and is removed by the next runner of the same user."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

PREFIX: Final = "aios-sandbox-"
_TRIES: Final = 100


class Scratch:
    """A new directory below `within` (None: the system's directory for temporary files), until `close`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def make(cls, within: Path | None) -> Self:
        """Remove what killed runners left there, and make one. Raises OSError."""
        parent = within or Path(tempfile.gettempdir())
        for stale in parent.glob(PREFIX + "*"):
            _remove_if_left(stale)
        for _ in range(_TRIES):
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = _locked(path)
            if lock is not None:
                return cls(path, lock)
        raise FileExistsError(f"Every new directory in {parent} is removed by somebody else.")

    def close(self) -> None:
        """Remove it."""
        remove(self.path)
        os.close(self._lock)


def _locked(path: Path) -> int | None:
    """The descriptor that holds a directory's lock; None where somebody else holds it, or has removed it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid == os.geteuid() and os.path.samestat(path.stat(), os.fstat(lock)):
            return lock
    except OSError:
        pass  # it is in use, or gone since
    os.close(lock)
    return None


def _remove_if_left(path: Path) -> None:
    lock = _locked(path)
    if lock is not None:
        remove(path)
        os.close(lock)


def remove(directory: Path) -> None:
    """Delete a tree in which an agent may have closed directories to their owner."""
    for parent, names, _ in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
