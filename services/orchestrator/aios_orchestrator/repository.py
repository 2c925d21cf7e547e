"""Where runs are kept: the write that makes a decision durable, and the active runs that are in memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from aios.run.v1.state_pb2 import Approval, ApprovalState, Failure, RunHead
from aios_core.ids import partition_of
from aios_orchestrator.codec import changed_approvals, head_of, records_of, run_of
from aios_orchestrator.correlation import index_of
from aios_orchestrator.due import next_due
from aios_orchestrator.failures import failure_of
from aios_orchestrator.model import Run
from aios_orchestrator.progress import OPEN_STEP
from aios_orchestrator.workflow import Workflow
from aios_runtime.store.port import Aggregate, Committed, NewEvent, Store, Write

RESIDENT_RUNS: Final = 20_000  # active runs kept in memory between two inputs; the rest are read again
FAILURE: Final = "failure"  # the record of a run that says why it is failed
PAGE: Final = 2_000  # records that are read at once


@dataclass(slots=True)
class Stored:
    """A run as it is stored, and its revision there (0: not yet)."""

    run: Run
    revision: int


def run_key(workspace: str, run_id: str) -> str:
    """The aggregate of a run."""
    return f"{workspace}/run/{run_id}"


async def stored_run(store: Store, workspace: str, run_id: str) -> Aggregate | None:
    """A run as it is stored. None also where its place is only kept from a start that came too late (`keep_from`)."""
    aggregate = await store.read(run_key(workspace, run_id))
    return aggregate if aggregate is not None and aggregate.head else None


async def keep_from(store: Store, workspace: str, run_id: str) -> bool:
    """Take the place of a run that is not there, so that who is about to write its first event loses, and decides
    anew; whether that was in time. The run can still be started."""
    (result,) = await store.commit([Write(run_key(workspace, run_id), 0, b"")])
    return isinstance(result, Committed)


def approval_key(workspace: str, approval_id: str) -> str:
    """The listing entry of an approval; the truth is the run's record."""
    return f"{workspace}/approval/{approval_id}"


