"""What must hold, checked when it could break: at each commit of a run, at each effect, and at the end over all."""

from collections import defaultdict
from typing import Any

from aios.event.v1.event_pb2 import Resolution
from aios.memory.v1.memory_pb2 import EpisodeRecord
from aios.resource.v1.resource_pb2 import ScheduleState
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, ApprovalState, RunHead, RunState, StepState
from aios_core.encoding import decode
from aios_core.hashing import event_hash
from aios_core.ids import partition_of
from aios_core.values import plain
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core.fold import apply, born, fold
from aios_orchestrator.model import Run
from aios_runtime.store.port import Committed, Write
from aios_testing.sim.accounts import AccountWatch
from aios_testing.sim.broker import Broker
from aios_testing.sim.crowd import LineWatch
from aios_testing.sim.effects import EffectWatch
from aios_testing.sim.leases import KEY, LeaseWatch
from aios_testing.sim.parts import NOTED, NOTES, WORKSPACE
from aios_testing.sim.person import Person
from aios_testing.sim.planning import PlanWatch
from aios_testing.sim.record import Record
from aios_testing.sim.sender import Sender
from aios_testing.sim.store import Disk
from aios_testing.sim.world import World

S, A, R = StepState, ApprovalState, RunState
MANY: int = 10_000
_RUN = f"{WORKSPACE}/run/"


