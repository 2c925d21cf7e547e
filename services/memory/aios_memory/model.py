"""What memory knows: records whose every version stays, what a write asks for, and the names of things."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aios_core.errors import AiosError, TerminalError

MAX_KEY_CHARS: Final = 320  # of a record's key: with what stands around it, it fits into a key of the store
MAX_KEY_SEGMENTS: Final = 12
MAX_RECORD_VALUE_BYTES: Final = 20 * 1024  # canonical bytes of a record's value; larger data is an artifact
MAX_SOURCES: Final = 32  # sources that a write names
MAX_POINTERS: Final = 32  # artifacts that a record's value points to
MAX_SOURCE_CHARS: Final = 480
MAX_CONFIDENCE: Final = 1000  # thousandths
ANY: Final = -1  # `expect` of a write that takes whatever stands
ABSENT: Final = 0  # `expect` of a write that needs the record not to exist

_SOURCE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}:[^\x00-\x1f\x7f]+")
_UNFIT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, half characters, line ends
_SCHEMA: Final = re.compile(r"[a-z0-9][a-z0-9./_-]{0,79}")


class Kind(StrEnum):
    """Entities are the company's ground truth, facts what was learned of them, documents what was made."""

    ENTITY = "entity"
    FACT = "fact"
    DOCUMENT = "document"


class Authority(StrEnum):
    """`AUTHORITATIVE` is ground truth; `HEURISTIC` was computed or guessed: good to use, not to decide on."""

    AUTHORITATIVE = "authoritative"
    HEURISTIC = "heuristic"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version came from. `undoes` is the version of the same record that it takes back (0: none)."""

    run_id: str = ""
    step: str = ""
    effect_key: str = ""
    actor: str = ""
    event_id: str = ""
    sources: tuple[str, ...] = ()
    traceparent: str = ""
    undoes: int = 0


@dataclass(frozen=True, slots=True)
class Name:
    """Which record: its kind and its key, such as `client/acme` or `client/acme/column/timesheet/std-anz`."""

    kind: Kind
    key: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.key}"

    def at(self, version: int) -> str:
        """How a version is named as a source: `fact:client/acme/column/hours@3`."""
        return f"{self}@{version}"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a record. `value` is canonical (empty when deleted), `confidence` in thousandths.

    `labeled_key` is the key as a canonical value, so that what is read from memory has the label it was written under.
    """

    name: Name
    version: int
    deleted: bool
    value: bytes
    authority: Authority
    confidence: int
    schema: str
    provenance: Provenance
    create_time_ms: int
    labeled_key: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """What a write asks for. `expect` is the version it read, `ANY` or `ABSENT`; `value` None deletes the record."""

    name: Name
    value: bytes | None
    expect: int
    authority: Authority
    confidence: int
    schema: str
    labeled_key: bytes
    sources: tuple[str, ...] = ()
    actor: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A version that a step wrote, and the one before it (None: the record did not exist)."""

    before: Version | None
    after: Version


@dataclass(frozen=True, slots=True)
class Written:
    """What stands after a step, in the order of its changes, and the errors of the changes that were refused."""

    done: tuple[Done, ...]
    errors: tuple[AiosError, ...] = ()


@dataclass(frozen=True, slots=True)
class Undo:
    """A version that is to be taken back, and the one that stood before it (0: none)."""

    name: Name
    version: int
    before: int


def check_kind(text: str, field: str) -> Kind:
    """`entity`, `fact` or `document`."""
    try:
        return Kind(text)
    except ValueError:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{field} is {text[:40]!r}; a kind is entity, fact or document.", field=field
        ) from None


def check_key(text: str, field: str, *, prefix: bool = False) -> str:
    """A record's key, or the beginning of one: parts between slashes. Returns it.

    A part may be a folder's name, so it may hold what such a name may hold.
    """
    body = text[:-1] if prefix and text.endswith("/") else text
    segments = body.split("/") if body else []
    if (
        len(text) > MAX_KEY_CHARS
        or len(segments) > MAX_KEY_SEGMENTS
        or not all(segments)
        or not (segments or prefix)
        or any(unicodedata.category(character) in _UNFIT for character in text)
    ):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field} is {text[:80]!r}; a key is 1 to {MAX_KEY_SEGMENTS} parts between slashes, at most "
            f"{MAX_KEY_CHARS} characters, none of them a control character.",
            field=field,
        )
    return text


def check_source(text: str, field: str) -> str:
    """What a record was made from: `artifact:<sha256>`, `fact:<key>@<version>`, `file:<path>`. Returns it."""
    if len(text) > MAX_SOURCE_CHARS or not _SOURCE.fullmatch(text):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field} is {text[:80]!r}; a source is a kind, a colon and a name, such as artifact:<sha256> or "
            f"fact:client/acme/column/hours@3, at most {MAX_SOURCE_CHARS} characters.",
            field=field,
        )
    return text


def check_schema(text: str, field: str) -> str:
    """The name of a schema, such as `client/v1`; empty: none. Returns it."""
    if text and not _SCHEMA.fullmatch(text):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{field} is {text[:80]!r}; a schema's name looks like client/v1.",
            field=field,
        )
    return text