class Repository:
    """Reads and writes runs. Not safe for several writers of one run at once: the store's revision decides then."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._resident: OrderedDict[str, Stored] = OrderedDict()
        self._kept_from: dict[str, int] = {}  # revisions of places that no run has yet

    async def load(self, workspace: str, run_id: str) -> Stored | None:
        """The run as it is stored, or as it was when this process wrote it last: `stands` tells."""
        key = run_key(workspace, run_id)
        stored = self._resident.get(key)
        if stored is not None:
            self._resident.move_to_end(key)
            return stored
        return await self._read(key)

    def at_hand(self, key: str) -> bool:
        """Whether `load` has the run without reading it."""
        return key in self._resident

    def sequence_in_view(self, key: str) -> int | None:
        """The last event that `view` knows of a run, where the store may have later ones already: a commit can be read
        a moment before who made it hears of it. None: as the store has it."""
        stored = self._resident.get(key) if not self.store.shared else None
        return stored.run.sequence if stored is not None else None

    async def view(self, workspace: str, run_id: str) -> Stored | None:
        """The run as it is stored now."""
        if self.store.shared:
            return await self._read(run_key(workspace, run_id))
        return await self.load(workspace, run_id)

    async def stands(self, before: Stored) -> bool:
        """Whether nobody has written the run since."""
        if not self.store.shared:
            return True
        aggregate = await self.store.read(run_key(before.run.workspace, before.run.run_id))
        return aggregate is not None and aggregate.revision == before.revision

    async def _read(self, key: str) -> Stored | None:
        aggregate = await self.store.read(key)
        if aggregate is not None and not aggregate.head:
            self._kept_from[key] = aggregate.revision
            return None
        return await self._stored(aggregate) if aggregate is not None else None

    async def _stored(self, aggregate: Aggregate) -> Stored:
        records: dict[str, bytes] = {}
        after = ""
        while True:
            page = await self.store.records(aggregate.key, after=after, limit=PAGE)
            records.update(page)
            if len(page) < PAGE:
                break
            after = max(page)
        return Stored(run_of(RunHead.FromString(aggregate.head), records), aggregate.revision)

    def writes(
        self,
        before: Stored | None,
        run: Run,
        changed: Iterable[str],
        events: list[bytes],
        extra: dict[str, bytes | None],
        workflow: Workflow,
    ) -> list[Write]:
        """What makes `run` durable in the place of `before`: the run itself first, then its approvals' listing.

        `changed` names the steps that changed.
        """
        old = before.run if before is not None else None
        active = not run.closed
        partition = partition_of(run.slot)
        failure = failure_of(run, workflow)
        shared = under_way_with(run.workspace, run.workflow, run.concurrency_key)
        index = {
            "runs": run.workspace,
            "workflow": f"{run.workspace}/{run.workflow}",
            "out": f"{run.workspace}/{partition}" if hands_out(run) else "",
            "live": run.workspace if active else "",
            "active": "",  # what `out` was before there were partitions
            "concurrency": shared if active and run.concurrency_key and not run.queued else "",
            **_queued(run),
            "person": run.workspace if run.open_approvals() else "",
            **_awaited(run, old),
            **_unfunded(run, old),
            "failed": run.workspace if failure is not None else "",
            "cause": f"{run.workspace}/{failure.cause}" if failure is not None else "",
        }
        if run.late_time:
            index["late"] = run.workspace
        if before is None:  # what is not there need not be taken out
            index = {name: value for name, value in index.items() if value}
        if failure is not None:
            extra = {**extra, FAILURE: failure.SerializeToString()}
        elif run.reopened or run.undo_group:
            extra = {**extra, FAILURE: None}
        key = run_key(run.workspace, run.run_id)
        main = Write(
            key=key,
            expect=before.revision if before is not None else self._kept_from.pop(key, 0),
            head=head_of(run).SerializeToString(),
            records={**records_of(run, old, changed), **extra},
            events=[NewEvent(partition, event) for event in events],
            due_ms=next_due(run),
            index=index,
        )
        return [main, *(self._listing(approval, old) for approval in _relisted(run, old))]

    def _listing(self, approval: Approval, old: Run | None) -> Write:
        known = old is not None and approval.approval_id in old.approvals
        still_open = approval.state == ApprovalState.APPROVAL_STATE_OPEN
        index = {"approvals": approval.workspace, "open": approval.workspace if still_open else ""}
        return Write(
            key=approval_key(approval.workspace, approval.approval_id),
            expect=1 if known else 0,
            head=approval.SerializeToString(),
            index=index,
        )

    async def relist(self, run: Run, key: str) -> None:
        """The entry of an approval was written by a replica whose decision did not count: write it as it is."""
        approval = next(
            found for name, found in run.approvals.items() if approval_key(run.workspace, name) == key
        )
        while True:
            stored = await self.store.read(key)
            write = replace(
                self._listing(approval, None), expect=stored.revision if stored is not None else 0
            )
            (result,) = await self.store.commit([write])
            if isinstance(result, Committed):
                return

    async def shown(self, listed: Iterable[Approval]) -> list[Approval]:
        """Approvals of a listing as their runs have them. An entry says only whether one is open; and where replicas
        write at once, it may be that of a decision that did not count."""
        found = []
        for approval in listed:
            key = run_key(approval.workspace, approval.run_id)
            record = await self.store.record(key, f"approval/{approval.approval_id}")
            found += [Approval.FromString(record)] if record is not None else []
        return found

    async def failures(self, workspace: str, cause: str, token: str, limit: int) -> tuple[list[Failure], str]:
        """A page of the runs that are failed (of one cause, if it is given), the newest first, and the next token."""
        index, value = ("cause", f"{workspace}/{cause}") if cause else ("failed", workspace)
        page = await self.store.query(index, value, token=token, limit=limit)
        found = []
        for item in page.items:
            record = await self.store.record(item.key, FAILURE)
            found += [Failure.FromString(record)] if record is not None else []
        return found, page.next_token

    def keep(self, run: Run, revision: int) -> None:
        """Remember what was just committed, as long as the run is active."""
        key = run_key(run.workspace, run.run_id)
        if run.closed:
            self._resident.pop(key, None)
            return
        self._resident[key] = Stored(run, revision)
        self._resident.move_to_end(key)
        while len(self._resident) > RESIDENT_RUNS:
            self._resident.popitem(last=False)

    def forget(self, workspace: str, run_id: str) -> None:
        """Somebody else wrote the run: read it again."""
        self._resident.pop(run_key(workspace, run_id), None)

    def forget_all(self, others: Callable[[str], bool]) -> None:
        """Somebody else writes these runs from now on."""
        for key in [key for key, stored in self._resident.items() if others(stored.run.run_id)]:
            del self._resident[key]

    async def waiting(self, workspace: str, workflow: str, concurrency_key: str, limit: int) -> list[str]:
        """The runs that wait for their turn, at most `limit`, the first one first."""
        line = in_line(workspace, workflow, concurrency_key)
        page = await self.store.query("waiting", line, limit=limit, newest_first=False)
        return [item.key.rsplit("/", 1)[1] for item in page.items]

    async def active_with_key(self, workspace: str, workflow: str, concurrency_key: str) -> list[RunHead]:
        """The active runs of a workflow that share a concurrency key."""
        return await sharing(self.store, workspace, workflow, concurrency_key)


def under_way_with(workspace: str, workflow: str, concurrency_key: str) -> str:
    """Under which runs of a workflow that share a key are found in the index `concurrency`."""
    return f"{workspace}/{workflow}/{concurrency_key}"


async def sharing(store: Store, workspace: str, workflow: str, concurrency_key: str) -> list[RunHead]:
    """All runs of a workflow with a key that are under way, the newest first."""
    heads: list[RunHead] = []
    token, shared = "", under_way_with(workspace, workflow, concurrency_key)
    while True:
        page = await store.query("concurrency", shared, token=token, limit=PAGE)
        heads += [RunHead.FromString(item.head) for item in page.items]
        token = page.next_token
        if not token:
            return heads


def in_line(workspace: str, workflow: str, concurrency_key: str) -> str:
    """Under which those are found in the index `waiting` that wait for their turn."""
    return f"{workspace}/{workflow}/{concurrency_key}"


def _queued(run: Run) -> dict[str, str]:
    """The entries by which a run is found that waits for its turn. Runs without a limit have none."""
    if run.concurrency is None:
        return {}
    line = in_line(run.workspace, run.workflow, run.concurrency_key)
    return {"waiting": line if run.queued else "", "queued": run.workspace if run.queued else ""}


def hands_out(run: Run) -> bool:
    """Whether a task of the run is handed out, or waits for a place on its lane."""
    return any(run.steps[name].state in OPEN_STEP and not run.steps[name].due for name in run.live)


def _awaited(run: Run, old: Run | None) -> dict[str, str]:
    """The entries by which events find a run that waits for them, and those by which they don't any more."""
    now, before = run.awaited(), old.awaited() if old is not None else set()
    entries = dict.fromkeys(map(index_of, before - now), "") | dict.fromkeys(
        map(index_of, now), run.workspace
    )
    if now or before:
        entries["awaiting"] = f"{run.workspace}/{partition_of(run.slot)}" if now else ""
    return entries


def _unfunded(run: Run, old: Run | None) -> dict[str, str]:
    """The entry by which a run is found that waits for money, where that has changed."""
    waits = run.unfunded
    if waits == (old is not None and old.unfunded):
        return {}
    return {"unfunded": run.workspace if waits else ""}


def _relisted(run: Run, old: Run | None) -> list[Approval]:
    """The approvals that are new, or open no more: an entry is written twice, whatever happens in between."""
    known = old.approvals if old is not None else {}
    return [
        approval
        for approval in changed_approvals(run, old)
        if approval.approval_id not in known or approval.state != known[approval.approval_id].state
    ]
