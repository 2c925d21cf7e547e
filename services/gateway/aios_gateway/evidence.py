"""What a line of a run's story points to. Pure."""

from collections.abc import Iterable
from typing import Final

from aios.task.v1.task_pb2 import Change
from aios.value.v1.value_pb2 import Node, Pointer, Value

MAX_EVIDENCE: Final = 20  # pointers that one line of the story names


def evidence(output: bytes, changes: Iterable[Change]) -> list[Pointer]:
    """Pointers to what a step made or would make: those in its output, then the contents of its changes."""
    found: dict[bytes, Pointer] = {}
    if output:
        _collect(Value.FromString(output).root, found)
    for change in changes:
        if change.content_sha256 and len(found) < MAX_EVIDENCE:
            name = change.resource.rpartition("/")[2]
            found.setdefault(
                change.content_sha256, Pointer(sha256=change.content_sha256, size=change.size, name=name)
            )
    return list(found.values())[:MAX_EVIDENCE]


def _collect(node: Node, found: dict[bytes, Pointer]) -> None:
    kind = node.WhichOneof("kind")
    if len(found) >= MAX_EVIDENCE:
        return
    if kind == "pointer":
        found.setdefault(node.pointer.sha256, node.pointer)
    elif kind == "list":
        for item in node.list.items:
            _collect(item, found)
    elif kind == "map":
        for entry in node.map.entries:
            _collect(entry.value, found)
