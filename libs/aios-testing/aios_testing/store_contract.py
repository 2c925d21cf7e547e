"""What every store promises, written once: a class of tests that the tests of each implementation inherit.

A subclass overrides the fixture `opened`: a function that opens the store of this test, each time over the same data,
with `clock` as its time. `StoreMachine` beside it compares a store with the model in memory over random histories.
Inbox marks name the aggregate that they belong to, since a store may keep them with it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise

import pytest

from aios_core.errors import AiosError
from aios_runtime.store.checks import MAX_KEY_CHARS, MAX_OUTBOX_BYTES
from aios_runtime.store.port import (
    MAX_BATCH_WRITES,
    MAX_HEAD_BYTES,
    MAX_RECORD_BYTES,
    Aggregate,
    Committed,
    Conflict,
    Duplicate,
    Filed,
    NewEvent,
    OutboxMessage,
    Page,
    Result,
    Store,
    Write,
)

Opener = Callable[[], Awaitable[Store]]
KEY = "main/run/1"


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def message(number: int) -> OutboxMessage:
    return OutboxMessage(f"subject.{number}", b"%d" % number, f"id-{number}", {"traceparent": f"00-{number}"})


async def commit_one(store: Store, write: Write) -> Result:
    (result,) = await store.commit([write])
    return result


async def create(store: Store, *keys: str, **fields: object) -> None:
    results = await store.commit([Write(key, 0, key.encode(), **fields) for key in keys])  # type: ignore[arg-type]
    assert all(isinstance(result, Committed) for result in results)


def keys_of(pages: list[list[str]]) -> list[str]:
    """The keys of pages, one after the other."""
    return [key for page in pages for key in page]


async def pages_of(read: Callable[[str], Awaitable[Page]]) -> list[list[str]]:
    """The keys of every page of a listing."""
    pages, token = [], ""
    while True:
        page = await read(token)
        pages.append([item.key for item in page.items])
        token = page.next_token
        if not token:
            return pages


class StoreFixtures:
    """How the tests of a store get at it."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def opened(self) -> Opener:
        raise NotImplementedError("override the fixture `opened`")

    @pytest.fixture
    async def store(self, opened: Opener) -> AsyncIterator[Store]:
        store = await opened()
        yield store
        await store.close()


