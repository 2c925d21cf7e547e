"""Random histories of a store, compared step by step with the model in memory."""

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aios_runtime.store.port import Committed, NewEvent, OutboxMessage, Store, Write
from aios_testing.store_contract import Clock
from aios_testing.store_memory import MemoryStore

KEYS = [f"main/run/{name}" for name in ("a", "ab", "b", "é")]
NAMES = ["a", "e/1", "e/2", "é"]
INDEXES = ["state", "client"]
VALUES = ["", "open", "done"]
PARTITIONS = [0, 1, 15]
DATA = st.binary(max_size=12)


@st.composite
def writes(draw: st.DrawFn) -> tuple[int, Write]:
    """A write and how far its expectation is from what stands."""
    key = draw(st.sampled_from(KEYS))
    common: dict[str, Any] = {
        "key": key,
        "expect": 0,
        "events": [
            NewEvent(draw(st.sampled_from(PARTITIONS)), draw(DATA)) for _ in range(draw(st.integers(0, 2)))
        ],
        "outbox": [OutboxMessage("s", draw(DATA), "id", {"h": "v"}) for _ in range(draw(st.integers(0, 2)))],
        "inbox": draw(st.lists(st.sampled_from([f"{key}:{n}" for n in range(4)]), max_size=2)),
    }
    if draw(st.integers(0, 5)) == 0:
        write = Write(head=None, **common)
    else:
        write = Write(
            head=draw(DATA),
            records=draw(st.dictionaries(st.sampled_from(NAMES), st.none() | DATA, max_size=3)),
            due_ms=draw(st.none() | st.integers(0, 5)),
            index=draw(st.dictionaries(st.sampled_from(INDEXES), st.sampled_from(VALUES), max_size=2)),
            **common,
        )
    return draw(st.sampled_from([0, 0, 0, 0, 1, -1])), write


def _without_ids(results: list[Any]) -> list[Any]:
    """Results that can be compared: how outbox messages are numbered is the store's affair."""
    return [
        replace(result, outbox_ids=tuple(0 for _ in result.outbox_ids))
        if isinstance(result, Committed)
        else result
        for result in results
    ]


class StoreMachine(RuleBasedStateMachine):
    """Override `open`, which opens the store over this machine's data."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.model = MemoryStore(self.clock)
        self.store: Store

    async def open(self) -> Store:
        raise NotImplementedError("override `open`")

    @initialize()
    def start(self) -> None:
        self.store = self.runner.run(self.open())

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
        self.runner.close()

    def _expecting(self, drawn: list[tuple[int, Write]]) -> list[Write]:
        """Writes whose expectations follow each other within the batch, some of them off by one."""
        revisions: dict[str, int] = {}
        result = []
        for off, write in drawn:
            stored = self.model.tables.read(write.key)
            stands = revisions.get(write.key, stored.revision if stored else 0)
            expect = max(0, stands + off)
            result.append(
                Write(**{name: getattr(write, name) for name in Write.__slots__} | {"expect": expect})
            )
            if expect == stands:
                revisions[write.key] = 0 if write.head is None else stands + 1
        return result

    @rule(drawn=st.lists(writes(), min_size=1, max_size=6))
    def commit(self, drawn: list[tuple[int, Write]]) -> None:
        batch = self._expecting(drawn)
        results = self.runner.run(self.store.commit(batch))
        assert _without_ids(results) == _without_ids(self.runner.run(self.model.commit(batch)))

    @rule(drawn=st.lists(writes(), min_size=2, max_size=6))
    def commit_at_once(self, drawn: list[tuple[int, Write]]) -> None:
        """Commits that are made together apply one after the other, in the order of the calls."""
        batch = self._expecting(drawn)

        async def together() -> list[Any]:
            answers = await asyncio.gather(*(self.store.commit([write]) for write in batch))
            return [result for (result,) in answers]

        results = self.runner.run(together())
        assert _without_ids(results) == _without_ids(self.runner.run(self.model.commit(batch)))

    @rule(count=st.integers(1, 3), skip=st.integers(0, 2))
    def mark_sent(self, count: int, skip: int) -> None:
        for store in (self.store, self.model):
            ids = [pending.outbox_id for pending in self.runner.run(store.pending(count + skip))][skip:]
            self.runner.run(store.mark_sent(ids))

    @rule(name=st.sampled_from(NAMES), value=DATA)
    def set_meta(self, name: str, value: bytes) -> None:
        self.runner.run(self.store.set_meta(name, value))
        self.runner.run(self.model.set_meta(name, value))
        assert self.runner.run(self.store.meta(name)) == value

    @rule(forward=st.integers(1, 50), back=st.integers(0, 100))
    def prune(self, forward: int, back: int) -> None:
        self.clock.now += forward
        before = self.clock.now - back
        assert self.runner.run(self.store.prune_inbox(before)) == self.runner.run(
            self.model.prune_inbox(before)
        )

    @rule()
    def restart(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.runner.run(self.open())

    @invariant()
    def they_read_the_same(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self._they_read_the_same())

    async def _they_read_the_same(self) -> None:
        for key in KEYS:
            assert await self.store.read(key) == await self.model.read(key)
            assert list((await self.store.records(key)).items()) == list(
                (await self.model.records(key)).items()
            )
            assert await self.store.records(key, "e/", after="e/1") == await self.model.records(
                key, "e/", after="e/1"
            )
            ours, theirs = await self.store.events_of(key, 0, 1000), await self.model.events_of(key, 0, 1000)
            assert sorted(ours, key=repr) == sorted(theirs, key=repr)
            for mark in (f"{key}:{number}" for number in range(4)):
                assert await self.store.handled(mark) == await self.model.handled(mark)
        for limit in (1, 100):
            waiting, modelled = await self.store.pending(limit), await self.model.pending(limit)
            assert [pending.message for pending in waiting] == [pending.message for pending in modelled]
        assert await self.store.next_due() == await self.model.next_due()
        assert await self.store.due(3, 10) == await self.model.due(3, 10)
        for partition in PARTITIONS:
            assert await self.store.events(partition, 0, 1000) == await self.model.events(partition, 0, 1000)
            assert await self.store.event_head(partition) == await self.model.event_head(partition)
        await self._listings_are_the_same()

    async def _listings_are_the_same(self) -> None:
        for index in INDEXES:
            for value in VALUES:
                for newest in (True, False):
                    ours = await self.store.query(index, value, newest_first=newest, limit=2)
                    theirs = await self.model.query(index, value, newest_first=newest, limit=2)
                    assert (ours.items, bool(ours.next_token)) == (theirs.items, bool(theirs.next_token))
        assert (await self.store.scan("main/run/a")).items == (await self.model.scan("main/run/a")).items
        assert await self.store.scan("", limit=3) == await self.model.scan("", limit=3)
