"""Where large values lie, as an author sees it."""

from collections.abc import AsyncIterator
from typing import BinaryIO, Protocol

from aios_core.values import Pointer


class Artifacts(Protocol):
    """Memory's artifact store. Raises NOT_FOUND, UNAVAILABLE (retryable), CORRUPT_STORE (wrong bytes)."""

    async def put(
        self, content: bytes | BinaryIO, media_type: str = "application/octet-stream", name: str = ""
    ) -> Pointer:
        """Store bytes, or a file from its start to its end, durably; returns where they lie."""
        ...

    async def get(self, pointer: Pointer) -> bytes:
        """All bytes; at most `MAX_GET_BYTES` of the implementation."""
        ...

    def stream(self, pointer: Pointer) -> AsyncIterator[bytes]:
        """The bytes in pieces. It raises at the end if they are not those of the hash."""
        ...
