"""From what memory did to what a step gets: labelled values, changes in words, summaries. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from aios.memory.v1 import memory_pb2
from aios.task.v1 import task_pb2
from aios_core.encoding import decode_trusted, encode
from aios_core.errors import TerminalError
from aios_core.json_values import dumps
from aios_core.labels import Label, Trust, meet
from aios_core.values import Leaf, Value, label_of, labeled, plain, relabeled
from aios_memory.core import verb
from aios_memory.model import Authority, Done, Version
from aios_memory.requests import Read

MAX_OUTPUT_BYTES: Final = 128 * 1024  # canonical bytes of what memory.read returns
MAX_PREVIEW_CHARS: Final = 120

# What memory itself says, such as a version number: equal to what it holds, by its own word.
_MEMORY: Final = Label(("service:memory",), Trust.CONFIRMED)


def read_record(read: Read, version: Version | None) -> Value:
    """What a single read gives: the record, or null when there is none (or it was deleted)."""
    if version is None or version.deleted:
        return Leaf(None, meet((_MEMORY, read.label)))
    return _record(read, version)


def read_list(read: Read, versions: Sequence[Version]) -> Value:
    """What a read by prefix gives."""
    if not versions:
        return Leaf([], meet((_MEMORY, read.label)))
    return [_record(read, version) for version in versions]


def read_output(results: dict[str, Value]) -> bytes:
    """The step's output. Raises TOO_LARGE past `MAX_OUTPUT_BYTES`."""
    output = encode(results)
    if len(output) > MAX_OUTPUT_BYTES:
        sizes = sorted(((len(encode(value)), name) for name, value in results.items()), reverse=True)
        raise TerminalError(
            "TOO_LARGE",
            f"What was read takes {len(output)} bytes ({sizes[0][1]} {sizes[0][0]} of them); at most "
            f"{MAX_OUTPUT_BYTES} cross steps. Lower its limit, or keep large values as artifacts.",
            field=sizes[0][1],
        )
    return output


def write_output(done: Sequence[Done]) -> bytes:
    """The step's output: the version of each record, in the order of the writes."""
    return encode({"versions": [_written(item.after) for item in done]})


def undo_token(done: Sequence[Done]) -> bytes:
    """What it takes to undo these versions."""
    return memory_pb2.UndoToken(
        written=[
            memory_pb2.WrittenVersion(
                kind=item.after.name.kind,
                key=item.after.name.key,
                version=item.after.version,
                before=item.before.version if item.before else 0,
            )
            for item in done
        ]
    ).SerializeToString()


def change(done: Done, note: str = "") -> task_pb2.Change:
    """A version as a change that a person can read."""
    before, after = done.before, done.after
    stood = before is not None and not before.deleted
    return task_pb2.Change(
        resource=str(after.name),
        verb=verb(before, after),
        before=str(before.version) if before is not None and stood else "",
        after="" if after.deleted else str(after.version),
        size=len(after.value),
        note=note or _note(after),
    )


def summary(done: Sequence[Done], did: str) -> str:
    """A sentence for the timeline: `wrote fact client/acme/column/hours and 2 more`."""
    if not done:
        return f"{did} nothing"
    first = done[0].after.name
    more = f" and {len(done) - 1} more" if len(done) > 1 else ""
    return f"{did} {first.kind} {first.key}{more}"


def read_summary(results: dict[str, Value]) -> str:
    """A sentence for the timeline: `read client (version 3), facts (12)`."""
    return "read " + ", ".join(f"{name} ({_amount(value)})" for name, value in results.items())


def _record(read: Read, version: Version) -> Value:
    """The record under its own labels, met with that of what chose it.

    A name that met an authoritative record exactly is confirmed by it: who chose it could only choose among what is
    the company's truth anyway. It never gets more than that, and the record's own labels stay as they are.
    """
    chosen = read.label
    if version.authority is Authority.AUTHORITATIVE and chosen.trust < Trust.CONFIRMED:
        chosen = replace(chosen, trust=Trust.CONFIRMED)
    label = meet((_MEMORY, chosen, label_of(decode_trusted(version.labeled_key))))
    created = datetime.fromtimestamp(version.create_time_ms / 1000, UTC)
    about = labeled(
        {
            "key": version.name.key,
            "version": version.version,
            "reference": version.name.at(version.version),
            "authority": str(version.authority),
            "confidence": Decimal(version.confidence) / 1000,
            "schema": version.schema,
            "created": created,
            "run": version.provenance.run_id,
            "actor": version.provenance.actor,
        },
        label,
    )
    if not isinstance(about, dict):
        raise AssertionError("a map of fields is a map")
    value = decode_trusted(version.value)
    if chosen.trust >= Trust.OWNER and chosen.readers is None:
        return {**about, "value": value}  # the owner's own choice lowers nothing
    return {**about, "value": relabeled(value, chosen)}


def _written(version: Version) -> Value:
    label = meet((_MEMORY, label_of(decode_trusted(version.labeled_key))))
    return labeled(
        {
            "kind": str(version.name.kind),
            "key": version.name.key,
            "version": version.version,
            "reference": version.name.at(version.version),
        },
        label,
    )


def _note(version: Version) -> str:
    if version.provenance.undoes:
        if version.deleted:
            return f"took version {version.provenance.undoes} back; it did not exist before"
        return f"took version {version.provenance.undoes} back: {_preview(version)}"
    return "deleted; its versions stay" if version.deleted else _preview(version)


def _preview(version: Version) -> str:
    text = str(dumps(plain(decode_trusted(version.value))), "utf-8")
    return text if len(text) <= MAX_PREVIEW_CHARS else text[: MAX_PREVIEW_CHARS - 1] + "…"


def _amount(value: Value) -> str:
    if isinstance(value, list):
        return str(len(value))
    if isinstance(value, dict):
        version = value["version"]
        return (
            f"version {version.data}" if isinstance(version, Leaf) and isinstance(version.data, int) else "1"
        )
    return "none" if value.data is None else "0"
