"""Moving what journals hold to the collections where it is read. Whoever finds a journal may do it, again and at once
with others: the outcome is the same."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DuplicateKeyError

from aios_core.errors import RetryableError
from aios_runtime.store.mongo_documents import (
    POSITION_BITS,
    Document,
    Entry,
    batch_of,
    first_event,
    last_event,
    position_of,
    record_id,
)

DUPLICATE: Final = 11000  # the server's code of a key that is there already
MAX_RACES: Final = 100  # tries for the next positions of a partition, each lost to somebody else's
AT_ONCE: Final = 1000  # documents of one bulk write

Spot = tuple[int, int]  # creation number and revision: which write of which aggregate


class Moves:
    """Moves entries; keeps the last position of each partition that it has seen."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._database = database
        self._heads: dict[int, int] = {}

    async def know_heads(self, entries: Sequence[Entry]) -> None:
        """Learn where the partitions of entries end, before these are committed.

        Whoever files them afterwards, files them behind that, where a race with it is noticed.
        """
        for partition in {event.partition for entry in entries for event in entry.events}:
            if partition not in self._heads:
                self._heads[partition] = await self._head(partition)

    async def _head(self, partition: int) -> int:
        last = await self._database.events.find_one(
            {"_id": {"$gte": first_event(partition, 0), "$lte": last_event(partition)}},
            {"n": 1},
            sort=[("_id", -1)],
        )
        return position_of(last["_id"]) + last["n"] - 1 if last else 0

    async def move(
        self, entries: Sequence[Entry], now_ms: int, *, found: bool
    ) -> tuple[dict[Spot, list[int]], dict[Spot, list[int]]]:
        """Move entries; returns their events' positions and their messages' outbox numbers. `found` in a journal that
        somebody else wrote: they may have been moved."""
        marks = [
            UpdateOne({"_id": mark}, {"$setOnInsert": {"at": now_ms}}, upsert=True)
            for entry in entries
            for mark in entry.inbox
        ]
        done = await asyncio.gather(
            self._file([entry for entry in entries if entry.events], found),
            self._queue(entries),
            self._put_records(entries),
            self._bulk("inbox", marks),
            return_exceptions=True,
        )
        for failed in done:
            if isinstance(failed, BaseException):
                raise failed
        positions, numbers = done[0], done[1]
        assert isinstance(positions, dict)
        assert isinstance(numbers, dict)
        return positions, numbers

    async def _put_records(self, entries: Sequence[Entry]) -> None:
        last: dict[str, tuple[int, bytes | None]] = {}
        for entry in entries:
            for name, data in entry.records.items():
                last[record_id(entry.number, name)] = (entry.revision, data)
        changes: list[Any] = []
        for key, (revision, data) in last.items():
            # A deleted record leaves its revision behind, so that nobody who comes late puts an older one back.
            change: Document = {"$set": {"r": revision, "v": data}}
            if data is None:
                change = {"$set": {"r": revision}, "$unset": {"v": ""}}
            changes.append(UpdateOne({"_id": key, "r": {"$lte": revision}}, change, upsert=True))
        await self._bulk("records", changes)

    async def _queue(self, entries: Sequence[Entry]) -> dict[Spot, list[int]]:
        count = sum(len(entry.outbox) for entry in entries)
        if not count:
            return {}
        number = await count_up(self._database, "\0outbox", count) - count
        numbers: dict[Spot, list[int]] = {}
        documents = []
        for entry in entries:
            for message in entry.outbox:
                number += 1
                numbers.setdefault((entry.number, entry.revision), []).append(number)
                headers = list(map(list, message.headers.items()))
                documents.append(
                    {
                        "_id": number,
                        "s": message.subject,
                        "d": message.data,
                        "m": message.message_id,
                        "h": headers,
                    }
                )
        await self._database.outbox.insert_many(documents, ordered=False)
        return numbers

    async def _bulk(self, collection: str, changes: Sequence[Any]) -> None:
        """Unordered; that a key is there already means that somebody has put the same or something newer."""
        for first in range(0, len(changes), AT_ONCE):
            try:
                await self._database[collection].bulk_write(changes[first : first + AT_ONCE], ordered=False)
            except BulkWriteError as error:
                if any(failed["code"] != DUPLICATE for failed in error.details["writeErrors"]):
                    raise

    async def _file(self, entries: Sequence[Entry], found: bool) -> dict[Spot, list[int]]:
        """Give events the next positions of their partitions, in the order of the entries."""
        waiting: dict[int, list[Entry]] = {}
        for entry in entries:
            for partition in dict.fromkeys(event.partition for event in entry.events):
                waiting.setdefault(partition, []).append(entry)
        positions: dict[tuple[Spot, int], list[int]] = {}
        if found:
            await self.know_heads(entries)  # before the look, so that what is filed after it lies behind them
            await self._look_for(waiting, positions)
        for _ in range(MAX_RACES):
            waiting = {partition: left for partition, left in waiting.items() if left}
            if not waiting:
                return _in_order(entries, positions)
            appended = await asyncio.gather(
                *(self._append(partition, left, positions) for partition, left in waiting.items()),
                return_exceptions=True,
            )
            for failed in appended:
                if failed is not None:
                    raise failed
        raise RetryableError("UNAVAILABLE", "Too many others file events of the same partition.")

    async def _append(
        self, partition: int, left: list[Entry], positions: dict[tuple[Spot, int], list[int]]
    ) -> None:
        """Insert the events of a partition behind its last one; where somebody was quicker, see what he filed."""
        if partition not in self._heads:
            self._heads[partition] = await self._head(partition)
        head = self._heads[partition]
        parts = [(entry, _data(entry, partition)) for entry in left]
        batch = batch_of(partition, head + 1, parts)
        try:
            await self._database.events.insert_one(batch)
        except DuplicateKeyError:
            await self._catch_up(partition, left, positions)
            return
        self._heads[partition] = head + batch["n"]
        _note(batch, left, positions)
        left.clear()

    async def _catch_up(
        self, partition: int, left: list[Entry], positions: dict[tuple[Spot, int], list[int]]
    ) -> None:
        """Go past what others filed since, some of what is `left` maybe among it."""
        begin = first_event(partition, self._heads[partition] + 1)
        later = self._database.events.find(
            {"_id": {"$gte": begin, "$lte": last_event(partition)}}, {"e": 0}
        ).sort("_id", 1)
        async for batch in later:
            self._heads[partition] = position_of(batch["_id"]) + batch["n"] - 1
            _note(batch, left, positions)

    async def _look_for(
        self, waiting: dict[int, list[Entry]], positions: dict[tuple[Spot, int], list[int]]
    ) -> None:
        numbers = sorted({entry.number for entries in waiting.values() for entry in entries})
        for first in range(0, len(numbers), AT_ONCE):
            some = {"w.t": {"$in": numbers[first : first + AT_ONCE]}}
            async for batch in self._database.events.find(some, {"e": 0}):
                partition = batch["_id"] >> POSITION_BITS
                if partition in waiting:
                    _note(batch, waiting[partition], positions)