class Invariants:
    """Watches the disks and the world."""

    def __init__(self, record: Record, disks: dict[str, Disk], world: World, broker: Broker) -> None:
        self._record, self._disks, self._world, self._broker = record, disks, world, broker
        self.runs: dict[str, Run] = {}
        self.lines = LineWatch(record, self.runs)
        self._positions: dict[int, int] = defaultdict(int)
        disks["orchestrator"].committed = self._run_committed
        self.leases: LeaseWatch | None = None
        self.accounts = AccountWatch(record)
        self.plans = PlanWatch(record, world)
        self.effects = EffectWatch(record, disks, world, self.runs, self.plans)
        world.happened = self.effects.happened
        broker.heard = self._heard
        self._notes = 0
        self._open: dict[tuple[str, str], int] = defaultdict(int)
        self._waits: dict[tuple[str, str], float] = {}  # when a wait for an event was committed

    def _run_committed(self, write: Write, result: Committed) -> None:
        if self.leases is not None and write.key == KEY:
            self.leases.committed(write, result)
        for event, position in zip(write.events, result.positions, strict=True):
            if position != self._positions[event.partition] + 1:
                self._record.violate("positions are gapless", f"{event.partition}: {position}")
            self._positions[event.partition] = position
        self.lines.committed(write)
        self.accounts.committed(write)
        if not write.key.startswith(_RUN) or not write.head:
            return
        before = self.runs.get(write.key)
        run = before
        for filed in write.events:
            told = RunEvent.FromString(filed.data)
            body = str(told.WhichOneof("body"))
            self._record.transitions += 1
            self._record.tell(f"event {told.run_id[-6:]} {told.sequence} {body}")
            self._record.count(f"event {body}")
            self._attempts(told, body, run)
            if run is None:
                run = born(told)
            if told.previous_hash != run.last_hash or told.sequence != run.sequence + 1:
                self._record.violate("the hash chain is whole", f"{told.run_id} {told.sequence} {body}")
                return
            known, run = run, run.copy()  # the copy is what may be changed
            apply(run, told, event_hash(filed.data))
            self.accounts.filed(told, known, run)
        if run is None:
            self._record.violate("fold(events) == state", f"{write.key} has a state and no event")
            return
        if write.key not in self.runs and run.trigger == "schedule:tick":
            self._record.count("a schedule's time was run")
        self.plans.changed(before, run)
        self.runs[write.key] = run
        self._scheduled(run)
        if run.concurrency is not None:
            self.lines.changed(run)
        head = head_of(run)
        if self.leases is not None:
            self.leases.run(head)
        if head.SerializeToString() != write.head:
            self._record.violate("fold(events) == state", f"{write.key} at {run.sequence}")
        self._money(run)

    def _heard(self, subject: str, message_id: str, data: bytes) -> None:
        """What the clerk says comes in order, first time for first time."""
        if self.leases is not None:
            self.leases.heard(str(self._broker.incarnation), subject, data)
        if subject != NOTED:
            return
        number = int(message_id.removeprefix("note-"))
        if number > self._notes:
            self._record.violate("an outbox keeps its order", f"{number} before {self._notes}")
        self._notes = max(self._notes, number + 1)

    def _attempts(self, event: RunEvent, body: str, run: Run | None) -> None:
        """What was handed out is settled once: by an outcome, or by a person where that was UNKNOWN; and a success of
        work that was done twice counts after a failure of it."""
        if body == "wait_started" and event.wait_started.awaits:
            self._waits[event.run_id, event.wait_started.step] = self._record.time()
        if body == "step_succeeded" and event.step_succeeded.HasField("cached"):
            self._record.count("answered once more")
        if body == "step_scheduled":
            if run is not None and run.stopping:
                self._record.violate(
                    "what stops begins nothing more", f"{event.run_id} {event.step_scheduled.step}"
                )
            self._open[(event.run_id, event.step_scheduled.step)] += 1
        if body not in _SETTLES:
            return
        told = getattr(event, body)
        key = (event.run_id, told.step)
        if key not in self._open or run is None or run.undo_queue or event.actor.startswith("person:"):
            return
        if body == "step_succeeded" and run.at(told.step).state == S.STEP_STATE_WAITING:
            self._record.count("done, and failed as well")
            return
        before = run.at(told.step).state
        if body == "step_failed" and (told.error.code == "BUDGET_EXCEEDED" or before == S.STEP_STATE_PENDING):
            return  # it was not handed out
        if body == "step_failed" and told.error.code == "ROUND_FAILED":
            self._record.count("given up with its round")
            return
        if body == "step_failed" and before == S.STEP_STATE_WAITING:
            self._record.count("out of time between two attempts")
            return
        self._open[key] -= 1
        if self._open[key] < 0:
            self._record.violate("an attempt is settled once", f"{event.run_id} {told.step} {body}")

    def _money(self, run: Run) -> None:
        holds = sum(step.hold for step in run.steps.values())
        if run.held + run.settled > run.cap or run.held < 0:
            self._record.violate(
                "money", f"{run.run_id}: {run.held} held, {run.settled} settled of {run.cap}"
            )
        if run.held != holds or run.settled != sum(step.cost for step in run.steps.values()):
            self._record.violate("money", f"{run.run_id}: the run's sums are not those of its steps")

    def unfinished(self) -> list[str]:
        """What still goes on, and not only because nobody sends a second time what a person went back to hear."""
        return [run.run_id for run in self.runs.values() if not run.closed and not _hears_again(run)]

    def all_noted(self) -> bool:
        """Whether every message of the clerk's outbox was said."""
        return self._notes == 2 * NOTES

    def all_told(self) -> bool:
        """Whether memory has told every event that was filed."""
        memory = self._disks["memory"]
        for partition, position in self._positions.items():
            told = memory.read(f"{WORKSPACE}/episodes/{partition:04}")
            if told is None or int(told.head) != position:
                return False
        return True

    def at_the_end(self, person: Person) -> None:
        """Once everything is quiet."""
        self.accounts.at_the_end()
        for identifier in person.accepted:
            if _RUN + identifier not in self.runs:
                self._record.violate("no accepted run is lost", identifier)
        found = self._disks["orchestrator"].scan(f"{WORKSPACE}/resolution/", limit=MANY).items
        kept = {Resolution.FromString(item.head).event_data for item in found}
        for name, data in person.events.items():
            if data not in kept:
                self._record.violate("no accepted event is lost", name)
        for key, run in self.runs.items():
            self._whole(key, run)
            self.effects.settled(run, person)
            self.plans.at_the_end(run, person.denied | self.effects.since_backup)
            if run.fork is not None and any(effect.startswith(run.run_id) for effect in self._world.effects):
                self._record.violate("a fork changes nothing", run.run_id)

    def all_ticked(self) -> bool:
        """Whether the schedule has come to all its times; each of them has one run."""
        stored = self._disks["orchestrator"].read(f"{WORKSPACE}/schedule/tick")
        state = ScheduleState.FromString(stored.head) if stored is not None else None
        if state is None or state.next_time_ms or state.starting or state.queued:
            return False
        runs = sum(run.trigger == "schedule:tick" for run in self.runs.values())
        if runs > state.runs:
            self._record.violate("a time has one run", f"{runs} runs of {state.runs} times")
        return True

    def _scheduled(self, run: Run) -> None:
        """Of a schedule that lets times wait one run goes on at a time."""
        if run.trigger != "schedule:tick" or run.closed:
            return
        others = [r.request for r in self.runs.values() if r.trigger == run.trigger and not r.closed]
        if len(others) > 1:
            self._record.violate("what is queued waits", ", ".join(others))

    def all_heard(self, sender: Sender) -> None:
        """Each event that was heard is one that was sent, and let the run go on once."""
        for run in self.runs.values():
            heard = []
            for name in ("maybe", "reply") if run.workflow == "hear" and run.fork is None else ():
                output: Any = (
                    plain(decode(run.at(name).output)) if run.at(name).output else {"timed_out": True}
                )
                if output["timed_out"]:
                    self._record.count("waited in vain for an event")
                    continue
                event = output["event"]["id"]
                heard.append(event)
                answered = sender.accepted.get(event)
                if answered is None:
                    self._record.violate("what is heard was sent", f"{run.run_id}: {event}")
                elif answered < self._waits[run.run_id, name]:
                    self._record.count("heard what came before")
                else:
                    self._record.count("heard an event")
            if len(set(heard)) < len(heard):
                self._record.violate("an event is heard once", f"{run.run_id}: {heard}")

    def _whole(self, key: str, run: Run) -> None:
        disk = self._disks["orchestrator"]
        history = [filed.data for filed in disk.events_of(key, 0, MANY)]
        aggregate = disk.read(key)
        assert aggregate is not None
        stored = run_of(RunHead.FromString(aggregate.head), disk.records(key, limit=MANY))
        try:
            folded = fold(history)
        except ValueError as error:
            self._record.violate("the hash chain is whole", str(error))
            return
        if _plain(folded) != _plain(stored) or _plain(folded) != _plain(run):
            self._record.violate(
                "fold(events) == state", f"{run.run_id}: what is stored is not what happened"
            )
        memory = self._disks["memory"]
        prefix = f"{run.run_id}:"
        records = memory.records(f"{WORKSPACE}/episodes/{partition_of(run.slot):04}", prefix, limit=MANY)
        told = sum(len(EpisodeRecord.FromString(record).episodes) for record in records.values())
        if told != len(history):
            self._record.violate("every event is told once", f"{run.run_id}: {told} of {len(history)}")
        for approval in run.approvals.values():
            listed = disk.read(f"{WORKSPACE}/approval/{approval.approval_id}")
            if listed is None or _is_open(Approval.FromString(listed.head)) != _is_open(approval):
                self._record.violate("the listing shows what stands", approval.approval_id)


def _hears_again(run: Run) -> bool:
    live = run.lively()
    waits = [step for step in live if step.state == S.STEP_STATE_WAITING and step.awaits and not step.due]
    return bool(run.reopened and live) and len(waits) == len(live)


def _is_open(approval: Approval) -> bool:
    return bool(approval.state == ApprovalState.APPROVAL_STATE_OPEN)


def _plain(run: Run) -> Run:
    copy = run.copy()
    copy.decoded = {}
    return copy


_SETTLES = frozenset({"step_succeeded", "step_failed", "step_retry_scheduled", "step_unknown"})
