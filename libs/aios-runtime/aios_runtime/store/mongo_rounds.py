"""Committing rounds of writes: one conditional update of one document an aggregate, many of them in one bulk write.

A bulk result does not say which of its updates lost. Where not all of them won, or the answer was lost with the
connection, the documents are read again: each names its last commits.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError

from aios_runtime import crashpoints
from aios_runtime.store.mongo_documents import (
    COMMITS_REMEMBERED,
    NEVER,
    Document,
    Entry,
    Known,
    change_of,
    entries_in,
    entry_of,
    known_of,
    record_id,
)
from aios_runtime.store.mongo_moves import DUPLICATE, Moves, Spot, count_up
from aios_runtime.store.port import Committed, Conflict, Duplicate, Result, Write

REMEMBERED: Final = 20_000  # aggregates whose revision and index entries are known without reading
MAX_TRIES: Final = 8  # of a write whose aggregate others keep changing
AGAIN_S: Final = (
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    4.0,
)  # before the n-th try to find out, or to finish, after a failure
AT_ONCE: Final = 1000  # keys of one read

_NUMBER_BITS: Final = 22  # of a creation number below its milliseconds
_OPENING_BITS: Final = 12  # of those the lowest: which opening of the store it was


@dataclass(slots=True, eq=False)
class Item:
    """A write of a round. `planned` is what became of it if its aggregate's document was written, `result` once that
    is certain."""

    write: Write
    planned: Result | None = None
    result: Result | None = None
    entry: Entry | None = None
    tries: int = 0


@dataclass(slots=True)
class _Plan:
    """What a wave does to one aggregate."""

    before: Known
    after: Known
    items: list[Item] = field(default_factory=list)

    @property
    def winning(self) -> list[Item]:
        return [item for item in self.items if isinstance(item.planned, Committed)]


class UnclearError(Exception):
    """Whether the writes of a round stand could not be found out."""


class Rounds:
    """Commits rounds, one after the other, under its `lock`."""

    def __init__(self, database: AsyncDatabase[Document], *, service: str, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._aggregates = database.aggregates
        self._now_ms = now_ms
        self._moves = Moves(database)
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._opening = 0
        self._last_number = 0
        self._open: dict[str, int] = {}  # aggregates whose journal is moved and not yet emptied, by revision
        self._found: dict[Spot, Committed] = {}  # what was found in journals during this round
        self.lock = asyncio.Lock()
        self._before = crashpoints.point(
            f"{service}.store.before_commit", "decided; the database has nothing"
        )
        self._after = crashpoints.point(
            f"{service}.store.after_commit", "the aggregates are written; their journals are not moved"
        )
        self._moved = crashpoints.point(f"{service}.store.moved", "the journals are moved; nobody is told")

    def is_moved(self, key: str, revision: int) -> bool:
        """Whether the journal that an aggregate has at that revision is known to be moved."""
        return self._open.get(key) == revision

    async def start(self) -> None:
        """Go on with the creation numbers of whoever wrote before, whatever the clock says now."""
        self._opening = await count_up(self._database, "\0openings", 1) % (1 << _OPENING_BITS)
        last = await self._aggregates.find_one({}, {"t": 1}, sort=[("t", -1)])
        self._last_number = last["t"] >> _OPENING_BITS if last else 0

    @property
    def open_journals(self) -> int:
        """How many journals are moved and not yet emptied."""
        return len(self._open)

    async def commit(self, items: Sequence[Item]) -> None:
        """Set the result of each item. Raises UnclearError, or the driver's error; an item that has a result by then
        keeps it, one that is planned may stand."""
        token = secrets.token_bytes(9)
        self._found.clear()
        left = list(items)
        while left:
            wave, rest = _wave(left)
            left = [*await self._commit(wave, token), *rest]

    async def _commit(self, wave: Sequence[Item], token: bytes) -> list[Item]:
        """One wave; returns the items that have to be tried again, because somebody else changed their aggregate."""
        keys = {item.write.key for item in wave}
        await self._learn(keys)
        new = [item for item in wave if not self._stands(item, token)]
        marked = await self._marked(new)
        plans = self._plan(new, marked)
        stale = {
            key
            for key, plan in plans.items()
            if not plan.before.fresh and len(plan.winning) < len(plan.items)
        }
        if stale:
            for key in stale:
                del self._known[key]
            await self._learn(stale)
            plans = self._plan(new, marked)
        for key in keys:
            self._known[key].fresh = False
        chosen = {key: plan for key, plan in plans.items() if plan.winning}
        await self._moves.know_heads([item.entry for item in new if item.entry is not None])
        crashpoints.crash(self._before)
        lost = await self._write(chosen, token) if chosen else set()
        crashpoints.crash(self._after)
        await self._follow(new, {key: plan for key, plan in chosen.items() if key not in lost})
        crashpoints.crash(self._moved)
        return [item for item in new if not self._decided(item, lost, plans)]

    def _decided(self, item: Item, lost: set[str], plans: dict[str, _Plan]) -> bool:
        """Whether an item has its result; a refusal is one, and so is to have lost too often."""
        if item.result is not None:
            return True
        if not isinstance(item.planned, Committed):
            item.result = item.planned
            return True
        assert item.write.key in lost
        item.tries += 1
        if item.tries == MAX_TRIES:
            item.result = Conflict(plans[item.write.key].before.revision)
        return item.tries == MAX_TRIES

    def _stands(self, item: Item, token: bytes) -> bool:
        """Whether an item that seemed to have lost has won: its update was carried out after it was looked for."""
        if item.entry is None or not any(made == token for _, made in self._known[item.write.key].commits):
            return False
        spot = (item.entry.number, item.entry.revision)
        item.result = self._found.get(spot, Committed(item.entry.revision))
        return True

    async def _learn(self, keys: set[str]) -> None:
        """Read what is not known of aggregates, and finish what whoever wrote them last has left."""
        missing = [key for key in keys if key not in self._known]
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            documents = [found async for found in self._aggregates.find({"_id": {"$in": some}}, {"h": 0})]
            await self.settle(documents)
            self._known |= {key: Known(fresh=True) for key in some}
            self._known |= {found["_id"]: known_of(found) for found in documents}

    async def settle(self, documents: Iterable[Document]) -> None:
        """Move what the journals of aggregates hold that another process, or an earlier one, has left. Under the lock:
        what this process is about to move itself is not left."""
        left = [found for found in documents if found.get("o") and self._open.get(found["_id"]) != found["r"]]
        if not left:
            return
        entries = [entry for found in left for entry in entries_in(found)]
        positions, numbers = await self._moves.move(entries, self._now_ms(), found=True)
        for entry in entries:
            spot = (entry.number, entry.revision)
            self._found[spot] = _committed(entry, positions, numbers)
        await self._sweep([found for found in left if found.get("g")])
        self._open |= {found["_id"]: found["r"] for found in left if not found.get("g")}

    async def _sweep(self, deleted: Iterable[Document]) -> None:
        """Remove deleted aggregates with their records; their events stay."""
        for found in deleted:
            number = found["t"]
            await self._database.records.delete_many(
                {"_id": {"$gte": record_id(number, ""), "$lt": record_id(number + 1, "")}}
            )
            await self._aggregates.delete_one({"_id": found["_id"], "r": found["r"], "g": 1})

    async def _marked(self, items: Sequence[Item]) -> set[str]:
        marks = list({mark for item in items for mark in item.write.inbox})
        found: set[str] = set()
        for first in range(0, len(marks), AT_ONCE):
            some = {"_id": {"$in": marks[first : first + AT_ONCE]}}
            found |= {mark["_id"] async for mark in self._database.inbox.find(some, {"_id": 1})}
        return found

    def _plan(self, items: Sequence[Item], marked: set[str]) -> dict[str, _Plan]:
        """What the items come to if nobody interferes."""
        plans: dict[str, _Plan] = {}
        marked = set(marked)
        for item in items:
            write = item.write
            before = self._known[write.key]
            plan = plans.setdefault(write.key, _Plan(before, _copy(before)))
            plan.items.append(item)
            item.entry = None
            repeated = next((mark for mark in write.inbox if mark in marked), None)
            if repeated is not None:
                item.planned = Duplicate(repeated)
            elif write.expect != plan.after.revision:
                item.planned = Conflict(plan.after.revision)
            else:
                marked.update(write.inbox)
                after = plan.after
                after.number = after.number or self._number()
                after.revision += 1
                after.index |= write.index
                item.entry = entry_of(after.number, after.revision, write)
                item.planned = Committed(after.revision)
        return plans

    def _number(self) -> int:
        """A creation number: they grow, and no two processes make the same."""
        made = self._now_ms() << (_NUMBER_BITS - _OPENING_BITS)
        self._last_number = max(made, self._last_number + 1)
        return self._last_number << _OPENING_BITS | self._opening

    async def _write(self, plans: dict[str, _Plan], token: bytes) -> set[str]:
        """Write the aggregates; returns the keys of those that somebody else had changed."""
        updates = []
        for key, plan in plans.items():
            plan.after.commits = [*plan.before.commits, [plan.after.revision, token]][-COMMITS_REMEMBERED:]
            winning = plan.winning
            change = change_of(winning[-1].write, plan.after, [item.entry for item in winning if item.entry])
            expected = {"_id": key, "r": plan.before.revision or NEVER}
            updates.append(UpdateOne(expected, change, upsert=not plan.before.revision))
        won, refused = False, ""
        try:
            done = await self._aggregates.bulk_write(updates, ordered=False)
            won = done.matched_count + done.upserted_count == len(updates)
        except BulkWriteError as error:
            if error.details["writeConcernErrors"]:
                self._known.clear()
                raise UnclearError from error  # written, and not yet safe from a loss of the primary
            refused = next((e["errmsg"] for e in error.details["writeErrors"] if e["code"] != DUPLICATE), "")
        except ConnectionFailure:
            await asyncio.sleep(AGAIN_S[0])  # it may be carried out at this moment
        lost = set() if won else await self._losers(plans, token)
        for key, plan in plans.items():
            if key in lost:
                del self._known[key]
            else:
                self._remember(key, plan)
        if refused and lost:
            self._known.clear()
            raise OperationFailure(refused) if len(lost) == len(plans) else UnclearError
        return lost

    async def _losers(self, plans: dict[str, _Plan], token: bytes) -> set[str]:
        """Whose write does not stand, as the documents say. Raises UnclearError when they can't be read, or when an
        aggregate was written so often since that it no longer names this commit."""
        found = await self._until_found(list(plans))
        lost = set()
        for key, plan in plans.items():
            commits = found[key]["c"] if key in found else []
            if any(made == token for _, made in commits):
                continue
            if len(commits) == COMMITS_REMEMBERED and commits[0][0] > plan.after.revision:
                self._known.clear()
                raise UnclearError
            lost.add(key)
        return lost

    async def _until_found(self, keys: list[str]) -> dict[str, Document]:
        for wait in (*AGAIN_S, None):
            try:
                documents = self._aggregates.find({"_id": {"$in": keys}}, {"c": 1})
                return {document["_id"]: document async for document in documents}
            except PyMongoError as error:
                if wait is None:
                    self._known.clear()
                    raise UnclearError from error
                await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _remember(self, key: str, plan: _Plan) -> None:
        plan.after.fresh = False
        plan.after.index = {name: value for name, value in plan.after.index.items() if value}
        self._known[key] = Known() if plan.winning[-1].write.head is None else plan.after
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def _follow(self, items: Sequence[Item], won: dict[str, _Plan]) -> None:
        """Move the journals of what was written, in the order of the writes, and set the results."""
        stand = [item for item in items if item.entry is not None and item.write.key in won]
        entries = [item.entry for item in stand if item.entry is not None]
        positions, numbers = await self._until_moved(entries)
        for item, entry in zip(stand, entries, strict=True):
            item.result = _committed(entry, positions, numbers)
        for key, plan in won.items():
            if plan.winning[-1].write.head is None:
                self._open.pop(key, None)
                await self._sweep([{"_id": key, "r": plan.after.revision, "t": plan.after.number}])
            else:
                self._open[key] = plan.after.revision

    async def _until_moved(
        self, entries: Sequence[Entry]
    ) -> tuple[dict[Spot, list[int]], dict[Spot, list[int]]]:
        found = False
        for wait in (*AGAIN_S, None):
            try:
                return await self._moves.move(entries, self._now_ms(), found=found)
            except PyMongoError as error:
                if wait is None:
                    self._known.clear()
                    raise UnclearError from error
                found = True  # some of it may be moved
                await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def empty_journals(self) -> None:
        """Empty the journals that are moved, unless somebody writes them anew meanwhile."""
        done = list(self._open.items())
        for first in range(0, len(done), AT_ONCE):
            updates: list[Any] = [
                UpdateOne({"_id": key, "r": revision}, {"$set": {"j": []}, "$unset": {"o": ""}})
                for key, revision in done[first : first + AT_ONCE]
            ]
            await self._aggregates.bulk_write(updates, ordered=False)
        for key, revision in done:
            if self._open.get(key) == revision:
                del self._open[key]


def _wave(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The items up to one whose aggregate is deleted by an item before it, and those from it on."""
    deleted: set[str] = set()
    for at, item in enumerate(items):
        if item.write.key in deleted:
            return list(items[:at]), list(items[at:])
        if item.write.head is None:
            deleted.add(item.write.key)
    return list(items), []


def _copy(known: Known) -> Known:
    return Known(known.revision, known.number, dict(known.index), list(known.commits))


def _committed(entry: Entry, positions: dict[Spot, list[int]], numbers: dict[Spot, list[int]]) -> Committed:
    spot = (entry.number, entry.revision)
    return Committed(entry.revision, tuple(positions.get(spot, ())), tuple(numbers.get(spot, ())))
