"""The ledger of external effects: one aggregate of the connector's own store per effect, and per undo of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aios.effect.v1.effect_pb2 import STATE_INTENT, LedgerEntry
from aios_core.errors import RetryableError
from aios_runtime.store.port import Committed, Store, Write
from aios_sdk.connector.effects import Rate
from aios_sdk.host.mark import RESTORE_META, RestoreMark
from aios_sdk.host.rate import Limiter

MAX_UNDOS: Final = 1000  # undos of one effect, and of its undos, that are looked at
OPEN: Final = "open"
_INDEX: Final = "ledger"
_PAGE: Final = 100
_COUNTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry with the revision that it was read at (0: there is none)."""

    entry: LedgerEntry | None
    revision: int


class Ledger:
    """Entries by effect key. Two writers of one entry are told apart by its revision."""

    def __init__(self, store: Store, workspace: str) -> None:
        self.workspace = workspace
        self._store = store
        self._prefix = f"{workspace}/effect/"

    def limiter(self, connector: str, rate: Rate | None, now_ms: Callable[[], int]) -> Limiter:
        """The connector's turns, which all who write this ledger share."""
        return Limiter(self._store, f"{self.workspace}/rate/{connector}", rate, now_ms)

    async def read(self, key: str) -> Stored:
        """The entry of an effect or undo."""
        found = await self._store.read(self._prefix + key)
        return (
            Stored(None, 0) if found is None else Stored(LedgerEntry.FromString(found.head), found.revision)
        )

    async def undos(self, key: str) -> list[LedgerEntry]:
        """The entries of an effect's undos, and of the undos of those."""
        page = await self._store.scan(f"{self._prefix}{key}/", limit=MAX_UNDOS)
        return [LedgerEntry.FromString(item.head) for item in page.items]

    async def count(self, run_id: str) -> int:
        """How many entries there are of a run: effects and undos, settled or open."""
        token, found = "", 0
        while True:
            page = await self._store.scan(f"{self._prefix}{run_id}/", token=token, limit=_COUNTED)
            found += len(page.items)
            token = page.next_token
            if not token:
                return found

    async def open_intents(self) -> list[LedgerEntry]:
        """Every effect and undo that was begun and is not settled. There are at most as many as the lane had slots."""
        token, entries = "", []
        while True:
            page = await self._store.query(_INDEX, OPEN, token=token, limit=_PAGE)
            entries += [LedgerEntry.FromString(item.head) for item in page.items]
            token = page.next_token
            if not token:
                return entries

    async def restore(self) -> RestoreMark | None:
        """The restore from a backup that is open. Read anew each time: another process may have closed it."""
        return RestoreMark.decode(await self._store.meta(RESTORE_META))

    async def close_restore(self) -> None:
        """From now on what the ledger doesn't know has not happened."""
        await self._store.set_meta(RESTORE_META, b"")

    async def write(self, entry: LedgerEntry, revision: int) -> int:
        """Durably put an entry; returns its new revision. Raises LEASE_LOST (retryable) when another wrote it since."""
        index = {_INDEX: OPEN if entry.state == STATE_INTENT else ""}
        head = entry.SerializeToString(deterministic=True)
        write = Write(key=self._prefix + entry.effect_key, expect=revision, head=head, index=index)
        (result,) = await self._store.commit([write])
        if not isinstance(result, Committed):
            raise RetryableError(
                "LEASE_LOST",
                f"Another worker has taken up {entry.effect_key}; its outcome counts.",
                retry_after=1.0,
            )
        return result.revision
