"""Large contents in a store that several processes share: an aggregate with a record for each part. One whose head does
not say that it is whole is not there yet."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from aios_runtime.store.port import Committed, Store, Write

PART_BYTES: Final = 128 * 1024  # the most that one record holds
PAGE: Final = 32  # records that are read, or written, at once
RACES: Final = 5  # tries to put a content, each of which somebody else has interrupted
WHOLE: Final = b"whole"  # what the head says
PARTLY: Final = b"partly"

Parts = Callable[[], AsyncIterator[tuple[int, bytes]]]
"""A content from its beginning, as often as it is called: parts of at most `PART_BYTES`, with where each begins."""


def cut(chunk: bytes, offset: int = 0) -> Mapping[str, bytes]:
    """A chunk as records, of a content in which it begins at `offset`."""
    return {name(offset + at): chunk[at : at + PART_BYTES] for at in range(0, len(chunk), PART_BYTES)}


def name(offset: int) -> str:
    """Of the record of the part that begins there."""
    return f"{offset:012}"


async def is_whole(store: Store, key: str) -> bool:
    """Whether a content is there."""
    stored = await store.read(key)
    return stored is not None and stored.head == WHOLE


async def read(store: Store, key: str, offset: int = 0) -> AsyncIterator[tuple[int, bytes]]:
    """The parts from the one that holds `offset` on, with where each begins."""
    first = max(offset - PART_BYTES, 0)
    part = await store.record(key, name(first))
    if part is not None:
        yield first, part
    after = name(first)
    while page := await store.records(key, after=after, limit=PAGE):
        for at, part in page.items():
            yield int(at), part
        after = max(page)


async def put(store: Store, key: str, parts: Parts) -> bool:
    """Durably put a content, unless it is there. Two who do it at once put the same. False: it is to be tried again."""
    for _ in range(RACES):
        stored = await store.read(key)
        if stored is not None and stored.head == WHOLE:
            return True
        revision = stored.revision if stored is not None else 0
        batch: dict[str, bytes] = {}
        async for start, part in parts():
            batch[name(start)] = part
            if len(batch) == PAGE:
                if not await _written(store, Write(key, revision, PARTLY, batch)):
                    break
                revision, batch = revision + 1, {}
        else:
            if await _written(store, Write(key, revision, WHOLE, batch)):
                return True
    return False


async def _written(store: Store, write: Write) -> bool:
    (result,) = await store.commit([write])
    return isinstance(result, Committed)
