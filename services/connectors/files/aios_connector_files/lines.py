"""A file of JSON lines in which each line of ours names the effect that wrote it. Pure: bytes in, bytes out."""

import json
from collections.abc import Mapping
from typing import Final

from aios_core.json_values import dumps
from aios_core.values import Plain

EFFECT: Final = "effect"  # the field that names the effect key
MAX_LINE_BYTES: Final = 16 * 1024


def line_of(key: str, entry: Mapping[str, Plain]) -> bytes:
    """The line for an entry, with its newline: the same key and entry give the same bytes."""
    return dumps({**entry, EFFECT: key}) + b"\n"


def appended(content: bytes, line: bytes) -> bytes:
    """The content with the line at its end; a last line without a newline is ended first."""
    return content + (b"\n" if content and not content.endswith(b"\n") else b"") + line


def find(content: bytes, key: str) -> bytes | None:
    """The line of an effect as it stands, with its newline if it has one; None when there is none."""
    for line in content.splitlines(keepends=True):
        if key.encode() in line and _effect_of(line) == key:
            return line
    return None


def without(content: bytes, line: bytes) -> bytes:
    """The content without the first line that equals it."""
    lines = content.splitlines(keepends=True)
    lines.remove(line)
    return b"".join(lines)


def _effect_of(line: bytes) -> object:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data.get(EFFECT) if isinstance(data, dict) else None
