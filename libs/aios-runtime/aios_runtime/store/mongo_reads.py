"""The reads of the store on MongoDB."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from aios_core.errors import AiosError, RetryableError, TerminalError
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
from aios_runtime.store.mongo_rounds import Rounds
from aios_runtime.store.port import Aggregate, Filed, OutboxMessage, Page, Pending

MAX_PAGE: Final = 10_000  # documents of one read
PATIENCE_S: Final = 0.05  # for another process to move its journal itself
OWNER: Final = {"r": 1, "t": 1, "o": 1, "g": 1}  # what is read of an aggregate to find what belongs to it

_DENIED: Final = (13, 18)  # the server's codes of what a user may not do

T = TypeVar("T")


class MongoReads:
    """The port's reads. They see every commit that was awaited, whichever process made it; one that was not finished,
    because its process died, is finished by who reads its aggregate."""

    def __init__(self, database: AsyncDatabase[Document], rounds: Rounds) -> None:
        self._database = database
        self._rounds = rounds
        self._name = database.name

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
            raise as_error(error, self._name) from error


def as_error(error: PyMongoError, name: str) -> AiosError:
    """What an error of the driver stands for. Its text may hold the address, and is not repeated."""
    if isinstance(error, ConfigurationError):
        return TerminalError(
            "INVALID_ARGUMENT", "The address of MongoDB has an option that does not fit.", field="mongodb_url"
        )
    if isinstance(error, OperationFailure) and error.code in _DENIED:
        return TerminalError("UNAUTHENTICATED", f"MongoDB does not let this service use the database {name}.")
    return RetryableError(
        "UNAVAILABLE",
        f"The database {name} can't be reached or refused a command ({type(error).__name__}).",
        path=name,
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
