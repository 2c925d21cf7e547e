"""What the person does under some seeds beside starting, deciding and stopping; each habit draws from its own
stream."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final

from aios.run.v1.state_pb2 import Approval
from aios_core.ids import effect_key
from aios_orchestrator.core import compensate
from aios_orchestrator.model import Run
from aios_sdk.host.codec import effect_of_token
from aios_testing.sim import (
    aside,
    composing,
    crowd,
    forking,
    mending,
    migrating,
    planning,
    raising,
    restoring,
    sender,
    signing,
    undoing,
)
from aios_testing.sim.person import Person
from aios_testing.sim.record import Record

if TYPE_CHECKING:
    from aios_testing.sim.simulation import Simulation

# What each draws from, how many of the seeds have it, and what it is.
_HABITS: Final[dict[str, tuple[str, float, Callable[[Random, Record], Any]]]] = {
    "mending": ("mend", mending.SHARE, mending.Mending),
    "forking": ("fork", forking.SHARE, forking.Forking),
    "migrating": ("move", migrating.SHARE, migrating.Migrating),
    "undoing": ("undo", undoing.SHARE, undoing.Undoing),
    "aside": ("aside", aside.SHARE, aside.Aside),
    "planning": ("plans", planning.SHARE, planning.Planning),
    "raising": ("raise", raising.SHARE, raising.Raising),
    "signing": ("sign", signing.SHARE, signing.Signing),
}
_ALONE: Final = (*_HABITS, "restoring", "sending", "crowd", "", "")


def alone(seed: int) -> str:
    """What a brief simulation has beside the runs: one habit, a restored backup, events, a crowd, or nothing."""
    return Random(f"alone {seed}").choice(_ALONE)


def give(person: Person, seed: int, record: Record, *, brief: bool) -> None:
    """Give the person the habits of a seed."""
    for name, (stream, share, habit) in _HABITS.items():
        rng = Random(f"{stream} {seed}")
        if (alone(seed) == name) if brief else (rng.random() < share):
            setattr(person, name, habit(rng, record))
    rng = Random(f"compose {seed}")
    if rng.random() < composing.SHARE:  # beside whatever else a brief one has
        person.composing = composing.Composing(rng, record)


def begin(of: "Simulation") -> None:
    """Begin what some seeds have beside the person: events that are sent, a crowd, a restored backup."""
    seed, loop, alone_has = of.seed, of.loop, alone(of.seed) if of.plan.brief else None
    if alone_has == "sending" or (alone_has is None and seed % sender.EVERY == 0):
        loop.spawn(of.outside, of.sender.run(sender.FIRST))
        loop.spawn(of.outside, of.sender.schedule())
    if alone_has == "crowd" or (alone_has is None and seed % crowd.EVERY == crowd.AT):
        loop.spawn(of.outside, crowd.Crowd(Random(f"crowd {seed}"), of.person, of.record).run())
    restore = restoring.drawn(seed) if alone_has is None else None
    if alone_has == "restoring":
        restore = restoring.Restoring(Random(f"restore {seed}"), of.plan.horizon)
    if restore is not None:
        restore.begin(of)


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
