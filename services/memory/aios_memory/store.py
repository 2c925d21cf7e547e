"""What memory remembers of records, and how they lie in the store.

A record is one aggregate `<workspace>/record/<kind>/<key>` whose revision is its newest version and whose head is that
version; `v/<version>` are all of them. Beside them stand, in the same commit, `effect/<hash of the effect key>` (what
a step did already) and `undo/<version>` (what took a version back), so that a step carried out twice has the effect of
once. `<workspace>/use/<hash of the source>/<kind>/<key>@<version>` leads from a source to what was made from it; it is
written with the version or before it, and says nothing by itself: a reader looks into the version.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_memory import core
from aios_memory.codec import from_record, to_record
from aios_memory.model import Kind, Name, Version
from aios_runtime.store.port import Aggregate, Store, Write

SCAN_PAGE: Final = 200  # aggregates read at once


@dataclass(frozen=True, slots=True)
class Use:
    """A version that names a source in its provenance; `undone` when it was taken back since, `restores` when it only
    puts an earlier version back."""

    name: Name
    version: int
    undone: bool
    run_id: str
    restores: bool


class Records:
    """The records of one workspace. Each read is of one record at its newest commit."""

    def __init__(self, store: Store, workspace: str) -> None:
        self._store = store
        self._workspace = workspace

    async def newest(self, name: Name) -> Version | None:
        """The newest version, a deletion among them; None when the record never was."""
        aggregate = await self._store.read(self._key(name))
        return from_record(aggregate.head) if aggregate else None

    async def version(self, name: Name, version: int) -> Version | None:
        """One version."""
        data = await self._store.record(self._key(name), _version_record(version)) if version > 0 else None
        return from_record(data) if data is not None else None

    async def stored(self, name: Name, version: int) -> Version:
        """A version that must be there. Raises CORRUPT_STORE."""
        found = await self.version(name, version)
        if found is None:
            raise TerminalError("CORRUPT_STORE", f"Version {version} of {name} is not in memory's store.")
        return found

    async def answered(self, name: Name, asking: core.Asking) -> int:
        """What a decision comes to that asks for versions of a record. Raises CORRUPT_STORE."""
        try:
            number = next(asking)
            while True:
                number = asking.send(await self.stored(name, number))
        except StopIteration as decided:
            return int(decided.value)

    async def as_of(self, name: Name, time_ms: int) -> Version | None:
        """The version that stood at a time (ms); None when there was none."""
        newest = await self.newest(name)
        return await self._at(newest, time_ms) if newest else None

    async def versions(self, name: Name, after: int, limit: int) -> list[Version]:
        """Versions after one, oldest first."""
        stored = await self._store.records(self._key(name), "v/", after=_version_record(after), limit=limit)
        return [from_record(data) for data in stored.values()]

    async def under(self, kind: Kind, prefix: str, as_of_ms: int = 0) -> AsyncIterator[Version]:
        """Records by the beginning of their key, in key order, deleted ones left out; `as_of_ms` 0 is now."""
        token = ""
        while True:
            page, token = await self.page(kind, prefix, token, SCAN_PAGE)
            for newest in page:
                version = await self._at(newest, as_of_ms) if as_of_ms else newest
                if version is not None and not version.deleted:
                    yield version
            if not token:
                return

    async def page(self, kind: Kind, prefix: str, token: str, limit: int) -> tuple[list[Version], str]:
        """The newest versions of records by the beginning of their key, and the token of the next page ('': none)."""
        page = await self._store.scan(f"{self._workspace}/record/{kind}/{prefix}", token=token, limit=limit)
        return [from_record(aggregate.head) for aggregate in page.items], page.next_token

    async def uses(self, source: str, *, token: str = "", limit: int = SCAN_PAGE) -> tuple[list[Use], str]:
        """Versions that were made from a source, and the token of the next page ('': none)."""
        base = self._use_base(source)
        page = await self._store.scan(base, token=token, limit=limit)
        found = [await self._use(aggregate, source, len(base)) for aggregate in page.items]
        return [use for use in found if use is not None], page.next_token

    async def effect(self, name: Name, effect_key: str) -> tuple[int, str] | None:
        """The version that a step wrote of this record, and the hash of what it asked for; None: it did not yet."""
        marked = await self._store.record(self._key(name), _effect_record(effect_key))
        if marked is None:
            return None
        version, _, content = marked.decode().partition(":")
        return int(version), content

    async def undone_by(self, name: Name, version: int) -> int:
        """The version that took a version back; 0: none did."""
        marked = await self._store.record(self._key(name), _undo_record(version))
        return int(marked) if marked is not None else 0

    def write_of(self, version: Version, *, content: str = "") -> tuple[Write, ...]:
        """What makes a version durable: the ways to it from its sources, then the record with its marks.

        `content` is the hash of what the step asked for; empty for a version that takes another one back.
        """
        provenance = version.provenance
        data = to_record(self._workspace, version).SerializeToString(deterministic=True)
        marks: Mapping[str, bytes]
        if provenance.undoes:
            marks = {_undo_record(provenance.undoes): str(version.version).encode()}
        else:
            marks = {_effect_record(provenance.effect_key): f"{version.version}:{content}".encode()}
        record = Write(
            self._key(version.name),
            version.version - 1,
            data,
            {_version_record(version.version): data, **marks},
        )
        user = f"{version.name.kind}/{version.name.key}@{version.version:010}"
        return (
            *(Write(self._use_base(source) + user, 0, source.encode()) for source in _sources(version)),
            record,
        )

    async def _use(self, aggregate: Aggregate, source: str, skip: int) -> Use | None:
        kind, _, rest = aggregate.key[skip:].partition("/")
        key, _, number = rest.rpartition("@")
        name = Name(Kind(kind), key)
        version = await self.version(name, int(number))
        if version is None or source not in _sources(version):
            return None
        made = version.provenance
        undone = await self.undone_by(name, version.version) > 0
        return Use(name, version.version, undone, made.run_id, made.undoes > 0)

    async def _at(self, newest: Version, time_ms: int) -> Version | None:
        if newest.create_time_ms <= time_ms:
            return newest
        name = newest.name
        return await self.version(
            name, await self.answered(name, core.version_as_of(newest.version, time_ms))
        )

    def _key(self, name: Name) -> str:
        return f"{self._workspace}/record/{name.kind}/{name.key}"

    def _use_base(self, source: str) -> str:
        return f"{self._workspace}/use/{content_hash(source.encode())}/"


def _sources(version: Version) -> tuple[str, ...]:
    """All that a version was made from: what it names, its run and its event."""
    provenance = version.provenance
    run = (f"run:{provenance.run_id}",) if provenance.run_id else ()
    event = (f"event:{provenance.event_id}",) if provenance.event_id else ()
    return tuple(dict.fromkeys((*provenance.sources, *run, *event)))


def _version_record(version: int) -> str:
    return f"v/{version:010}"


def _undo_record(version: int) -> str:
    return f"undo/{version:010}"


def _effect_record(effect_key: str) -> str:
    return f"effect/{content_hash(effect_key.encode())[:32]}"
