"""The store on MongoDB, for a service that has replicas: one database a service, several processes that write it.

It needs single-document updates and bulk writes, no transactions and no change streams, so it works on a single node, a
replica set and a sharded cluster alike. `open_mongo_store` is the way in. How the documents lie: `mongo_documents`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.store.checks import check
from aios_runtime.store.mongo_documents import (
    POSITION_BITS,
    Document,
    after_prefix,
    aggregate_of,
    filed_by,
    filed_in,
    first_event,
    last_event,
    position_of,
    record_id,
    record_name,
)
from aios_runtime.store.mongo_rounds import Item, Rounds, UnclearError
from aios_runtime.store.port import (
    MAX_BATCH_WRITES,
    Aggregate,
    Committed,
    Filed,
    OutboxMessage,
    Page,
    Pending,
    Result,
    Write,
)

SCHEMA: Final = 1  # version of the documents' shape
CONNECT_MS: Final = 10_000  # to find a server that takes writes, and for its answer
MAX_WAITING_WRITES: Final = 16_384  # more than these wait outside the queue
MAX_ROUND_BYTES: Final = 8 * 1024 * 1024  # of heads, records, events and outbox in one round
IDLE_S: Final = 1.0  # quiet time after which journals that are moved are emptied
MAX_OPEN_JOURNALS: Final = 5_000  # after which they are emptied in any case
MAX_PAGE: Final = 10_000  # documents of one read
SETTLED_AT_ONCE: Final = 200  # journals that are finished in one go at the start
PATIENCE_S: Final = 0.05  # for another process to move its journal itself

OWNER: Final = {"r": 1, "t": 1, "o": 1, "g": 1}  # what is read of an aggregate to find what belongs to it

T = TypeVar("T")

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


class MongoStore:
    """A `Store` in one MongoDB database. Use it from the event loop that opened it."""

    def __init__(
        self,
        client: AsyncMongoClient[Document],
        database: str,
        *,
        service: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._name = database
        self._now_ms = now_ms
        self._database = client.get_database(
            database, write_concern=WriteConcern(w="majority", j=True), read_concern=ReadConcern("majority")
        )
        self._rounds = Rounds(self._database, service=service, now_ms=now_ms)
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
            left: list[Document] = []
            async for document in aggregates.find({"o": 1}, {"h": 0}):
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
            error = self.trouble = self._as_error(failed)
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

    async def read(self, key: str) -> Aggregate | None:
        """One aggregate."""
        found = await self._ask(self._whole(key, {"j": 0, "x": 0, "c": 0}))
        return aggregate_of(found) if found else None

    async def _whole(self, key: str, fields: Document | None = None) -> Document | None:
        """An aggregate's document once its journal is moved; None when there is none, or it is deleted."""
        found = await self._database.aggregates.find_one({"_id": key}, fields)
        if found is not None and found.get("o") and not self._rounds.is_moved(key, found["r"]):
            await self._settle([key])
        return None if found is None or found.get("g") else found

    async def _settle(self, keys: Sequence[str]) -> None:
        """Finish what the journals of aggregates hold, unless their writers do it in this instant."""
        async with self._rounds.lock:  # this process's own are moved when the lock is free
            wanted = {"_id": {"$in": list(keys)}, "o": 1}
            for patience in (PATIENCE_S, 0.0):
                left = [found async for found in self._database.aggregates.find(wanted, {"h": 0})]
                if not left or not patience:
                    break
                await asyncio.sleep(patience)
            await self._rounds.settle(left)

    async def record(self, key: str, name: str) -> bytes | None:
        """One record of an aggregate."""
        return await self._ask(self._record(key, name))

    async def _record(self, key: str, name: str) -> bytes | None:
        owner = await self._whole(key, OWNER)
        if owner is None:
            return None
        found = await self._database.records.find_one({"_id": record_id(owner["t"], name)})
        return found.get("v") if found else None

    async def records(
        self, key: str, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> dict[str, bytes]:
        """Records of an aggregate by name, in name order, those after the name `after`."""
        return await self._ask(self._records(key, prefix, after, _bounded(limit)))

    async def _records(self, key: str, prefix: str, after: str, limit: int) -> dict[str, bytes]:
        owner = await self._whole(key, OWNER)
        if owner is None or not limit:
            return {}
        number = owner["t"]
        following = after_prefix(prefix)
        end = record_id(number, following) if following else record_id(number + 1, "")
        bounds = {"$gte": record_id(number, prefix), "$gt": record_id(number, after), "$lt": end}
        found = (
            self._database.records.find({"_id": bounds, "v": {"$exists": True}}).sort("_id", 1).limit(limit)
        )
        return {record_name(record["_id"]): record["v"] async for record in found}

    async def query(
        self, index: str, value: str, *, token: str = "", limit: int = 100, newest_first: bool = True
    ) -> Page:
        """Aggregates whose entry in `index` equals `value`, by the time of their creation."""
        limit = _bounded(limit) or 1
        wanted: Document = {"x": f"{index}\0{value}"}
        if token:
            wanted["t"] = {"$lt" if newest_first else "$gt": _number(token)}
        found = await self._find(
            self._database.aggregates, wanted, [("t", -1 if newest_first else 1)], limit + 1
        )
        items = tuple(aggregate_of(document) for document in found[:limit] if not document.get("g"))
        return Page(items, str(found[limit - 1]["t"]) if len(found) > limit else "")

    async def scan(self, prefix: str, *, token: str = "", limit: int = 100) -> Page:
        """Aggregates by key prefix, in key order."""
        limit = _bounded(limit) or 1
        bounds = {"$gte": prefix, "$gt": token}
        following = after_prefix(prefix)
        if following:
            bounds["$lt"] = following
        wanted = {"_id": bounds, "g": {"$exists": False}}
        found = await self._find(self._database.aggregates, wanted, [("_id", 1)], limit + 1)
        items = tuple(aggregate_of(document) for document in found[:limit])
        return Page(items, items[-1].key if len(found) > limit else "")

    async def due(self, before_ms: int, limit: int) -> list[Aggregate]:
        """Aggregates whose due time is at or before it, the earliest first."""
        if not _bounded(limit):
            return []
        wanted = {"d": {"$lte": before_ms}}
        found = await self._find(self._database.aggregates, wanted, [("d", 1), ("t", 1)], _bounded(limit))
        return [aggregate_of(document) for document in found]

    async def next_due(self) -> int | None:
        """The earliest due time of all."""
        found = await self._find(self._database.aggregates, {"d": {"$exists": True}}, [("d", 1)], 1)
        return found[0]["d"] if found else None

    async def handled(self, mark: str) -> bool:
        """Whether an inbox mark is there."""
        return await self._ask(self._database.inbox.find_one({"_id": mark}, {"_id": 1})) is not None

    async def events(self, partition: int, after: int, limit: int) -> list[Filed]:
        """Events of a partition after a position, in order."""
        limit = _bounded(limit)
        first, end = first_event(partition, after + 1), last_event(partition)
        holds = {"_id": {"$gte": first_event(partition, 0), "$lte": first}}
        batches = await self._find(self._database.events, holds, [("_id", -1)], 1)
        filed = [event for batch in batches for event in filed_in(batch) if event.position > after]
        while len(filed) < limit:
            batches = await self._find(
                self._database.events, {"_id": {"$gt": first, "$lte": end}}, [("_id", 1)], 50
            )
            if not batches:
                break
            filed += [event for batch in batches for event in filed_in(batch)]
            first = batches[-1]["_id"]
        return filed[:limit]

    async def events_of(self, key: str, skip: int, limit: int) -> list[Filed]:
        """Events that the writes of an aggregate filed, in order, after the first `skip` of them."""
        owner = await self._ask(self._whole(key, OWNER))
        if owner is None:
            return []
        number, limit = owner["t"], _bounded(limit)
        filed: list[Filed] = []
        last = -1
        while len(filed) < skip + limit:
            wanted = {"w.t": number, "_id": {"$gt": last}}
            batches = await self._find(self._database.events, wanted, [("_id", 1)], 200)
            if not batches:
                break
            filed += [event for batch in batches for event in filed_by(batch, number)]
            last = batches[-1]["_id"]
        return filed[skip : skip + limit]

    async def event_head(self, partition: int) -> int:
        """The last position of a partition; 0 when it has none."""
        bounds = {"$gte": partition << POSITION_BITS, "$lte": last_event(partition)}
        found = await self._find(self._database.events, {"_id": bounds}, [("_id", -1)], 1)
        return position_of(found[0]["_id"]) + found[0]["n"] - 1 if found else 0

    async def pending(self, limit: int) -> list[Pending]:
        """Outbox messages that are not marked as sent, in the order of their commit."""
        if not _bounded(limit):
            return []
        found = await self._find(self._database.outbox, {}, [("_id", 1)], _bounded(limit))
        return [
            Pending(
                message["_id"], OutboxMessage(message["s"], message["d"], message["m"], dict(message["h"]))
            )
            for message in found
        ]

    async def meta(self, name: str) -> bytes | None:
        """A small value of the store itself, such as a cursor or the broker's incarnation."""
        found = await self._ask(self._database.meta.find_one({"_id": name}))
        return found["v"] if found else None

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

    async def _find(
        self,
        collection: AsyncCollection[Document],
        wanted: Document,
        order: list[tuple[str, int]],
        limit: int,
    ) -> list[Document]:
        return await self._ask(collection.find(wanted).sort(order).limit(limit).to_list())

    async def _ask(self, asking: Coroutine[Any, Any, T]) -> T:
        try:
            return await asking
        except PyMongoError as error:
            raise self._as_error(error) from error

    def _as_error(self, error: PyMongoError) -> AiosError:
        """What an error of the driver stands for. Its text may hold the address, and is not repeated."""
        if isinstance(error, ConfigurationError):
            return TerminalError(
                "INVALID_ARGUMENT",
                "The address of MongoDB has an option that does not fit.",
                field="mongodb_url",
            )
        if isinstance(error, OperationFailure) and error.code in (13, 18):
            return TerminalError(
                "UNAUTHENTICATED", f"MongoDB does not let this service use the database {self._name}."
            )
        return RetryableError(
            "UNAVAILABLE",
            f"The database {self._name} can't be reached or refused a command ({type(error).__name__}).",
            path=self._name,
        )


def _unclear(name: str) -> RetryableError:
    return RetryableError(
        "UNAVAILABLE",
        f"The connection to the database {name} failed while it was written, so whether the last changes are there is "
        "not known; repeat the call with the same request id.",
        path=name,
        outcome="unknown",
    )


def _bounded(limit: int) -> int:
    return max(0, min(limit, MAX_PAGE))


def _number(token: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"The page token {token[:64]!r} is not one that a query gave out.",
            field="token",
        )
    return int(token)
