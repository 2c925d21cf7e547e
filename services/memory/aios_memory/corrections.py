"""What a person made of a proposal, kept as a fact that later runs read.

It is learned from the event of the edit, which comes until it is told, so it is written under the approval that the
edit made: once, however often the event comes.
"""

import logging
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from aios.run.v1.events_pb2 import RunEvent
from aios_core.encoding import decode, encode
from aios_core.errors import AiosError, TerminalError
from aios_core.labels import OWNER, RESOURCE
from aios_core.values import Leaf, Value, labeled, plain
from aios_memory.model import (
    ANY,
    MAX_CONFIDENCE,
    MAX_RECORD_VALUE_BYTES,
    Authority,
    Change,
    Kind,
    Name,
    Provenance,
    check_key,
)
from aios_memory.narration import event_of
from aios_memory.writing import Writing

PREFIX: Final = "correction"
SCHEMA: Final = "correction/v1"
MAX_NOTE_CHARS: Final = 2000
# What the field `approval_edited` begins with: nearly all events lack it, and need not be parsed.
_TAG: Final = b"\xaa\x08"
_ROUND: Final = re.compile(r"\[\d+\]")  # which round of a map or repeat a step stands in

log = logging.getLogger(__name__)


class Corrections:
    """Writes them down."""

    def __init__(self, writing: Writing, now_ms: Callable[[], int]) -> None:
        self._writing = writing
        self._now_ms = now_ms

    async def learn(self, events: Sequence[bytes]) -> None:
        """From events of runs, in their order. Raises UNAVAILABLE when others write the same at the same moment."""
        for stored in events:
            if _TAG not in stored:
                continue
            event = event_of(stored)
            if not event.HasField("approval_edited"):
                continue
            try:
                change, provenance = correction_of(event)
                written = await self._writing.write([change], provenance, self._now_ms())
                refused: tuple[AiosError, ...] = written.errors
            except TerminalError as error:
                refused = (error,)
            for problem in refused:  # the edit stands all the same, and its run has what it was
                log.warning("a correction is not kept", extra={"run_id": event.run_id, "code": problem.code})


def correction_of(event: RunEvent) -> tuple[Change, Provenance]:
    """The fact of an edit: the fields that the person changed, as they were proposed and as they are now, each under
    the label that it had. Where they are too large together, their names alone."""
    body = event.approval_edited
    proposed = next(item for item in body.approval.proposed if item.step == body.edited)
    before, after = decode(proposed.original), decode(body.input)
    old = before if isinstance(before, dict) else {"": before}
    new = after if isinstance(after, dict) else {"": after}
    changed = [name for name in new if name not in old or plain(old[name]) != plain(new[name])]
    value: dict[str, Value] = {
        "proposed": {name: old[name] for name in changed if name in old} or Leaf({}, OWNER),
        "corrected": {name: new[name] for name in changed} or Leaf({}, OWNER),
        "note": Leaf(body.note[:MAX_NOTE_CHARS], OWNER),
        "by": Leaf(body.edited_by, OWNER),
        "target": Leaf(proposed.target, RESOURCE),
    }
    content = encode(value)
    if len(content) > MAX_RECORD_VALUE_BYTES:
        names = labeled([name[:80] for name in changed[:100]], OWNER)
        content = encode(
            {**value, "proposed": Leaf(None, OWNER), "corrected": Leaf(None, OWNER), "changed": names}
        )
    when = datetime.fromtimestamp(event.time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    approval = body.approval.approval_id
    path = _ROUND.sub("[]", body.edited)
    key = check_key(f"{PREFIX}/{body.approval.workflow}/{path}/{when}Z-{approval[-8:]}", "key")
    change = Change(
        name=Name(Kind.FACT, key),
        value=content,
        expect=ANY,
        authority=Authority.AUTHORITATIVE,
        confidence=MAX_CONFIDENCE,
        schema=SCHEMA,
        labeled_key=encode(Leaf(key, RESOURCE)),
        sources=(f"approval:{approval}",),
        actor=body.edited_by,
    )
    provenance = Provenance(
        run_id=event.run_id, step=body.edited, effect_key=f"correction/{approval}", actor=body.edited_by
    )
    return change, provenance
