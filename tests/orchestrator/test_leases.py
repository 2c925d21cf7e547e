"""Partitions go to replicas in equal shares, and change hands only with a new epoch."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.run.v1.leases_pb2 import Leases
from aios_core.ids import PARTITIONS, partition_of, partition_of_run
from aios_orchestrator.delivery import Delivery
from aios_orchestrator.leases import LEASE_MS, Sightings, at_work, left, owned, renewed, shares
from aios_orchestrator.ownership import ALL, SharedOwnership, Taken
from aios_orchestrator.repository import Repository
from aios_orchestrator.scheduler import Waiting
from aios_orchestrator.takeover import Takeover, handed_out
from aios_orchestrator.unsent import Unsent
from aios_testing.store_memory import MemoryStore
from tests.orchestrator.runs import Driver, workflow

pytestmark = pytest.mark.feature("L2")

NAMES = ("a", "b", "c", "d", "e")
MOVES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(("renew", "renew", "renew", "leave", "die")))
)


def checked(before: Leases, after: Leases) -> Leases:
    """No partition has a new owner without a new epoch, and no epoch comes again."""
    for old, new in zip(before.leases, after.leases, strict=False):
        assert new.epoch >= old.epoch
        assert not new.owner or new.owner == old.owner or new.epoch == old.epoch + 1
    return after


@given(moves=MOVES, rest=st.sets(st.sampled_from(NAMES), min_size=1))
def test_whoever_comes_and_goes_those_who_stay_share_all_partitions_equally(
    moves: list[tuple[str, str]], rest: set[str]
) -> None:
    table, alive = Leases(), set[str]()
    for name, what in moves:
        if what == "renew":
            alive.add(name)
            table = checked(table, renewed(table, name, name, alive))
        elif what == "leave" and name in alive:
            alive.discard(name)
            table = checked(table, left(table, name))
        else:
            alive.discard(name)
    for _ in range(3):
        for name in sorted(rest):
            table = checked(table, renewed(table, name, name, rest))
    counts = sorted(len(owned(table, name)) for name in rest)
    assert sum(counts) == PARTITIONS
    assert counts[-1] - counts[0] <= 1
    assert counts == sorted(shares(dict.fromkeys(rest)).values())


def test_what_was_let_go_of_is_at_work_and_what_a_dead_one_had_is_not() -> None:
    table = renewed(Leases(), "a", "a", {"a"})
    assert len(owned(table, "a")) == PARTITIONS
    taken = renewed(left(table, "a"), "b", "b", {"b"})
    assert all(lease.released for lease in taken.leases)
    taken = renewed(taken, "c", "c", {"c"})  # b is dead
    assert len(owned(taken, "c")) == PARTITIONS
    assert not any(lease.released for lease in taken.leases)


def test_what_is_let_go_of_is_at_work_only_where_all_of_it_is_on_the_bus_that_there_is() -> None:
    table = renewed(Leases(), "a", "a", {"a"})
    taken = renewed(left(table, "a", {3}, "one"), "b", "b", {"b"})
    assert [at for at, lease in enumerate(taken.leases) if not at_work(lease, "one")] == [3]
    assert not any(at_work(lease, "another") for lease in taken.leases)
    shared = renewed(taken, "c", "c", {"b", "c"})  # b has too much of it from now on
    shared = renewed(shared, "b", "b", {"b", "c"}, behind=lambda: {PARTITIONS - 1}, bus="one")
    shared = renewed(shared, "c", "c", {"b", "c"})
    told = {at: at_work(shared.leases[at], "one") for at in owned(shared, "c")}
    assert told == {at: at != PARTITIONS - 1 for at in range(PARTITIONS // 2, PARTITIONS)}


def test_what_is_not_on_the_bus_is_known_until_it_is_and_what_never_will_be_for_good() -> None:
    unsent, runs = Unsent(), [f"run_{number}" for number in range(4)]
    places = [partition_of_run(run) for run in runs]
    first, second = unsent.begin(runs[:1]), unsent.begin()
    second.runs.append(runs[1])  # it goes out with others
    assert unsent.partitions() == {*places[:2]}
    unsent.end(first)
    unsent.give_up(first)  # it has come to its end already
    assert unsent.partitions() == {places[1]}
    unsent.give_up(second)
    assert unsent.partitions() == {places[1]}
    unsent.forget({places[1]})
    assert not unsent.partitions()


def test_what_became_anothers_while_it_was_on_its_way_is_known_even_when_it_has_come_back() -> None:
    unsent, runs = Unsent(), [f"run_{number}" for number in range(2)]
    early = unsent.begin(runs)
    unsent.forget({partition_of_run(runs[0])})
    late = unsent.begin(runs)
    assert [early.lost(run) for run in runs] == [True, False]
    assert not any(late.lost(run) for run in runs)


def test_a_replica_is_dead_only_when_it_was_silent_for_a_lease_by_the_clock_of_who_looks() -> None:
    table = renewed(Leases(), "a", "a", {"a"})
    sightings = Sightings()
    assert sightings.alive(table, 50_000) == {"a"}, "seen for the first time, however long ago it was"
    assert sightings.alive(table, 50_000 + LEASE_MS - 1) == {"a"}
    assert sightings.alive(table, 50_000 + LEASE_MS) == set()
    table = renewed(table, "a", "a", {"a"})
    assert sightings.alive(table, 90_000) == {"a"}


def test_a_replica_that_was_dropped_and_came_back_is_not_taken_for_the_one_that_was_seen_before() -> None:
    sightings, table = Sightings(), renewed(Leases(), "b", "b", {"b"})
    for beat in range(2):
        table = renewed(table, "a", "a", {"a", "b"}, beat)
    assert "a" in sightings.alive(table, 0)
    table = renewed(table, "b", "b", {"b"}, 1)  # `b` was away, and drops `a`
    for beat in range(2, 4):  # which comes back, and renews as often as it had before
        table = renewed(table, "a", "a", {"a"}, beat)
    assert "a" in sightings.alive(table, LEASE_MS + 500)
    table = renewed(left(table, "a"), "a", "a's next life", {"a"}, 3)
    assert "a" in sightings.alive(table, 2 * LEASE_MS + 1_000)


@given(st.lists(st.tuples(st.sampled_from(("r1", "r2", "r3")), st.booleans()), max_size=20))
def test_what_is_let_go_of_frees_its_places(tasks: list[tuple[str, bool]]) -> None:
    delivery = Delivery(window=2)
    for number, (run, _) in enumerate(tasks):
        delivery.adopt(Waiting(run, f"s{number}"), "agent", 100)
    delivery.let_go(lambda run: run != "r2")
    assert {key.run_id for key in delivery.all_out()} <= {"r1", "r3"}
    assert delivery.counts().get("agent", (0, 0))[0] == sum(run != "r2" for run, _ in tasks)


async def test_runs_that_were_written_before_there_were_partitions_are_found() -> None:
    driver = Driver(workflow("- {name: a, agent: x}"))
    run = driver.run
    store = MemoryStore(lambda: 0)
    repository = Repository(store)
    (write,) = repository.writes(None, run, run.own, [], {}, driver.workflow)
    await store.commit([replace(write, index={**write.index, "out": "", "active": "main"})])
    unused: Any = None
    takeover = Takeover(repository, unused, unused, unused, unused, unused, unused, "main")
    await takeover._refile()
    found = [head async for heads in handed_out(store, "main", partition_of(run.slot)) for head in heads]
    assert [head.run_id for head in found] == [run.run_id]
    assert not (await store.query("active", "main")).items


async def test_what_a_replica_has_kept_of_a_run_does_not_say_what_is_handed_out() -> None:
    """Another one has decided for it meanwhile: its tasks are watched over as the store says."""
    driver = Driver(workflow("- {name: a, agent: x}\n- {name: b, agent: x}"))
    store: Any = MemoryStore(lambda: 0)
    store.shared = True
    repository, publisher = Repository(store), _Watching()

    async def commit(before: Any) -> None:
        run = driver.run
        writes = repository.writes(before, run, run.own, list(driver.last.events), {}, driver.workflow)
        await store.commit(writes)

    await commit(None)
    kept = await repository.view("main", "run_test")
    assert kept is not None
    repository.keep(kept.run, kept.revision)
    driver.settle("a")
    await commit(kept)  # the other replica's

    class Resources:
        async def followed(self, run: object) -> Any:
            return driver.workflow

    unused: Any = None
    everything: Any = Resources()
    takeover = Takeover(repository, everything, unused, publisher, unused, unused, unused, "main")  # type: ignore[arg-type]
    heads = [head async for some in handed_out(store, "main", partition_of(driver.run.slot)) for head in some]
    await takeover._adopt(heads, lambda: False)
    assert publisher.adopted == [], "it was lost with the bus meanwhile"
    await takeover._adopt(heads, lambda: True)
    assert publisher.adopted == ["b"]


class _Bus:
    incarnation = "1"

    async def ping(self, seconds: float) -> None:
        pass


def alone() -> tuple[SharedOwnership, _Bus]:
    """The only replica on a store that others may share, and its bus."""
    store: Any = MemoryStore(lambda: 0)
    store.shared = True
    bus: Any = _Bus()
    return SharedOwnership(store, bus, "main", "a", "a.1"), bus


async def test_a_take_over_that_a_wiped_bus_overtakes_finds_nothing_at_work_and_comes_once_more() -> None:
    """It watched over tasks that were on the bus that was wiped, and the next one passed over them."""
    ownership, bus = alone()
    told: asyncio.Queue[Taken] = asyncio.Queue()
    goes_on = asyncio.Event()
    goes_on.set()

    async def taken(partitions: Taken) -> None:
        told.put_nowait(partitions)
        await goes_on.wait()

    ownership.taken = taken
    await ownership.start()
    try:
        assert set((await told.get()).values()) == {False}
        goes_on.clear()
        ownership._set({})  # its lease ended, and nobody else took them
        await ownership._beat()
        under_way = await told.get()
        assert set(under_way.values()) == {True}, "what it has handed out itself is at work"
        bus.incarnation = "2"
        ownership.bus_wiped()
        assert set(under_way.values()) == {False}
        goes_on.set()
        again = await told.get()
        assert set(again) == set(ALL) and set(again.values()) == {False}
    finally:
        await ownership.stop()


async def test_a_replica_whose_leases_have_just_ended_hands_out_again_what_a_wiped_bus_has_lost() -> None:
    """It handed out nothing in that moment, since nothing was its own, and when it was again nobody told it anew."""
    ownership, bus = alone()
    told: asyncio.Queue[Taken] = asyncio.Queue()
    lost: list[frozenset[int]] = []
    ownership.taken, ownership.lost = told.put, lost.append
    await ownership.start()
    try:
        await told.get()
        ownership._until = 0  # and no renewal has failed yet
        bus.incarnation = "2"
        ownership.bus_wiped()
        assert lost == [ALL]
        await ownership._beat()
        assert set((await told.get()).items()) == dict.fromkeys(ALL, False).items()
    finally:
        await ownership.stop()


class _Watching:
    """Remembers what it is to watch over."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.adopted: list[str] = []

    def adopt(self, run: object, workflow: object, name: str) -> None:
        self.adopted.append(name)
