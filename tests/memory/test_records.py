"""Records through memory's steps, on a real store."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from aios.effect.v1.effect_pb2 import CheckUndoRequest, CheckUndoResponse
from aios.run.v1.state_pb2 import UndoVerdict
from aios.task.v1 import task_pb2
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, Label, Trust, outside
from aios_core.values import Leaf, Pointer, labeled, leaves, plain
from aios_memory.model import Kind, Name
from aios_runtime.store.sqlite import open_store
from tests.memory.serving import START_MS, Clock, Memory, fact, make_task, write_task

FIGURES = "client/acme/figures/"
COLUMN = "client/acme/column/timesheet/std-anz"


@pytest.mark.feature("G9")
async def test_of_writes_at_once_that_read_the_same_version_one_wins_and_the_others_are_told_so(
    memory: Memory,
) -> None:
    await memory.write(fact(COLUMN, {"means": "hours"}))
    outcomes = await asyncio.gather(
        *(memory.write(fact(COLUMN, {"means": f"rate {n}"}, 1), run=f"run_{n + 2}") for n in range(20))
    )
    statuses = [outcome.status for outcome in outcomes]
    assert statuses.count(task_pb2.STATUS_SUCCEEDED) == 1
    assert {outcome.error.code for outcome in outcomes if outcome.status == task_pb2.STATUS_FAILED} == {
        "CONFLICT"
    }
    assert [version.version for version in await memory.records.versions(Name(Kind.FACT, COLUMN), 0, 10)] == [
        1,
        2,
    ]


@pytest.mark.feature("G9")
async def test_writes_of_any_version_at_once_all_go_in_one_after_the_other(memory: Memory) -> None:
    outcomes = await asyncio.gather(
        *(memory.write(fact(COLUMN, {"n": n}, "any"), run=f"run_{n}") for n in range(6))
    )
    assert {outcome.status for outcome in outcomes} == {task_pb2.STATUS_SUCCEEDED}
    versions = await memory.records.versions(Name(Kind.FACT, COLUMN), 0, 10)
    assert [version.version for version in versions] == [1, 2, 3, 4, 5, 6]
    assert len({version.value for version in versions}) == 6


async def test_a_task_that_comes_again_writes_nothing_more_and_gets_the_same_outcome(memory: Memory) -> None:
    first = await memory.write(fact(COLUMN, {"means": "hours"}), fact("client/acme/b", 2))
    await memory.write(fact(COLUMN, {"means": "rate"}, 1), run="run_2")
    again = await memory.write(fact(COLUMN, {"means": "hours"}), fact("client/acme/b", 2))
    assert again == first
    assert len(await memory.records.versions(Name(Kind.FACT, COLUMN), 0, 10)) == 2


async def test_an_effect_key_that_comes_with_another_content_is_refused(memory: Memory) -> None:
    await memory.write(fact(COLUMN, {"means": "hours"}))
    outcome = await memory.write(fact(COLUMN, {"means": "rate"}))
    assert outcome.error.code == "REQUEST_ID_REUSED"


async def test_while_one_record_of_a_step_is_refused_none_is_written(memory: Memory) -> None:
    await memory.write(fact("a", 1))
    outcome = await memory.write(fact("b", 1), fact("a", 2, "absent"), run="run_2")
    assert outcome.status == task_pb2.STATUS_FAILED
    assert outcome.error.code == "CONFLICT"
    assert "None of the 2 records was written" in outcome.error.message
    assert await memory.records.newest(Name(Kind.FACT, "b")) is None
    assert not outcome.undo_token


@pytest.mark.feature("G7")
async def test_a_record_says_who_wrote_it_from_what_and_how_far_it_is_trusted(memory: Memory) -> None:
    label = Label(("person:owner",), Trust.OWNER)
    await memory.write(
        fact(
            COLUMN, {"means": "hours"}, authority="authoritative", sources=["file:acme/2026-10/timesheet.csv"],
            actor="person:owner", schema="column/v1",
        ),
        label=label,
        event_id="evt_1",
    )  # fmt: skip
    stored = await memory.records.newest(Name(Kind.FACT, COLUMN))
    assert stored is not None
    assert stored.provenance.sources == ("file:acme/2026-10/timesheet.csv",)
    assert (stored.provenance.run_id, stored.provenance.step) == ("run_1", "remember")
    assert stored.provenance.effect_key == "run_1/remember/0/1"
    assert stored.provenance.event_id == "evt_1"
    read = (await memory.read({"name": "fact", "kind": "fact", "key": COLUMN}))["fact"]
    assert read == {
        "key": COLUMN,
        "version": 1,
        "reference": f"fact:{COLUMN}@1",
        "value": {"means": "hours"},
        "authority": "authoritative",
        "confidence": Decimal(1),
        "schema": "column/v1",
        "created": datetime.fromtimestamp(START_MS / 1000, UTC),
        "run": "run_1",
        "actor": "person:owner",
    }


@pytest.mark.feature("G7")
async def test_nobody_is_named_as_the_writer_whom_the_labels_do_not_name(memory: Memory) -> None:
    with pytest.raises(TerminalError, match="nothing in the write comes from there"):
        await memory.write(fact("a", 1, actor="person:owner"), label=outside("connector:files"))


async def test_labels_survive_memory_leaf_by_leaf(memory: Memory) -> None:
    secret = Label(("connector:files",), Trust.UNTRUSTED, ("person:owner",))
    value = {"header": Leaf("Std. Anz.", secret), "means": Leaf("hours", OWNER)}
    item = {
        **{k: Leaf(v, OWNER) for k, v in (("kind", "fact"), ("key", COLUMN), ("expect", "absent"))},
        "value": value,
    }
    await memory.steps.perform(make_task("memory.write", {"writes": [item]}, run="run_1", step="s"))
    read = (await memory.read_value({"name": "fact", "kind": "fact", "key": COLUMN}))["fact"]
    assert read["value"]["header"] == Leaf("Std. Anz.", secret)
    assert read["value"]["means"] == Leaf("hours", OWNER)
    assert read["version"].label.trust == Trust.CONFIRMED


async def test_a_key_made_from_untrusted_text_stays_untrusted_when_it_is_listed(memory: Memory) -> None:
    item = {
        "kind": Leaf("fact", OWNER), "key": Leaf("client/acme/evil", outside("connector:files")),
        "expect": Leaf("any", OWNER), "value": Leaf(1, OWNER),
    }  # fmt: skip
    await memory.steps.perform(make_task("memory.write", {"writes": [item]}, run="run_1", step="s"))
    (read,) = (await memory.read_value({"name": "all", "kind": "fact", "prefix": "client/"}))["all"]
    assert read["key"].label.trust == Trust.UNTRUSTED
    assert read["reference"].label.trust == Trust.UNTRUSTED
    assert read["value"].label.trust == Trust.OWNER


async def test_an_untrusted_name_is_confirmed_by_the_authoritative_record_that_it_meets_and_by_no_other(
    memory: Memory,
) -> None:
    await memory.write(
        {
            "kind": "entity",
            "key": "client/acme",
            "value": {"name": "Acme"},
            "expect": "absent",
            "authority": "authoritative",
        },
        fact("guess", 1),
    )
    untrusted = outside("event:http")
    read = await memory.read_value(
        {"name": "client", "kind": "entity", "key": "client/acme"},
        {"name": "guess", "kind": "fact", "key": "guess"},
        {"name": "nobody", "kind": "entity", "key": "client/none"},
        label=untrusted,
    )
    trusts = {name: min(leaf.label.trust for leaf in leaves(value)) for name, value in read.items()}
    assert trusts == {"client": Trust.CONFIRMED, "guess": Trust.UNTRUSTED, "nobody": Trust.UNTRUSTED}
    assert read["client"]["value"]["name"].label.origins == ("event:http", "person:owner")


@pytest.mark.feature("G4")
async def test_an_entity_with_a_wrong_field_is_refused_with_the_name_of_the_field(memory: Memory) -> None:
    entity = {
        "kind": "entity",
        "key": "client/acme",
        "expect": "absent",
        "value": {"name": "Acme", "currency": "euro"},
    }
    with pytest.raises(TerminalError) as caught:
        await memory.write(entity)
    assert caught.value.code == "BAD_RESOURCE"
    assert "writes[0].value.currency" in caught.value.message
    assert await memory.records.newest(Name(Kind.ENTITY, "client/acme")) is None
    entity["value"] = {"name": "Acme", "currency": "EUR", "since": "2024"}
    assert (await memory.write(entity)).status == task_pb2.STATUS_SUCCEEDED


@pytest.mark.feature("G12")
async def test_reads_as_of_a_time_tell_what_was_known_then(memory: Memory, clock: Clock) -> None:
    times = []
    for n, expect in enumerate(["absent", 1, 2], 1):
        await memory.write(fact("a", n, expect), run=f"run_{n}")
        times.append(datetime.fromtimestamp(clock.ms / 1000, UTC))
        clock.ms += 60_000
    await memory.write({"kind": "fact", "key": "a", "delete": True, "expect": 3}, run="run_4")
    read = {"kind": "fact", "key": "a"}
    results = await memory.read(
        {"name": "first", "as_of": times[0], **read},
        {"name": "third", "as_of": times[2], **read},
        {"name": "before", "as_of": datetime(2020, 1, 1, tzinfo=UTC), **read},
        {"name": "now", **read},
        {"name": "listed", "kind": "fact", "prefix": "a", "as_of": times[1]},
    )
    assert results["first"]["value"] == 1
    assert results["third"]["value"] == 3
    assert results["before"] is None
    assert results["now"] is None
    assert [record["value"] for record in results["listed"]] == [2]


@pytest.mark.feature("G2")
async def test_a_list_gives_the_first_or_last_records_in_key_order_without_deleted_ones(
    memory: Memory,
) -> None:
    months = [f"2026-{month:02}" for month in range(1, 13)]
    await memory.write(
        *({"kind": "document", "key": f"{FIGURES}{m}", "value": m, "expect": "absent"} for m in months)
    )
    await memory.write(
        {"kind": "document", "key": f"{FIGURES}2026-05", "delete": True, "expect": 1}, run="run_2"
    )
    base = {"kind": "document", "prefix": FIGURES}
    read = await memory.read(
        {"name": "first", "limit": 2, **base},
        {"name": "last", "limit": 3, "take": "last", "before": f"{FIGURES}2026-07", **base},
        {"name": "none", "kind": "document", "prefix": "client/other/"},
    )
    assert [record["value"] for record in read["first"]] == ["2026-01", "2026-02"]
    assert [record["value"] for record in read["last"]] == ["2026-03", "2026-04", "2026-06"]
    assert read["none"] == []


@pytest.mark.feature("D5")
async def test_what_is_too_large_for_a_record_or_a_result_is_refused_with_the_way_out(memory: Memory) -> None:
    with pytest.raises(TerminalError, match="Store it as an artifact") as caught:
        await memory.write(fact("a", "x" * 20_480))
    assert caught.value.code == "TOO_LARGE"
    for n in range(8):
        await memory.write(fact(f"b/{n}", "x" * 20_000), run=f"run_{n}")
    with pytest.raises(TerminalError, match="Lower its limit") as caught:
        await memory.read({"name": "all", "kind": "fact", "prefix": "b/"})
    assert caught.value.code == "TOO_LARGE"


async def test_a_pointer_to_an_artifact_that_is_not_stored_is_refused(memory: Memory) -> None:
    missing = Pointer("ab" * 32, 3)
    with pytest.raises(TerminalError, match="store it first"):
        await memory.write(fact("a", missing))
    pointer = await memory.put(b"rows")
    assert (await memory.write(fact("a", {"rows": pointer}))).status == task_pb2.STATUS_SUCCEEDED


@pytest.mark.feature("G13")
async def test_from_an_artifact_fact_run_or_event_there_is_a_way_to_what_was_made_from_it(
    memory: Memory,
) -> None:
    pointer = await memory.put(b"rows")
    await memory.write(fact("a", {"rows": pointer}), event_id="evt_7")
    made = await memory.write(fact("b", 1, sources=["fact:a@1"]), run="run_2")

    async def users(source: str) -> list[str]:
        return [use.name.at(use.version) for use in (await memory.records.uses(source))[0]]

    assert await users(f"artifact:{pointer.sha256}") == ["fact:a@1"]
    assert await users("run:run_1") == ["fact:a@1"]
    assert await users("event:evt_7") == ["fact:a@1"]
    assert await users("fact:a@1") == ["fact:b@1"]
    await memory.undo(made, run="run_2")
    (use,) = (await memory.records.uses("fact:a@1"))[0]
    assert use.undone


async def test_a_simulation_tells_the_changes_and_writes_nothing(memory: Memory) -> None:
    await memory.write(fact("a", 1))
    task = write_task(
        fact("a", 2, 1), fact("b", {"means": "hours"}), run="run_2", mode=task_pb2.MODE_SIMULATE
    )
    outcome = await memory.steps.perform(task)
    assert [(c.resource, c.verb, c.before, c.after) for c in outcome.changes] == [
        ("fact:a", "update", "1", "2"),
        ("fact:b", "create", "", "1"),
    ]
    assert outcome.changes[1].note == '{"means":"hours"}'
    assert plain(decode(outcome.output))["versions"][0]["version"] == 2
    assert not outcome.undo_token
    assert (await memory.records.newest(Name(Kind.FACT, "a"))).version == 1
    assert await memory.records.newest(Name(Kind.FACT, "b")) is None


@pytest.mark.feature("D6")
async def test_undo_restores_what_stood_before_by_a_new_version_and_once(memory: Memory) -> None:
    await memory.write(fact("a", "old"))
    outcome = await memory.write(fact("a", "new", 1), fact("b", 1), run="run_2")
    for _ in range(2):
        undone = await memory.undo(outcome, run="run_2")
        assert undone.status == task_pb2.STATUS_SUCCEEDED
        assert [(c.resource, c.verb, c.after) for c in undone.changes] == [
            ("fact:b", "delete", ""),
            ("fact:a", "update", "3"),
        ]
    versions = await memory.records.versions(Name(Kind.FACT, "a"), 0, 10)
    assert [plain(decode(version.value)) for version in versions] == ["old", "new", "old"]
    assert (await memory.records.newest(Name(Kind.FACT, "b"))).deleted


@pytest.mark.feature("D6")
async def test_undo_leaves_everything_as_it_is_when_somebody_changed_one_record_since(memory: Memory) -> None:
    outcome = await memory.write(fact("a", 1), fact("b", 1))
    await memory.write(fact("a", 2, 1), run="run_2", step="correct")
    undone = await memory.undo(outcome)
    assert undone.status == task_pb2.STATUS_CONFLICT
    assert "version 2 (by step:correct) stands, not version 1" in undone.error.message
    assert (await memory.records.newest(Name(Kind.FACT, "a"))).version == 2
    assert (await memory.records.newest(Name(Kind.FACT, "b"))).version == 1


@pytest.mark.feature("D6")
async def test_a_fact_that_another_run_has_used_is_not_taken_back_until_that_run_is(memory: Memory) -> None:
    learned = await memory.write(fact("a", 1))
    report = await memory.write(fact("b", 1, sources=["fact:a@1"]), run="run_2")
    undone = await memory.undo(learned)
    assert undone.status == task_pb2.STATUS_CONFLICT
    assert "used since by fact b (run run_2)" in undone.error.message
    await memory.undo(report, run="run_2")
    assert (await memory.undo(learned)).status == task_pb2.STATUS_SUCCEEDED


async def test_two_steps_of_a_run_that_wrote_one_record_are_both_taken_back(memory: Memory) -> None:
    first = await memory.write(fact("a", 1), step="one")
    second = await memory.write(fact("a", 2, 1), step="two")
    assert (await memory.undo(second, step="two")).status == task_pb2.STATUS_SUCCEEDED
    assert (await memory.undo(first, step="one")).status == task_pb2.STATUS_SUCCEEDED
    assert (await memory.records.newest(Name(Kind.FACT, "a"))).deleted


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ({"reads": []}, "INVALID_ARGUMENT", "input.reads"),
        ({"reads": [{"name": "a", "kind": "fact", "keey": "a"}]}, "UNKNOWN_FIELD", "did you mean key"),
        (
            {"reads": [{"name": "a", "kind": "facts", "key": "a"}]},
            "INVALID_ARGUMENT",
            "entity, fact or document",
        ),
        ({"reads": [{"name": "a", "kind": "fact"}]}, "INVALID_ARGUMENT", "either key or prefix"),
        ({"reads": [{"name": "a", "kind": "fact", "key": "a"}] * 2}, "INVALID_ARGUMENT", "second time"),
        (
            {"reads": [{"name": "a", "kind": "fact", "prefix": "", "limit": 999}]},
            "INVALID_ARGUMENT",
            "1 to 200",
        ),
        ("reads", "INVALID_ARGUMENT", "a map"),
    ],
)
async def test_a_wrong_read_is_refused_in_words(memory: Memory, value: object, code: str, words: str) -> None:
    with pytest.raises(TerminalError) as caught:
        await memory.steps.perform(make_task("memory.read", labeled(value, OWNER), run="r", step="s"))
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"expect": None}, "INVALID_ARGUMENT", "version that was read"),
        ({"expect": -1}, "INVALID_ARGUMENT", "version that was read"),
        ({"value": None}, "INVALID_ARGUMENT", "either a value or delete"),
        ({"authority": "sure"}, "INVALID_ARGUMENT", "authoritative or heuristic"),
        ({"confidence": 2}, "INVALID_ARGUMENT", "from 0 to 1"),
        ({"sources": ["nonsense"]}, "INVALID_ARGUMENT", "sources[0]"),
        ({"key": "a//b"}, "INVALID_ARGUMENT", "parts between slashes"),
        ({"vaule": 1}, "UNKNOWN_FIELD", "did you mean value"),
    ],
)
async def test_a_wrong_write_is_refused_in_words(
    memory: Memory, changed: dict, code: str, words: str
) -> None:
    with pytest.raises(TerminalError) as caught:
        await memory.write({**fact("a", 1), **changed})
    assert caught.value.code == code
    assert words in caught.value.message


async def test_a_task_of_another_workspace_operation_or_encoding_is_refused(memory: Memory) -> None:
    task = write_task(fact("a", 1))
    other = task_pb2.Task()
    for field, content, code in (
        ("workspace", "else", "NOT_FOUND"),
        ("target", "memory.burn", "NOT_FOUND"),
        ("input", b"x", "UNDECODABLE"),
    ):
        other.CopyFrom(task)
        setattr(other, field, content)
        with pytest.raises(TerminalError) as caught:
            await memory.steps.perform(other)
        assert caught.value.code == code
    other.CopyFrom(task)
    other.mode, other.undo_token = task_pb2.MODE_UNDO, b"\xff\xff"
    with pytest.raises(TerminalError, match=r"not one of memory\.write"):
        await memory.steps.perform(other)


async def test_every_version_is_there_after_the_store_is_opened_again(tmp_path, clock: Clock) -> None:
    store = await open_store(tmp_path / "m.db", service="memory", now_ms=clock)
    memory = Memory(store, tmp_path / "artifacts", clock)
    await memory.write(fact("a", 1))
    await memory.write(fact("a", 2, 1), run="run_2")
    await store.close()
    store = await open_store(tmp_path / "m.db", service="memory", now_ms=clock)
    versions = await Memory(store, tmp_path / "artifacts", clock).records.versions(
        Name(Kind.FACT, "a"), 0, 10
    )
    assert [plain(decode(version.value)) for version in versions] == [1, 2]
    await store.close()


async def test_the_longest_key_can_be_written_from_the_longest_source_and_found_again(memory: Memory) -> None:
    key = "client/" + "ü" * 313
    source = "file:" + "x" * 475
    outcome = await memory.write(fact(key, 1, sources=[source], note="a\nnote\u00a0" + "x" * 300))
    assert outcome.status == task_pb2.STATUS_SUCCEEDED
    assert len(outcome.changes[0].note) == 200
    assert "\n" not in outcome.changes[0].note
    assert [use.name.key for use in (await memory.records.uses(source))[0]] == [key]
    await memory.write(fact("b", 1, sources=[f"fact:{key}@1"]), run="run_2")
    assert (await memory.undo(outcome)).status == task_pb2.STATUS_CONFLICT


async def test_a_write_that_runs_out_of_time_while_it_is_committed_still_tells_what_stands(
    memory: Memory,
) -> None:
    async with asyncio.timeout(0) as clock:
        outcome = await memory.write(fact("a", 1))
    assert clock.expired()
    assert outcome.status == task_pb2.STATUS_SUCCEEDED
    assert outcome.undo_token
    assert (await memory.records.newest(Name(Kind.FACT, "a"))).version == 1


@pytest.mark.feature("D6")
async def test_what_was_taken_back_is_put_back_and_taken_back_again_each_once(memory: Memory) -> None:
    await memory.write(fact("a", "first"))
    made = await memory.write(fact("a", "second", 1), fact("b", "new"), run="run_2", step="s")
    back = await memory.undo(made, run="run_2", step="s")
    assert await shown(memory) == ("first", None)
    for _ in range(2):
        forth = await redo(memory, back)
        assert forth.status == task_pb2.STATUS_SUCCEEDED, forth.error
        assert await shown(memory) == ("second", "new")
    again = await memory.undo(forth, run="run_2", step="s")
    assert again.status == task_pb2.STATUS_SUCCEEDED, again.error
    assert await shown(memory) == ("first", None)
    once_more = await redo(memory, again)
    assert once_more.status == task_pb2.STATUS_SUCCEEDED, once_more.error
    assert await shown(memory) == ("second", "new")


@pytest.mark.feature("D6")
async def test_what_was_written_since_is_not_put_back_over_and_is_told_before(memory: Memory) -> None:
    made = await memory.write(fact("a", "second"))
    assert await verdict(memory, made, redo=False) == UndoVerdict.UNDO_VERDICT_WILL
    assert await verdict(memory, made, redo=True) == UndoVerdict.UNDO_VERDICT_IMPOSSIBLE, "it stands"
    back = await memory.undo(made)
    assert await verdict(memory, back, redo=True) == UndoVerdict.UNDO_VERDICT_WILL
    await memory.write(fact("a", "mine", 2), run="run_3")
    assert await verdict(memory, back, redo=True) == UndoVerdict.UNDO_VERDICT_CHANGED
    assert (await redo(memory, back)).status == task_pb2.STATUS_CONFLICT
    assert (await shown(memory))[0] == "mine"
    with pytest.raises(TerminalError, match="was not kept"):
        await redo(memory, made)


@pytest.mark.feature("D6")
async def test_two_steps_that_wrote_one_record_are_put_back_in_their_order(memory: Memory) -> None:
    first = await memory.write(fact("a", 1), step="one")
    second = await memory.write(fact("a", 2, 1), step="two")
    for _ in range(2):
        second = await memory.undo(second, step="two")
        first = await memory.undo(first, step="one")
        assert first.status == second.status == task_pb2.STATUS_SUCCEEDED, (first.error, second.error)
        assert await shown(memory) == (None, None)
        first = await redo(memory, first, step="one")
        second = await redo(memory, second, step="two")
        assert first.status == second.status == task_pb2.STATUS_SUCCEEDED, (first.error, second.error)
        assert await shown(memory) == (2, None)


async def shown(memory: Memory) -> tuple[object, object]:
    """What stands of two facts; None for one that is not there."""
    found = []
    for key in ("a", "b"):
        version = await memory.records.newest(Name(Kind.FACT, key))
        gone = version is None or version.deleted
        found.append(None if version is None or gone else plain(decode(version.value)))
    return found[0], found[1]


async def redo(memory: Memory, back: task_pb2.Outcome, step: str = "s") -> task_pb2.Outcome:
    task = make_task("memory.write", None, run="run_2", step=step, mode=task_pb2.MODE_REDO)
    task.undo_token = back.undo_token
    return await memory.steps.perform(task)


async def verdict(memory: Memory, outcome: task_pb2.Outcome, *, redo: bool) -> UndoVerdict.ValueType:
    request = CheckUndoRequest(workspace="main", undo_tokens=[outcome.undo_token], redo=redo)
    (check,) = CheckUndoResponse.FromString(
        await memory.steps.check_undo(request.SerializeToString(), {})
    ).checks
    return check.verdict
