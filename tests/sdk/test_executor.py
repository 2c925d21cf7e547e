"""What the host does about an effect in each idempotency mode, when things break in the middle."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aios.effect.v1.effect_pb2 import STATE_INTENT, STATE_OUTCOME, STATE_UNKNOWN
from aios.task.v1.task_pb2 import (
    MODE_EXECUTE,
    MODE_UNDO,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    ApprovalBinding,
    Outcome,
    Task,
)
from aios_core.encoding import decode, encode
from aios_core.errors import RetryableError, TerminalError
from aios_core.labels import OWNER, Trust
from aios_core.values import label_of, labeled
from aios_runtime.lanes import UnansweredError
from aios_runtime.store.port import Result, Store, Write
from aios_runtime.store.sqlite import open_store
from aios_sdk.conformance import FolderArtifacts
from aios_sdk.connector import Connector, Done, Idempotency, Key, Lookup, NotDone, Nothing, Rate
from aios_sdk.host import effects
from aios_sdk.host.codec import arguments_sha256
from aios_sdk.host.core import ANOTHERS_MS
from aios_sdk.host.executor import Executor
from aios_sdk.host.flight import Flight, Rules
from aios_sdk.host.ledger import Ledger
from tests.sdk import toy

KEY = "run_1/send/0/0"
INPUT = encode(labeled({"to": "a@example.com"}, OWNER))


class Killed(BaseException):
    """The process is gone: nothing after it runs."""


class Clock:
    now = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now


class Rig:
    """A ledger on disk, a world, and a clock; `hosting` is one life of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = toy.World(path / "world")
        self.clock = Clock()
        self.rules = Rules()

    @asynccontextmanager
    async def hosting(
        self, connector: Connector, wrap: Callable[[Store], Store] = lambda store: store
    ) -> AsyncIterator[Executor]:
        store = await open_store(self.path / "ledger.db", service="toy", now_ms=self.clock)
        self.ledger = Ledger(store, "main")
        try:
            artifacts = FolderArtifacts(self.path / "artifacts")
            yield Executor(connector, Ledger(wrap(store), "main"), artifacts, self.clock, self.rules)
        finally:
            await store.close()

    def task(self, dispatch: int = 1, key: str = KEY, expires_in: int = 60_000) -> Task:
        approval = ApprovalBinding(
            approval_id="a",
            arguments_sha256=arguments_sha256(INPUT),
            expire_time_ms=self.clock() + expires_in,
        )
        return Task(
            workspace="main",
            run_id="run_1",
            task_id=key,
            step="send",
            target="toy.send",
            mode=MODE_EXECUTE,
            dispatch=dispatch,
            input=INPUT,
            approval=approval,
        )

    def undo(self, done: Outcome, dispatch: int = 1) -> Task:
        task = self.task(dispatch)
        task.mode = MODE_UNDO
        task.undo_token = done.undo_token
        task.ClearField("approval")
        return task

    async def killed(self, connector: Connector, *, after: bool, dispatch: int = 1) -> None:
        """A life in which the process dies inside the call: before or after it gets through."""

        def die() -> None:
            raise Killed

        if after:
            self.world.after_perform = die
        else:
            self.world.before_perform = die
        async with self.hosting(connector) as executor:
            with pytest.raises(Killed):
                await executor._effects.execute(self.task(dispatch), connector.find("toy.send"), Flight())
        self.world.after_perform = self.world.before_perform = lambda: None


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def mode_a(rig: Rig) -> Connector:
    return toy.connector(rig.world, Key(remembers_ms=1000), lookup=False)


def mode_b(rig: Rig, idempotency: Idempotency | None = None, *, repeatable: bool = True) -> Connector:
    return toy.connector(rig.world, idempotency or Lookup(), lookup=True, repeatable=repeatable)


def mode_c(rig: Rig) -> Connector:
    return toy.connector(rig.world, Nothing(), lookup=False)


@pytest.mark.feature("H10")
@pytest.mark.parametrize("after", [False, True])
async def test_mode_a_calls_again_with_the_key(rig: Rig, after: bool) -> None:
    await rig.killed(mode_a(rig), after=after)
    async with rig.hosting(mode_a(rig)) as executor:
        outcome = await executor.perform(rig.task(2))
    assert outcome.status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


