"""Defects of the kind that this field makes, planted one at a time: the simulator must find each of them."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from immutables import Map

from aios.effect.v1.effect_pb2 import LedgerEntry
from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import STATUS_FAILED, STATUS_UNKNOWN, Outcome, Task
from aios_core.errors import AiosError
from aios_core.ids import effect_key
from aios_orchestrator import (
    codec,
    commands,
    engine,
    intake,
    leases,
    module,
    ownership,
    publisher,
    repository,
    takeover,
)
from aios_orchestrator.core import approve, decide, draft, recover, settle, undo
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import Rounds, rounds_of
from aios_runtime import lanes, outbox
from aios_runtime.bus import subscribers
from aios_runtime.bus.port import Message
from aios_runtime.store.port import Write
from aios_sdk.host import core, effects, restored
from aios_testing import store_memory
from aios_testing.sim.run import planted
from tests.sim import planted_accounts
from tests.sim.planted_approvals import APPROVALS
from tests.sim.planted_leaving import (
    left_in_good_order_with_something_not_handed_out,
    what_waits_for_its_place_taken_for_handed_out,
)
from tests.sim.planted_moves import a_renamed_step_loses_what_it_did
from tests.sim.planted_plans import PLANS
from tests.sim.planted_queues import (
    line_is_jumped,
    next_room_of_a_rate_is_not_looked_for,
    place_not_given_back,
    what_became_anothers_is_counted,
    who_goes_on_is_not_counted,
)
from tests.sim.planted_times import made_good_again_when_handed_out_again, unanswered_change_taken_for_undone
from tests.sim.planted_waits import event_heard_again, queued_time_does_not_wait
from tests.sim.planting import replaced

Plant = Callable[[], Any]


def acknowledge_before_commit() -> Any:
    """An event from the bus is acknowledged when it is read, not when what follows from it is committed."""
    original = subscribers.IntakeSubscriber._arrived
    reading: set[asyncio.Task[None]] = set()

    async def read(self: subscribers.IntakeSubscriber, *event: Any) -> None:
        with suppress(AiosError):
            await original(self, *event)

    async def arrived(self: subscribers.IntakeSubscriber, *event: Any) -> None:
        task = asyncio.get_running_loop().create_task(read(self, *event))
        reading.add(task)
        task.add_done_callback(reading.discard)

    return replaced((subscribers.IntakeSubscriber, "_arrived", arrived))


def outbox_sent_out_of_order() -> Any:
    """What was committed is published with the last first."""
    original = outbox.OutboxRelay.publish

    async def publish(self: outbox.OutboxRelay, messages: Sequence[Any]) -> None:
        await original(self, list(reversed(messages)))

    return replaced((outbox.OutboxRelay, "publish", publish))


def redispatch_swallowed_by_the_duplicate_window() -> Any:
    """The message of a task has the same id each time it is handed out."""
    original = publisher.Publisher._lane_messages

    def messages(self: publisher.Publisher, lane: str, tasks: Any) -> list[Message]:
        made = original(self, lane, tasks)
        return [replace(message, message_id=message.message_id.partition("#")[0]) for message in made]

    return replaced((publisher.Publisher, "_lane_messages", messages))


def tasks_lost_with_the_bus() -> Any:
    """A bus that lost everything is not given its tasks again, and no lease ends."""

    async def restarted(self: module.Orchestrator, wiped: bool) -> None:
        return None

    return replaced(
        (module.Orchestrator, "_restarted", restarted),
        (publisher.Delivery, "expired", lambda self, now, limit=0: []),
        (publisher.Delivery, "next_lease_end", lambda self: None),
    )


def an_attempt_settled_twice() -> Any:
    """An outcome counts although its step has ended, so that its money is settled again."""

    def awaited(draft: draft.Draft, state: StepRun, outcome: Outcome) -> bool:
        return state.state in (st.STEP_STATE_DISPATCHED, st.STEP_STATE_SUCCEEDED, st.STEP_STATE_WAITING)

    return replaced((settle, "_awaited", awaited))


def approval_reused() -> Any:
    """A decision counts again after it was made, used or replaced."""
    return replaced(
        (approve, "_check", lambda draft, approval, request: None), (approve, "_decided_so", lambda *_: False)
    )


def approval_not_bound_to_what_was_shown() -> Any:
    """Whatever digest a person sends, the decision counts."""
    original = approve._check

    def check(draft: Any, approval: Any, request: Any) -> None:
        request.arguments_sha256 = approval.arguments_sha256
        original(draft, approval, request)

    return replaced((approve, "_check", check))


def inverse_run_twice() -> Any:
    """An undo that comes again is done again."""
    return replaced(
        (core, "next_undo", lambda *_, **__: core.Begin()),
        (effects.core, "next_undo", lambda *_, **__: core.Begin()),
    )


def undone_in_the_order_of_doing() -> Any:
    """The first change is taken back first."""
    original = undo.preview

    def preview(run: Run, only: Any = None) -> tuple[list[str], list[str]]:
        steps, impossible = original(run, only)
        return steps[::-1], impossible

    return replaced((undo, "preview", preview))


def put_back_in_the_order_of_taking() -> Any:
    """What was taken back last is put back last."""
    original = undo.redo_preview
    return replaced((undo, "redo_preview", lambda run: original(run)[::-1]))


def redone_under_the_key_of_the_undo() -> Any:
    """What is put back, and what is undone again, has the key of the undo before, which the ledger has settled."""

    def task_id(run: Run, step: StepRun) -> str:
        return effect_key(run.run_id, step.effect_name, 0, step.attempt_group)

    return replaced((undo, "task_id", task_id), (codec, "task_id", task_id))


def timer_lost_at_restart() -> Any:
    """What is due by itself is not kept with the run."""
    original = repository.Repository.writes

    def writes(self: repository.Repository, *arguments: Any) -> list[Write]:
        return [replace(write, due_ms=None) for write in original(self, *arguments)]

    return replaced((repository.Repository, "writes", writes))


def redelivered_task_done_again() -> Any:
    """A connector does not look into its ledger."""
    return replaced((effects.core, "next_move", lambda *_, **__: core.Begin()))


def effect_before_its_intent() -> Any:
    """The effect begins before the INTENT is durable, and so without it after a crash."""

    async def intended(ledger: object, entry: LedgerEntry, revision: int, *, sole_owner: bool) -> int:
        return revision

    return replaced((effects, "intended", intended))


def unknown_taken_for_failed() -> Any:
    """An outcome that nobody can know is tried again like a failure."""
    original = settle.settle

    def settled(draft: draft.Draft, outcome: Outcome) -> None:
        if outcome.status == STATUS_UNKNOWN:
            outcome.status, outcome.error.retryable = STATUS_FAILED, True
            state = draft.run.at(outcome.step)
            draft.run.step(state.name).attempt_group += 1
            outcome.task_id = f"{outcome.task_id.rpartition('/')[0]}/{state.attempt_group + 1}"
        original(draft, outcome)

    return replaced((settle, "settle", settled))


def answered_before_the_commit() -> Any:
    """Who submitted is answered while the commit is still under way, and a failure of it is nobody's."""
    original = engine.Engine._decide

    async def decided(self: engine.Engine, batch: list[Any]) -> None:
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_result([await self.decider._one(item, {}, 0) for item in waiting.items])
        try:
            await original(self, batch)
        except AiosError:
            return

    return replaced((engine.Engine, "_decide", decided))


