"""The episode log: one line for each event of each run, for ever; derived from the orchestrator's events alone.

Each partition of the event log is one aggregate `<workspace>/episodes/<partition>`: its head is the position up to
which it was told, its records `<run id>:<sequence>` are the episodes of a run that came together, under the sequence of
the first. Both become durable in one commit, so an event is told once, and the log can be dropped and told again.
Version 0.1.0 kept each episode in a record `<run id>/<sequence>` of its own.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Final

from aios.memory.v1.memory_pb2 import Episode, EpisodeRecord
from aios.run.v1.events_pb2 import RunEvent
from aios_core.errors import RetryableError
from aios_core.hashing import event_hash
from aios_core.ids import PARTITIONS, partition_of_run
from aios_memory.narration import event_of, told, untold
from aios_runtime.crashpoints import crash, point
from aios_runtime.store.port import Committed, Store, Write

TOGETHER: Final = 32  # episodes in one record
PORTION_BYTES: Final = 1024 * 1024  # of the events whose episodes are committed together
TOLD: Final = point(
    "memory.episodes_committed", "episodes and their position are committed, the events not acknowledged"
)

log = logging.getLogger(__name__)


class Episodes:
    """The episodes of one workspace."""

    def __init__(self, store: Store, workspace: str, partitions: int = PARTITIONS) -> None:
        self._store = store
        self._workspace = workspace
        self._partitions = partitions
        self._locks = [asyncio.Lock() for _ in range(partitions)]

    async def load_position(self, partition: int) -> int:
        """`position`, as a subscriber asks for it."""
        return await self.position(partition)

    async def position(self, partition: int) -> int:
        """The position of the last event that was told; 0: none."""
        aggregate = await self._store.read(self._key(partition))
        return int(aggregate.head) if aggregate else 0

    async def append(self, partition: int, first_position: int, events: Sequence[bytes]) -> None:
        """Tell events, whose positions follow each other, up to the last one.

        Those that were told already are passed over. Raises UNAVAILABLE when events before them are missing.
        """
        async with self._locks[partition]:
            aggregate = await self._store.read(self._key(partition))
            position = int(aggregate.head) if aggregate else 0
            if first_position > position + 1:
                raise RetryableError(
                    "UNAVAILABLE",
                    f"Events {position + 1} to {first_position - 1} of partition {partition} are missing.",
                )
            revision = aggregate.revision if aggregate else 0
            for new in _portions(events[position + 1 - first_position :]):
                records: dict[str, bytes | None] = {
                    name: record.SerializeToString(deterministic=True)
                    for name, record in _records(new).items()
                }
                position += len(new)
                (result,) = await self._store.commit(
                    [Write(self._key(partition), revision, str(position).encode(), records)]
                )
                if not isinstance(result, Committed):
                    raise RetryableError(
                        "UNAVAILABLE", "Another memory service tells these events.", retry_after=0.5
                    )
                revision = result.revision
                crash(TOLD)

    async def of_run(self, run_id: str, after_sequence: int, limit: int) -> list[Episode]:
        """Episodes of a run, in their order."""
        key = self._key(partition_of_run(run_id, self._partitions))
        old = await self._store.records(
            key, f"{run_id}/", after=f"{run_id}/{after_sequence:010}", limit=limit
        )
        found = [Episode.FromString(data) for data in old.values()]
        # The first one wanted lies in a record that begins at most this many before it.
        begin = _name(run_id, max(0, after_sequence - TOGETHER))
        stored = await self._store.records(key, f"{run_id}:", after=begin, limit=limit + TOGETHER)
        for name, data in stored.items():
            found += self._read(run_id, int(name.rpartition(":")[2]), EpisodeRecord.FromString(data))
        return [episode for episode in found if episode.sequence > after_sequence][:limit]

    def _read(self, run_id: str, first: int, record: EpisodeRecord) -> Iterator[Episode]:
        for sequence, episode in enumerate(record.episodes, first):
            episode.workspace, episode.run_id, episode.sequence = self._workspace, run_id, sequence
            yield episode

    async def forget(self) -> None:
        """Drop every episode; the subscriber then tells the events from the first one again."""
        for partition in range(self._partitions):
            async with self._locks[partition]:
                aggregate = await self._store.read(self._key(partition))
                if aggregate is not None:
                    await self._store.commit([Write(aggregate.key, aggregate.revision, None)])

    def _key(self, partition: int) -> str:
        return f"{self._workspace}/episodes/{partition:04}"


def _portions(events: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many at a time as one write has room for the episodes of."""
    portion: list[bytes] = []
    size = 0
    for event in events:
        if portion and size + len(event) > PORTION_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(event)
        size += len(event)
    if portion:
        yield portion


def _told(event: RunEvent) -> Episode:
    try:
        return told(event)
    except Exception:  # one event of one run keeps no others from being told
        log.exception("event %d of run %s can't be told", event.sequence, event.run_id)
        return untold(event)


def _records(events: Sequence[bytes]) -> dict[str, EpisodeRecord]:
    """The records that tell events, by their names."""
    records: dict[str, EpisodeRecord] = {}
    latest: dict[
        str, tuple[str, int]
    ] = {}  # of each run: the record that grows, and the sequence that it goes on with
    last: dict[str, bytes] = {}
    for stored in events:
        event = event_of(stored)
        run_id, sequence = event.run_id, event.sequence
        name, following = latest.get(run_id, ("", 0))
        if sequence != following or len(records[name].episodes) == TOGETHER:
            name = _name(run_id, sequence)
            records[name] = EpisodeRecord()
        latest[run_id] = name, sequence + 1
        records[name].episodes.append(_told(event))
        last[name] = stored
    for name, stored in last.items():
        records[name].episodes[-1].event_sha256 = event_hash(stored)
    return records


def _name(run_id: str, sequence: int) -> str:
    return f"{run_id}:{sequence:010}"