@pytest.mark.feature("H10")
async def test_mode_a_asks_a_person_when_the_key_is_forgotten(rig: Rig) -> None:
    await rig.killed(mode_a(rig), after=True)
    rig.clock.now += 1000
    async with rig.hosting(mode_a(rig)) as executor:
        outcome = await executor.perform(rig.task(2))
        again = await executor.perform(rig.task(3))
        assert (await rig.ledger.read(KEY)).entry.state == STATE_UNKNOWN  # type: ignore[union-attr]
    assert (outcome.status, outcome.error.code) == (STATUS_UNKNOWN, "OUTCOME_UNKNOWN")
    assert (again.status, again.dispatch) == (STATUS_UNKNOWN, 3)
    assert rig.world.happened() == [KEY]


@pytest.mark.feature("D2", "H10")
@pytest.mark.parametrize("limit", ["start_by_ms", "deadline_ms"])
async def test_a_task_that_comes_too_late_does_nothing_and_one_that_had_begun_is_looked_up(
    rig: Rig, limit: str
) -> None:
    def late(dispatch: int) -> Task:
        task = rig.task(dispatch)
        setattr(task, limit, rig.clock.now)
        return task

    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(late(1))
        code = "QUEUE_TIMEOUT" if limit == "start_by_ms" else "STEP_TIMEOUT"
        assert (outcome.status, outcome.error.code) == (STATUS_FAILED, code) and outcome.error.retryable
        again = await executor.perform(rig.task(1))  # nothing was done, and for this dispatch nothing will be
        assert again.error.code == code and rig.world.happened() == []
    await rig.killed(mode_b(rig), after=True, dispatch=2)
    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(late(3))
    assert outcome.status == STATUS_SUCCEEDED and rig.world.happened() == [KEY]


@pytest.mark.feature("H10")
@pytest.mark.parametrize("after", [False, True])
async def test_mode_b_looks_before_it_calls_again(rig: Rig, after: bool) -> None:
    await rig.killed(mode_b(rig), after=after)
    called: list[str] = []
    rig.world.before_perform = lambda: called.append("again")
    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(rig.task(2))
    assert outcome.status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]
    assert called == ([] if after else ["again"])


async def test_mode_b_waits_out_the_lag_before_it_looks_whatever_the_clock_says(rig: Rig) -> None:
    await rig.killed(mode_b(rig, Lookup(lag_ms=80)), after=True)
    rig.clock.now += 3_600_000
    time = asyncio.get_running_loop().time
    looked: list[float] = []

    def look() -> Done[toy.Sent]:
        looked.append(time())
        return Done(toy.Sent(number=1))

    rig.world.look = look
    started = time()
    async with rig.hosting(mode_b(rig, Lookup(lag_ms=80))) as executor:
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert looked[0] - started >= 0.08
    assert rig.world.happened() == [KEY]


@pytest.mark.feature("H10")
async def test_a_call_that_broke_off_is_looked_up_only_once_it_can_be_seen(rig: Rig) -> None:
    time = asyncio.get_running_loop().time
    broke = [0.0]

    def break_off() -> None:
        broke[0] = time()
        raise ConnectionError("no answer")

    rig.world.after_perform = break_off
    rig.world.look = lambda: Done(toy.Sent(number=1)) if time() - broke[0] >= 0.08 else NotDone()
    async with rig.hosting(mode_b(rig, Lookup(lag_ms=80))) as executor:
        assert (await executor.perform(rig.task())).status == STATUS_SUCCEEDED


@pytest.mark.feature("H10")
async def test_a_second_call_is_given_its_whole_lag_as_well(rig: Rig) -> None:
    """The INTENT is renewed before each call, so that a crash in the second one is not taken for one in the first."""
    await rig.killed(mode_b(rig, Lookup(conditional=True)), after=False)
    async with rig.hosting(mode_b(rig, Lookup(conditional=True))) as executor:
        before = await rig.ledger.read(KEY)
        rig.clock.now += 10_000
        await executor.perform(rig.task(2))
        entry = (await rig.ledger.read(KEY)).entry
    assert before.entry is not None
    assert entry is not None
    assert entry.intent_time_ms == before.entry.intent_time_ms + 10_000
    assert entry.attempts == 2


