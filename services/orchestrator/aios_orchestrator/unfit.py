"""What is decided in the place of an outcome that can't be taken in: by a defect, or because what follows of it is too
large to be kept. Otherwise its work would be done again and again, and never end. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from aios.error.v1.error_pb2 import Error
from aios.task.v1.task_pb2 import (
    MODE_REDO,
    MODE_UNDO,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    Outcome,
)
from aios_core.errors import AiosError
from aios_orchestrator.core.decide import Settle
from aios_orchestrator.items import Item


def one_by_one(item: Item) -> Iterator[Item]:
    """The same, each outcome as an input of its own."""
    if not isinstance(item.input, Settle) or not item.input.more:
        yield item
        return
    for outcome in (item.input.outcome, *item.input.more):
        yield replace(item, input=Settle(outcome))


def in_place_of(item: Item, why: AiosError) -> Item | None:
    """The step fails, or where something may have been changed a person is asked; None for what is no outcome."""
    if not isinstance(item.input, Settle):
        return None
    given = item.input.outcome
    changed = given.mode in (MODE_UNDO, MODE_REDO) or given.undo_token or given.changes
    told = Outcome()
    told.CopyFrom(given)
    for name in ("output", "summary", "changes", "ahead_sha256", "cached", "error"):
        told.ClearField(name)
    told.status = STATUS_UNKNOWN if changed and given.status == STATUS_SUCCEEDED else STATUS_FAILED
    told.error.CopyFrom(Error(code=why.code, message=f"What came of it can't be taken in: {why.message}"))
    return replace(item, input=Settle(told))
