"""Records to and from their protobuf messages, which are also what the store holds."""

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from aios.memory.v1 import memory_pb2
from aios_core.errors import TerminalError
from aios_memory.model import Authority, Kind, Name, Provenance, Version

_AUTHORITIES: Final = {
    Authority.HEURISTIC: memory_pb2.AUTHORITY_HEURISTIC,
    Authority.AUTHORITATIVE: memory_pb2.AUTHORITY_AUTHORITATIVE,
}
_FROM_AUTHORITIES: Final = {number: authority for authority, number in _AUTHORITIES.items()}


def to_record(workspace: str, version: Version) -> memory_pb2.Record:
    """A version as other services see it, and as it is stored."""
    provenance = version.provenance
    return memory_pb2.Record(
        workspace=workspace,
        kind=version.name.kind,
        key=version.name.key,
        version=version.version,
        deleted=version.deleted,
        value=version.value,
        authority=_AUTHORITIES[version.authority],
        confidence=version.confidence,
        provenance=memory_pb2.Provenance(
            run_id=provenance.run_id,
            step=provenance.step,
            effect_key=provenance.effect_key,
            actor=provenance.actor,
            event_id=provenance.event_id,
            sources=provenance.sources,
            traceparent=provenance.traceparent,
            undoes=provenance.undoes,
        ),
        create_time_ms=version.create_time_ms,
        schema=version.schema,
        labeled_key=version.labeled_key,
    )


def from_record(data: bytes) -> Version:
    """A version from its stored bytes. Raises CORRUPT_STORE when they are not one."""
    try:
        record = memory_pb2.Record.FromString(data)
        kind = Kind(record.kind)
        authority = _FROM_AUTHORITIES[record.authority]
    except (DecodeError, ValueError, KeyError) as error:
        raise TerminalError("CORRUPT_STORE", f"A record in memory's store can't be read: {error}.") from None
    stored = record.provenance
    return Version(
        name=Name(kind, record.key),
        version=record.version,
        deleted=record.deleted,
        value=record.value,
        authority=authority,
        confidence=record.confidence,
        schema=record.schema,
        provenance=Provenance(
            run_id=stored.run_id,
            step=stored.step,
            effect_key=stored.effect_key,
            actor=stored.actor,
            event_id=stored.event_id,
            sources=tuple(stored.sources),
            traceparent=stored.traceparent,
            undoes=stored.undoes,
        ),
        create_time_ms=record.create_time_ms,
        labeled_key=record.labeled_key,
    )


M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes) -> M:
    """A request message. Raises UNDECODABLE."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise TerminalError("UNDECODABLE", f"The message is not a {kind.DESCRIPTOR.full_name}.") from None
