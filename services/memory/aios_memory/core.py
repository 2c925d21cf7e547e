"""What memory decides: which version follows a write, what undo restores, and what was known at a time.

A record is a chain of versions, 1, 2, 3, …; nothing is ever changed or removed, and deletion is a version. A write
names the version it read; of two that read the same one, the second is refused.
"""

from collections.abc import Generator
from dataclasses import replace

from aios_core.errors import TerminalError
from aios_memory.model import ABSENT, ANY, Authority, Change, Provenance, Version

Asking = Generator[int, Version, int]
"""A decision that asks for versions of a record by their number, and comes to one."""


def decide_write(newest: Version | None, change: Change, provenance: Provenance, now_ms: int) -> Version:
    """The version that the change makes after `newest`. Raises CONFLICT or NOT_FOUND; nothing is to be written then.

    Time never goes back within a record: a version is at least as late as the one before.
    """
    stands = newest is not None and not newest.deleted
    current = newest.version if newest else 0
    if change.expect == ABSENT and stands:
        raise _conflict(change, current, "it exists already")
    if change.expect > 0 and change.expect != current:
        raise _conflict(change, current, f"version {change.expect} was read, but version {current} stands")
    if change.value is None and not stands:
        raise TerminalError(
            "NOT_FOUND",
            f"There is no {change.name.kind} {change.name.key} to delete.",
            resource=str(change.name),
        )
    if (
        newest is not None
        and stands
        and newest.authority is Authority.AUTHORITATIVE
        and change.authority is Authority.HEURISTIC
    ):
        raise _conflict(
            change, current, "what stands is authoritative, and a heuristic value does not replace that"
        )
    return Version(
        name=change.name,
        version=current + 1,
        deleted=change.value is None,
        value=change.value or b"",
        authority=change.authority,
        confidence=change.confidence,
        schema=change.schema,
        provenance=replace(provenance, sources=change.sources, actor=change.actor or provenance.actor),
        create_time_ms=max(now_ms, newest.create_time_ms if newest else 0),
        labeled_key=change.labeled_key,
    )


def standing(newest: Version) -> Asking:
    """The version whose content stands: an undo stands for what was there before the version that it took back.

    Each version that it asks for is older than the one before.
    """
    while newest.provenance.undoes > 1:
        newest = yield newest.provenance.undoes - 1
    return 0 if newest.provenance.undoes else newest.version


def decide_undo(
    newest: Version, stands: int, written: int, before: Version | None, provenance: Provenance, now_ms: int
) -> Version:
    """The version that takes `written` back: what stood `before` it, or a deletion if nothing did.

    Raises CONFLICT when another version than `written` stands (see `standing`): somebody changed the record since.
    """
    if stands != written:
        by = newest.provenance
        who = by.actor or by.run_id or "somebody"
        raise TerminalError(
            "CONFLICT",
            f"{newest.name.kind} {newest.name.key} was changed since: version {newest.version} (by {who}) stands, "
            f"not version {written}. Nothing of it was touched.",
            resource=str(newest.name),
            expected=str(written),
            found=str(newest.version),
        )
    restored = before if before is not None and not before.deleted else None
    like = restored or newest
    return Version(
        name=newest.name,
        version=newest.version + 1,
        deleted=restored is None,
        value=restored.value if restored else b"",
        authority=like.authority,
        confidence=like.confidence,
        schema=like.schema,
        provenance=replace(
            provenance, undoes=written, sources=(newest.name.at(restored.version),) if restored else ()
        ),
        create_time_ms=max(now_ms, newest.create_time_ms),
        labeled_key=like.labeled_key,
    )


def version_as_of(newest: int, time_ms: int) -> Asking:
    """The version that stood at a time: the last one created at or before it; 0 when there was none.

    It asks for at most log2(newest) + 1 versions.
    """
    low, high = 0, newest  # the answer lies in low..high
    while low < high:
        middle = (low + high + 1) // 2
        if (yield middle).create_time_ms <= time_ms:
            low = middle
        else:
            high = middle - 1
    return low


def verb(before: Version | None, after: Version) -> str:
    """`create`, `update` or `delete`, as a person would call the change."""
    if after.deleted:
        return "delete"
    return "update" if before is not None and not before.deleted else "create"


def _conflict(change: Change, current: int, why: str) -> TerminalError:
    expected = {ANY: "any", ABSENT: "absent"}.get(change.expect, str(change.expect))
    return TerminalError(
        "CONFLICT",
        f"{change.name.kind} {change.name.key} was not written: {why}. Read it again and decide anew.",
        resource=str(change.name),
        expected=expected,
        found=str(current),
    )
