"""Artifacts in a folder, for tests of connectors without a bus."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_core.values import Pointer

PIECE_BYTES: Final = 64 * 1024


def pointer_to(content: bytes, media_type: str = "text/plain", name: str = "") -> Pointer:
    """The pointer that `put` would return."""
    return Pointer(content_hash(content), len(content), media_type, name)


class FolderArtifacts:
    """One file per artifact, under its hash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    async def put(
        self, content: bytes | BinaryIO, media_type: str = "application/octet-stream", name: str = ""
    ) -> Pointer:
        data = content if isinstance(content, bytes) else content.read()
        pointer = pointer_to(data, media_type, name)
        (self._path / pointer.sha256).write_bytes(data)
        return pointer

    async def get(self, pointer: Pointer) -> bytes:
        return b"".join([piece async for piece in self.stream(pointer)])

    async def stream(self, pointer: Pointer) -> AsyncIterator[bytes]:
        file = self._path / pointer.sha256
        if not file.exists():
            raise TerminalError("NOT_FOUND", f"There is no artifact {pointer.sha256}.")
        data = file.read_bytes()
        for start in range(0, len(data), PIECE_BYTES):
            yield data[start : start + PIECE_BYTES]
