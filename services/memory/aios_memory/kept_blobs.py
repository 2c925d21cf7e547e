"""Where blobs are kept: on this machine's disk, or, for a service that has replicas, in the store that these share."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from aios_core.errors import RetryableError, TerminalError
from aios_memory.blobs import Blobs
from aios_runtime.store import parts
from aios_runtime.store.port import Committed, Store, Write

UPLOADS: Final = 1000  # uploads under way that are looked at


class KeptBlobs(Protocol):
    """Blobs under their SHA-256 in hex, and uploads on their way there.

    Once `put` or `finish` has returned, the blob is durable and whole. Raises DISK_FULL, READ_ONLY, UNAVAILABLE.
    """

    async def prepare(self, staged_since_ms: int) -> int:
        """Remove uploads not touched since that time (ms) and what is half written. Returns how many."""
        ...

    async def read(self, sha256: str, offset: int, limit: int) -> bytes:
        """Part of a blob. Raises CORRUPT_STORE when it is not there."""
        ...

    async def put(self, data: bytes, sha256: str) -> None:
        """Store a blob whose hash the caller has checked."""
        ...

    async def staged(self, upload: str) -> int:
        """Bytes of an upload so far."""
        ...

    async def append(self, upload: str, offset: int, chunk: bytes) -> int:
        """Add a chunk at `offset`, which is where the upload ends; returns its new size."""
        ...

    async def finish(self, upload: str, sha256: str) -> str:
        """Make a blob of an upload whose hash is `sha256`; returns the hash that it has, and stores nothing when that
        is another one."""
        ...

    async def drop(self, upload: str) -> None:
        """Throw an upload away."""
        ...

    async def uploads(self) -> dict[str, int]:
        """Uploads under way and when each was last touched (ms)."""
        ...


class OnDisk:
    """In files of this machine."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def prepare(self, staged_since_ms: int) -> int:
        return await asyncio.to_thread(self._blobs.prepare, staged_since_ms)

    async def read(self, sha256: str, offset: int, limit: int) -> bytes:
        return await asyncio.to_thread(self._blobs.read, sha256, offset, limit)

    async def put(self, data: bytes, sha256: str) -> None:
        await asyncio.to_thread(self._blobs.put, data, sha256)

    async def staged(self, upload: str) -> int:
        return await asyncio.to_thread(self._blobs.staged, upload)

    async def append(self, upload: str, offset: int, chunk: bytes) -> int:
        return await asyncio.to_thread(self._blobs.append, upload, offset, chunk)

    async def finish(self, upload: str, sha256: str) -> str:
        return await asyncio.to_thread(self._blobs.finish, upload, sha256)

    async def drop(self, upload: str) -> None:
        await asyncio.to_thread(self._blobs.drop, upload)

    async def uploads(self) -> dict[str, int]:
        return await asyncio.to_thread(self._blobs.uploads)


class InStore:
    """In the store itself: blobs and uploads are aggregates with a record for each part. A blob whose head does not say
    that it is whole is not there yet."""

    def __init__(self, store: Store, workspace: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._workspace = workspace
        self._now_ms = now_ms

    async def prepare(self, staged_since_ms: int) -> int:
        old = [
            upload for upload, touched_ms in (await self.uploads()).items() if touched_ms < staged_since_ms
        ]
        for upload in old:
            await self.drop(upload)
        return len(old)

    async def read(self, sha256: str, offset: int, limit: int) -> bytes:
        key = self._blob(sha256)
        if not await parts.is_whole(self._store, key):
            raise TerminalError(
                "CORRUPT_STORE",
                f"Artifact {sha256} is known, but its bytes are missing; restore it from a backup.",
            )
        found = bytearray()
        async for start, part in parts.read(self._store, key, offset):
            if start >= offset + limit:
                break
            found += part[max(offset - start, 0) : offset + limit - start]
        return bytes(found)

    async def put(self, data: bytes, sha256: str) -> None:
        async def whole() -> AsyncIterator[tuple[int, bytes]]:
            for at, part in parts.cut(data).items():
                yield int(at), part

        await self._keep(whole, sha256)

    async def staged(self, upload: str) -> int:
        stored = await self._store.read(self._upload(upload))
        return int(json.loads(stored.head)[0]) if stored is not None else 0

    async def append(self, upload: str, offset: int, chunk: bytes) -> int:
        stored = await self._store.read(self._upload(upload))
        if (int(json.loads(stored.head)[0]) if stored is not None else 0) != offset:
            raise _overtaken()
        size = offset + len(chunk)
        write = Write(
            self._upload(upload),
            stored.revision if stored is not None else 0,
            json.dumps([size, self._now_ms()]).encode(),
            parts.cut(chunk, offset),
            index={"uploading": self._workspace},
        )
        (result,) = await self._store.commit([write])
        if not isinstance(result, Committed):
            raise _overtaken()
        return size

    async def finish(self, upload: str, sha256: str) -> str:
        digest = hashlib.sha256()
        async for _, part in parts.read(self._store, self._upload(upload)):
            digest.update(part)
        found = digest.hexdigest()
        if found == sha256:
            await self._keep(lambda: parts.read(self._store, self._upload(upload)), sha256)
        return found

    async def drop(self, upload: str) -> None:
        stored = await self._store.read(self._upload(upload))
        if stored is not None:
            await self._store.commit([Write(self._upload(upload), stored.revision, None)])

    async def uploads(self) -> dict[str, int]:
        page = await self._store.query("uploading", self._workspace, limit=UPLOADS)
        return {item.key.rpartition("/")[2]: int(json.loads(item.head)[1]) for item in page.items}

    async def _keep(self, content: parts.Parts, sha256: str) -> None:
        if not await parts.put(self._store, self._blob(sha256), content):
            raise _overtaken()

    def _upload(self, upload: str) -> str:
        return f"{self._workspace}/upload/{upload}"

    def _blob(self, sha256: str) -> str:
        return f"{self._workspace}/blob/{sha256}"


def _overtaken() -> RetryableError:
    return RetryableError("UNAVAILABLE", "The same upload goes on elsewhere at the same time; try again.")
