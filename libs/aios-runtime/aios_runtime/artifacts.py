"""The client of memory's artifact store: bytes under their SHA-256, moved in chunks that fit into a message.

What `put` returned is durable: a pointer to it may be committed.
"""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, Final

from aios.memory.v1.memory_pb2 import (
    GetArtifactRequest,
    GetArtifactResponse,
    PutArtifactRequest,
    PutArtifactResponse,
)
from aios_core.errors import RetryableError, TerminalError
from aios_core.values import Pointer
from aios_runtime.bus.patience import ask_patiently
from aios_runtime.bus.port import Bus
from aios_runtime.bus.subjects import query

CHUNK_BYTES: Final = 128 * 1024
MAX_GET_BYTES: Final = 64 * 1024 * 1024
TIMEOUT: Final = 10.0  # seconds a chunk may take


class MemoryArtifacts:
    """Artifacts of one workspace over the bus. Raises UNAVAILABLE (retryable) where memory does not answer for a
    while."""

    def __init__(self, bus: Bus, workspace: str, mint: Callable[[str], str]) -> None:
        self._bus = bus
        self._workspace = workspace
        self._mint = mint
        self._put = query("memory", "put_artifact", workspace)
        self._get = query("memory", "get_artifact", workspace)

    async def put(
        self, content: bytes | BinaryIO, media_type: str = "application/octet-stream", name: str = ""
    ) -> Pointer:
        """Store bytes, or a seekable file from its start to its end. Raises CONFLICT (retryable) when the file changed
        under the reading; a file of any size is read in chunks and never held whole."""
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        sha256, size = await asyncio.to_thread(_hash, file)
        upload, offset = self._mint("upload"), 0
        while True:
            chunk = await asyncio.to_thread(file.read, CHUNK_BYTES)
            last = offset + len(chunk) >= size
            if offset + len(chunk) > size or (not chunk and offset < size):
                raise RetryableError(
                    "CONFLICT", f"{name or 'The file'} changed while it was read.", retry_after=5.0
                )
            request = PutArtifactRequest(
                workspace=self._workspace,
                upload_id=upload,
                offset=offset,
                chunk=chunk,
                last=last,
                sha256=sha256,
                size=size,
                media_type=media_type,
                name=name,
            )
            # A chunk that comes twice is the same chunk.
            answer = await ask_patiently(self._bus, self._put, request.SerializeToString(), TIMEOUT)
            response = PutArtifactResponse.FromString(answer)
            offset += len(chunk)
            if response.stored or last:
                return Pointer(sha256.hex(), size, media_type, name)

    async def get(self, pointer: Pointer) -> bytes:
        """All bytes. Raises TOO_LARGE past `MAX_GET_BYTES`, NOT_FOUND, CORRUPT_STORE."""
        if pointer.size > MAX_GET_BYTES:
            raise TerminalError(
                "TOO_LARGE",
                f"{pointer.name or pointer.sha256} has {pointer.size} bytes; at most {MAX_GET_BYTES} are read.",
            )
        return b"".join([chunk async for chunk in self.stream(pointer)])

    async def stream(self, pointer: Pointer) -> AsyncIterator[bytes]:
        """The bytes in chunks; raises CORRUPT_STORE at the end when they are not those of the pointer."""
        digest, offset = hashlib.sha256(), 0
        while True:
            request = GetArtifactRequest(
                workspace=self._workspace,
                sha256=bytes.fromhex(pointer.sha256),
                offset=offset,
                limit=CHUNK_BYTES,
            )
            answer = await ask_patiently(self._bus, self._get, request.SerializeToString(), TIMEOUT)
            response = GetArtifactResponse.FromString(answer)
            digest.update(response.chunk)
            offset += len(response.chunk)
            yield response.chunk
            if offset >= response.size or not response.chunk:
                break
        if digest.hexdigest() != pointer.sha256:
            raise TerminalError(
                "CORRUPT_STORE", f"Artifact {pointer.sha256} has other bytes than its name says."
            )


def _hash(file: BinaryIO) -> tuple[bytes, int]:
    """SHA-256 and size of a file from its start; leaves it at its start."""
    file.seek(0)
    digest = hashlib.sha256()
    size = 0
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    file.seek(0)
    return digest.digest(), size