def uncommitted_state_kept() -> Any:
    """After a commit that failed, or was lost to another, the next decision stands on what was not committed."""

    def forget(self: repository.Repository, workspace: str, run_id: str) -> None:
        return None

    return replaced((repository.Repository, "forget", forget))


def a_gap_in_the_chain() -> Any:
    """An event does not carry the hash of the one before it."""
    original = draft.Draft.emit

    def emit(self: draft.Draft, **body: Any) -> None:
        if "step_retry_scheduled" in body:
            self.run.last_hash = bytes(32)
        original(self, **body)

    return replaced((draft.Draft, "emit", emit))


def started_once_more_for_each_repetition() -> Any:
    """A request that comes again is a new one: the window in which it is known was forgotten."""
    original = commands.run_id
    counter = iter(range(1 << 30))

    def identifier(workspace: str, trigger: str, request: str) -> str:
        return original(workspace, trigger, f"{request}#{next(counter)}")

    return replaced((commands, "run_id", identifier))


def event_accepted_before_it_is_committed() -> Any:
    """An event from outside is answered, and what it starts is submitted afterwards."""

    async def accept(self: intake.Intake, event: Any) -> Any:
        return intake.AcceptEventResponse(event_id=event.id)

    return replaced((intake.Intake, "accept", accept))


