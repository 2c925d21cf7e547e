"""A ledger that is a backup's: what it doesn't know is looked up first, or parked, in every mode."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.effect.v1.effect_pb2 import STATE_INTENT, STATE_UNKNOWN
from aios.task.v1.task_pb2 import STATUS_FAILED, STATUS_SUCCEEDED, STATUS_UNKNOWN
from aios_core.errors import RetryableError, TerminalError
from aios_runtime.lanes import UnansweredError
from aios_sdk.connector import (
    Call,
    CannotTell,
    Connector,
    Done,
    Idempotency,
    Inverse,
    Key,
    Lookup,
    NotDone,
    Nothing,
    Rediscovered,
    Traced,
)
from aios_sdk.host import core
from aios_sdk.host.mark import RESTORE_META, RestoreMark
from aios_sdk.host.restored import AfterRestore
from tests.sdk import toy
from tests.sdk.test_executor import KEY, Rig
from tests.sdk.test_ledger_core import ENTRIES, HASH, MODES, TIMES

MARK = RestoreMark("restore_1", 1, 2)
NEXT = "run_1/send/0/1"
ALL_MODES = (Key(remembers_ms=10_000_000), Lookup(), Nothing())


class Finding(toy.WithLookup):
    """An action that can tell from outside alone."""

    async def rediscover(self, input: toy.Send, call: Call) -> Traced[toy.Before, toy.Sent]:
        found: Traced[toy.Before, toy.Sent] | None = self.world.look() if self.world.look else None
        if found is not None:
            return found
        if call.key in self.world.happened():
            return Rediscovered(Done(toy.Sent(number=1), (), "was sent"), toy.Before(count=0))
        return NotDone()


@pytest.fixture
def rig(tmp_path: object) -> Rig:
    return Rig(tmp_path)  # type: ignore[arg-type]


def looking(rig: Rig, monkeypatch: pytest.MonkeyPatch, mode: Idempotency) -> Connector:
    monkeypatch.setattr(toy, "WithLookup", Finding)
    return toy.connector(rig.world, mode, lookup=True)


async def restore(rig: Rig) -> None:
    async with rig.hosting(toy.connector(rig.world, Nothing(), lookup=False)):
        await rig.ledger._store.set_meta(RESTORE_META, MARK.encode())


@given(
    entry=st.one_of(st.none(), ENTRIES),
    dispatch=st.integers(0, 9),
    mode=MODES,
    now=TIMES,
    looks=st.booleans(),
    written=st.booleans(),
)
@pytest.mark.feature("J5", "H10", "B3")
def test_nothing_begins_from_a_backups_ledger_without_a_look(
    entry: object, dispatch: int, mode: Idempotency, now: int, looks: bool, written: bool
) -> None:
    known = entry if entry is None or not written else _of_restore(entry)
    restored = core.Restored(MARK.restore_id, can_rediscover=looks)
    without = core.next_move(known, HASH, dispatch, mode, now, can_look_up=looks)  # type: ignore[arg-type]
    move = core.next_move(known, HASH, dispatch, mode, now, can_look_up=looks, restored=restored)  # type: ignore[arg-type]
    if not isinstance(without, core.Begin):
        assert move == without
    elif known is None or not written:
        assert isinstance(move, core.Rediscover if looks else core.Park)
    else:
        assert isinstance(move, core.Begin), "a look came before it already"


def _of_restore(entry: object) -> object:
    entry.restore_id = MARK.restore_id  # type: ignore[attr-defined]
    return entry


@pytest.mark.feature("J5")
@pytest.mark.parametrize(
    ("inverse", "begins"),
    [
        (Inverse("looks first", repeatable=True), True),
        (Inverse("is known for a while", repeatable=True, remembers_ms=5), False),
        (Inverse("is a second message", repeatable=False), False),
    ],
)
def test_an_undo_that_does_not_look_is_parked(inverse: Inverse, begins: bool) -> None:
    effect = core.LedgerEntry(effect_key=KEY, state=2)
    effect.outcome.status = STATUS_SUCCEEDED
    for restored in (core.Restored("restore_1"), core.Restored("restore_1", asked=True), None):
        move = core.next_undo(effect, [], f"{KEY}/undo/1", 1, inverse, 0, restored)
        expected = begins or restored is None or restored.asked
        assert isinstance(move, core.Begin if expected else core.Park)


@pytest.mark.parametrize(
    ("key", "before"),
    [
        (KEY, None),
        (NEXT, KEY),
        (f"{KEY}/undo/2", f"{KEY}/undo/1"),
        (f"{KEY}/redo-2/3", f"{KEY}/redo-2/2"),
        ("run_1/send/2/1", "run_1/send/1/1"),  # what makes it good, tried under a key of its own once more
        ("run_1/send/3/2", "run_1/send/2/2"),
        ("no-number", None),
    ],
)
def test_the_attempt_before_is_named_by_its_key(key: str, before: str | None) -> None:
    assert core.attempt_before(key) == before


@pytest.mark.feature("J5", "H10", "B3")
@pytest.mark.parametrize("mode", ALL_MODES, ids=["a", "b", "c"])
async def test_what_can_not_be_looked_up_is_asked_and_the_next_attempt_is_made(
    rig: Rig, mode: Idempotency
) -> None:
    connector = toy.connector(rig.world, mode, lookup=isinstance(mode, Lookup))
    await restore(rig)
    async with rig.hosting(connector) as executor:
        for dispatch in (1, 2):
            outcome = await executor.perform(rig.task(dispatch))
            assert outcome.status == STATUS_UNKNOWN
            assert "restored from a backup" in outcome.error.message
        assert rig.world.happened() == []
        assert (executor.restores.asked, executor.restores.found) == (1, 0)
    async with rig.hosting(connector) as executor:  # a person has said that it did not happen
        assert (await executor.perform(rig.task(key=NEXT))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [NEXT]


@pytest.mark.feature("J5", "H10")
@pytest.mark.parametrize("mode", ALL_MODES, ids=["a", "b", "c"])
async def test_what_is_found_done_is_settled_and_can_be_taken_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, mode: Idempotency
) -> None:
    rig.world.happen(KEY)
    await restore(rig)
    async with rig.hosting(looking(rig, monkeypatch, mode)) as executor:
        done = await executor.perform(rig.task())
        assert (done.status, done.summary) == (STATUS_SUCCEEDED, "was sent")
        assert (await executor.perform(rig.task(2))).output == done.output
        assert executor.restores.found == 1
        assert (await executor.perform(rig.undo(done))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY, f"undo of {KEY}"]


async def test_what_is_found_but_not_what_stood_before_it_has_no_undo(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restore(rig)
    rig.world.look = lambda: Rediscovered(Done(toy.Sent(number=1)))
    async with rig.hosting(looking(rig, monkeypatch, Lookup())) as executor:
        done = await executor.perform(rig.task())
        assert (done.status, done.undo_token) == (STATUS_SUCCEEDED, b"")
        forged = rig.undo(done)
        forged.undo_token = json.dumps({"v": 1, "effect": KEY}).encode()
        assert (await executor.perform(forged)).error.code == "ACTION_FAILED"


@pytest.mark.feature("J5")
async def test_what_is_surely_not_done_is_done_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await restore(rig)
    async with rig.hosting(looking(rig, monkeypatch, Nothing())) as executor:
        for dispatch in (1, 2):
            assert (await executor.perform(rig.task(dispatch))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [TerminalError("ACTION_FAILED", "No such mailbox."), ZeroDivisionError(), None],
    ids=["refused", "defect", "cannot tell"],
)
async def test_a_look_that_tells_nothing_is_asked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    await restore(rig)
    rig.world.look = lambda: _raise(error) if error else CannotTell("Look into the mailbox.")
    async with rig.hosting(looking(rig, monkeypatch, Lookup())) as executor:
        assert (await executor.perform(rig.task())).status == STATUS_UNKNOWN
    assert rig.world.happened() == []


async def test_a_look_that_can_not_be_had_now_leaves_the_task_to_come_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restore(rig)
    rig.world.look = lambda: _raise(RetryableError("UNAVAILABLE", "Not now."))
    async with rig.hosting(looking(rig, monkeypatch, Lookup())) as executor:
        with pytest.raises(UnansweredError):
            await executor.perform(rig.task())
        assert (await rig.ledger.read(KEY)).entry is None


async def test_a_refused_task_is_not_called_done_for_nothing_before_the_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its approval has expired meanwhile; whether it happened is asked first, since a refusal says that it did not."""
    rig.world.happen(KEY)
    await restore(rig)
    async with rig.hosting(looking(rig, monkeypatch, Lookup())) as executor:
        assert (await executor.perform(rig.task(expires_in=-1))).status == STATUS_SUCCEEDED
        assert (await executor.perform(rig.task(key=NEXT, expires_in=-1))).status == STATUS_FAILED