@pytest.mark.feature("H10")
async def test_a_look_up_that_breaks_off_leaves_the_effect_open_and_the_service_starts(rig: Rig) -> None:
    await rig.killed(mode_b(rig), after=True)

    def break_off() -> None:
        raise ConnectionError("no answer")

    rig.world.look = break_off
    async with rig.hosting(mode_b(rig)) as executor:
        assert await executor.recover() == 1
        assert (await executor.perform(rig.task(2))).status == STATUS_UNKNOWN


@pytest.mark.feature("B3", "H10")
async def test_what_was_answered_with_nothing_was_done_is_not_done_when_the_task_comes_again(
    rig: Rig,
) -> None:
    """The acknowledgement was lost, and meanwhile the run has ended: nobody waits for the effect any more."""
    task = rig.task(expires_in=-1)
    async with rig.hosting(mode_a(rig)) as executor:
        assert (await executor.perform(task)).error.code == "APPROVAL_EXPIRED"
        rig.clock.now -= 60_000  # put back: the approval would count again
        assert (await executor.perform(task)).error.code == "APPROVAL_EXPIRED"
    assert rig.world.happened() == []


@pytest.mark.feature("B3", "H10")
async def test_an_intent_that_could_not_be_written_is_no_answer(rig: Rig) -> None:
    async def commit(writes: object) -> list[Result]:
        raise RetryableError("DISK_FULL", "The disk is full.")

    def full(store: Store) -> Store:
        store.commit = commit  # type: ignore[method-assign, assignment]
        return store

    async with rig.hosting(mode_a(rig), full) as executor:
        with pytest.raises(UnansweredError):
            await executor.perform(rig.task())
    assert rig.world.happened() == []


async def test_mode_b_asks_a_person_when_the_look_can_not_tell(rig: Rig) -> None:
    await rig.killed(mode_b(rig), after=True)
    rig.world.look = lambda: toy.UNCLEAR
    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(rig.task(2))
    assert (outcome.status, outcome.error.message) == (STATUS_UNKNOWN, "Look into the mailbox.")
    assert outcome.undo_token, "the person may say that it happened, and want it back"


@pytest.mark.parametrize(("conditional", "status"), [(False, STATUS_UNKNOWN), (True, STATUS_SUCCEEDED)])
async def test_where_another_worker_may_still_act_only_a_conditional_write_is_repeated(
    rig: Rig, conditional: bool, status: int
) -> None:
    mode = Lookup(conditional=conditional)
    await rig.killed(mode_b(rig, mode), after=False)
    rig.rules = Rules(sole_owner=False)
    rig.clock.now += ANOTHERS_MS
    async with rig.hosting(mode_b(rig, mode)) as executor:
        assert (await executor.perform(rig.task(2))).status == status


@pytest.mark.feature("H10")
@pytest.mark.parametrize("after", [False, True])
async def test_mode_c_is_never_called_a_second_time(rig: Rig, after: bool) -> None:
    await rig.killed(mode_c(rig), after=after)
    async with rig.hosting(mode_c(rig)) as executor:
        outcome = await executor.perform(rig.task(2))
    assert outcome.status == STATUS_UNKNOWN
    assert len(rig.world.happened()) == (1 if after else 0)


@pytest.mark.feature("I4")
@pytest.mark.parametrize("mode", ["a", "b"])
async def test_an_approval_that_expired_meanwhile_does_not_allow_the_call_again(rig: Rig, mode: str) -> None:
    build = {"a": mode_a, "b": mode_b}[mode]
    await rig.killed(build(rig), after=False)
    rig.clock.now += 500
    async with rig.hosting(build(rig)) as executor:
        outcome = await executor.perform(rig.task(2, expires_in=-1))
    # A look-up proves that nothing happened; without one nobody knows.
    assert outcome.status == (STATUS_FAILED if mode == "b" else STATUS_UNKNOWN)
    assert rig.world.happened() == []


async def test_a_start_settles_what_a_look_finds_done(rig: Rig) -> None:
    await rig.killed(mode_b(rig), after=True)
    async with rig.hosting(mode_b(rig)) as executor:
        assert await executor.recover() == 1
        assert (await rig.ledger.read(KEY)).entry.state == STATE_OUTCOME  # type: ignore[union-attr]
        assert await executor.recover() == 0


