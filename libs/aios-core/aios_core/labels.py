"""Labels: where a value came from, how far it is trusted, and who may read it.

Every leaf of a value carries one. What is computed from several leaves carries their meet: origins add up, the
lowest trust wins, readers intersect. So nothing becomes more trusted by being combined with something else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final

MAX_ORIGINS: Final = 16  # origins a label names; beyond it they are summed up as MANY_ORIGINS
MANY_ORIGINS: Final = "*"
MEETS_REMEMBERED: Final = 1024


class Trust(IntEnum):
    """How far a value is trusted, lowest first. The gaps leave room for levels between."""

    UNTRUSTED = 10
    """From outside or from a model: it can never steer."""
    CONFIRMED = 20
    """Equal, byte for byte, to a canonical entity."""
    APPROVED = 30
    """Shown to a person, who approved exactly it."""
    OWNER = 40
    """Said by the person, or written in a resource that they applied."""


@dataclass(frozen=True, slots=True)
class Label:
    """`origins` are sorted names such as `person:owner` or `connector:files`; `readers` None means everyone."""

    origins: tuple[str, ...]
    trust: Trust
    readers: tuple[str, ...] | None = None
    _hash: int = field(init=False, repr=False, compare=False)
    """Labels are looked up for every leaf of every value, and few stand for nearly all of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.origins, int(self.trust), self.readers)))

    def __hash__(self) -> int:
        return self._hash


OWNER: Final = Label(("person:owner",), Trust.OWNER)
RESOURCE: Final = Label(("resource",), Trust.OWNER)


def outside(origin: str) -> Label:
    """The label of what comes from outside, such as `connector:files` or `event:http`."""
    return Label((origin,), Trust.UNTRUSTED)


def meet(labels: Iterable[Label]) -> Label:
    """The label of what is computed from values with these labels; of nothing at all: a resource's own constant."""
    distinct = tuple(dict.fromkeys(labels))
    if not distinct:
        return RESOURCE
    return distinct[0] if len(distinct) == 1 else _meet(distinct)


@lru_cache(MEETS_REMEMBERED)
def _meet(distinct: tuple[Label, ...]) -> Label:
    origins = sorted({origin for label in distinct for origin in label.origins})
    if len(origins) > MAX_ORIGINS:
        origins = [*origins[: MAX_ORIGINS - 1], MANY_ORIGINS]
    readers: set[str] | None = None
    for label in distinct:
        if label.readers is not None:
            readers = set(label.readers) if readers is None else readers & set(label.readers)
    return Label(
        tuple(sorted(origins)),
        min(label.trust for label in distinct),
        None if readers is None else tuple(sorted(readers)),
    )
