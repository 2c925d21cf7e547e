"""Blobs on disk under their SHA-256, and uploads on their way there. Blocking: call it from a thread.

A blob is written to a temporary file, flushed, linked to its name, and its folder is flushed; after that it is never
written again. So a name that exists always holds the whole blob, whenever the process was killed.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aios_core.errors import RetryableError, TerminalError

MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)


class Blobs:
    """`<root>/ab/cdef…` are blobs; `<root>/staging/` holds what is being uploaded or written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / "staging"

    def prepare(self, staged_since_ms: int) -> int:
        """Make the folders; remove temporary files and uploads not touched since that time (ms). Returns how many."""
        removed = 0
        with _clear(self._root):
            self._staging.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            for path in self._staging.iterdir():
                if path.suffix != ".upload" or path.stat().st_mtime * 1000 < staged_since_ms:
                    path.unlink(missing_ok=True)
                    removed += 1
            _flush(self._root)
        return removed

    def size(self, sha256: str) -> int | None:
        """Bytes of a blob; None when it is not there."""
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, sha256: str, offset: int, limit: int) -> bytes:
        """Part of a blob. Raises CORRUPT_STORE when it is not there."""
        try:
            with self._path(sha256).open("rb") as file:
                return os.pread(file.fileno(), limit, offset)
        except FileNotFoundError:
            raise TerminalError(
                "CORRUPT_STORE",
                f"Artifact {sha256} is known, but its file is missing; restore it from a backup.",
            ) from None

    def put(self, data: bytes, sha256: str) -> None:
        """Durably store a blob whose hash the caller has checked."""
        with _clear(self._root):
            temporary = self._staging / f"{secrets.token_hex(8)}.tmp"
            try:
                _write(temporary, data)
                self._link(temporary, sha256)
            finally:
                temporary.unlink(missing_ok=True)

    def staged(self, upload: str) -> int:
        """Bytes of an upload so far."""
        try:
            return self._upload(upload).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, upload: str, offset: int, chunk: bytes) -> int:
        """Add a chunk at `offset`, which is where the upload ends; returns its new size. Not flushed."""
        with _clear(self._root):
            descriptor = os.open(self._upload(upload), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
            try:
                _write_all(descriptor, chunk, offset)
                return offset + len(chunk)
            except OSError:
                os.ftruncate(descriptor, offset)
                raise
            finally:
                os.close(descriptor)

    def finish(self, upload: str, sha256: str) -> str:
        """Make a blob of an upload whose hash is `sha256`; returns the hash that it has, and stores nothing when that
        is another one. The upload stays until it is dropped."""
        path = self._upload(upload)
        with _clear(self._root):
            found = _hash(path)
            if found == sha256:
                _flush(path)
                self._link(path, sha256)
        return found

    def drop(self, upload: str) -> None:
        """Throw an upload away."""
        self._upload(upload).unlink(missing_ok=True)

    def uploads(self) -> dict[str, int]:
        """Uploads and when each was last touched (ms)."""
        return {path.stem: int(path.stat().st_mtime * 1000) for path in self._staging.glob("*.upload")}

    def _link(self, source: Path, sha256: str) -> None:
        target = self._path(sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
            _flush(self._root)
        try:
            os.link(source, target)
        except FileExistsError:
            if _hash(target) != sha256:
                raise TerminalError(
                    "CORRUPT_STORE",
                    f"The file of artifact {sha256} is damaged; move {target} away and store it again.",
                ) from None
        _flush(target.parent)

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256[2:]

    def _upload(self, upload: str) -> Path:
        return self._staging / f"{upload}.upload"


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        _write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _clear(root: Path) -> Iterator[None]:
    """Errors of the disk as errors that a person can act on."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RetryableError(
                "DISK_FULL", f"The disk of {root} is full; nothing was stored there.", retry_after=5.0
            ) from None
        if error.errno in _READ_ONLY:
            raise TerminalError("READ_ONLY", f"{root} can't be written; nothing was stored there.") from None
        raise
