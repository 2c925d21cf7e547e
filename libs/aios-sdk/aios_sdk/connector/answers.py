"""What an action answers with."""

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the outside world, in words and in evidence.

    `resource` is a name such as `file:acme/2026-10/report/report.md`; `verb` is `create`, `update`, `append` or
    `delete`; `before` and `after` are versions (empty: absent); `content_sha256` in hex and `size` in bytes are of
    what stands after it; `note` is a sentence for a person.
    """

    resource: str
    verb: str
    before: str = ""
    after: str = ""
    content_sha256: str = ""
    size: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Predicted(Generic[R]):
    """What `perform` would answer now."""

    result: R
    changes: tuple[Change, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """It happened. `summary` is a sentence for the timeline, such as `wrote report.md (4.2 kB)`."""

    result: R
    changes: tuple[Change, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True)
class NotDone:
    """It surely did not happen, and the call that was interrupted can't make it happen any more."""


@dataclass(frozen=True, slots=True)
class CannotTell:
    """It may or may not have happened; `why` tells a person where to look."""

    why: str


@dataclass(frozen=True, slots=True)
class Rediscovered(Generic[C, R]):
    """It has happened, though nothing of it was recorded. `captured` is what undo needs; None when what stood before it
    can't be known any more: then it can't be taken back."""

    done: Done[R]
    captured: C | None = None


@dataclass(frozen=True, slots=True)
class Undone:
    """It is taken back, now or before."""

    changes: tuple[Change, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody changed the thing since; nothing was touched. `changes` say what stands (`after`) in the place of what
    we left (`before`)."""

    why: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Stands:
    """What the effect, or its undo, has left is as it was left."""


Standing: TypeAlias = Stands | Conflict | CannotTell
Looked: TypeAlias = Done[R] | NotDone | CannotTell
Traced: TypeAlias = Rediscovered[C, R] | NotDone | CannotTell