def late_worker_says_failed() -> Any:
    """A change that ran out of time is reported as failed, although it may still happen."""

    def late(self: lanes.LaneWorker, task: Task, limit: float) -> Outcome:
        return Outcome(status=STATUS_FAILED, error=ev.StepFailed().error)

    return replaced((lanes.LaneWorker, "_out_of_time", late), (effects.codec, "unknown", _failed))


def lease_not_fenced() -> Any:
    """A replica that was cut off goes on deciding although its leases have ended."""

    def owns(self: ownership.SharedOwnership, partition: int) -> bool:
        return partition in self._mine

    def owned(self: ownership.SharedOwnership) -> Set[int]:
        return self._mine.keys()

    shared = ownership.SharedOwnership
    return replaced((shared, "owns", owns), (shared, "owned", owned))


def lease_renewed_by_the_bus_alone() -> Any:
    """A replica that reaches the bus counts its lease as renewed, whether or not the table has it."""
    original = ownership.SharedOwnership._beat

    async def beat(self: ownership.SharedOwnership) -> None:
        await self._bus.ping(ownership.PING_S)
        self._until = ownership._clock() + leases.LEASE_MS
        await original(self)

    return replaced((ownership.SharedOwnership, "_beat", beat))


def restored_ledger_believed() -> Any:
    """What a restored ledger does not know has not happened."""

    async def of(self: restored.AfterRestore, key: str, action: Any) -> None:
        return None

    return replaced((restored.AfterRestore, "of", of))


def asked_for_ever_after_a_restore() -> Any:
    """Of a compensation it is not known that a person was asked about the one before."""

    def before(key: str) -> str | None:
        step, _, group = key.rpartition("/")
        return f"{step}/{int(group) - 1}" if group.isdigit() and int(group) > 0 else None

    return replaced((core, "attempt_before", before))


def revision_check_left_out() -> Any:
    """A store changes a run whatever revision that was decided on."""
    original = store_memory.Tables.apply

    def apply(self: store_memory.Tables, write: Write) -> Any:
        known = self.read(write.key) if "/run/" in write.key else None
        stands = known.revision if known is not None else write.expect
        return original(self, replace(write, expect=stands))

    return replaced((store_memory.Tables, "apply", apply))


def lease_taken_from_the_living() -> Any:
    """A replica takes for dead whoever it has not seen renew since it looked last."""
    original = leases.Sightings.alive

    def alive(self: leases.Sightings, table: Any, now: int) -> frozenset[str]:
        seen = dict(self._seen)
        original(self, table, now)
        return frozenset(name for name in table.replicas if self._seen[name] != seen.get(name))

    return replaced((leases.Sightings, "alive", alive))


def work_of_a_dead_replica_is_nobodys() -> Any:
    """Whoever takes over does not look for what the dead one has handed out."""

    async def taken(self: takeover.Takeover, partitions: Any) -> None:
        pass

    async def sweep(self: takeover.Takeover) -> None:
        pass

    return replaced((takeover.Takeover, "taken", taken), (takeover.Takeover, "sweep", sweep))


