"""What the person does under some seeds besides. Each draws from a stream of its own, so that the others go on as they
did before it came."""

from random import Random

from aios_testing.sim import aside, forking, mending, migrating
from aios_testing.sim.person import Person
from aios_testing.sim.record import Record


def give(person: Person, seed: int, record: Record) -> None:
    """Draw which they are under this seed."""
    mends, forks, moves = Random(f"mend {seed}"), Random(f"fork {seed}"), Random(f"move {seed}")
    if mends.random() < mending.SHARE:
        person.mending = mending.Mending(mends, record)
    if forks.random() < forking.SHARE:
        person.forking = forking.Forking(forks, record)
    person.aside = aside.drawn(seed, record)
    if moves.random() < migrating.SHARE:
        person.migrating = migrating.Migrating(moves, record)
