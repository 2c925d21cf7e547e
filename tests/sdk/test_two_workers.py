"""One effect at two workers of a connector that share its ledger: it comes to the second while the first is at it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from aios.effect.v1.effect_pb2 import STATE_INTENT, STATE_OUTCOME
from aios.task.v1.task_pb2 import STATUS_FAILED, STATUS_SUCCEEDED, Outcome
from aios_core.errors import RetryableError, TerminalError
from aios_runtime.lanes import UnansweredError
from aios_runtime.store.port import Result, Store, Write
from aios_sdk.connector import Connector, Lookup
from aios_sdk.host import core
from aios_sdk.host.core import ANOTHERS_MS
from aios_sdk.host.executor import Executor
from aios_sdk.host.flight import Rules
from tests.sdk.test_executor import KEY, Rig, mode_a, mode_b, mode_c

MODES = {"a": mode_a, "b": mode_b, "c": mode_c}
CONDITIONAL = Lookup(conditional=True)

pytestmark = pytest.mark.feature("D3", "H10")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.rules = Rules(sole_owner=False)
    return rig


async def intent_of_another(rig: Rig, connector: Connector, *, age: int, after: bool = False) -> None:
    """Another worker has written its INTENT, and made the call if `after`."""
    await rig.killed(connector, after=after)
    rig.clock.now += age


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("apart", [1, -1], ids=["its clock is behind", "its clock is ahead"])
async def test_what_another_has_just_begun_is_left_to_it(rig: Rig, mode: str, apart: int) -> None:
    """Nobody is asked whether it happened, and nothing is called again, while it may still come to its end."""
    await intent_of_another(rig, MODES[mode](rig), age=apart * (ANOTHERS_MS - 1))
    async with rig.hosting(MODES[mode](rig)) as executor:
        with pytest.raises(UnansweredError):
            await executor.perform(rig.task(2))
        await executor.recover()
        entry = (await rig.ledger.read(KEY)).entry
    assert entry is not None and (entry.state, entry.attempts) == (STATE_INTENT, 1)


async def test_a_start_does_not_look_for_what_another_has_just_begun(rig: Rig) -> None:
    await intent_of_another(rig, mode_b(rig), age=0, after=True)
    looked: list[None] = []
    rig.world.look = lambda: looked.append(None)
    async with rig.hosting(mode_b(rig)) as executor:
        assert await executor.recover() == 1
        assert not looked
        rig.clock.now += ANOTHERS_MS
        await executor.recover()
    assert looked


async def test_an_undo_that_another_has_just_begun_is_left_to_it(rig: Rig) -> None:
    async with rig.hosting(mode_b(rig)) as executor:
        done = await executor.perform(rig.task())
        rig.world.before_perform = _die
        with pytest.raises(SystemError):
            await executor.perform(rig.undo(done))
        rig.world.before_perform = lambda: None
        with pytest.raises(UnansweredError):
            await executor.perform(rig.undo(done))
        rig.clock.now += ANOTHERS_MS
        assert (await executor.perform(rig.undo(done))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY, f"undo of {KEY}"]


async def test_a_call_that_loses_to_the_one_of_another_is_looked_up_again(rig: Rig) -> None:
    """The second one is refused because the first has got through meanwhile: that is a success, and no failure."""

    def first_gets_through() -> None:
        rig.world.happen(KEY)
        raise TerminalError("CONFLICT", "It was changed at the same moment.")

    outcome = await repeated(rig, mode_b(rig, CONDITIONAL), first_gets_through)
    assert outcome.status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


async def test_a_repeated_call_that_fails_and_is_not_found_has_failed(rig: Rig) -> None:
    def refused() -> None:
        raise TerminalError("CONFLICT", "Somebody has changed it.")

    outcome = await repeated(rig, mode_b(rig, CONDITIONAL), refused)
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "CONFLICT")


async def test_a_repeat_that_gets_no_answer_says_nothing_of_the_call_before_it(rig: Rig) -> None:
    """With a key and without a look there is one way to know: to ask with the key until the other side answers."""
    rig.rules = Rules()
    await rig.killed(mode_a(rig), after=True)

    def unreachable() -> None:
        raise RetryableError("UNAVAILABLE", "The other side can't be reached.")

    async with rig.hosting(mode_a(rig)) as executor:
        rig.world.before_perform = unreachable
        with pytest.raises(UnansweredError):
            await executor.perform(rig.task(2))
        rig.world.before_perform = lambda: None
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


@pytest.mark.parametrize("undoing", [False, True], ids=["a change", "its undo"])
async def test_who_can_not_read_the_ledger_says_nothing_of_what_another_may_have_done(
    rig: Rig, undoing: bool
) -> None:
    async with rig.hosting(mode_b(rig)) as executor:
        done = await executor.perform(rig.task())

    def cut_off(store: Store) -> Store:
        async def read(key: str) -> None:
            raise RetryableError("UNAVAILABLE", "The store can't be reached; nothing was applied.")

        store.read = read  # type: ignore[method-assign, assignment]
        return store

    async with rig.hosting(mode_b(rig), cut_off) as executor:
        with pytest.raises(UnansweredError):
            await executor.perform(rig.undo(done) if undoing else rig.task(2))
    async with rig.hosting(mode_b(rig)) as executor:
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


@pytest.mark.parametrize("settled", [True, False], ids=["which has settled it", "which is still at it"])
async def test_the_first_one_answers_with_the_outcome_of_the_one_that_took_it_up(
    rig: Rig, settled: bool
) -> None:
    """It was too slow; what it has to say of the effect does not count any more."""
    async with rig.hosting(mode_b(rig, CONDITIONAL)) as slow:

        async def taken_up() -> None:
            stored = await rig.ledger.read(KEY)
            assert stored.entry is not None
            if settled:
                stored.entry.state = STATE_OUTCOME
                stored.entry.outcome.CopyFrom(Outcome(status=STATUS_SUCCEEDED, summary="by the other"))
            await rig.ledger.write(stored.entry, stored.revision)

        hooked = _Between(slow, taken_up)
        if settled:
            assert (await hooked.perform(rig)).summary == "by the other"
        else:
            with pytest.raises(UnansweredError):
                await hooked.perform(rig)


async def test_an_attempt_that_fails_after_others_is_looked_up(rig: Rig) -> None:
    """A worker that was held up makes its call after another one has looked, found nothing, and reported a failure."""

    def unreachable() -> None:
        raise RetryableError("UNAVAILABLE", "The other side can't be reached.")

    def held_up_gets_through() -> None:
        rig.world.happen(KEY)
        raise TerminalError("CONFLICT", "It was changed at the same moment.")

    async with rig.hosting(mode_b(rig, CONDITIONAL)) as executor:
        rig.world.before_perform = unreachable
        assert (await executor.perform(rig.task())).status == STATUS_FAILED
        rig.world.before_perform = held_up_gets_through
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taken", [True, False], ids=["another has taken it up", "nobody has"])
async def test_who_hears_late_that_its_intent_stands_looks_before_the_call(
    rig: Rig, mode: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "ANOTHERS_MS", 20)
    held_up: list[None] = []

    def slow(store: Store) -> Store:
        commit = store.commit

        async def late(writes: Sequence[Write]) -> Sequence[Result]:
            results = await commit(writes)
            if not held_up:
                held_up.append(None)
                if taken:
                    stored = await rig.ledger.read(KEY)
                    assert stored.entry is not None
                    await rig.ledger.write(stored.entry, stored.revision)
                await asyncio.sleep(0.03)
            return results

        store.commit = late  # type: ignore[method-assign, assignment]
        return store

    async with rig.hosting(MODES[mode](rig), slow) as executor:
        if taken:
            with pytest.raises(UnansweredError):
                await executor.perform(rig.task())
        else:
            assert (await executor.perform(rig.task())).status == STATUS_SUCCEEDED
    assert held_up
    assert rig.world.happened() == ([] if taken else [KEY])


async def repeated(rig: Rig, connector: Connector, call: object) -> Outcome:
    """The outcome at a second worker whose call ends as `call` does; the first one was not seen to get through."""
    await intent_of_another(rig, connector, age=ANOTHERS_MS)
    rig.world.before_perform = call  # type: ignore[assignment]
    async with rig.hosting(connector) as executor:
        return await executor.perform(rig.task(2))


class _Between:
    """An executor in which something happens after the call and before its outcome is recorded."""

    def __init__(self, executor: Executor, then: object) -> None:
        self._executor, self._then = executor, then

    async def perform(self, rig: Rig) -> Outcome:
        settle = self._executor._effects._settle

        async def after(*arguments: object) -> Outcome:
            await self._then()  # type: ignore[operator]
            return await settle(*arguments)  # type: ignore[arg-type]

        self._executor._effects._settle = after  # type: ignore[method-assign, assignment]
        return await self._executor.perform(rig.task())


def _die() -> None:
    raise SystemError("the process is gone")