@pytest.mark.feature("J5")
async def test_an_intent_of_the_backup_is_treated_as_after_a_crash(rig: Rig) -> None:
    connector = toy.connector(rig.world, Key(remembers_ms=1000), lookup=False)
    await rig.killed(connector, after=True)
    await restore(rig)
    async with rig.hosting(connector) as executor:
        entry = (await rig.ledger.read(KEY)).entry
        assert entry is not None
        assert entry.state == STATE_INTENT
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


@pytest.mark.feature("J5", "D6")
async def test_an_undo_that_may_have_been_made_is_asked_about_and_the_next_one_made(rig: Rig) -> None:
    connector = toy.connector(rig.world, Lookup(), lookup=True, repeatable=False)
    async with rig.hosting(connector) as executor:
        done = await executor.perform(rig.task())
    await restore(rig)
    async with rig.hosting(connector) as executor:
        for dispatch in (1, 2):
            assert (await executor.perform(rig.undo(done, dispatch))).status == STATUS_UNKNOWN
        assert rig.world.happened() == [KEY]
        entry = (await rig.ledger.read(f"{KEY}/undo/1")).entry
        assert entry is not None
        assert (entry.state, entry.restore_id) == (STATE_UNKNOWN, MARK.restore_id)
        again = rig.undo(done)
        again.task_id = NEXT  # a person has said that it was not taken back
        assert (await executor.perform(again)).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY, f"undo of {KEY}"]


@pytest.mark.feature("J5")
async def test_closing_names_the_restore_and_holds_after_a_start(rig: Rig) -> None:
    connector = toy.connector(rig.world, Nothing(), lookup=False)
    await restore(rig)
    async with rig.hosting(connector) as executor:
        assert await executor.restores.close("another") is None
        assert await executor.restores.read() == MARK
        other = AfterRestore("toy", rig.ledger, rig.clock)
        assert await other.close(MARK.restore_id) == MARK
        assert await other.close(MARK.restore_id) is None
        assert (await executor.perform(rig.task())).status == STATUS_SUCCEEDED, "closed by another process"
    async with rig.hosting(connector) as executor:
        assert await executor.restores.read() is None
