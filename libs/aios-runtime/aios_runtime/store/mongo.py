"""The store on MongoDB, for a service that has replicas: one database a service, several processes that write it.

It needs single-document updates and bulk writes, no transactions and no change streams, so it works on a single node, a
replica set and a sharded cluster alike. `open_mongo_store` is the way in. How the documents lie: `mongo_documents`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.store.checks import check
from aios_runtime.store.mongo_documents import Document
from aios_runtime.store.mongo_reads import MongoReads, as_error
from aios_runtime.store.mongo_rounds import Item, Rounds, UnclearError
from aios_runtime.store.port import MAX_BATCH_WRITES, Committed, Result, Write

SCHEMA: Final = 1  # version of the documents' shape
CONNECT_MS: Final = 10_000  # to find a server that takes writes, and for its answer
MAX_WAITING_WRITES: Final = 16_384  # more than these wait outside the queue
MAX_ROUND_BYTES: Final = 8 * 1024 * 1024  # of heads, records, events and outbox in one round
IDLE_S: Final = 1.0  # quiet time after which journals that are moved are emptied
MAX_OPEN_JOURNALS: Final = 5_000  # after which they are emptied in any case
SETTLED_AT_ONCE: Final = 200  # journals that are finished in one go at the start


log = logging.getLogger("aios.store")


async def open_mongo_store(
    url: str, *, database: str, service: str, now_ms: Callable[[], int], connect_ms: int = CONNECT_MS
) -> "MongoStore":
    """Open or create the store of a service in the database of that name.

    `now_ms` dates inbox marks and the creation of aggregates. Raises UNAVAILABLE, INVALID_ARGUMENT for a bad URL,
    UNAUTHENTICATED, NEWER_STORE.
    """
    bad = TerminalError(
        "INVALID_ARGUMENT",
        "The address of MongoDB can't be read; it has the form mongodb://user:password@host:27017/.",
        field="mongodb_url",
    )
    if not url.startswith(("mongodb://", "mongodb+srv://")):
        raise bad
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url,
            appname=f"aios-{service}",
            retryWrites=False,  # a write that is carried out twice is told apart here, by its revision
            retryReads=True,
            serverSelectionTimeoutMS=connect_ms,
            connectTimeoutMS=connect_ms,
            socketTimeoutMS=connect_ms,
            tz_aware=True,
        )
    except (PyMongoError, ValueError, TypeError):
        raise bad from None
    store = MongoStore(client, database, service=service, now_ms=now_ms)
    try:
        await store.prepare()
    except BaseException:
        await client.close()
        raise
    return store


@dataclass(slots=True)
class _Request:
    items: list[Item]
    size: int
    done: "asyncio.Future[list[Result]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class MongoStore(MongoReads):
    """A `Store` in one MongoDB database. Use it from the event loop that opened it."""

    shared = True

    def __init__(
        self,
        client: AsyncMongoClient[Document],
        database: str,
        *,
        service: str,
        now_ms: Callable[[], int],
    ) -> None:
        own = client.get_database(
            database, write_concern=WriteConcern(w="majority", j=True), read_concern=ReadConcern("majority")
        )
        super().__init__(own, Rounds(own, service=service, now_ms=now_ms))
        self._client = client
        self._queue: list[_Request] = []
        self._waiting = 0  # writes that have no result yet
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._running: asyncio.Task[None] | None = None
        self.trouble: AiosError | None = None
        """What keeps the store from working as it should, for the health of its service."""

    async def prepare(self) -> None:
        """Make the indexes, check the version, and finish what an earlier process has left."""
        await self._ask(self._make())
        self._running = asyncio.create_task(self._run(), name="mongodb rounds")

    async def _make(self) -> None:
        meta = self._database.meta
        await meta.update_one({"_id": "\0schema"}, {"$setOnInsert": {"n": SCHEMA}}, upsert=True)
        found = await meta.find_one({"_id": "\0schema"})
        assert found is not None
        if found["n"] > SCHEMA:
            raise TerminalError(
                "NEWER_STORE",
                f"The database {self._name} has version {found['n']}, this release knows versions up to {SCHEMA}; "
                "use the release that wrote it or a later one.",
                path=self._name,
            )
        aggregates = self._database.aggregates
        await aggregates.create_index([("t", 1)])
        await aggregates.create_index([("x", 1), ("t", 1)])
        await aggregates.create_index([("d", 1), ("t", 1)], partialFilterExpression={"d": {"$exists": True}})
        await aggregates.create_index([("o", 1)], sparse=True)
        await self._database.events.create_index([("w.t", 1)])
        await self._database.inbox.create_index([("at", 1)])
        async with self._rounds.lock:
            await self._rounds.start()
            await self._settle_all()

    async def settle(self) -> None:
        """Finish what a process that has died left half-done."""
        async with self._rounds.lock:
            await self._ask(self._settle_all())

    async def _settle_all(self) -> None:
        left: list[Document] = []
        async for document in self._database.aggregates.find({"o": 1}, {"h": 0}):
            left.append(document)
            if len(left) == SETTLED_AT_ONCE:
                await self._rounds.settle(left)
                left = []
        await self._rounds.settle(left)

    async def commit(self, writes: Sequence[Write]) -> list[Result]:
        """Durably apply the writes, results in their order. Two writes to one key in a batch apply in order.

        Cancelling the wait does not take the writes back. Raises TOO_LARGE or INVALID_ARGUMENT before any is applied.
        """
        if not writes:
            return []
        size = check(writes)
        while self._waiting >= MAX_WAITING_WRITES:
            self._room.clear()
            await self._room.wait()
        if self._closing:
            raise RetryableError("UNAVAILABLE", f"The store {self._name} is closed.", path=self._name)
        request = _Request([Item(write) for write in writes], size)
        self._queue.append(request)
        self._waiting += len(writes)
        self._wake.set()
        return await request.done

    async def _run(self) -> None:
        """Round after round; what arrives while one is under way joins the next."""
        while not (self._closing and not self._queue):
            self._wake.clear()
            if self._queue:
                async with self._rounds.lock:
                    await self._round(self._take())
            idle = not self._queue
            if self._rounds.open_journals >= MAX_OPEN_JOURNALS or (
                idle and self._rounds.open_journals and not await self._woken()
            ):
                await self._empty_journals()
            elif idle and not self._closing:
                await self._wake.wait()
        await self._empty_journals()

    async def _woken(self) -> bool:
        """Whether there is work within `IDLE_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._closing else IDLE_S):
                await self._wake.wait()
                return True
        return False

    async def _empty_journals(self) -> None:
        try:
            async with self._rounds.lock:
                await self._rounds.empty_journals()
        except PyMongoError as error:
            log.warning("journals wait to be emptied: %s", type(error).__name__)
            await asyncio.sleep(IDLE_S)

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        writes = size = 0
        while self._queue:
            request = self._queue[0]
            writes += len(request.items)
            size += request.size
            if taken and (writes > MAX_BATCH_WRITES or size > MAX_ROUND_BYTES):
                break
            taken.append(self._queue.pop(0))
        return taken

    async def _round(self, requests: Sequence[_Request]) -> None:
        error: AiosError | None = None
        try:
            await self._rounds.commit([item for request in requests for item in request.items])
            self.trouble = None
        except UnclearError:
            error = self.trouble = _unclear(self._name)
        except PyMongoError as failed:
            error = self.trouble = as_error(failed, self._name)
        except AiosError as failed:
            error = failed
        except Exception as failed:
            log.exception("a round of commits failed by a defect")
            error = TerminalError("INTERNAL", f"The store failed: {type(failed).__name__}.")
        for request in requests:
            self._waiting -= len(request.items)
            if request.done.done():  # its caller was cancelled
                continue
            results = [item.result for item in request.items if item.result is not None]
            if len(results) == len(request.items):
                request.done.set_result(results)
            else:
                assert error is not None
                some = any(isinstance(result, Committed) for result in results)
                request.done.set_exception(_unclear(self._name) if some else error)
        self._room.set()

    async def mark_sent(self, outbox_ids: Sequence[int]) -> None:
        """Forget outbox messages."""
        await self._ask(self._database.outbox.delete_many({"_id": {"$in": list(outbox_ids)}}))

    async def set_meta(self, name: str, value: bytes) -> None:
        """Durably set a small value."""
        await self._ask(self._database.meta.update_one({"_id": name}, {"$set": {"v": value}}, upsert=True))

    async def prune_inbox(self, before_ms: int) -> int:
        """Forget inbox marks older than it; returns how many. Marks outlive the bus's retention."""
        done = await self._ask(self._database.inbox.delete_many({"at": {"$lt": before_ms}}))
        return done.deleted_count

    async def close(self) -> None:
        """Finish pending commits and disconnect."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        if self._running is not None:
            await self._running
        await self._client.close()


def _unclear(name: str) -> RetryableError:
    return RetryableError(
        "UNAVAILABLE",
        f"The connection to the database {name} failed while it was written, so whether the last changes are there is "
        "not known; repeat the call with the same request id.",
        path=name,
        outcome="unknown",
    )
