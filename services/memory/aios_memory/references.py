"""What an episode refers to: resources, and artifacts by their hashes. Pure."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from aios_core.encoding import pointers_in

MAX_REFERENCES: Final = 64  # references of one episode
MAX_REFERENCE_BYTES: Final = 16 * 1024  # of all of them


def changed(changes: Iterable[object]) -> list[str]:
    """The resources, and the artifacts that hold what they became."""
    references = []
    for change in changes:
        references.append(str(getattr(change, "resource", "")))
        content = getattr(change, "content_sha256", b"")
        if content:
            references.append(f"artifact:{content.hex()}")
    return [reference for reference in references if reference]


def artifacts_in(value: bytes) -> list[str]:
    """What a value points to. One that can't be read is left out: its event says where it stands."""
    return [f"artifact:{pointer.sha256}" for pointer in pointers_in(value)]


def first_of(references: Iterable[str]) -> Iterator[str]:
    """As many as an episode has room for: their event has them all."""
    room = MAX_REFERENCE_BYTES
    for reference in islice(dict.fromkeys(references), MAX_REFERENCES):
        room -= len(reference.encode())
        if room < 0:
            return
        yield reference
