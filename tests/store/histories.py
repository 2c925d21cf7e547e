"""What must hold of a store that `crash_child` or a test wrote in its manner, wherever it was cut off."""

from collections import Counter

from aios_runtime.store.port import Store


async def assert_nothing_torn(store: Store, acknowledged: dict[int, int]) -> dict[int, int]:
    """Every acknowledged commit is there, and every write is there in all its parts or in none; returns the last
    revision of each writer."""
    revisions: dict[int, int] = {}
    for item in (await store.scan("main/run/", limit=1000)).items:
        writer = int(item.key.rpartition("/")[2])
        text = str(item.revision)
        assert item.head.rstrip(b".") == text.encode()
        assert (item.due_ms, await store.record(item.key, "last")) == (item.revision, text.encode())
        steps = {f"step/{number}" for number in range(1, item.revision + 1)}
        assert set(await store.records(item.key, "step/", limit=10_000)) == steps
        assert [found.key for found in (await store.query("revision", text, limit=1000)).items].count(
            item.key
        ) == 1
        for number in range(1, item.revision + 1):
            assert await store.handled(f"{item.key}:{number}")
        assert not await store.handled(f"{item.key}:{item.revision + 1}")
        revisions[writer] = item.revision
    for writer, revision in acknowledged.items():
        assert revisions.get(writer, 0) >= revision, f"an acknowledged commit of writer {writer} is lost"
    await _assert_events_are_gapless(store, revisions)
    waiting = [pending.message.data.decode().split() for pending in await store.pending(10_000)]
    assert all(int(revision) <= revisions[int(writer)] for writer, revision in waiting)
    return revisions


async def _assert_events_are_gapless(store: Store, revisions: dict[int, int]) -> None:
    filed: list[str] = []
    while page := await store.events(0, len(filed), 5000):
        assert [event.position for event in page] == list(range(len(filed) + 1, len(filed) + 1 + len(page)))
        filed.extend(event.data.decode() for event in page)
    assert len(filed) == await store.event_head(0)
    expected = {
        f"{writer} {number} {part}"
        for writer, last in revisions.items()
        for number in range(1, last + 1)
        for part in "ab"
    }
    assert Counter(filed) == Counter(expected)
