"""Identifiers: how they look and how they are derived. What makes a random one or reads a clock lives elsewhere.

Everything starts with the workspace. A run id is derived from what asked for the run, so that the same request, met
again after any loss, meets its own run.
"""

import hashlib
import re
from typing import Final

from aios_core.errors import TerminalError

DEFAULT_WORKSPACE: Final = "main"
SLOTS: Final = (
    1024  # a run's stored slot; slots map to partitions, so that the number of partitions can change
)
PARTITIONS: Final = 16

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/@+-]{1,200}")
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_PAIRS: Final = tuple(
    high + low for high in _ALPHABET for low in _ALPHABET
)  # two characters at a time: ids are many
_SHIFTS: Final = range(120, -1, -10)


def check_name(text: str, field: str) -> str:
    """A resource, workspace, step or agent name: lower case letters, digits and hyphens, at most 63. Returns it."""
    if not _NAME.fullmatch(text):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field} is {text[:80]!r}; a name has 1 to 63 lower case letters, digits and hyphens and starts and ends "
            "with a letter or digit.",
            field=field,
        )
    return text


def check_request_id(text: str, field: str = "request_id") -> str:
    """A request id of a client: 1 to 200 printable characters. Returns it."""
    if not _REQUEST_ID.fullmatch(text):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field} must have 1 to 200 letters, digits or any of . _ : / @ + -",
            field=field,
        )
    return text


def derive(prefix: str, *parts: str) -> str:
    """A stable id: `prefix_` and 26 characters (130 bits) of the SHA-256 over the parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    number = int.from_bytes(digest.digest()[:17], "big") >> 6
    return prefix + "_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def run_id(workspace: str, trigger: str, request: str) -> str:
    """The run that `trigger` (a trigger's name, or `manual`) starts for the event or request id `request`."""
    return derive("run", workspace, trigger, request)


def slot_of(run: str) -> int:
    """The slot of a run, 0 to `SLOTS` - 1; it is stored with the run and never changes."""
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:2], "big") % SLOTS


def partition_of(slot: int, partitions: int = PARTITIONS) -> int:
    """The partition that a slot is in."""
    return slot * partitions // SLOTS


def partition_of_run(run: str, partitions: int = PARTITIONS) -> int:
    """The partition of a run, by its id."""
    return partition_of(slot_of(run), partitions)


def effect_key(run: str, step: str, iteration: int, attempt_group: int) -> str:
    """The idempotency key of an effect: retries share it; only a person starts a new attempt group."""
    return f"{run}/{step}/{iteration}/{attempt_group}"