async def test_a_start_leaves_open_what_did_not_happen(rig: Rig) -> None:
    await rig.killed(mode_b(rig), after=False)
    async with rig.hosting(mode_b(rig)) as executor:
        assert await executor.recover() == 1
        assert (await rig.ledger.read(KEY)).entry.state == STATE_INTENT  # type: ignore[union-attr]
    assert rig.world.happened() == []


async def test_a_retryable_failure_is_tried_again_only_by_a_new_dispatch(rig: Rig) -> None:
    def busy() -> None:
        raise RetryableError("UNAVAILABLE", "The provider is busy.", retry_after=2.0)

    rig.world.before_perform = busy
    async with rig.hosting(mode_b(rig)) as executor:
        first = await executor.perform(rig.task(1))
        rig.world.before_perform = lambda: None
        assert first.error.retry_after == 2.0
        assert (await executor.perform(rig.task(1))).status == STATUS_FAILED
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
        assert (await rig.ledger.read(KEY)).entry.attempts == 2  # type: ignore[union-attr]
    assert rig.world.happened() == [KEY]


async def test_a_terminal_failure_is_the_outcome_for_ever(rig: Rig) -> None:
    def refused() -> None:
        raise TerminalError("ACTION_FAILED", "No such mailbox.")

    rig.world.before_perform = refused
    async with rig.hosting(mode_b(rig)) as executor:
        await executor.perform(rig.task(1))
        rig.world.before_perform = lambda: None
        outcome = await executor.perform(rig.task(2))
    assert (outcome.status, outcome.error.message) == (STATUS_FAILED, "No such mailbox.")


@pytest.mark.parametrize(("after", "status"), [(True, STATUS_SUCCEEDED), (False, STATUS_FAILED)])
async def test_a_defect_in_the_middle_is_looked_up_at_once(rig: Rig, after: bool, status: int) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    setattr(rig.world, "after_perform" if after else "before_perform", defect)
    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(rig.task())
    assert outcome.status == status
    assert "ZeroDivisionError" in outcome.error.message or after


async def test_a_defect_that_can_not_be_looked_up_is_unknown(rig: Rig) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    rig.world.before_perform = defect
    async with rig.hosting(mode_c(rig)) as executor:
        outcome = await executor.perform(rig.task())
    assert outcome.status == STATUS_UNKNOWN


async def test_two_deliveries_at_once_are_one_call(rig: Rig) -> None:
    async with rig.hosting(mode_c(rig)) as executor:
        outcomes = await asyncio.gather(*(executor.perform(rig.task(n)) for n in range(1, 6)))
    assert {outcome.status for outcome in outcomes} == {STATUS_SUCCEEDED}
    assert [outcome.dispatch for outcome in outcomes] == [1, 2, 3, 4, 5]
    assert rig.world.happened() == [KEY]


