"""What must hold of effects, counted from outside: at most one a key, only as it was approved, undone in its order; and
what the runs say of them at the end."""

from collections import defaultdict

from aios.effect.v1.effect_pb2 import LedgerEntry
from aios.run.v1.state_pb2 import ApprovalState, RunState, StepState
from aios.task.v1.task_pb2 import Mode
from aios_core.hashing import sha256
from aios_core.ids import effect_key
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import path_of, scope_of
from aios_testing.sim.parts import CONNECTORS, WORKSPACE
from aios_testing.sim.person import Person
from aios_testing.sim.planning import PlanWatch
from aios_testing.sim.record import Record
from aios_testing.sim.store import Disk
from aios_testing.sim.workload import changes, gate_of
from aios_testing.sim.world import EFFECT, REDO, UNDO, World

S, A, R = StepState, ApprovalState, RunState
_RUN = f"{WORKSPACE}/run/"


class EffectWatch:
    """Looks at each effect when it happens. `runs` are as they were committed last."""

    def __init__(
        self,
        record: Record,
        disks: dict[str, Disk],
        world: World,
        runs: dict[str, Run],
        plans: PlanWatch,
    ) -> None:
        self._record, self._disks, self._world, self._runs, self._plans = record, disks, world, runs, plans
        self._effects_of: dict[str, list[str]] = defaultdict(list)
        self._used: dict[tuple[str, str], str] = {}
        self.since_backup: frozenset[str] = frozenset()
        """Effects of which something has happened that a restored backup does not know."""

    def _run_of_key(self, key: str) -> tuple[Run | None, str]:
        """The run and the step of an effect key, by the name that the step has now."""
        identifier, name, *_ = key.split("/")
        run = self._runs.get(_RUN + identifier)
        if run is not None and name not in run.steps:
            name = next((step.name for step in run.steps.values() if step.keyed_as == name), name)
        return run, name

    def happened(self, key: str, way: str) -> None:
        """Something was done in the world: an effect, its undo or its redo, under a key."""
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
        run, step = self._run_of_key(key)
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
        self._plans.happened(run, step, key)
        gate = gate_of(run.workflow, path_of(step))
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

    def settled(self, run: Run, person: Person) -> None:
        """Effects and undos, step by step, against what the run says."""
        if run.mode != Mode.MODE_EXECUTE:
            if self._effects_of.get(run.run_id):
                self._record.violate("a simulation has no effect", run.run_id)
            return
        for key in self._effects_of.get(run.run_id, ()):
            left = any(self._run_of_key(key)[1] in plan.groups for plan in run.plans.values())
            if key not in self.since_backup and self._run_of_key(key)[1] not in run.steps and not left:
                self._record.violate("what happened belongs to a step", key)
        undone = all(s.state == S.STEP_STATE_UNDONE for s in run.changed_things())
        if run.state == R.RUN_STATE_UNDONE and not undone:
            self._record.violate("an undone run is undone", run.run_id)
        for step in run.steps.values():
            if not changes(run.workflow, path_of(step.name)) or self._unknown_since(run, step):
                continue
            key = self._last_key(run, step)
            effects, stand = self._world.effects.get(key, 0), self._world.stand(key)
            state, code = step.state, step.error.code if step.error is not None else ""
            said_so = step.summary.startswith("a person saw")
            stands = sum(
                self._world.stand(old)
                for group in range(1, step.attempt_group + 1)
                if (old := effect_key(run.run_id, step.effect_name, 0, group)) not in person.denied
                and not (group < step.attempt_group and self._made_since(run, step, group, person))
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

    def _made_since(self, run: Run, step: StepRun, group: int, person: Person) -> bool:
        """Whether what was done in an attempt group was made good. Where a person said that it had happened, that
        counts as of the next group, in which nothing was done then."""
        following = effect_key(run.run_id, step.effect_name, 0, group + 1)
        groups = (group,) if self._world.effects.get(following) else (group, group + 1)
        return any(self._made(run, step, of, person) for of in groups)

    def _last_key(self, run: Run, step: StepRun) -> str:
        """The step's own key; that of an earlier attempt group where a person was asked about its undo since."""
        keys = [
            effect_key(run.run_id, step.effect_name, 0, group) for group in range(1, step.attempt_group + 1)
        ]
        done = [key for key in keys if self._world.effects.get(key)]
        return done[-1] if done and step.effect_order else keys[-1]
