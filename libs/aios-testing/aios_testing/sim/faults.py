"""What goes wrong in one simulation: rates for what can happen to every message, and events with their time and place.

A plan is drawn from the seed. Each plan leaves some kinds out, so that over many seeds every mixture is met.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

HORIZON: Final = 90.0  # seconds: when the faults stop
BRIEF: Final = 20.0  # when they do in a brief simulation

RATES: Final[Mapping[str, float]] = {
    "lose_message": 0.04,  # a publish is lost on its way; its sender gets an error
    "lose_confirmation": 0.04,  # it is stored; its sender gets an error
    "lose_delivery": 0.04,  # what was delivered never arrives
    "lose_ack": 0.08,  # the broker never hears that it was dealt with
    "double": 0.06,  # delivered twice
    "delay": 0.08,  # delivered seconds late, at times past the acknowledgement wait
    "reorder": 0.3,  # another one overtakes it
    "lose_answer": 0.05,  # of a question
    "call_lost": 0.05,  # a call to the outside world never gets there
    "call_silent": 0.06,  # it gets there, and its answer is lost
    "call_slow": 0.05,  # it takes long
    "store_before": 0.02,  # a commit fails, and nothing of it is there
    "store_after": 0.005,  # a commit fails, and all of it is there
    "store_slow": 0.05,  # a flush takes long
    "work_fails": 0.05,  # an agent fails for now
    "work_slow": 0.03,  # an agent takes longer than its time
}
KINDS: Final = ("crash", "pause", "partition", "wipe", "purge", "bus", "clock", "disk_full", "for_ever")
MOST: Final[Mapping[str, int]] = {
    "crash": 5,
    "pause": 2,
    "partition": 3,
    "wipe": 2,
    "purge": 1,
    "bus": 2,
    "clock": 2,
    "disk_full": 2,
    "for_ever": 2,
}


CUTS: Final = ("store_refused", "store_silent")  # of one replica's way to the database that it shares
CUT_SHARE: Final = 0.35  # of the plans with replicas
CUT_MOST: Final = 3


LEAVE_SHARE: Final = 0.3  # of the plans: processes are stopped in good order, as in an upgrade
LEAVE_MOST: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One event. `amount` is seconds it lasts; for a crash callbacks until it comes,
    for a clock the jump in ms, for messages that come for ever how many."""

    kind: str
    at: float
    place: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.place} at {self.at:.3f} s ({self.amount:g})"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that goes wrong, and the installation that it happens to: whether its connectors have two replicas each, the
    broker's duplicate window in seconds, whether a wiped broker still knows the ids that it has seen, and the seconds
    until nothing goes wrong any more."""

    rates: Mapping[str, float] = field(default_factory=dict)
    events: tuple[Fault, ...] = ()
    replicas: bool = False
    window: float = 10.0
    keeps_ids: bool = False
    horizon: float = HORIZON

    @property
    def brief(self) -> bool:
        """Whether there is less to do as well."""
        return self.horizon < HORIZON

    @property
    def set_back(self) -> float:
        """Seconds that a wait can last longer because clocks jump: dues are stored as times of a clock, and those that
        were put forward are set back when the faults stop."""
        return sum(abs(event.amount) for event in self.events if event.kind == "clock") / 1000

    def names(self) -> list[str]:
        """What can be left out, in a stable order: `rate` and `#<event>`."""
        return [*sorted(self.rates), *(f"#{number}" for number in range(len(self.events)))]

    def only(self, names: set[str]) -> "Plan":
        """What is left with these names alone."""
        return replace(
            self,
            rates={name: rate for name, rate in self.rates.items() if name in names},
            events=tuple(event for number, event in enumerate(self.events) if f"#{number}" in names),
        )


def draw(
    rng: Random,
    places: Sequence[str],
    storing: Sequence[str],
    replicas: frozenset[str],
    horizon: float = HORIZON,
) -> Plan:
    """A plan. `places` are the processes, `storing` the disks, `replicas` the processes that not every plan has."""
    replicated = rng.random() < 0.5
    places = [place for place in places if replicated or place not in replicas]
    rates = {
        name: rate * rng.choice((0.3, 1.0, 1.0, 3.0)) for name, rate in RATES.items() if rng.random() < 0.5
    }
    events = []
    for kind in KINDS:
        if rng.random() < 0.45:
            continue
        for _ in range(rng.randint(1, MOST[kind])):
            events.append(_event(rng, kind, places, storing, horizon))
    events.sort(key=lambda event: event.at)
    return Plan(
        rates,
        tuple(events),
        replicas=replicated,
        window=rng.choice((0.0, 10.0, 10.0, 86_400.0)),
        keeps_ids=rng.random() < 0.3,
        horizon=horizon,
    )


def with_cuts(plan: Plan, rng: Random, replicas: Sequence[str]) -> Plan:
    """A plan in which replicas are cut off from their database alone for a while, for some of the plans that have any.
    It is drawn from a stream of its own, so that the others stay as they are."""
    if not plan.replicas or rng.random() > CUT_SHARE:
        return plan
    cuts = [
        Fault(
            rng.choice(CUTS),
            round(rng.uniform(1.0, plan.horizon * 0.6), 3),
            rng.choice(replicas),
            round(rng.uniform(2.0, 30.0), 3),
        )
        for _ in range(rng.randint(1, CUT_MOST))
    ]
    return replace(plan, events=tuple(sorted((*plan.events, *cuts), key=lambda event: event.at)))


def with_leaves(plan: Plan, rng: Random, places: Sequence[str]) -> Plan:
    """A plan in which processes are told to stop, and start again, for some. From a stream of its own, as above."""
    if rng.random() > LEAVE_SHARE:
        return plan
    leaves = [
        Fault("leave", round(rng.uniform(0.5, plan.horizon * 0.9), 3), rng.choice(places))
        for _ in range(rng.randint(1, LEAVE_MOST))
    ]
    return replace(plan, events=tuple(sorted((*plan.events, *leaves), key=lambda event: event.at)))


def _event(rng: Random, kind: str, places: Sequence[str], storing: Sequence[str], horizon: float) -> Fault:
    at = round(rng.choice((rng.uniform(0, 5), rng.uniform(0, horizon * 0.8))), 3)
    place = rng.choice(places)
    if kind == "crash":
        return Fault(kind, at, place, rng.randint(1, 60))
    if kind == "pause":
        return Fault(kind, at, place, round(rng.choice((2.0, 20.0, 45.0)) * rng.random(), 3))
    if kind == "partition":
        return Fault(kind, at, place, round(rng.uniform(0.5, 30), 3))
    if kind == "clock":
        jump = rng.choice((-1, 1)) * rng.choice((50, 5_000, 90_000, 3_600_000))
        return Fault(kind, at, place, jump)
    if kind == "disk_full":
        return Fault(kind, at, rng.choice(storing), round(rng.uniform(0.5, 15), 3))
    if kind == "for_ever":
        return Fault(kind, at, "", rng.randint(1, 4))
    return Fault(kind, at, "", round(rng.uniform(0.1, 8), 3))  # the bus is away for so long
