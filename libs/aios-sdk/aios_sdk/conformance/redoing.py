"""What an action must do that can be put back: the undo of an undo, and that of it again."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest

from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import (
    MODE_REDO,
    STATUS_CONFLICT,
    STATUS_SUCCEEDED,
    Mode,
    Outcome,
    Task,
)
from aios_sdk.conformance.hosting import Ended, hosted, in_child
from aios_sdk.connector import Connector

HOST_POINTS = ("connector.received", "connector.intent", "connector.performed", "connector.outcome")


class RedoConformance:
    """The rows of the undo of an undo; what they stand on is said by `ConnectorConformance`."""

    @abstractmethod
    def connector(self, directory: Path) -> Connector: ...
    @abstractmethod
    def observe(self, directory: Path) -> str: ...
    @abstractmethod
    def disturb(self, directory: Path, example: Any) -> None: ...
    @abstractmethod
    def undo_task(
        self, example: Any, done: Outcome, number: int = 1, dispatch: int = 1, way: str = "undo"
    ) -> Task: ...
    @abstractmethod
    async def _prepared(self, directory: Path) -> str: ...
    @abstractmethod
    async def _perform(
        self, directory: Path, example: Any, mode: Mode.ValueType = ..., dispatch: int = 1
    ) -> Outcome: ...
    @abstractmethod
    async def _undo(
        self, directory: Path, example: Any, done: Outcome, number: int = 1, dispatch: int = 1
    ) -> Outcome: ...
    @abstractmethod
    def _was_killed(self, died: Ended, crash_at: str) -> None: ...

    @pytest.mark.feature("D6")
    async def test_what_was_undone_is_put_back_once_and_undone_again(
        self, tmp_path: Path, example: Any
    ) -> None:
        before, done, made = await self._undone(tmp_path, example)
        for dispatch in (1, 2):
            redone = await self._again(tmp_path, example, done, "redo-1", dispatch)
            assert redone.status == STATUS_SUCCEEDED, redone.error
            assert self.observe(tmp_path) == made
        again = await self._again(tmp_path, example, done, "undo-1")
        assert again.status == STATUS_SUCCEEDED, again.error
        assert self.observe(tmp_path) == before
        late = await self._again(tmp_path, example, done, "redo-1", 3)
        assert late.status == STATUS_SUCCEEDED, "an old task that comes again is answered"
        assert self.observe(tmp_path) == before, "and does nothing"
        second = await self._again(tmp_path, example, done, "redo-2")
        assert second.status == STATUS_SUCCEEDED, second.error
        assert self.observe(tmp_path) == made

    @pytest.mark.feature("D6")
    async def test_what_was_not_undone_is_not_put_back(self, tmp_path: Path, example: Any) -> None:
        _, done = await self._done(tmp_path, example)
        made = self.observe(tmp_path)
        redone = await self._again(tmp_path, example, done, "redo-1")
        assert redone.status == STATUS_SUCCEEDED
        assert self.observe(tmp_path) == made

    @pytest.mark.feature("D6")
    async def test_a_redo_killed_anywhere_and_given_again_puts_it_back(
        self, tmp_path: Path, example: Any, crash_at: str
    ) -> None:
        _, done, made = await self._undone(tmp_path, example)
        died = await in_child(
            self,
            tmp_path,
            self.undo_task(example, done, way="redo-1"),
            crash_at,
        )
        if died.code == 0 and crash_at not in HOST_POINTS:
            pytest.skip(f"the redo of {example.name} does not pass {crash_at}")
        self._was_killed(died, crash_at)
        again = await self._again(tmp_path, example, done, "redo-1", 2)
        assert again.status == STATUS_SUCCEEDED, again.error
        assert self.observe(tmp_path) == made

    @pytest.mark.feature("D6")
    async def test_a_redo_after_a_persons_change_is_a_conflict_and_touches_nothing(
        self, tmp_path: Path, example: Any
    ) -> None:
        _, done, _ = await self._undone(tmp_path, example)
        self.disturb_undone(tmp_path, example)
        edited = self.observe(tmp_path)
        checked = await self._checked(tmp_path, done, redo=True)
        outcome = await self._again(tmp_path, example, done, "redo-1")
        if checked == st.UNDO_VERDICT_WILL:
            assert outcome.status == STATUS_SUCCEEDED, "what is said before is what is done"
            return
        assert outcome.status == STATUS_CONFLICT
        assert outcome.changes, "a conflict says what stands there"
        assert self.observe(tmp_path) == edited

    @pytest.mark.feature("D6")
    async def test_whether_it_stands_is_told_and_nothing_is_touched(
        self, tmp_path: Path, example: Any
    ) -> None:
        _, done = await self._done(tmp_path, example)
        if not done.undo_token:
            pytest.skip(f"{example.action} has no inverse")
        made = self.observe(tmp_path)
        verdict = await self._checked(tmp_path, done, redo=False)
        assert verdict in (st.UNDO_VERDICT_WILL, st.UNDO_VERDICT_UNASKED)
        assert self.observe(tmp_path) == made
        self.disturb(tmp_path, example)
        edited = self.observe(tmp_path)
        verdict = await self._checked(tmp_path, done, redo=False)
        assert verdict in (st.UNDO_VERDICT_CHANGED, st.UNDO_VERDICT_UNASKED)
        assert self.observe(tmp_path) == edited

    def disturb_undone(self, directory: Path, example: Any) -> None:
        """A person's change of what the undo of an example has left."""
        raise NotImplementedError

    async def _done(self, directory: Path, example: Any) -> tuple[str, Outcome]:
        before = await self._prepared(directory)
        done = await self._perform(directory, example)
        assert done.status == STATUS_SUCCEEDED, done.error
        if not self.connector(directory).actions[example.action].can_redo():
            pytest.skip(f"{example.action} can't be put back")
        return before, done

    async def _undone(self, directory: Path, example: Any) -> tuple[str, Outcome, str]:
        before, done = await self._done(directory, example)
        made = self.observe(directory)
        undone = await self._undo(directory, example, done)
        assert undone.status == STATUS_SUCCEEDED, undone.error
        assert self.observe(directory) == before
        return before, done, made

    async def _again(
        self, directory: Path, example: Any, done: Outcome, way: str, dispatch: int = 1
    ) -> Outcome:
        async with hosted(self, directory) as executor:
            return await executor.perform(self.undo_task(example, done, dispatch=dispatch, way=way))

    async def _checked(self, directory: Path, done: Outcome, *, redo: bool) -> st.UndoVerdict.ValueType:
        async with hosted(self, directory) as executor:
            return (await executor.check_undo(done.undo_token, redo=redo)).verdict


def mode_of(way: str, undo: Mode.ValueType) -> Mode.ValueType:
    """The mode of a task that goes that way: `undo`, `undo-1`, `redo-1`."""
    return MODE_REDO if way.startswith("redo") else undo
