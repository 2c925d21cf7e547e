"""Artifacts: content-addressed bytes that pointers name. The blob is durable before anything points to it."""

import asyncio
import re
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from aios.memory.v1 import memory_pb2
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import content_hash
from aios_core.ids import check_request_id
from aios_memory.kept_blobs import KeptBlobs
from aios_runtime.crashpoints import crash, point
from aios_runtime.store.port import Store, Write

MAX_CHUNK_BYTES: Final = 128 * 1024  # of one message, either way
MAX_UPLOADS: Final = 64  # uploads that are under way at once
MAX_ARTIFACT_BYTES: Final = 64 * 1024 * 1024
MAX_UPLOAD_AGE_MS: Final = 3600 * 1000  # since its last chunk; after that an upload is thrown away
MAX_NAME_CHARS: Final = 300  # of a name; a file's own has at most 255
MAX_MEDIA_TYPE_CHARS: Final = 200
SHA256_BYTES: Final = 32

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

BLOB_STORED: Final = point(
    "memory.blob_stored", "an artifact's bytes are durable, but memory does not know of it yet"
)


class Artifacts:
    """The artifacts of one workspace. An artifact is known once its metadata is committed."""

    def __init__(self, store: Store, blobs: KeptBlobs, workspace: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._blobs = blobs
        self._workspace = workspace
        self._now_ms = now_ms
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> int:
        """Make the folders and remove what earlier processes left half done; returns how many files that was."""
        return await self._blobs.prepare(self._now_ms() - MAX_UPLOAD_AGE_MS)

    async def find(self, sha256: str) -> memory_pb2.Artifact | None:
        """What is known of an artifact, by its hash in hex."""
        aggregate = await self._store.read(self._key(sha256))
        return memory_pb2.Artifact.FromString(aggregate.head) if aggregate else None

    async def put(self, request: memory_pb2.PutArtifactRequest) -> memory_pb2.PutArtifactResponse:
        """Take a chunk of an upload; with the last one check the hash and make it durable.

        Raises INVALID_ARGUMENT (the hash is another one: nothing is stored), TOO_LARGE, DISK_FULL, READ_ONLY, or
        UNAVAILABLE while `MAX_UPLOADS` others are under way.
        """
        _check(request)
        upload = content_hash(
            f"{self._workspace}/{check_request_id(request.upload_id, 'upload_id')}".encode()
        )[:40]
        sha256 = request.sha256.hex()
        async with self._locks.setdefault(upload, asyncio.Lock()):
            known = await self.find(sha256) if sha256 else None
            if known is not None:
                await self._blobs.drop(upload)
                return memory_pb2.PutArtifactResponse(received=known.size, stored=True)
            if request.last and request.offset == 0:
                size = await self._put_whole(request, sha256)
            else:
                received = await self._receive(upload, request)
                if not request.last:
                    return memory_pb2.PutArtifactResponse(received=received)
                size = await self._put_staged(request, upload, sha256)
            crash(BLOB_STORED)
            await self._commit(request, size)
            await self._blobs.drop(upload)
            return memory_pb2.PutArtifactResponse(received=size, stored=True)

    async def get(self, request: memory_pb2.GetArtifactRequest) -> memory_pb2.GetArtifactResponse:
        """Part of an artifact. Raises NOT_FOUND, or INVALID_ARGUMENT past its end."""
        if len(request.sha256) != SHA256_BYTES:
            raise TerminalError("INVALID_ARGUMENT", "sha256 must have 32 bytes.", field="sha256")
        sha256 = request.sha256.hex()
        known = await self.find(sha256)
        if known is None:
            raise TerminalError("NOT_FOUND", f"There is no artifact {sha256}.", sha256=sha256)
        if not 0 <= request.offset <= known.size or request.limit < -1:
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"offset is {request.offset}; the artifact has {known.size} bytes.",
                field="offset",
            )
        limit = min(request.limit or MAX_CHUNK_BYTES, MAX_CHUNK_BYTES)
        chunk = await self._blobs.read(sha256, request.offset, limit) if limit > 0 else b""
        return memory_pb2.GetArtifactResponse(
            chunk=chunk,
            size=known.size,
            media_type=known.media_type,
            name=known.name,
            create_time_ms=known.create_time_ms,
        )

    async def _put_whole(self, request: memory_pb2.PutArtifactRequest, sha256: str) -> int:
        found = content_hash(request.chunk)
        if found != sha256:
            raise _wrong_hash(found, sha256)
        await self._blobs.put(request.chunk, sha256)
        return len(request.chunk)

    async def _put_staged(self, request: memory_pb2.PutArtifactRequest, upload: str, sha256: str) -> int:
        found = await self._blobs.finish(upload, sha256)
        if found != sha256:
            await self._blobs.drop(upload)
            raise _wrong_hash(found, sha256)
        return request.offset + len(request.chunk)

    async def _receive(self, upload: str, request: memory_pb2.PutArtifactRequest) -> int:
        """Bytes received so far, with this chunk. One that comes again is taken for the same chunk."""
        received = await self._blobs.staged(upload)
        end = request.offset + len(request.chunk)
        if request.offset > received or (request.last and end < received):
            raise RetryableError(
                "UNAVAILABLE",
                f"The upload has {received} bytes here, so a chunk at {request.offset} leaves a gap.",
                received=str(received),
            )
        if end <= received:
            return received
        if received == 0:
            await self._make_room()
        return await self._blobs.append(upload, request.offset, request.chunk)

    async def _make_room(self) -> None:
        old = self._now_ms() - MAX_UPLOAD_AGE_MS
        uploads = await self._blobs.uploads()
        for upload, touched_ms in uploads.items():
            if touched_ms < old:
                await self._blobs.drop(upload)
        if sum(touched_ms >= old for touched_ms in uploads.values()) >= MAX_UPLOADS:
            raise RetryableError(
                "UNAVAILABLE", f"{MAX_UPLOADS} uploads are under way; try again later.", retry_after=5.0
            )

    async def _commit(self, request: memory_pb2.PutArtifactRequest, size: int) -> None:
        """Create-only: when somebody else stored the same bytes meanwhile, theirs stands."""
        artifact = memory_pb2.Artifact(
            sha256=request.sha256,
            size=size,
            media_type=request.media_type or "application/octet-stream",
            name=_CONTROL.sub("\N{REPLACEMENT CHARACTER}", request.name),
            create_time_ms=self._now_ms(),
        )
        await self._store.commit([Write(self._key(request.sha256.hex()), 0, artifact.SerializeToString())])

    def _key(self, sha256: str) -> str:
        return f"{self._workspace}/artifact/{sha256}"


