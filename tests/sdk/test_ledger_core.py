"""The ledger's state machine, for every entry that there can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.effect.v1.effect_pb2 import STATE_INTENT, STATE_OUTCOME, STATE_UNKNOWN, LedgerEntry
from aios.error.v1.error_pb2 import Error
from aios.task.v1.task_pb2 import (
    MODE_EXECUTE,
    MODE_UNDO,
    STATUS_CONFLICT,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    Outcome,
    Status,
)
from aios_core.errors import RetryableError, TerminalError
from aios_sdk.connector import Idempotency, Inverse, Key, Lookup, Nothing
from aios_sdk.host import core

HASH = b"h" * 32
TIMES = st.integers(0, 10_000)
MODES: st.SearchStrategy[Idempotency] = st.one_of(
    st.builds(Key, st.integers(1, 5000)),
    st.builds(Lookup, st.integers(0, 5000), st.booleans()),
    st.just(Nothing()),
)
ENTRIES = st.builds(
    LedgerEntry,
    effect_key=st.just("run_1/send/0/0"),
    mode=st.just(MODE_EXECUTE),
    state=st.sampled_from([STATE_INTENT, STATE_OUTCOME, STATE_UNKNOWN]),
    arguments_sha256=st.just(HASH),
    intent_time_ms=TIMES,
    outcome=st.builds(
        Outcome,
        status=st.sampled_from([STATUS_SUCCEEDED, STATUS_FAILED, STATUS_UNKNOWN]),
        dispatch=st.integers(0, 5),
        error=st.builds(Error, retryable=st.booleans()),
    ),
)


@given(entry=ENTRIES, dispatch=st.integers(0, 9), mode=MODES, now=TIMES, looks=st.booleans())
def test_an_effect_begins_again_only_when_it_surely_did_not_happen(
    entry: LedgerEntry, dispatch: int, mode: Idempotency, now: int, looks: bool
) -> None:
    try:
        move = core.next_move(entry, HASH, dispatch, mode, now, can_look_up=looks)
    except RetryableError:
        move = None
    if move is None:  # it may not be visible yet
        assert entry.state == STATE_INTENT
        assert isinstance(mode, Lookup)
    if isinstance(move, core.Begin):
        assert entry.state != STATE_INTENT
        assert entry.outcome.status == STATUS_FAILED
        assert entry.outcome.error.retryable
        assert dispatch > entry.outcome.dispatch
    if isinstance(move, core.Resume):  # without a look, only a provider that still knows the key
        assert isinstance(mode, Key)
        assert 0 <= now - entry.intent_time_ms < mode.remembers_ms
    if isinstance(move, core.Replay):
        assert entry.state != STATE_INTENT
    if entry.state == STATE_INTENT and isinstance(mode, Nothing):
        assert isinstance(move, core.Park)


@given(entry=ENTRIES, mode=MODES, now=TIMES)
def test_a_key_never_serves_other_arguments(entry: LedgerEntry, mode: Idempotency, now: int) -> None:
    with pytest.raises(TerminalError, match="other arguments"):
        core.next_move(entry, b"x" * 32, 9, mode, now, can_look_up=True)


@given(
    status=st.sampled_from([STATUS_SUCCEEDED, STATUS_FAILED, STATUS_CONFLICT, STATUS_UNKNOWN]),
    dispatch=st.integers(1, 3),
    key=st.sampled_from(["run_1/send/0/0/undo/1", "run_1/send/0/0/undo/2"]),
)
def test_an_undo_that_succeeded_is_never_begun_again(status: int, dispatch: int, key: str) -> None:
    done = LedgerEntry(
        effect_key="run_1/send/0/0", state=STATE_OUTCOME, outcome=Outcome(status=STATUS_SUCCEEDED)
    )
    undo = LedgerEntry(effect_key="run_1/send/0/0/undo/1", mode=MODE_UNDO, state=STATE_OUTCOME)
    undo.outcome.CopyFrom(Outcome(status=status, dispatch=1))  # type: ignore[arg-type]
    move = core.next_undo(done, [undo], key, dispatch, Inverse("strikes it out", repeatable=True), 0)
    if status == STATUS_SUCCEEDED:
        assert isinstance(move, core.Replay | core.NothingToUndo)
    if status == STATUS_CONFLICT and dispatch > 1:
        assert isinstance(move, core.Begin), "the person may have made room since"


@given(remembers=st.integers(0, 100), begun=st.integers(0, 200), now=st.integers(0, 400))
def test_an_interrupted_undo_is_repeated_only_while_the_other_side_knows_its_key(
    remembers: int, begun: int, now: int
) -> None:
    done = LedgerEntry(
        effect_key="run_1/pay/0/0", state=STATE_OUTCOME, outcome=Outcome(status=STATUS_SUCCEEDED)
    )
    key = "run_1/pay/0/0/undo/1"
    undo = LedgerEntry(effect_key=key, mode=MODE_UNDO, state=STATE_INTENT, intent_time_ms=begun)
    inverse = Inverse("pays it back", repeatable=True, remembers_ms=remembers)
    move = core.next_undo(done, [undo], key, 2, inverse, now)
    surely_known = remembers == 0 or begun <= now < begun + remembers
    assert isinstance(move, core.Resume if surely_known else core.Park)
    assert isinstance(
        core.next_undo(done, [undo], key, 2, Inverse("regrets", repeatable=False), now), core.Park
    )


@pytest.mark.feature("D6")
@pytest.mark.parametrize(
    ("entries", "undo", "redo"),
    [
        ([], True, True),
        ([("undo/1", STATUS_SUCCEEDED)], False, False),
        ([("undo/1", STATUS_CONFLICT)], True, True),
        ([("undo/1", STATUS_UNKNOWN)], True, False),
        ([("undo/1", STATUS_SUCCEEDED), ("redo-1/1", STATUS_SUCCEEDED)], True, True),
        ([("undo/1", STATUS_SUCCEEDED), ("redo-1/1", STATUS_UNKNOWN)], True, False),
        ([("undo/1", STATUS_SUCCEEDED), ("redo-1/1", STATUS_CONFLICT)], False, False),
        (
            [("undo/1", STATUS_SUCCEEDED), ("redo-1/1", STATUS_SUCCEEDED), ("undo-1/2", STATUS_SUCCEEDED)],
            False,
            False,
        ),
    ],
)
def test_whether_an_effect_stands_follows_from_its_undos_and_redos(
    entries: list[tuple[str, Status]], undo: bool, redo: bool
) -> None:
    """`undo`: what an undo takes it for; `redo`: what a redo does. What nobody knows makes way for the next."""
    found = [
        LedgerEntry(effect_key=f"run/s/0/1/{key}", state=STATE_OUTCOME, outcome=Outcome(status=status))
        for key, status in entries
    ]
    assert core.stands(found, surely_undone=True) == undo
    assert core.stands(found, surely_undone=False) == redo


@pytest.mark.feature("D6")
@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("run/s/0/1", "run/s/0/1/undo/1"),
        ("run/s/0/3", "run/s/0/1/undo/3"),
        ("run/s/0/1/redo-1", "run/s/0/1/redo-1/1"),
        ("run/s/0/2/undo-1", "run/s/0/1/undo-1/2"),
        ("run/s/0/1/redo-2/7", "run/s/0/1/redo-2/7"),
    ],
)
def test_each_way_and_each_attempt_group_has_a_key_of_its_own(task: str, key: str) -> None:
    assert core.undo_key("run/s/0/1", task) == key


@pytest.mark.feature("D6", "B3")
@pytest.mark.parametrize("known", [True, False])
def test_a_task_that_comes_after_what_followed_it_does_nothing(known: bool) -> None:
    """A redo that had conflicted may be tried again, but not once a later one was carried out."""
    effect = LedgerEntry(
        effect_key="run/s/0/1", state=STATE_OUTCOME, outcome=Outcome(status=STATUS_SUCCEEDED)
    )
    keys = {"undo/1": STATUS_SUCCEEDED, "redo-1/1": STATUS_CONFLICT, "redo-2/1": STATUS_SUCCEEDED}
    if not known:
        del keys["redo-1/1"]
    keys["undo-2/1"] = STATUS_SUCCEEDED
    undos = [
        LedgerEntry(
            effect_key=f"run/s/0/1/{key}",
            mode=MODE_UNDO,
            state=STATE_OUTCOME,
            outcome=Outcome(status=status, dispatch=1),
        )
        for key, status in keys.items()
    ]
    inverse = Inverse("back", repeatable=True)
    move = core.next_undo(effect, undos, "run/s/0/1/redo-1/1", 9, inverse, 0)
    assert isinstance(move, core.Replay if known else core.NothingToUndo)
    move = core.next_undo(effect, undos[:2] if known else undos[:1], "run/s/0/1/redo-1/1", 9, inverse, 0)
    assert move == core.Begin()
