"""What the connector knows of each month, and the event that it still owes: one aggregate a month in its own store."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from aios.event.v1.event_pb2 import ExternalEvent
from aios_connector_files.connector import NAME
from aios_connector_files.watching.scanning import Content, Month
from aios_core.errors import RetryableError
from aios_core.ids import derive
from aios_core.json_values import dumps
from aios_core.values import Plain
from aios_runtime.store.port import MAX_BATCH_WRITES, Committed, Store, Write

EVENT_TYPE: Final = "files.folder_settled"
MAX_NAMES_BYTES: Final = 16 * 1024  # of file names that an event carries
MAX_TRIES: Final = 8  # the hand-over of an earlier event may come between
MAX_WAITING: Final = 100  # events that are handed over in one round
_INDEX: Final = "event"
_OWED: Final = "owed"
_EVENT: Final = "event"


@dataclass(frozen=True, slots=True)
class Known:
    """A month as it was last handled. `generation` counts its events, so that a state that comes back is a new event;
    `fingerprint` is None when nothing but the signature is known."""

    signature: str
    fingerprint: str | None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Owed:
    """An event that is durable here and not yet accepted."""

    key: str
    revision: int
    known: Known
    event: ExternalEvent


class Folders:
    """The connector's own memory of the months below one root."""

    def __init__(self, store: Store, workspace: str) -> None:
        self._store, self._workspace = store, workspace

    async def known_root(self, root: Path) -> bool:
        """Whether this root was ever looked at."""
        return await self._store.meta(_root_mark(root)) is not None

    async def remember_root(self, root: Path, months: Mapping[Month, str]) -> None:
        """Durably take what is there for known, without an event."""
        writes = [self._write(month, 0, Known(signature, None)) for month, signature in months.items()]
        for first in range(0, len(writes), MAX_BATCH_WRITES):
            await self._store.commit(writes[first : first + MAX_BATCH_WRITES])
        await self._store.set_meta(_root_mark(root), b"1")

    async def known(self, month: Month) -> Known | None:
        """A month as it was last handled."""
        found = await self._store.read(self._key(month))
        return None if found is None else _decode(found.head)

    async def settled(
        self, month: Month, content: Content, now_ms: int, traceparent: str
    ) -> ExternalEvent | None:
        """Durably note the state that a month came to rest in, with the event that it is; None when it is none: the
        files are those of before, or there are none."""
        for _ in range(MAX_TRIES):
            found = await self._store.read(self._key(month))
            before = _decode(found.head) if found else Known("", "")
            same = content.fingerprint == before.fingerprint
            known = replace(before, signature=content.signature, fingerprint=content.fingerprint)
            event = await self._owed_event(month) if same else None
            if not same and content.fingerprint:
                known = replace(known, generation=before.generation + 1)
                event = self._event(month, content, known.generation, now_ms, traceparent)
            write = self._write(month, found.revision if found else 0, known, event)
            (result,) = await self._store.commit([write])
            if isinstance(result, Committed):
                return None if same else event
        raise RetryableError("LEASE_LOST", f"{'/'.join(month)} is written by another process.")

    async def fill(self, month: Month, content: Content) -> None:
        """Add the fingerprint to what was taken for known by its signature alone, if it still stands so."""
        found = await self._store.read(self._key(month))
        if found is None:
            return
        known = _decode(found.head)
        if known.fingerprint is None and known.signature == content.signature:
            filled = replace(known, fingerprint=content.fingerprint)
            await self._store.commit(
                [self._write(month, found.revision, filled, await self._owed_event(month))]
            )

    async def owed(self) -> list[Owed]:
        """Events that nobody has accepted yet, the oldest first."""
        page = await self._store.query(_INDEX, _OWED, limit=MAX_WAITING, newest_first=False)
        owed = []
        for item in page.items:
            data = await self._store.record(item.key, _EVENT)
            if data is not None:
                owed.append(Owed(item.key, item.revision, _decode(item.head), ExternalEvent.FromString(data)))
        return owed

    async def accepted(self, owed: Owed) -> bool:
        """The event is the orchestrator's now; False when the month has a later one, which is owed instead."""
        write = Write(
            key=owed.key,
            expect=owed.revision,
            head=_encode(owed.known),
            records={_EVENT: None},
            index={_INDEX: ""},
        )
        (result,) = await self._store.commit([write])
        return isinstance(result, Committed)

    async def _owed_event(self, month: Month) -> ExternalEvent | None:
        data = await self._store.record(self._key(month), _EVENT)
        return None if data is None else ExternalEvent.FromString(data)

    def _write(self, month: Month, revision: int, known: Known, event: ExternalEvent | None = None) -> Write:
        return Write(
            key=self._key(month),
            expect=revision,
            head=_encode(known),
            records={_EVENT: event.SerializeToString() if event else None},
            index={_INDEX: _OWED if event else ""},
        )

    def _key(self, month: Month) -> str:
        return f"{self._workspace}/folder/{month[0]}/{month[1]}"

    def _event(
        self, month: Month, content: Content, generation: int, now_ms: int, traceparent: str
    ) -> ExternalEvent:
        client, name = month
        data: dict[str, Plain] = {
            "client": client,
            "month": name,
            "fingerprint": content.fingerprint,
            "file_count": len(content.names),
            "files": list(_bounded(content.names)),
        }
        return ExternalEvent(
            workspace=self._workspace,
            id=derive("evt", self._workspace, NAME, client, name, content.fingerprint, str(generation)),
            source=NAME,
            type=EVENT_TYPE,
            subject=f"{client}/{name}",
            time_ms=now_ms,
            data=dumps(data),
            data_content_type="application/json",
            received_by=f"connector-{NAME}",
            traceparent=traceparent,
        )


def _bounded(names: Iterable[str]) -> Iterable[str]:
    left = MAX_NAMES_BYTES
    for name in names:
        left -= len(name.encode())
        if left < 0:
            return
        yield name


def _root_mark(root: Path) -> str:
    return f"root:{root}"


def _encode(known: Known) -> bytes:
    return json.dumps(asdict(known), separators=(",", ":")).encode()


def _decode(head: bytes) -> Known:
    return Known(**json.loads(head))