def _check(request: memory_pb2.PutArtifactRequest) -> None:
    end = request.offset + len(request.chunk)
    if len(request.chunk) > MAX_CHUNK_BYTES:
        raise TerminalError(
            "TOO_LARGE", f"The chunk has {len(request.chunk)} bytes; at most {MAX_CHUNK_BYTES}."
        )
    if max(end, request.size) > MAX_ARTIFACT_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"The artifact has {max(end, request.size)} bytes; at most {MAX_ARTIFACT_BYTES} are kept.",
        )
    if request.offset < 0 or (request.last and request.size not in (0, end)):
        raise TerminalError(
            "INVALID_ARGUMENT", f"offset and chunk end at {end}, but size is {request.size}.", field="offset"
        )
    if len(request.sha256) != SHA256_BYTES and (request.sha256 or request.last):
        raise TerminalError(
            "INVALID_ARGUMENT", "sha256 must have 32 bytes; the last chunk needs it.", field="sha256"
        )
    if len(request.name) > MAX_NAME_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT", f"name has at most {MAX_NAME_CHARS} characters.", field="name"
        )
    if len(request.media_type) > MAX_MEDIA_TYPE_CHARS or not request.media_type.isprintable():
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"media_type has at most {MAX_MEDIA_TYPE_CHARS} printable characters.",
            field="media_type",
        )


def _wrong_hash(found: str, promised: str) -> TerminalError:
    return TerminalError(
        "INVALID_ARGUMENT",
        f"The bytes have the SHA-256 {found}, not {promised}; nothing was stored. Send them again.",
        field="sha256",
    )
