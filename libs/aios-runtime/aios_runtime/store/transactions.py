"""Transactions of the embedded store: a batch of requests, all durable together or none applied.

What nobody may believe wrongly: a COMMIT that fails while its changes were being written leaves nothing. One that
fails at the flush to disk, or after it, may have left a whole transaction in the log, which a recovery after a crash
would find. So nobody is told yet: the same requests are made again, which overwrites the same place of the log. If
that goes on failing, the answer says that the outcome is not known, and the store takes no more writes until it is
opened again and reads from the disk what is there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from aios_core.errors import AiosError
from aios_runtime import crashpoints
from aios_runtime.store import rows
from aios_runtime.store.batch import Batch, Counters, Known
from aios_runtime.store.failures import as_error, left_no_commit, unclear
from aios_runtime.store.port import Write

MAX_KNOWN: Final = 8192  # aggregates whose revision is remembered between transactions
PRUNED_AT_ONCE: Final = 5000  # inbox marks a transaction
UNCLEAR_DELAYS: Final = (
    0.0,
    0.1,
    0.5,
    2.0,
    5.0,
)  # seconds before each attempt to make an unclear commit clear


@dataclass(slots=True)
class Request:
    """What a caller waits for: the results of writes, or the number of marks pruned. `size` is in bytes."""

    done: "asyncio.Future[Any]"
    writes: Sequence[Write] = ()
    meta: Sequence[tuple[str, bytes]] = ()
    prune_before_ms: int | None = None
    size: int = 0


class Transactions:
    """Runs transactions on the writing connection, from the writer's thread alone."""

    def __init__(
        self, connection: apsw.Connection, *, path: str, service: str, now_ms: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._path = path
        self._now_ms = now_ms
        self._known: dict[str, Known] = {}
        self._counters: Counters | None = None
        self._committing = False
        self.broken = False
        self._before = crashpoints.point(
            f"{service}.store.before_commit", "The changes are in the transaction, which is not committed."
        )
        self._after = crashpoints.point(
            f"{service}.store.after_commit", "The commit is durable, and nobody has been told."
        )

    def run(self, requests: Sequence[Request], sent: Sequence[int]) -> list[Any]:
        """The result of each request, all of them durable, and the outbox messages `sent` forgotten.

        Raises DISK_FULL, READ_ONLY, CORRUPT_STORE: nothing is applied; UNAVAILABLE: nothing is applied, or with
        `outcome=unknown` it can't be known. Anything else is a defect, after which nothing is applied.
        """
        if self.broken:
            raise unclear(self._path)
        try:
            return self._attempt(requests, sent)
        except apsw.Error as error:
            failure = as_error(error, self._path, self._connection.system_errno)
            clear = not self._committing or left_no_commit(error)
            self._roll_back()
            if clear and not self.broken:
                raise failure from error
        except BaseException:
            self._roll_back()
            raise
        return self._until_clear(requests, sent)

    def _until_clear(self, requests: Sequence[Request], sent: Sequence[int]) -> list[Any]:
        cause: Exception | None = None
        for delay in UNCLEAR_DELAYS:
            if self.broken:
                break
            time.sleep(delay)
            try:
                return self._attempt(requests, sent)
            except apsw.Error as error:
                cause = error
                self._roll_back()
        self.broken = True
        raise unclear(self._path) from cause

    def _attempt(self, requests: Sequence[Request], sent: Sequence[int]) -> list[Any]:
        connection, now_ms = self._connection, self._now_ms()
        self._committing = False
        connection.execute("BEGIN IMMEDIATE")
        batch = self._load(requests)
        results: list[Any] = []
        meta: list[tuple[str, bytes]] = []
        for request in requests:
            if request.prune_before_ms is None:
                results.append([batch.decide(write, now_ms) for write in request.writes])
                meta.extend(request.meta)
            else:
                results.append(rows.delete_marks(connection, request.prune_before_ms, PRUNED_AT_ONCE))
        rows.store(connection, batch)
        rows.store_meta(connection, meta)
        rows.delete_outbox(connection, sent)
        crashpoints.crash(self._before)
        self._committing = True
        connection.execute("COMMIT")
        self._committing = False
        crashpoints.crash(self._after)
        self._remember(batch)
        return results

    def _load(self, requests: Sequence[Request]) -> Batch:
        """What the writes refer to: from memory, or read."""
        known: dict[str, Known | None] = {}
        missing: dict[str, None] = {}
        marks: list[str] = []
        if self._counters is None:
            self._counters = rows.load_counters(self._connection)
        heads = self._counters.heads
        for request in requests:
            for write in request.writes:
                remembered = self._known.get(write.key)
                if remembered is None:
                    missing[write.key] = None
                else:
                    known[write.key] = remembered
                marks.extend(write.inbox)
                for event in write.events:
                    if event.partition not in heads:
                        heads[event.partition] = rows.load_position(self._connection, event.partition)
        if missing:
            known.update(rows.load_known(self._connection, list(missing)))
        return Batch(known, rows.load_marks(self._connection, marks), self._counters)

    def _remember(self, batch: Batch) -> None:
        for key, known in batch.known.items():
            self._known.pop(key, None)
            if known is not None:
                self._known[key] = known
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _roll_back(self) -> None:
        """Forget what the failed transaction gave out, and end it if SQLite has not."""
        self._counters = None
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error:  # the connection's state can't be trusted any more
                self.broken = True

    def checkpoint(self, mode: int) -> AiosError | None:
        """Copy the log into the file; returns what prevented it. The log keeps everything until it succeeds."""
        try:
            self._connection.wal_checkpoint(mode=mode)
        except apsw.Error as error:
            return as_error(error, self._path, self._connection.system_errno)
        return None