def decided_on_what_another_replica_has_changed() -> Any:
    """That an input changes nothing is not checked against the store, where another replica has written since."""

    async def stands(self: repository.Repository, before: Any) -> bool:
        return True

    def forget(self: repository.Repository, others: Any) -> None:
        pass

    return replaced((repository.Repository, "stands", stands), (repository.Repository, "forget_all", forget))


def rounds_forgotten_at_restart() -> Any:
    """Read again, a map is as if none of its items had ended."""
    return replaced((codec, "rounds_of", lambda steps: Map(dict.fromkeys(rounds_of(steps), Rounds()))))


def what_stands_is_done_again() -> Any:
    """A rewind asks neither what stands nor what may have happened."""
    return replaced((recover, "_check", lambda draft, what, name, again: None))


def _failed(task: Task, why: str, token: bytes = b"") -> Outcome:
    return Outcome(status=STATUS_FAILED, error=decide.error_of(AiosError("ACTION_FAILED", why)))


FRESH: Final = range(1_000_000, 1_010_000)
NEXT: Final = range(1, 600)  # tried when the product has changed so that a recorded seed tells another story

# Each defect with a seed in which it shows.
DEFECTS: Final[dict[Plant, int]] = {
    acknowledge_before_commit: 193,
    outbox_sent_out_of_order: 1,
    redispatch_swallowed_by_the_duplicate_window: 3,
    tasks_lost_with_the_bus: 8,
    an_attempt_settled_twice: 1,
    approval_reused: 1,
    approval_not_bound_to_what_was_shown: 7,
    inverse_run_twice: 13,
    undone_in_the_order_of_doing: 3,
    put_back_in_the_order_of_taking: 44,
    redone_under_the_key_of_the_undo: 2,
    timer_lost_at_restart: 1,
    redelivered_task_done_again: 1,
    effect_before_its_intent: 3,
    unknown_taken_for_failed: 30,
    answered_before_the_commit: 1,
    uncommitted_state_kept: 73,
    a_gap_in_the_chain: 2,
    started_once_more_for_each_repetition: 1,
    event_accepted_before_it_is_committed: 1,
    late_worker_says_failed: 30,
    lease_not_fenced: 54,
    lease_renewed_by_the_bus_alone: 1,
    restored_ledger_believed: 68,
    asked_for_ever_after_a_restore: 128,
    revision_check_left_out: 1,
    lease_taken_from_the_living: 3,
    work_of_a_dead_replica_is_nobodys: 1,
    decided_on_what_another_replica_has_changed: 31,
    rounds_forgotten_at_restart: 1,
    event_heard_again: 5,
    what_stands_is_done_again: 6,
    queued_time_does_not_wait: 10,
    **APPROVALS,
    a_renamed_step_loses_what_it_did: 9,
    unanswered_change_taken_for_undone: 230,
    made_good_again_when_handed_out_again: 40,
    line_is_jumped: 6,
    who_goes_on_is_not_counted: 1,
    place_not_given_back: 6,
    what_became_anothers_is_counted: 235,
    next_room_of_a_rate_is_not_looked_for: 6,
    left_in_good_order_with_something_not_handed_out: 1,
    what_waits_for_its_place_taken_for_handed_out: 31,
    **planted_accounts.DEFECTS,
    **PLANS,
}


def main() -> None:
    """For each defect what broke in the first seed that failed, as JSON. `fresh` tries new seeds."""
    fresh = sys.argv[1:] == ["fresh"]
    told = {}
    for plant, seed in DEFECTS.items():
        found = planted(plant, FRESH if fresh else [seed, *NEXT])
        clean = planted(None, [found.seed if found is not None else seed])
        said = f"by seed {found.seed}: {found.violations[0]}" if found is not None else "not found"
        print(
            f"{len(told) + 1} of {len(DEFECTS)}, {plant.__name__}: {said}"[:150], file=sys.stderr, flush=True
        )
        told[plant.__name__] = {
            "found": list(found.violations) if found is not None else [],
            "without": list(clean.violations) if clean is not None else [],
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