class WriteContract(StoreFixtures):
    """Compare-and-set, records, deletion, batches."""

    async def test_a_committed_aggregate_is_read_with_revision_head_and_due_time(self, store: Store) -> None:
        assert await store.read(KEY) is None
        assert await commit_one(store, Write(KEY, 0, b"head", due_ms=7)) == Committed(1)
        assert await store.read(KEY) == Aggregate(KEY, 1, b"head", 7)

    async def test_each_winning_write_raises_the_revision_by_one(self, store: Store) -> None:
        for revision in range(5):
            assert await commit_one(store, Write(KEY, revision, b"%d" % revision)) == Committed(revision + 1)
        assert await store.read(KEY) == Aggregate(KEY, 5, b"4", None)

    async def test_a_write_that_expects_another_revision_changes_nothing_at_all(self, store: Store) -> None:
        await create(store, KEY, records={"a": b"1"}, index={"state": "open"}, due_ms=5)
        for expect in (0, 2):
            stale = Write(
                KEY,
                expect,
                b"no",
                records={"a": b"no", "b": b"no"},
                events=[NewEvent(0, b"no")],
                outbox=[message(1)],
                inbox=["main/run/1:m"],
                due_ms=1,
                index={"state": "no"},
            )
            assert await commit_one(store, stale) == Conflict(1)
        assert await store.read(KEY) == Aggregate(KEY, 1, KEY.encode(), 5)
        assert await store.records(KEY) == {"a": b"1"}
        assert (await store.event_head(0), await store.pending(10), await store.next_due()) == (0, [], 5)
        assert not await store.handled("main/run/1:m")
        assert (await store.query("state", "no")).items == ()

    async def test_a_write_that_expects_a_revision_of_what_does_not_exist_conflicts_with_zero(
        self, store: Store
    ) -> None:
        assert await commit_one(store, Write(KEY, 1, b"x")) == Conflict(0)
        assert await store.read(KEY) is None

    async def test_a_losing_write_takes_no_other_of_its_batch_along(self, store: Store) -> None:
        await create(store, "main/run/b")
        results = await store.commit(
            [Write("main/run/a", 0, b"a"), Write("main/run/b", 0, b"lost"), Write("main/run/c", 0, b"c")]
        )
        assert results == [Committed(1), Conflict(1), Committed(1)]
        assert [item.head for item in (await store.scan("main/run/")).items] == [b"a", b"main/run/b", b"c"]

    async def test_writes_of_one_key_in_a_batch_apply_in_their_order(self, store: Store) -> None:
        results = await store.commit(
            [
                Write(KEY, 0, b"1", records={"a": b"1", "b": b"1"}, index={"state": "new"}, due_ms=1),
                Write(KEY, 1, b"2", records={"a": None, "c": b"2"}, index={"state": "open"}, due_ms=2),
                Write(KEY, 1, b"stale", records={"c": b"stale"}),
                Write(KEY, 2, b"3", due_ms=3),
            ]
        )
        assert results == [Committed(1), Committed(2), Conflict(2), Committed(3)]
        assert await store.read(KEY) == Aggregate(KEY, 3, b"3", 3)
        assert await store.records(KEY) == {"b": b"1", "c": b"2"}
        assert (await store.query("state", "new")).items == ()
        assert len((await store.query("state", "open")).items) == 1

    async def test_an_aggregate_may_be_made_deleted_and_made_again_in_one_batch(self, store: Store) -> None:
        results = await store.commit(
            [
                Write(KEY, 0, b"1", records={"a": b"1"}, index={"state": "open"}, due_ms=1),
                Write(KEY, 1, None),
                Write(KEY, 0, b"again", records={"b": b"2"}),
            ]
        )
        assert results == [Committed(1), Committed(2), Committed(1)]
        assert await store.read(KEY) == Aggregate(KEY, 1, b"again", None)
        assert await store.records(KEY) == {"b": b"2"}
        assert (await store.query("state", "open")).items == ()

    async def test_a_deleted_aggregate_leaves_no_record_entry_or_due_time(self, store: Store) -> None:
        await create(store, KEY, records={"a": b"1"}, index={"state": "open", "kind": "x"}, due_ms=1)
        assert await commit_one(store, Write(KEY, 1, None, events=[NewEvent(0, b"deleted")])) == Committed(
            2, (1,)
        )
        assert (await store.read(KEY), await store.records(KEY), await store.record(KEY, "a")) == (
            None,
            {},
            None,
        )
        assert (
            (await store.query("state", "open")).items,
            (await store.query("kind", "x")).items,
            await store.next_due(),
        ) == (
            (),
            (),
            None,
        )
        await create(store, KEY)
        assert (await store.records(KEY), (await store.query("state", "open")).items) == ({}, ())

    async def test_a_deletion_under_another_revision_conflicts(self, store: Store) -> None:
        await create(store, KEY)
        assert await commit_one(store, Write(KEY, 2, None)) == Conflict(1)
        assert await store.read(KEY) is not None

    async def test_records_are_put_replaced_and_deleted_by_name(self, store: Store) -> None:
        await create(store, KEY, records={"a": b"1", "b": b"", "c": b"3"})
        await commit_one(store, Write(KEY, 1, b"", records={"a": b"new", "c": None, "never": None}))
        assert await store.records(KEY) == {"a": b"new", "b": b""}
        assert (
            await store.record(KEY, "b"),
            await store.record(KEY, "c"),
            await store.record("main/run/2", "a"),
        ) == (
            b"",
            None,
            None,
        )

    async def test_records_come_in_name_order_by_prefix_and_after_a_name(self, store: Store) -> None:
        names = ["a", "e/%", "e/1", "e/10", "e/2", "e/_", "e0", "eé", "f", "\U0010ffff", "\U0010ffffx"]
        await create(store, KEY, records={name: name.encode() for name in reversed(names)})
        await create(store, "main/run/2", records={"e/3": b"of another"})
        assert list(await store.records(KEY)) == sorted(names)
        assert list(await store.records(KEY, "e/")) == ["e/%", "e/1", "e/10", "e/2", "e/_"]
        assert list(await store.records(KEY, "e/", after="e/1", limit=2)) == ["e/10", "e/2"]
        assert list(await store.records(KEY, "\U0010ffff")) == ["\U0010ffff", "\U0010ffffx"]
        assert await store.records(KEY, limit=0) == {}

    async def test_bytes_and_names_come_back_as_they_were(self, store: Store) -> None:
        odd = "main/ключ/\x00'\"\N{PILE OF POO}"
        await create(store, odd, records={"\x00": bytes(range(256))}, index={"ü": "\x00"})
        assert (await store.scan("main/ключ/")).items[0].key == odd
        assert await store.records(odd) == {"\x00": bytes(range(256))}
        assert [item.key for item in (await store.query("ü", "\x00")).items] == [odd]

    async def test_no_writes_commit_to_no_results(self, store: Store) -> None:
        assert await store.commit([]) == []

    async def test_the_largest_head_and_record_fit(self, store: Store) -> None:
        head, record = b"h" * MAX_HEAD_BYTES, b"r" * MAX_RECORD_BYTES
        assert await commit_one(store, Write(KEY, 0, head, records={"a": record})) == Committed(1)
        assert (await store.read(KEY), await store.record(KEY, "a")) == (
            Aggregate(KEY, 1, head, None),
            record,
        )

    @pytest.mark.parametrize(
        ("code", "bad"),
        [
            ("TOO_LARGE", Write(KEY, 0, b"h" * (MAX_HEAD_BYTES + 1))),
            ("TOO_LARGE", Write(KEY, 0, b"", records={"a": b"r" * (MAX_RECORD_BYTES + 1)})),
            (
                "TOO_LARGE",
                Write(KEY, 0, b"", outbox=[OutboxMessage("s", b"m" * (MAX_OUTBOX_BYTES + 1), "id")]),
            ),
            ("TOO_LARGE", Write("main/run/" + "k" * MAX_KEY_CHARS, 0, b"")),
            ("INVALID_ARGUMENT", Write("main/run", 0, b"")),
            ("INVALID_ARGUMENT", Write("main//1", 0, b"")),
            ("INVALID_ARGUMENT", Write("main/run/\ud800", 0, b"")),
            ("INVALID_ARGUMENT", Write(KEY, -1, b"")),
            ("INVALID_ARGUMENT", Write(KEY, 0, b"", events=[NewEvent(-1, b"")])),
            ("INVALID_ARGUMENT", Write(KEY, 0, b"", inbox=[""])),
            ("INVALID_ARGUMENT", Write(KEY, 1, None, records={"a": b"kept?"})),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    async def test_a_write_out_of_bounds_is_refused_with_its_whole_batch(
        self, store: Store, code: str, bad: Write
    ) -> None:
        with pytest.raises(AiosError) as caught:
            await store.commit([Write("main/run/good", 0, b"good"), bad])
        assert (caught.value.code, caught.value.retryable) == (code, False)
        assert await store.read("main/run/good") is None

    async def test_more_writes_than_a_batch_may_have_are_refused(self, store: Store) -> None:
        with pytest.raises(AiosError, match="TOO_LARGE"):
            await store.commit([Write(f"main/run/{n}", 0, b"") for n in range(MAX_BATCH_WRITES + 1)])
        assert (await store.scan("main/")).items == ()


class InboxContract(StoreFixtures):
    """Messages that are handled once."""

    @pytest.mark.feature("B2")
    async def test_a_write_whose_mark_is_there_already_is_refused_as_duplicate(self, store: Store) -> None:
        mark = f"{KEY}:m1"
        assert not await store.handled(mark)
        await create(store, KEY, inbox=[mark])
        assert await store.handled(mark)
        again = Write(
            KEY, 1, b"again", inbox=[f"{KEY}:m2", mark], events=[NewEvent(0, b"no")], records={"a": b"no"}
        )
        assert await commit_one(store, again) == Duplicate(mark)
        assert await store.read(KEY) == Aggregate(KEY, 1, KEY.encode(), None)
        assert (await store.event_head(0), await store.records(KEY), await store.handled(f"{KEY}:m2")) == (
            0,
            {},
            False,
        )

    async def test_a_duplicate_is_told_apart_from_a_conflict_first(self, store: Store) -> None:
        await create(store, KEY, inbox=[f"{KEY}:m1"])
        assert await commit_one(store, Write(KEY, 0, b"", inbox=[f"{KEY}:m1"])) == Duplicate(f"{KEY}:m1")

    async def test_a_mark_counts_at_once_within_its_batch(self, store: Store) -> None:
        mark = f"{KEY}:m1"
        results = await store.commit(
            [Write(KEY, 0, b"1", inbox=[mark, mark]), Write(KEY, 1, b"2", inbox=[mark])]
        )
        assert results == [Committed(1), Duplicate(mark)]

    async def test_a_losing_write_leaves_no_mark(self, store: Store) -> None:
        mark = f"{KEY}:m1"
        results = await store.commit(
            [Write(KEY, 5, b"lost", inbox=[mark]), Write(KEY, 0, b"won", inbox=[mark])]
        )
        assert results == [Conflict(0), Committed(1)]

    async def test_marks_older_than_a_time_are_forgotten_and_younger_ones_kept(
        self, store: Store, clock: Clock
    ) -> None:
        await create(store, KEY, inbox=[f"{KEY}:old1", f"{KEY}:old2"])
        clock.now += 1000
        await commit_one(store, Write(KEY, 1, b"", inbox=[f"{KEY}:young"]))
        assert await store.prune_inbox(clock.now) == 2
        assert [(await store.handled(f"{KEY}:{name}")) for name in ("old1", "old2", "young")] == [
            False,
            False,
            True,
        ]
        assert await store.prune_inbox(clock.now) == 0

    async def test_marks_made_while_the_clock_stands_back_are_kept_apart(
        self, store: Store, clock: Clock
    ) -> None:
        await create(store, KEY, inbox=[f"{KEY}:1"])
        clock.now -= 60_000
        await commit_one(store, Write(KEY, 1, b"", inbox=[f"{KEY}:2"]))
        assert await store.handled(f"{KEY}:1")
        assert await store.handled(f"{KEY}:2")


class EventContract(StoreFixtures):
    """Gapless positions."""

    @pytest.mark.feature("D4")
    async def test_events_get_the_next_positions_of_their_partition_in_order(self, store: Store) -> None:
        events = [NewEvent(3, b"a"), NewEvent(0, b"b"), NewEvent(3, b"c")]
        assert await commit_one(store, Write(KEY, 0, b"", events=events)) == Committed(1, (1, 1, 2))
        assert await commit_one(store, Write(KEY, 1, b"", events=[NewEvent(3, b"d")])) == Committed(2, (3,))
        assert [(event.position, event.data) for event in await store.events(3, 0, 10)] == [
            (1, b"a"),
            (2, b"c"),
            (3, b"d"),
        ]
        assert [event.data for event in await store.events(3, 1, 1)] == [b"c"]
        assert (await store.event_head(3), await store.event_head(0), await store.event_head(1)) == (3, 1, 0)
        assert (await store.events(3, 3, 10), await store.events(1, 0, 10), await store.events(3, 0, 0)) == (
            [],
            [],
            [],
        )

    @pytest.mark.feature("D4")
    async def test_losing_writes_leave_no_gap_in_the_positions(self, store: Store) -> None:
        writes = [
            Write(f"main/run/{n}", n % 2, b"", events=[NewEvent(0, b"%d" % n)], inbox=[f"main/run/{n}:m"])
            for n in range(20)
        ]
        results = await store.commit(writes)
        assert [result.positions for result in results if isinstance(result, Committed)] == [
            (n,) for n in range(1, 11)
        ]
        assert [event.data for event in await store.events(0, 0, 100)] == [b"%d" % n for n in range(0, 20, 2)]

    async def test_partitions_up_to_the_last_one_do_not_touch(self, store: Store) -> None:
        partitions = [0, 1, 15, 16, 1023, 32767]
        await create(store, KEY, events=[NewEvent(partition, b"%d" % partition) for partition in partitions])
        for partition in partitions:
            assert [event.data for event in await store.events(partition, 0, 10)] == [b"%d" % partition]

    async def test_events_of_an_aggregate_are_told_apart_from_those_of_others(self, store: Store) -> None:
        await create(store, KEY, events=[NewEvent(3, b"a"), NewEvent(3, b"b")])
        await create(store, "main/run/2", events=[NewEvent(3, b"other")])
        await commit_one(store, Write(KEY, 1, b"", events=[NewEvent(3, b"c")]))
        assert await store.events_of(KEY, 0, 10) == [Filed(3, 1, b"a"), Filed(3, 2, b"b"), Filed(3, 4, b"c")]
        assert [event.data for event in await store.events_of(KEY, 1, 1)] == [b"b"]
        assert (await store.events_of(KEY, 3, 10), await store.events_of("main/run/none", 0, 10)) == ([], [])


class OutboxContract(StoreFixtures):
    """What waits to be published, and small values of the store."""

    async def test_messages_wait_in_the_order_of_their_commit_until_marked_as_sent(
        self, store: Store
    ) -> None:
        first = await commit_one(store, Write(KEY, 0, b"", outbox=[message(1), message(2)]))
        second = await commit_one(store, Write(KEY, 1, b"", outbox=[message(3)]))
        assert isinstance(first, Committed)
        assert isinstance(second, Committed)
        ids = [*first.outbox_ids, *second.outbox_ids]
        assert [waiting.outbox_id for waiting in await store.pending(10)] == ids
        assert [waiting.message for waiting in await store.pending(10)] == [
            message(1),
            message(2),
            message(3),
        ]
        assert [waiting.message for waiting in await store.pending(2)] == [message(1), message(2)]
        await store.mark_sent([ids[0], ids[2]])
        assert [waiting.message for waiting in await store.pending(10)] == [message(2)]
        await store.mark_sent([ids[0], ids[1]])
        assert await store.pending(10) == []

    @pytest.mark.feature("B1")
    async def test_what_is_not_marked_as_sent_waits_after_a_restart(self, opened: Opener) -> None:
        store = await opened()
        await create(store, KEY, outbox=[message(1), message(2), message(3)])
        await store.mark_sent([(await store.pending(1))[0].outbox_id])
        await store.close()
        store = await opened()
        assert [waiting.message for waiting in await store.pending(10)] == [message(2), message(3)]
        await store.mark_sent([waiting.outbox_id for waiting in await store.pending(10)])
        await create(store, "main/run/2", outbox=[message(4)])
        assert [waiting.message for waiting in await store.pending(10)] == [message(4)]
        await store.close()

    async def test_a_small_value_is_replaced_and_survives(self, opened: Opener) -> None:
        store = await opened()
        assert await store.meta("cursor") is None
        await store.set_meta("cursor", b"1")
        await asyncio.gather(store.set_meta("cursor", b"2"), store.set_meta("other", b""))
        assert (await store.meta("cursor"), await store.meta("other")) == (b"2", b"")
        await store.close()
        store = await opened()
        assert (await store.meta("cursor"), await store.meta("other")) == (b"2", b"")
        await store.close()


class ListingContract(StoreFixtures):
    """Due times, secondary indexes, scans and pages."""

    async def test_due_aggregates_come_the_earliest_first_up_to_the_time(self, store: Store) -> None:
        for number, due_ms in enumerate([30, 10, None, 20, 10, 40]):
            await create(store, f"main/run/{number}", due_ms=due_ms)
        assert [item.key[-1] for item in await store.due(30, 10)] == ["1", "4", "3", "0"]
        assert [item.due_ms for item in await store.due(30, 3)] == [10, 10, 20]
        assert (await store.due(9, 10), await store.due(40, 0), await store.next_due()) == ([], [], 10)

    async def test_every_write_replaces_the_due_time(self, store: Store) -> None:
        await create(store, KEY, due_ms=10)
        await commit_one(store, Write(KEY, 1, b"", due_ms=50))
        assert (await store.due(49, 10), await store.next_due()) == ([], 50)
        await commit_one(store, Write(KEY, 2, b""))
        assert (await store.due(10**15, 10), await store.next_due()) == ([], None)

    async def test_an_index_entry_is_replaced_by_name_and_others_stay(self, store: Store) -> None:
        await create(store, KEY, index={"state": "open", "client": "acme"})
        await commit_one(store, Write(KEY, 1, b"", index={"state": "done"}))
        assert (await store.query("state", "open")).items == ()
        assert [item.revision for item in (await store.query("state", "done")).items] == [2]
        assert len((await store.query("client", "acme")).items) == 1
        await commit_one(store, Write(KEY, 2, b""))
        assert [item.revision for item in (await store.query("state", "done")).items] == [3]

    async def test_an_empty_value_takes_the_aggregate_out_of_an_index(self, store: Store) -> None:
        await create(store, KEY, index={"state": "open", "client": ""})
        await commit_one(store, Write(KEY, 1, b"", index={"state": ""}))
        assert ((await store.query("state", "open")).items, (await store.query("state", "")).items) == (
            (),
            (),
        )
        assert (await store.query("client", "")).items == ()

    async def test_a_query_lists_by_creation_however_keys_sort_and_heads_change(self, store: Store) -> None:
        keys = ["main/run/b", "main/run/c", "main/run/a"]
        for key in keys:
            await create(store, key, index={"state": "open"})
        await commit_one(store, Write("main/run/b", 1, b"changed"))
        assert [item.key for item in (await store.query("state", "open", newest_first=False)).items] == keys
        assert [item.key for item in (await store.query("state", "open")).items] == keys[::-1]

    @pytest.mark.parametrize("newest_first", [True, False])
    async def test_pages_of_a_query_are_whole_and_end(self, store: Store, newest_first: bool) -> None:
        keys = [f"main/run/{number:02}" for number in range(20)]
        await create(store, *keys, index={"state": "open"})
        pages = await pages_of(
            lambda token: store.query("state", "open", token=token, limit=6, newest_first=newest_first)
        )
        assert [len(page) for page in pages] == [6, 6, 6, 2]
        assert keys_of(pages) == (keys[::-1] if newest_first else keys)

    async def test_pages_stay_where_they_are_while_aggregates_come_and_go(self, store: Store) -> None:
        keys = [f"main/run/{number:02}" for number in range(12)]
        await create(store, *keys, index={"state": "open"})
        newest = await store.query("state", "open", limit=4)
        ordered = await store.scan("main/run/", limit=4)
        await create(store, "main/run/00a", "main/run/zz", index={"state": "open"})
        await commit_one(store, Write(newest.items[-1].key, 1, None))
        await commit_one(store, Write(ordered.items[-1].key, 1, None))
        rest = await pages_of(
            lambda token: store.query("state", "open", token=token or newest.next_token, limit=4)
        )
        assert keys_of(rest) == [key for key in keys[7::-1] if key != ordered.items[-1].key]
        after = await pages_of(
            lambda token: store.scan("main/run/", token=token or ordered.next_token, limit=4)
        )
        assert keys_of(after) == [key for key in [*keys[4:], "main/run/zz"] if key != newest.items[-1].key]

    async def test_a_scan_goes_by_key_order_within_its_prefix(self, store: Store) -> None:
        keys = [
            "main/run/1",
            "main/run/10",
            "main/run/2",
            "main/run/%",
            "main/run/é",
            "main/runs/1",
            "other/run/1",
        ]
        await create(store, *reversed(keys))
        assert [item.key for item in (await store.scan("main/run/")).items] == sorted(keys[:5])
        assert [item.key for item in (await store.scan("main/run/1")).items] == ["main/run/1", "main/run/10"]
        assert keys_of(await pages_of(lambda token: store.scan("", token=token, limit=2))) == sorted(keys)
        assert (await store.scan("none/")).next_token == ""

    async def test_a_token_that_no_page_gave_out_is_refused(self, store: Store) -> None:
        with pytest.raises(AiosError, match="INVALID_ARGUMENT"):
            await store.query("state", "open", token="no token")


class ConcurrencyContract(StoreFixtures):
    """Many callers at once, restarts, the end."""

    async def test_a_thousand_concurrent_commits_all_land_with_gapless_events(self, store: Store) -> None:
        async def one(number: int) -> Result:
            events = [NewEvent(number % 4, b"%d" % number)] * 2
            write = Write(f"main/run/{number}", 0, b"%d" % number, events=events, outbox=[message(number)])
            return await commit_one(store, write)

        results = await asyncio.gather(*(one(number) for number in range(1000)))
        assert all(isinstance(result, Committed) for result in results)
        ids = [result.outbox_ids[0] for result in results if isinstance(result, Committed)]
        assert sorted(ids) == sorted({waiting.outbox_id for waiting in await store.pending(2000)})
        for partition in range(4):
            positions = [event.position for event in await store.events(partition, 0, 1000)]
            assert positions == list(range(1, 501))
        assert (
            sum(
                len(page)
                for page in await pages_of(lambda token: store.scan("main/", token=token, limit=300))
            )
            == 1000
        )

    @pytest.mark.feature("G9")
    async def test_of_many_writers_that_read_the_same_revision_one_wins(self, store: Store) -> None:
        await create(store, KEY)
        results = await asyncio.gather(*(commit_one(store, Write(KEY, 1, b"%d" % n)) for n in range(50)))
        assert sorted(map(repr, results)) == sorted(map(repr, [Committed(2), *[Conflict(2)] * 49]))

    async def test_writers_that_read_again_after_a_conflict_lose_no_update(self, store: Store) -> None:
        await create(store, KEY)

        async def add(mark: bytes) -> None:
            while True:
                found = await store.read(KEY)
                assert found is not None
                if isinstance(
                    await commit_one(store, Write(KEY, found.revision, found.head + mark)), Committed
                ):
                    return

        await asyncio.gather(*(add(b"+") for _ in range(30)))
        assert await store.read(KEY) == Aggregate(KEY, 31, KEY.encode() + b"+" * 30, None)

    async def test_a_read_right_after_a_commit_sees_it(self, store: Store) -> None:
        async def one(number: int) -> None:
            key = f"main/run/{number}"
            for revision in range(5):
                await commit_one(
                    store, Write(key, revision, b"%d" % revision, records={"r": b"%d" % revision})
                )
                found = await store.read(key)
                assert found is not None
                assert (found.revision, await store.record(key, "r")) == (revision + 1, b"%d" % revision)

        await asyncio.gather(*(one(number) for number in range(20)))

    async def test_a_caller_who_gives_up_leaves_the_store_whole(self, store: Store) -> None:
        given_up = asyncio.ensure_future(commit_one(store, Write(KEY, 0, b"1", events=[NewEvent(0, b"1")])))
        await asyncio.sleep(0)
        given_up.cancel()
        await create(store, "main/run/2", events=[NewEvent(0, b"2")])
        found = await store.read(KEY)
        assert await store.event_head(0) == (2 if found else 1)

    @pytest.mark.feature("B1")
    async def test_everything_is_there_after_a_restart_and_counting_goes_on(self, opened: Opener) -> None:
        store = await opened()
        write = Write(
            KEY,
            0,
            b"head",
            records={"a": b"1"},
            events=[NewEvent(2, b"e1"), NewEvent(2, b"e2")],
            inbox=[f"{KEY}:m"],
            due_ms=9,
            index={"state": "open"},
        )
        await commit_one(store, write)
        await store.close()
        store = await opened()
        assert await store.read(KEY) == Aggregate(KEY, 1, b"head", 9)
        assert (await store.records(KEY), await store.handled(f"{KEY}:m"), await store.next_due()) == (
            {"a": b"1"},
            True,
            9,
        )
        assert await commit_one(store, write) == Duplicate(f"{KEY}:m")
        result = await commit_one(
            store, Write("main/run/0", 0, b"", events=[NewEvent(2, b"e3")], index={"state": "open"})
        )
        assert result == Committed(1, (3,))
        assert [item.key for item in (await store.query("state", "open")).items] == ["main/run/0", KEY]
        await store.close()

    async def test_an_aggregate_made_again_has_none_of_the_events_of_the_deleted_one(
        self, opened: Opener
    ) -> None:
        store = await opened()
        await create(store, KEY, events=[NewEvent(3, b"a")])
        await commit_one(store, Write(KEY, 1, None, events=[NewEvent(3, b"deleted")]))
        await store.close()
        store = await opened()
        await create(store, KEY, events=[NewEvent(3, b"again")])
        assert await store.events_of(KEY, 0, 10) == [Filed(3, 3, b"again")]
        assert [event.data for event in await store.events(3, 0, 10)] == [b"a", b"deleted", b"again"]
        await store.close()

    async def test_closing_waits_for_commits_on_their_way_and_then_takes_no_more(
        self, opened: Opener
    ) -> None:
        store = await opened()
        on_the_way = [
            asyncio.ensure_future(commit_one(store, Write(f"main/run/{number}", 0, b"")))
            for number in range(100)
        ]
        await asyncio.sleep(0)
        await store.close()
        assert all(done.result() == Committed(1) for done in on_the_way)
        with pytest.raises(AiosError, match="UNAVAILABLE"):
            await store.commit([Write(KEY, 0, b"")])
        store = await opened()
        assert len((await store.scan("main/", limit=1000)).items) == 100
        await store.close()

    async def test_positions_are_in_the_order_in_which_readers_see_them(self, store: Store) -> None:
        """Whoever has read up to a position never finds an earlier one appear later."""
        seen: list[int] = []

        async def read() -> None:
            while len(seen) < 300:
                seen.extend(event.position for event in await store.events(0, seen[-1] if seen else 0, 50))
                await asyncio.sleep(0)

        async def write(number: int) -> None:
            await create(store, f"main/run/{number}", events=[NewEvent(0, b"")])

        await asyncio.gather(read(), *(write(number) for number in range(300)))
        assert all(later == earlier + 1 for earlier, later in pairwise(seen))


class StoreContract(
    WriteContract, InboxContract, EventContract, OutboxContract, ListingContract, ConcurrencyContract
):
    """All that a store promises."""
