"""What every connector must do. A connector's tests inherit `ConnectorConformance` and say how to build it.

Nothing here looks into the connector: the outside world is observed before and after, and processes are really killed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import pytest

from aios.effect.v1.effect_pb2 import STATE_OUTCOME, LedgerEntry
from aios.task.v1.task_pb2 import (
    MODE_EXECUTE,
    MODE_SIMULATE,
    MODE_UNDO,
    STATUS_CONFLICT,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    ApprovalBinding,
    Mode,
    Outcome,
    Task,
)
from aios_core.encoding import encode
from aios_core.errors import RetryableError
from aios_core.labels import OWNER, Label, outside
from aios_core.values import Plain, labeled
from aios_sdk.conformance.artifacts import FolderArtifacts
from aios_sdk.conformance.hosting import (
    NOW_MS,
    WORKSPACE,
    Ended,
    artifacts_of,
    hosted,
    in_child,
    ledger_of,
    put_back,
)
from aios_sdk.conformance.redoing import HOST_POINTS, RedoConformance, mode_of
from aios_sdk.connector import Connector, Effect
from aios_sdk.host.codec import arguments_sha256, failed
from aios_sdk.host.mark import RestoreMark

KEY: Final = "run_0/write/0/0"
SIGKILLED: Final = -9
MARK: Final = RestoreMark("restore_0", NOW_MS - 60_000, NOW_MS - 1000)


@dataclass(frozen=True, slots=True)
class Example:
    """A call of an action that succeeds in the prepared world. `wrong` are inputs that its schema must refuse."""

    name: str
    action: str
    input: Plain
    wrong: Sequence[Plain] = ()


class ConnectorConformance(RedoConformance):
    """Inherit it, define the six methods, and give every action that changes something at least one example."""

    crash_points: ClassVar[tuple[str, ...]] = ()
    """The connector's own crash points inside `perform`, passed by every example and by its undo."""

    def examples(self) -> Sequence[Example]:
        """What is called."""
        raise NotImplementedError

    async def prepare(self, directory: Path, artifacts: FolderArtifacts) -> None:
        """Build the outside world below `directory`, and the artifacts that the examples name."""
        raise NotImplementedError

    def connector(self, directory: Path) -> Connector:
        """The connector for that world, with all that it keeps below `directory`; called in other processes too."""
        raise NotImplementedError

    def observe(self, directory: Path) -> str:
        """The outside world in words, read without the connector: equal exactly when the world is."""
        raise NotImplementedError

    def disturb(self, directory: Path, example: Example) -> None:
        """A person's change of what the example's effect has left."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per example and crash point."""
        if "example" in metafunc.fixturenames:
            examples = list(self.examples())
            metafunc.parametrize("example", examples, ids=[example.name for example in examples])
        if "crash_at" in metafunc.fixturenames:
            metafunc.parametrize("crash_at", [*HOST_POINTS, *self.crash_points])

    async def test_every_action_that_changes_something_has_an_example(self, tmp_path: Path) -> None:
        await self.prepare(tmp_path, artifacts_of(tmp_path))
        actions = self.connector(tmp_path).actions.values()
        changing = {action.spec.name for action in actions if action.spec.effect is not Effect.READ}
        assert changing <= {example.action for example in self.examples()}

    async def test_what_the_connector_declares_is_plain_json(self, tmp_path: Path) -> None:
        await self.prepare(tmp_path, artifacts_of(tmp_path))
        declared = self.connector(tmp_path).describe()
        assert json.loads(json.dumps(declared)) == declared

    @pytest.mark.feature("D10")
    async def test_a_simulation_changes_nothing_and_predicts_what_then_happens(
        self, tmp_path: Path, example: Example
    ) -> None:
        before = await self._prepared(tmp_path)
        predicted = await self._perform(tmp_path, example, MODE_SIMULATE)
        assert predicted.status == STATUS_SUCCEEDED, predicted.error
        assert self.observe(tmp_path) == before
        done = await self._perform(tmp_path, example)
        assert list(predicted.changes) == list(done.changes)
        assert predicted.output == done.output

    @pytest.mark.feature("H10")
    async def test_the_same_task_twice_is_one_effect_and_one_outcome(
        self, tmp_path: Path, example: Example
    ) -> None:
        once = await self._done_once(tmp_path / "once", example)
        first = await self._perform(tmp_path / "twice", example)
        second = await self._perform(tmp_path / "twice", example, dispatch=2)
        assert self.observe(tmp_path / "twice") == once
        assert (first.status, second.status) == (STATUS_SUCCEEDED, STATUS_SUCCEEDED)
        assert (second.output, second.undo_token, list(second.changes)) == (
            first.output,
            first.undo_token,
            list(first.changes),
        )
        assert second.dispatch == 2

    @pytest.mark.feature("H10")
    async def test_killed_anywhere_and_given_again_it_is_one_effect(
        self, tmp_path: Path, example: Example, crash_at: str
    ) -> None:
        once = await self._done_once(tmp_path / "once", example)
        killed = tmp_path / "killed"
        await self._prepared(killed)
        died = await in_child(self, killed, self.task(example), crash_at)
        self._was_killed(died, crash_at)
        again = await self._perform(killed, example, dispatch=2)
        assert again.status == STATUS_SUCCEEDED, again.error
        assert self.observe(killed) == once

    @pytest.mark.feature("J5", "H10", "B3")
    @pytest.mark.parametrize("known", ["nothing", "a try that failed"])
    async def test_what_was_done_after_a_backup_is_not_done_again_after_its_restore(
        self, tmp_path: Path, example: Example, known: str
    ) -> None:
        """Found done, or a person is asked; never a second time, whatever the backup's ledger knows of it."""
        await self._prepared(tmp_path)
        if known != "nothing":
            task = self.task(example, dispatch=1)
            await self._fails_for_now(tmp_path, task)
        ledger = await ledger_of(tmp_path)
        done = await self._perform(tmp_path, example, dispatch=2)
        assert done.status == STATUS_SUCCEEDED, done.error
        after = self.observe(tmp_path)
        await put_back(tmp_path, ledger, MARK)
        for dispatch in (2, 3):
            again = await self._perform(tmp_path, example, dispatch=dispatch)
            assert again.status in (STATUS_SUCCEEDED, STATUS_UNKNOWN), again.error
            assert self.observe(tmp_path) == after

    @pytest.mark.feature("J5")
    async def test_after_a_restore_what_a_person_lets_begin_is_done_once(
        self, tmp_path: Path, example: Example
    ) -> None:
        """It had not happened: it is done now, or a person is asked, and then the next attempt is done."""
        once = await self._done_once(tmp_path / "once", example)
        restored = tmp_path / "twice"
        await put_back(restored, await ledger_of(restored), MARK)
        outcome = await self._perform(restored, example)
        if outcome.status == STATUS_UNKNOWN:
            async with hosted(self, restored) as executor:
                step, _, group = KEY.rpartition("/")
                outcome = await executor.perform(self.task(example, key=f"{step}/{int(group) + 1}"))
            assert outcome.status == STATUS_SUCCEEDED, outcome.error
        else:
            assert outcome.status == STATUS_SUCCEEDED, outcome.error
            assert self.observe(restored) == once

    @pytest.mark.feature("D6")
    async def test_undo_takes_it_back_once(self, tmp_path: Path, example: Example) -> None:
        before = await self._prepared(tmp_path)
        done = await self._perform(tmp_path, example)
        if not done.undo_token:
            pytest.skip(f"{example.action} has no inverse")
        undone = await self._undo(tmp_path, example, done)
        assert undone.status == STATUS_SUCCEEDED, undone.error
        assert self.observe(tmp_path) == before
        for number in (1, 2):
            again = await self._undo(tmp_path, example, done, number)
            assert again.status == STATUS_SUCCEEDED, again.error
            assert self.observe(tmp_path) == before

    @pytest.mark.feature("D6")
    async def test_undo_killed_anywhere_and_given_again_takes_it_back(
        self, tmp_path: Path, example: Example, crash_at: str
    ) -> None:
        before = await self._prepared(tmp_path)
        done = await self._perform(tmp_path, example)
        if not done.undo_token:
            pytest.skip(f"{example.action} has no inverse")
        died = await in_child(self, tmp_path, self.undo_task(example, done), crash_at)
        if died.code == 0 and crash_at not in HOST_POINTS:
            pytest.skip(f"the undo of {example.name} does not pass {crash_at}")
        self._was_killed(died, crash_at)
        again = await self._undo(tmp_path, example, done, dispatch=2)
        assert again.status == STATUS_SUCCEEDED, again.error
        assert self.observe(tmp_path) == before

    @pytest.mark.feature("D6")
    async def test_undo_after_a_persons_edit_is_a_conflict_and_touches_nothing(
        self, tmp_path: Path, example: Example
    ) -> None:
        await self._prepared(tmp_path)
        done = await self._perform(tmp_path, example)
        if not done.undo_token:
            pytest.skip(f"{example.action} has no inverse")
        self.disturb(tmp_path, example)
        edited = self.observe(tmp_path)
        outcome = await self._undo(tmp_path, example, done)
        assert outcome.status == STATUS_CONFLICT
        assert outcome.error.code == "CONFLICT"
        assert outcome.changes, "a conflict says what stands there"
        assert self.observe(tmp_path) == edited

    @pytest.mark.feature("I4")
    @pytest.mark.parametrize("case", ["one byte changed", "expired", "other run", "other step", "missing"])
    async def test_without_an_approval_of_exactly_this_it_is_refused(
        self, tmp_path: Path, example: Example, case: str
    ) -> None:
        before = await self._prepared(tmp_path)
        task = self.task(example)
        if case == "one byte changed":
            sha256 = bytearray(task.approval.arguments_sha256)
            sha256[-1] ^= 1
            task.approval.arguments_sha256 = bytes(sha256)
        elif case == "expired":
            task.approval.expire_time_ms = NOW_MS - 1
        elif case == "other run":
            task.approval.run_id = "run_other"
        elif case == "other step":
            task.approval.step = "other"
        else:
            task.ClearField("approval")
        codes = {
            "one byte changed": "APPROVAL_STALE",
            "expired": "APPROVAL_EXPIRED",
            "other run": "APPROVAL_STALE",
            "other step": "APPROVAL_STALE",
            "missing": "APPROVAL_REQUIRED",
        }
        await self._is_refused(tmp_path, task, codes[case], before)

    @pytest.mark.feature("I10")
    async def test_a_steering_field_from_untrusted_data_is_refused(
        self, tmp_path: Path, example: Example
    ) -> None:
        before = await self._prepared(tmp_path)
        if not self.connector(tmp_path).actions[example.action].spec.steering:
            pytest.skip(f"{example.action} has no steering field")
        task = self.task(example, label=outside("event:http"))
        task.ClearField("approval")
        await self._is_refused(tmp_path, task, "UNTRUSTED_FIELD", before)

    async def test_a_wrong_input_is_refused_with_the_name_of_the_field(
        self, tmp_path: Path, example: Example
    ) -> None:
        before = await self._prepared(tmp_path)
        for number, wrong in enumerate([*example.wrong, {"no_such_field": 1}]):
            task = self.task(Example("wrong", example.action, wrong), key=f"run_0/wrong/{number}/0")
            async with hosted(self, tmp_path) as executor:
                outcome = await executor.perform(task)
            assert outcome.status == STATUS_FAILED
            assert not outcome.error.retryable
            assert outcome.error.message.strip()
            assert "Traceback" not in outcome.error.message
        assert self.observe(tmp_path) == before

    async def test_a_key_that_was_used_for_another_input_is_refused(
        self, tmp_path: Path, example: Example
    ) -> None:
        await self._prepared(tmp_path)
        await self._perform(tmp_path, example)
        after = self.observe(tmp_path)
        task = self.task(example, label=Label(("person:other",), OWNER.trust))
        await self._is_refused(tmp_path, task, "REQUEST_ID_REUSED", after)

    # ------------------------------------------------------------------------------------------------------------

    def task(
        self,
        example: Example,
        mode: Mode.ValueType = MODE_EXECUTE,
        *,
        key: str = KEY,
        dispatch: int = 1,
        label: Label = OWNER,
    ) -> Task:
        """The task for an example, approved for exactly its arguments."""
        data = encode(labeled(example.input, label))
        name = self._connector_name()
        return Task(
            workspace=WORKSPACE,
            run_id=key.split("/")[0],
            task_id=key,
            step=key.split("/")[1],
            dispatch=dispatch,
            target=f"{name}.{example.action}",
            mode=mode,
            input=data,
            approval=ApprovalBinding(
                approval_id="appr_0",
                arguments_sha256=arguments_sha256(data),
                expire_time_ms=NOW_MS + 60_000,
                run_id=key.split("/")[0],
                step=key.split("/")[1],
                approver="person:owner",
            ),
        )

    def undo_task(
        self, example: Example, done: Outcome, number: int = 1, dispatch: int = 1, way: str = "undo"
    ) -> Task:
        """The task that takes an outcome back; or that goes another way with it, such as `redo-1`."""
        mode = mode_of(way, MODE_UNDO)
        task = self.task(example, mode, key=f"{KEY}/{way}/{number}", dispatch=dispatch)
        task.undo_token = done.undo_token
        task.ClearField("approval")
        return task

    name: ClassVar[str] = ""
    """What targets start with, such as `files`."""

    def _connector_name(self) -> str:
        assert self.name, "give the class attribute `name`"
        return self.name

    async def _prepared(self, directory: Path) -> str:
        directory.mkdir(exist_ok=True)
        await self.prepare(directory, artifacts_of(directory))
        return self.observe(directory)

    async def _done_once(self, directory: Path, example: Example) -> str:
        await self._prepared(directory)
        twin = directory.parent / "twice"
        if not twin.exists():
            await self._prepared(twin)
        outcome = await self._perform(directory, example)
        assert outcome.status == STATUS_SUCCEEDED, outcome.error
        return self.observe(directory)

    async def _perform(
        self, directory: Path, example: Example, mode: Mode.ValueType = MODE_EXECUTE, dispatch: int = 1
    ) -> Outcome:
        async with hosted(self, directory) as executor:
            return await executor.perform(self.task(example, mode, dispatch=dispatch))

    async def _fails_for_now(self, directory: Path, task: Task) -> None:
        """The ledger has a try of it that changed nothing and may come again."""
        entry = LedgerEntry(
            effect_key=task.task_id,
            run_id=task.run_id,
            action=task.target,
            mode=MODE_EXECUTE,
            state=STATE_OUTCOME,
            arguments_sha256=arguments_sha256(task.input),
            input=task.input,
            outcome=failed(task, RetryableError("UNAVAILABLE", "Not now.")),
            attempts=1,
        )
        async with hosted(self, directory) as executor:
            await executor.ledger.write(entry, 0)

    async def _undo(
        self, directory: Path, example: Example, done: Outcome, number: int = 1, dispatch: int = 1
    ) -> Outcome:
        async with hosted(self, directory) as executor:
            return await executor.perform(self.undo_task(example, done, number, dispatch))

    async def _is_refused(self, directory: Path, task: Task, code: str, world: str) -> None:
        async with hosted(self, directory) as executor:
            outcome = await executor.perform(task)
        assert (outcome.status, outcome.error.code) == (STATUS_FAILED, code), outcome.error
        assert self.observe(directory) == world

    def _was_killed(self, ended: Ended, crash_at: str) -> None:
        assert ended.code == SIGKILLED, (
            f"the process passed {crash_at} and ended with {ended.code}: {ended.errors}"
        )
