"""A run while a batch of inputs is being decided."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aios.run.v1.state_pb2 import RUN_STATE_SUCCEEDED
from aios.task.v1.task_pb2 import MODE_EXECUTE
from aios_orchestrator.items import Answer, Item, StartItem
from aios_orchestrator.model import Run
from aios_orchestrator.progress import OPEN_STEP
from aios_orchestrator.publisher import Changed
from aios_orchestrator.repository import Stored, run_key
from aios_orchestrator.workflow import Workflow
from aios_runtime.store.port import Committed, Filed, Result, Write


@dataclass(slots=True)
class Entry:
    """A run while a batch is being decided."""

    before: Stored | None
    run: Run
    workflow: Workflow
    events: list[bytes] = field(default_factory=list)
    changed: dict[str, None] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    dispatched: dict[str, None] = field(default_factory=dict)
    undoing: dict[str, None] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    extra: dict[str, bytes | None] = field(default_factory=dict)
    settled: list[tuple[int, int]] = field(default_factory=list)

    def follows(self) -> Changed:
        """A step that was done ahead is not handed out any more."""
        run = self.run
        out = [name for name in (*self.dispatched, *self.undoing) if run.at(name).state in OPEN_STEP]
        was_closed = self.before is not None and self.before.run.closed
        closed = run.closed and not was_closed and not run.undo_group and not run.reopened
        return Changed(run, self.workflow, self.changed, out, self.ended, closed)


def give_heads(
    decided: Iterable[tuple[Item | StartItem, Answer]], entries: Mapping[str, Entry], writes: Iterable[Write]
) -> None:
    """Give the answers about runs that were started what was stored of them: it is shown, and made once."""
    started = [answer for item, answer in decided if isinstance(item, StartItem)]
    heads = {write.key: write.head for write in writes} if started else {}
    for answer in started:
        run = answer.run
        entry = entries.get(run_key(run.workspace, run.run_id)) if run is not None else None
        # Nothing else has come for it in the same batch.
        if run is not None and entry is not None and entry.run is run:
            answer.head = heads.get(run_key(run.workspace, run.run_id)) or b""


def under_way(entries: Iterable[Entry], workflow: str, concurrency_key: str) -> list[str]:
    """The runs of a workflow among them that are under way for one thing."""
    return [
        entry.run.run_id
        for entry in entries
        if entry.run.concurrency_key == concurrency_key
        and entry.run.workflow == workflow
        and not entry.run.closed
        and not entry.run.queued
    ]


def in_line(entries: Iterable[Entry], workflow: str, concurrency_key: str) -> list[str]:
    """The runs of a workflow among them that wait for their turn with one key."""
    runs = (entry.run for entry in entries)
    return [
        run.run_id
        for run in runs
        if run.queued and run.concurrency_key == concurrency_key and run.workflow == workflow
    ]


def follows(
    entries: Iterable[Entry], writes: Sequence[Write], results: Sequence[Result]
) -> tuple[list[Changed], list[Filed]]:
    """What committed entries lead to: changed runs with the steps to hand out, and events with their positions."""
    changed = [entry.follows() for entry in entries if entry.events]
    filed = [
        Filed(event.partition, position, event.data)
        for write, result in zip(writes, results, strict=True)
        if isinstance(result, Committed)
        for event, position in zip(write.events, result.positions, strict=True)
    ]
    return changed, filed


def spent(entries: Iterable[Entry]) -> tuple[list[tuple[int, int]], list[tuple[str, int]]]:
    """What committed entries settle: holds with their costs, and workflows that look at what is usual, with the costs
    of their runs that succeeded."""
    costs, finished = [], []
    for entry in entries:
        costs += entry.settled
        run, before = entry.run, entry.before
        if entry.workflow.spike is None or run.mode != MODE_EXECUTE or run.reopened:
            continue
        if run.state == RUN_STATE_SUCCEEDED and (before is None or not before.run.closed):
            finished.append((run.workflow, run.settled))
    return costs, finished
