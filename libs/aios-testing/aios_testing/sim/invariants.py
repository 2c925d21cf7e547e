"""What must hold, checked when it could break: at each commit of a run, at each effect, and at the end over all."""

from collections import defaultdict
from typing import Any

from aios.effect.v1.effect_pb2 import LedgerEntry
from aios.event.v1.event_pb2 import Resolution
from aios.memory.v1.memory_pb2 import EpisodeRecord
from aios.resource.v1.resource_pb2 import ScheduleState
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, ApprovalState, RunHead, RunState, StepState
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode
from aios_core.hashing import event_hash, sha256
from aios_core.ids import effect_key, partition_of
from aios_core.values import plain
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core.fold import apply, born, fold
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import path_of, scope_of
from aios_runtime.store.port import Committed, Write
from aios_testing.sim.accounts import AccountWatch
from aios_testing.sim.broker import Broker
from aios_testing.sim.crowd import LineWatch
from aios_testing.sim.leases import KEY, LeaseWatch
from aios_testing.sim.parts import CONNECTORS, NOTED, NOTES, WORKSPACE
from aios_testing.sim.person import Person
from aios_testing.sim.planning import PlanWatch
from aios_testing.sim.record import Record
from aios_testing.sim.sender import Sender
from aios_testing.sim.store import Disk
from aios_testing.sim.workload import EFFECTS, GATES
from aios_testing.sim.world import EFFECT, REDO, UNDO, World

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
        self._effects_of: dict[str, list[str]] = defaultdict(list)
        self._used: dict[tuple[str, str], str] = {}
        disks["orchestrator"].committed = self._run_committed
        self.leases: LeaseWatch | None = None
        self.accounts = AccountWatch(record)
        self.plans = PlanWatch(record, world)
        world.happened = self._happened
        broker.heard = self._heard
        self.since_backup: frozenset[str] = frozenset()
        """Effects of which something has happened that a restored backup does not know."""
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

    def run_of_key(self, key: str) -> tuple[Run | None, str]:
        """The run and the step of an effect key, by the name that the step has now."""
        identifier, name, *_ = key.split("/")
        run = self.runs.get(_RUN + identifier)
        if run is not None and name not in run.steps:
            name = next((step.name for step in run.steps.values() if step.keyed_as == name), name)
        return run, name

    def _happened(self, key: str, way: str) -> None:
        world = self._world
        counts = {EFFECT: world.effects, UNDO: world.undos, REDO: world.redos}[way]
        effect = "/".join(key.split("/")[:4])
        # Who looks at what stands may do so under the same key again, as with what was made and taken back meanwhile.
        looks = way != EFFECT or world.stand(effect) < world.effects[effect]
        if effect in self.since_backup and looks:
            if world.stand(effect) not in (0, 1):
                self._record.violate(f"at most one {way} a key", f"{key}: {world.stand(effect)} stand")
        elif counts[key] > 1:
            self._record.violate(f"at most one {way} a key", f"{key}: {counts[key]}")
        run, step = self.run_of_key(key)
        if run is None:
            self._record.violate("an effect belongs to a run", key)
            return
        if way != EFFECT:
            self._gone_back(run, step, key, way)
            return
        self._effects_of[run.run_id].append(key)
        if key.split("/")[2] != "0":
            self._made_good(run, step, key)
            return
        self.plans.happened(run, step, key)
        gate = GATES.get((run.workflow, path_of(step)))
        if gate is not None:
            self._approved(run, step, scope_of(step) + gate, key)

    def _made_good(self, run: Run, step: str, key: str) -> None:
        """A compensation is a change of its own, in the place of an undo."""
        state = run.at(step)
        if run.state != R.RUN_STATE_UNDOING or not state.compensates:
            self._record.violate("what stands is not made good", key)
        self._record.count("made good")
        self._in_turn(run, state, key, UNDO)

    def _gone_back(self, run: Run, step: str, key: str, way: str) -> None:
        """An undo, or a redo, happened: of what stood, or did not, and after all that come before it."""
        effect = "/".join(key.split("/")[:4])
        made = self._world.effects.get(effect, 0)
        if made != 1 and not (made > 1 and effect in self.since_backup):
            self._record.violate("only what happened is taken back", key)
        if run.at(step).compensates:
            self._record.violate("what is made good is not undone as well", key)
        stands = self._world.stand(effect)
        if stands != (0 if way == UNDO else 1):
            self._record.violate("only what stands is undone, only what is undone redone", f"{key}: {stands}")
        self._in_turn(run, run.at(step), key, way)

    def _in_turn(self, run: Run, state: StepRun, key: str, way: str) -> None:
        own = state.effect_order
        waiting = [run.at(name) for name in run.undo_queue]
        before = [s.name for s in waiting if (s.effect_order > own) == (way == UNDO) and s.name != state.name]
        if before:
            self._record.violate(f"{way} in its order", f"{key} before {', '.join(before)}")

    def _approved(self, run: Run, step: str, gate: str, key: str) -> None:
        approval = run.approvals.get(run.at(gate).approval_id)
        if approval is None or approval.state != A.APPROVAL_STATE_APPROVED:
            self._record.violate("nothing without its approval", key)
            return
        signed = {assent.approver for assent in approval.assents}
        asked = {*approval.approvers, approval.escalated_to}
        if len(signed) < approval.need or not signed <= asked:
            self._record.violate("as many approvers as are needed", f"{key}: {', '.join(sorted(signed))}")
        if any(assent.time_ms < approval.create_time_ms for assent in approval.assents):
            self._record.violate("an approver approves what he was shown", key)
        self._record.count(f"approved by {approval.decided_by.partition('person:')[0] or 'a person'}")
        shown = next((item for item in approval.proposed if item.step == step), None)
        entry = self._ledger(key)
        if shown is None or entry is None or sha256(entry.input) != shown.arguments_sha256:
            self._record.violate("only what was approved", key)
            return
        if entry.approval_id != approval.approval_id:
            self._record.violate("only what was approved", f"{key} names {entry.approval_id}")
        use = (approval.approval_id, step)
        group = key.rpartition("/")[0]
        if self._used.setdefault(use, group) != group:
            self._record.violate("an approval is used once", f"{key} and {self._used[use]}")

    def _ledger(self, key: str) -> LedgerEntry | None:
        for name in CONNECTORS:
            found = self._disks[name].read(f"{WORKSPACE}/effect/{key}")
            if found is not None:
                return LedgerEntry.FromString(found.head)
        return None

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
            self._settled(run, person)
            self.plans.at_the_end(run, person.denied | self.since_backup)
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

    def _settled(self, run: Run, person: Person) -> None:
        """Effects and undos, step by step, against what the run says."""
        if run.mode != Mode.MODE_EXECUTE:
            if self._effects_of.get(run.run_id):
                self._record.violate("a simulation has no effect", run.run_id)
            return
        for key in self._effects_of.get(run.run_id, ()):
            left = any(self.run_of_key(key)[1] in plan.groups for plan in run.plans.values())
            if key not in self.since_backup and self.run_of_key(key)[1] not in run.steps and not left:
                self._record.violate("what happened belongs to a step", key)
        undone = all(s.state == S.STEP_STATE_UNDONE for s in run.changed_things())
        if run.state == R.RUN_STATE_UNDONE and not undone:
            self._record.violate("an undone run is undone", run.run_id)
        for step in run.steps.values():
            if (run.workflow, path_of(step.name)) not in EFFECTS or self._unknown_since(run, step):
                continue
            key = self._last_key(run, step)
            effects, stand = self._world.effects.get(key, 0), self._world.stand(key)
            state, code = step.state, step.error.code if step.error is not None else ""
            said_so = step.summary.startswith("a person saw")
            stands = sum(
                self._world.stand(old)
                for group in range(1, step.attempt_group + 1)
                if (old := effect_key(run.run_id, step.effect_name, 0, group)) not in person.denied
                and not (group < step.attempt_group and self._made(run, step, group, person))
            )
            if stands > 1:
                self._record.violate("nothing that stands is done again", f"{key}: {stands} stand")
            if state == S.STEP_STATE_SUCCEEDED and not said_so and (effects, stand) != (1, 1):
                self._record.violate(
                    "exactly one effect", f"{key} succeeded with {effects}, of which {stand} stands"
                )
            if state == S.STEP_STATE_FAILED and code != "OUTCOME_UNKNOWN" and effects:
                self._record.violate("what failed did not happen", f"{key}: {effects}, {code}")
            if step.compensates:
                known = step.compensation
                made = self._made(run, step, known.attempt_group if known else step.attempt_group, person)
                if made > 1 or (state == S.STEP_STATE_UNDONE and not said_so and made != 1):
                    self._record.violate("made good once", f"{key}: {made}")
            elif state == S.STEP_STATE_UNDONE and not said_so and stand:
                self._record.violate("exactly one undo", f"{key}: {effects} effects, {stand} stands")
            if state in (S.STEP_STATE_PENDING, S.STEP_STATE_SKIPPED) and effects and key not in person.denied:
                self._record.violate("nothing happens that nobody ordered", key)

    def _unknown_since(self, run: Run, step: StepRun) -> bool:
        """Whether a restored run may be wrong about what a step has changed; that nothing was done twice holds."""
        own = f"{run.run_id}/{step.effect_name}/"
        return any(key.startswith(own) for key in self.since_backup)

    def _made(self, run: Run, step: StepRun, group: int, person: Person) -> int:
        """How often a step was made good that was done in an attempt group, but for what a person said had not
        happened."""
        own = f"{run.run_id}/{step.effect_name}/"
        made = [
            key
            for key in self._world.effects
            if key.startswith(own) and key.endswith(f"/{group}") and key.split("/")[2] != "0"
        ]
        return sum(self._world.effects[key] for key in made if key not in person.denied)

    def _last_key(self, run: Run, step: StepRun) -> str:
        """The step's own key; that of an earlier attempt group where a person was asked about its undo since."""
        keys = [
            effect_key(run.run_id, step.effect_name, 0, group) for group in range(1, step.attempt_group + 1)
        ]
        done = [key for key in keys if self._world.effects.get(key)]
        return done[-1] if done and step.effect_order else keys[-1]


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
