"""The cache of model answers, so that a task that is worked again does not cost again. Bounded in size and in age.

The first answer to a question stays: who asks again gets exactly it. An entry's due time in the store is its end, so
the oldest is always the next one due.
"""

from collections.abc import Callable
from typing import Final

from aios.memory.v1.memory_pb2 import GetCachedResponse
from aios_core.errors import TerminalError
from aios_runtime.store.port import Aggregate, Committed, Store, Write

MAX_ENTRIES: Final = 20_000
MAX_BYTES: Final = 256 * 1024 * 1024  # of all answers together
MAX_VALUE_BYTES: Final = 192 * 1024  # of one answer; it travels in one message
MAX_AGE_MS: Final = 30 * 24 * 3600 * 1000
EVICTED_AT_ONCE: Final = 64
KEY_BYTES: Final = 32
_SCAN: Final = 500


class Cache:
    """The answers of one workspace, by the SHA-256 of their question."""

    def __init__(
        self,
        store: Store,
        workspace: str,
        now_ms: Callable[[], int],
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        max_age_ms: int = MAX_AGE_MS,
    ) -> None:
        self._store = store
        self._prefix = f"{workspace}/cache/"
        self._now_ms = now_ms
        self._max_entries, self._max_bytes, self._max_age_ms = max_entries, max_bytes, max_age_ms
        self._entries = self._bytes = 0

    async def start(self) -> None:
        """Count what is there."""
        self._entries = self._bytes = 0
        token = ""
        while True:
            page = await self._store.scan(self._prefix, token=token, limit=_SCAN)
            self._entries += len(page.items)
            self._bytes += sum(len(entry.head) for entry in page.items)
            token = page.next_token
            if not token:
                return

    async def get(self, key: bytes) -> GetCachedResponse:
        """The answer, if there is one that is not too old."""
        entry = await self._store.read(self._key(key))
        if entry is None or (entry.due_ms or 0) <= self._now_ms():
            return GetCachedResponse()
        answer = GetCachedResponse.FromString(entry.head)
        answer.found = True
        return answer

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep an answer, unless there is one already. Raises TOO_LARGE, or INVALID_ARGUMENT for the key."""
        if len(value) > MAX_VALUE_BYTES:
            raise TerminalError(
                "TOO_LARGE", f"The answer has {len(value)} bytes; at most {MAX_VALUE_BYTES} are cached."
            )
        now = self._now_ms()
        name = self._key(key)
        old = await self._store.read(name)
        if old is not None and (old.due_ms or 0) > now:
            return
        head = GetCachedResponse(value=value, create_time_ms=now).SerializeToString()
        revision = old.revision if old else 0
        evicted = await self._evicted(now, len(head), name)
        writes = [Write(name, revision, head, due_ms=now + self._max_age_ms)]
        writes += [Write(entry.key, entry.revision, None) for entry in evicted]
        results = await self._store.commit(writes)
        if not isinstance(results[0], Committed):
            return  # the same question was answered at the same time
        self._entries += (0 if old else 1) - len(evicted)
        self._bytes += len(head) - (len(old.head) if old else 0) - sum(len(entry.head) for entry in evicted)

    async def _evicted(self, now: int, coming: int, name: str) -> list[Aggregate]:
        """What is too old, and the oldest ones while there is too much."""
        evicted: list[Aggregate] = []
        entries, size = self._entries + 1, self._bytes + coming
        for entry in await self._store.due(now + self._max_age_ms, EVICTED_AT_ONCE):
            if (entry.due_ms or 0) > now and entries <= self._max_entries and size <= self._max_bytes:
                break
            if entry.key != name and entry.key.startswith(self._prefix):
                evicted.append(entry)
                entries, size = entries - 1, size - len(entry.head)
        return evicted

    def _key(self, key: bytes) -> str:
        if len(key) != KEY_BYTES:
            raise TerminalError(
                "INVALID_ARGUMENT", f"key_sha256 must have {KEY_BYTES} bytes.", field="key_sha256"
            )
        return self._prefix + key.hex()
