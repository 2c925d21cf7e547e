"""Group commit: one thread owns the writing connection and flushes whatever has gathered in one transaction.

The event loop hands over all requests of one of its turns at once, and gets the results of one transaction at once:
the hops between threads, the transaction and its flush to disk are paid per batch. What arrives while a transaction
is being flushed joins the next one.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final

import apsw

from aios_core.errors import AiosError
from aios_runtime.store.failures import is_defect
from aios_runtime.store.port import MAX_BATCH_WRITES
from aios_runtime.store.transactions import Request, Transactions

MAX_BATCH_BYTES: Final = 16 * 1024 * 1024  # of heads, records, events and outbox in one transaction
CHECKPOINT_PAGES: Final = 1000  # length of the log at which the writer checkpoints when nothing waits
MAX_LOG_PAGES: Final = 8000  # length of the log at which it does so in any case
IDLE_SECONDS: Final = 2.0  # quiet time after which the log is checkpointed

Outcome = tuple[Request, Any, Exception | None]


@dataclass(slots=True)
class Turn:
    """The requests that one turn of the event loop handed over, in order, and the outbox messages to forget with
    them. `stop` ends the writer after it."""

    requests: list[Request]
    sent: list[int] = field(default_factory=list)
    stop: bool = False


class Writer:
    """The thread that writes. `deliver` is called in the event loop, once a transaction, with the outcomes of its
    requests and the outbox messages that are forgotten."""

    def __init__(
        self,
        connection: apsw.Connection,
        transactions: Transactions,
        *,
        deliver: Callable[[list[Outcome], list[int]], None],
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        self._connection = connection
        self._transactions = transactions
        self._deliver = deliver
        self._loop = loop
        self._turns: SimpleQueue[Turn] = SimpleQueue()
        self._waiting: deque[Request] = deque()
        self._sent: list[int] = []
        self._stop = False
        self._log_pages = 0
        self.checkpoint_failure: AiosError | None = None
        connection.set_wal_hook(self._note_log)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def hand_over(self, turn: Turn) -> None:
        """Queue what one turn of the event loop asks for."""
        self._turns.put(turn)

    def join(self) -> None:
        """Wait until the thread has ended, after a turn that says stop."""
        self._thread.join()

    def _note_log(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _run(self) -> None:
        while not self._stop or self._waiting:
            if not self._waiting and not self._stop:
                self._sleep()
            for _ in range(self._turns.qsize()):
                self._accept(self._turns.get_nowait())
            batch = self._take()
            if batch or self._sent:
                sent, self._sent = self._sent, []
                self._flush(batch, sent)
            idle = not self._waiting and self._turns.empty()
            if self._log_pages >= (CHECKPOINT_PAGES if idle else MAX_LOG_PAGES):
                self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close(True)

    def _sleep(self) -> None:
        """Wait for work; once the log is copied there is nothing else to wake up for."""
        try:
            turn = self._turns.get(timeout=IDLE_SECONDS if self._log_pages else None)
        except Empty:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
            turn = self._turns.get()
        self._accept(turn)

    def _accept(self, turn: Turn) -> None:
        self._waiting.extend(turn.requests)
        self._sent.extend(turn.sent)
        self._stop = self._stop or turn.stop

    def _take(self) -> list[Request]:
        """The requests of the next transaction: as many as fit its bounds, one at least; a pruning alone."""
        batch: list[Request] = []
        writes = size = 0
        while self._waiting:
            request = self._waiting[0]
            writes += len(request.writes)
            size += request.size
            pruning = request.prune_before_ms is not None
            if batch and (pruning or writes > MAX_BATCH_WRITES or size > MAX_BATCH_BYTES):
                break
            batch.append(self._waiting.popleft())
            if pruning:
                break
        return batch

    def _flush(self, requests: Sequence[Request], sent: list[int]) -> None:
        outcomes: list[Outcome]
        try:
            results = self._transactions.run(requests, sent)
            outcomes = [(request, result, None) for request, result in zip(requests, results, strict=True)]
        except Exception as error:  # every failure goes to the callers, as it is
            self._sent.extend(sent)
            sent = []
            if is_defect(error) and len(requests) > 1:  # only the request that caused it shall fail
                for request in requests:
                    self._flush([request], [])
                return
            outcomes = [(request, None, error) for request in requests]
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcomes, sent)
        except RuntimeError:  # the loop was closed: there is nobody to tell, and what is committed stands
            return

    def _checkpoint(self, mode: int) -> None:
        self.checkpoint_failure = self._transactions.checkpoint(mode)
        if self.checkpoint_failure is None:
            self._log_pages = 0
