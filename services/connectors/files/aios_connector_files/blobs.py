"""Bytes that the connector keeps in its own data directory: for undo, and on their way into a file. What undo needs is
kept in the store as well where that is shared: another process, with another directory, may have to take it back."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from aios_connector_files import failures
from aios_core.errors import RetryableError, TerminalError
from aios_core.values import Pointer
from aios_runtime.store import parts
from aios_runtime.store.port import Store
from aios_sdk.connector import Artifacts

_READ_BYTES: Final = 1024 * 1024
_PART: Final = ".part"


class Blobs:
    """What stood in files before they were changed, by its SHA-256. It stays for as long as the data directory does:
    undo works after months. `staged` holds what a write is about to put somewhere; it is emptied at every start.
    `shared`: the store of all processes of the connector, where there may be several, and the workspace."""

    def __init__(self, path: Path, shared: tuple[Store, str] | None = None) -> None:
        self._kept, self._staged = path / "kept", path / "staged"
        self._shared = shared
        for folder in (self._kept, self._staged):
            folder.mkdir(parents=True, exist_ok=True)
        for left in (*self._kept.glob(f"*{_PART}"), *self._staged.iterdir()):
            left.unlink()

    def keep(self, sha256: str, source: BinaryIO) -> None:
        """Durably keep the bytes of a file from where it stands."""
        target = self._kept / sha256
        if target.exists():
            return
        with _whole(target) as file:
            while chunk := source.read(_READ_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self._kept, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def share(self, sha256: str) -> None:
        """Durably have bytes that are kept here where the others find them. Raises UNAVAILABLE, DISK_FULL."""
        if self._shared is None:
            return
        store, key = self._place(sha256)
        if await parts.is_whole(store, key):
            return

        async def pieces() -> AsyncIterator[tuple[int, bytes]]:
            with (self._kept / sha256).open("rb") as file:
                while piece := await asyncio.to_thread(file.read, parts.PART_BYTES):
                    yield file.tell() - len(piece), piece

        if not await parts.put(store, key, pieces):
            raise RetryableError("UNAVAILABLE", "Others keep the same bytes at the same time; try again.")

    async def fetch(self, sha256: str) -> None:
        """Have bytes here that another process has kept, if there are any. Raises UNAVAILABLE, DISK_FULL."""
        target = self._kept / sha256
        if self._shared is None or target.exists():
            return
        store, key = self._place(sha256)
        if not await parts.is_whole(store, key):
            return
        with _whole(target) as file:
            async for _, piece in parts.read(store, key):
                await asyncio.to_thread(file.write, piece)

    def _place(self, sha256: str) -> tuple[Store, str]:
        assert self._shared is not None
        store, workspace = self._shared
        return store, f"{workspace}/kept/{sha256}"

    def kept(self, sha256: str) -> Iterator[bytes]:
        """The bytes in pieces. Raises CORRUPT_STORE when they are gone."""
        target = self._kept / sha256
        if not target.exists():
            raise TerminalError(
                "CORRUPT_STORE",
                f"The earlier bytes {sha256} are missing from {self._kept}. Restore a backup of it.",
            )
        return _pieces(target)

    async def stage(self, key: str, pointer: Pointer, artifacts: Artifacts) -> None:
        """Have an artifact's bytes here for the effect `key`. Raises what `artifacts` raises."""
        target = self._staged / _tag(key)
        if target.exists():
            return
        with _whole(target) as file:
            async for chunk in artifacts.stream(pointer):
                file.write(chunk)

    def staged(self, key: str) -> Iterator[bytes]:
        """The bytes that `stage` fetched, in pieces."""
        return _pieces(self._staged / _tag(key))

    def drop(self, key: str) -> None:
        """Forget what was staged for an effect, if anything was."""
        (self._staged / _tag(key)).unlink(missing_ok=True)


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole. Raises DISK_FULL, READ_ONLY for the data directory."""
    try:
        descriptor, part = tempfile.mkstemp(_PART, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            Path(part).rename(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise failures.writing(error, str(target)) from None


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            yield chunk


def _tag(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