class FullDisk:
    """A store that can't take an OUTCOME any more."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, writes: list[Write]) -> list[Result]:
        if self.full and writes[0].expect > 0:
            raise RetryableError("DISK_FULL", "The disk is full.")
        return await self._store.commit(writes)


async def test_an_outcome_that_can_not_be_recorded_is_not_called_a_failure(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "SETTLE_SECONDS", (0.0,))
    async with rig.hosting(mode_b(rig), FullDisk) as executor:  # type: ignore[arg-type]
        outcome = await executor.perform(rig.task())
    assert outcome.status == STATUS_UNKNOWN
    assert "disk is full" in outcome.error.message
    async with rig.hosting(mode_b(rig)) as executor:
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


async def test_a_call_whose_time_is_over_is_unknown_here_and_ends_in_the_ledger(rig: Rig) -> None:
    connector = mode_b(rig)
    action = connector.find("toy.send")
    released, reached = asyncio.Event(), asyncio.Event()
    perform = action.perform

    async def slow(*arguments: object) -> object:
        reached.set()
        await released.wait()
        return await perform(*arguments)  # type: ignore[arg-type]

    action.perform = slow  # type: ignore[method-assign, assignment]
    task = rig.task()
    task.timeout_ms = 1
    async with rig.hosting(connector) as executor:
        performing = asyncio.create_task(executor.perform(task))
        await reached.wait()
        performing.cancel()  # as the lane does when the time is over
        outcome = await performing
        assert outcome.status == STATUS_UNKNOWN
        released.set()
        await executor.close()
        assert (await executor.perform(rig.task(2))).status == STATUS_SUCCEEDED
    assert rig.world.happened() == [KEY]


async def test_a_call_whose_time_is_over_before_it_begins_does_not_happen(rig: Rig) -> None:
    connector = mode_b(rig)
    action = connector.find("toy.send")
    released, reached = asyncio.Event(), asyncio.Event()
    capture = action.capture

    async def slow(*arguments: object) -> object:
        reached.set()
        await released.wait()
        return await capture(*arguments)  # type: ignore[arg-type]

    action.capture = slow  # type: ignore[method-assign, assignment]
    task = rig.task()
    task.timeout_ms = 1
    async with rig.hosting(connector) as executor:
        performing = asyncio.create_task(executor.perform(task))
        await reached.wait()
        performing.cancel()
        with pytest.raises(UnansweredError):
            await performing
        released.set()
        await executor.close()
        outcome = await executor.perform(rig.task())
        assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "STEP_TIMEOUT")
    assert rig.world.happened() == []


@pytest.mark.feature("D6")
async def test_an_undo_that_can_not_be_repeated_asks_a_person_after_a_crash(rig: Rig) -> None:
    def die() -> None:
        raise Killed

    connector = mode_b(rig, repeatable=False)
    async with rig.hosting(connector) as executor:
        done = await executor.perform(rig.task())
        rig.world.after_perform = die
        with pytest.raises(Killed):
            await executor._effects.undo(rig.undo(done), KEY, Flight())
    rig.world.after_perform = lambda: None
    async with rig.hosting(connector) as executor:
        outcome = await executor.perform(rig.undo(done, 2))
    assert outcome.status == STATUS_UNKNOWN
    assert rig.world.happened() == [KEY, f"undo of {KEY}"]


async def test_what_never_happened_has_nothing_to_undo(rig: Rig) -> None:
    def refused() -> None:
        raise TerminalError("ACTION_FAILED", "No such mailbox.")

    rig.world.before_perform = refused
    async with rig.hosting(mode_b(rig)) as executor:
        failed = await executor.perform(rig.task())
        assert not failed.undo_token
        task = rig.undo(failed)
        task.undo_token = b'{"v":1,"effect":"' + KEY.encode() + b'"}'
        assert (await executor.perform(task)).status == STATUS_SUCCEEDED
    assert rig.world.happened() == []


@pytest.mark.parametrize(
    ("token", "code"),
    [(b"", "INVALID_ARGUMENT"), (b"[1]", "INVALID_ARGUMENT"), (b'{"effect":"run_9/x/0/0"}', "NOT_FOUND")],
)
async def test_an_undo_token_that_is_not_ours_is_refused(rig: Rig, token: bytes, code: str) -> None:
    async with rig.hosting(mode_b(rig)) as executor:
        task = rig.undo(Outcome())
        task.undo_token = token
        outcome = await executor.perform(task)
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, code)


async def test_an_unknown_action_is_named_with_the_nearest(rig: Rig) -> None:
    async with rig.hosting(mode_b(rig)) as executor:
        task = rig.task()
        task.target = "toy.sent"
        outcome = await executor.perform(task)
    assert outcome.error.code == "NOT_FOUND"
    assert "Did you mean toy.send?" in outcome.error.message


async def test_what_comes_from_the_connector_is_not_trusted(rig: Rig) -> None:
    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(rig.task())
    label = label_of(decode(outcome.output))
    assert label.trust is Trust.UNTRUSTED
    assert "connector:toy" in label.origins


@pytest.mark.feature("B6")
async def test_a_connector_at_its_limit_lets_a_call_wait_and_begins_nothing(rig: Rig) -> None:
    connector = mode_a(rig)
    connector.rate = Rate(calls=1, per_ms=3_600_000)
    second = "run_2/send/0/0"
    async with rig.hosting(connector) as executor:
        assert (await executor.perform(rig.task())).status == STATUS_SUCCEEDED
        waiting = asyncio.create_task(executor.perform(rig.task(key=second)))
        while not (executor._effects.limiter._line.locked() or waiting.done()):
            await asyncio.sleep(0)
        tasks = [waiting, *executor._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await rig.ledger.read(second)).entry is None
    assert rig.world.happened() == [KEY]