async def count_up(database: AsyncDatabase[Document], counter: str, by: int) -> int:
    """Take the next `by` numbers of a counter, which nobody else gets; returns the last of them."""
    for _ in range(MAX_RACES):
        found = await database.meta.find_one({"_id": counter})
        if found is None:
            with contextlib.suppress(DuplicateKeyError):
                await database.meta.insert_one({"_id": counter, "n": by})
                return by
        else:
            last = int(found["n"]) + by
            taken = await database.meta.update_one({"_id": counter, "n": found["n"]}, {"$set": {"n": last}})
            if taken.modified_count:
                return last
    raise RetryableError("UNAVAILABLE", "Too many others count at the same time.")


def _data(entry: Entry, partition: int) -> list[bytes]:
    return [event.data for event in entry.events if event.partition == partition]


def _note(batch: Document, left: list[Entry], positions: dict[tuple[Spot, int], list[int]]) -> None:
    """Which of the entries are filed in a batch: note their positions, and take them off the list."""
    partition, at = batch["_id"] >> POSITION_BITS, position_of(batch["_id"])
    wanted = {(entry.number, entry.revision): entry for entry in left}
    for writer in batch["w"]:
        spot = (writer["t"], writer["r"])
        entry = wanted.get(spot)
        if entry is not None:
            positions[spot, partition] = list(range(at, at + writer["n"]))
            left.remove(entry)
        at += writer["n"]


def _in_order(
    entries: Sequence[Entry], positions: dict[tuple[Spot, int], list[int]]
) -> dict[Spot, list[int]]:
    """The positions of each entry's events, in their order."""
    following = {where: iter(found) for where, found in positions.items()}
    result = {}
    for entry in entries:
        spot = (entry.number, entry.revision)
        result[spot] = [next(following[spot, event.partition]) for event in entry.events]
    return result
