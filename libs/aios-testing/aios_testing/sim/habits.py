"""What the person does under some seeds beside starting, deciding and stopping; each habit draws from its own
stream."""

from random import Random

from aios.run.v1.state_pb2 import Approval
from aios_core.ids import effect_key
from aios_orchestrator.core import compensate
from aios_orchestrator.model import Run
from aios_sdk.host.codec import effect_of_token
from aios_testing.sim import aside, forking, mending, migrating, planning, raising, undoing
from aios_testing.sim.person import Person
from aios_testing.sim.record import Record


def give(person: Person, seed: int, record: Record) -> None:
    """Give the person the habits of a seed."""
    mends, forks, moves = Random(f"mend {seed}"), Random(f"fork {seed}"), Random(f"move {seed}")
    undoes = Random(f"undo {seed}")
    if mends.random() < mending.SHARE:
        person.mending = mending.Mending(mends, record)
    if forks.random() < forking.SHARE:
        person.forking = forking.Forking(forks, record)
    person.aside = aside.drawn(seed, record)
    person.planning = planning.drawn(seed, record)
    person.raising = raising.drawn(seed, record)
    if moves.random() < migrating.SHARE:
        person.migrating = migrating.Migrating(moves, record)
    if undoes.random() < undoing.SHARE:
        person.undoing = undoing.Undoing(undoes, record)


def effect_of(run: Run, approval: Approval) -> str:
    """What the world calls that of which an approval asks whether it happened."""
    step = run.at(approval.step)
    made_good = compensate.running(step) if run.undo_queue else None
    if made_good is not None:
        return compensate.key_of(run, step, made_good)
    own = effect_key(run.run_id, step.effect_name, 0, step.attempt_group)
    if step.undo_token and ("the redo of" in approval.title or "the undo of" in approval.title):
        own = effect_of_token(step.undo_token)
    if "the redo of" in approval.title:
        return f"{own}/redo-{run.redos}"
    if "the undo of" in approval.title and run.redos:
        return f"{own}/undo-{run.redos}"
    return own
