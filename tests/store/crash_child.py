"""A process that commits as fast as it can until it is killed: `crash_child.py <path or address> <writers> <commits>`.

It prints `<writer> <revision>` once a commit is acknowledged. Every write carries its revision in each of its parts, so
that half a write would show.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from aios_runtime.store.port import Committed, NewEvent, OutboxMessage, Store, Write
from aios_runtime.store.sqlite import open_store


async def commit_for_ever(store: Store, writer: int, commits: int) -> None:
    key = f"main/run/{writer}"
    found = await store.read(key)
    revision = found.revision if found else 0
    for _ in range(commits):
        text = str(revision + 1)
        data = text.encode()
        write = Write(
            key,
            revision,
            data.ljust(600, b"."),
            records={"last": data, f"step/{text}": data.ljust(200, b".")},
            events=[NewEvent(0, f"{writer} {text} a".encode()), NewEvent(0, f"{writer} {text} b".encode())],
            outbox=[OutboxMessage("s", f"{writer} {text}".encode(), "id")],
            inbox=[f"{key}:{text}"],
            due_ms=revision + 1,
            index={"revision": text},
        )
        (result,) = await store.commit([write])
        assert isinstance(result, Committed)
        await store.mark_sent(result.outbox_ids)
        revision = result.revision
        os.write(1, f"{writer} {revision}\n".encode())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def opened(place: str) -> Store:
    if "://" not in place:
        return await open_store(Path(place), service="test", now_ms=now_ms)
    from aios_runtime.store.mongo import open_mongo_store

    url, _, database = place.rpartition("/")
    return await open_mongo_store(url, database=database, service="test", now_ms=now_ms)


async def main() -> None:
    store = await opened(sys.argv[1])
    writers, commits = int(sys.argv[2]), int(sys.argv[3])
    await asyncio.gather(*(commit_for_ever(store, writer, commits) for writer in range(writers)))
    await store.close()


asyncio.run(main())
