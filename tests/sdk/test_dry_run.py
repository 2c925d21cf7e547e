"""A dry run that delivers is caught: by what the ledger says of the run, and by the suite that connectors inherit."""

from pathlib import Path

import pytest

from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_SIMULATE, STATUS_SUCCEEDED, Task
from aios_connector_files.actions.write_file import FileWritten, WriteFile, WriteFileAction
from aios_sdk.connector import Call, Predicted
from aios_sdk.host.executor import Executor
from tests.connector_files.test_conformance import TestFilesConnector as FilesConformance
from tests.sdk.test_executor import Rig, mode_b, rig

__all__ = ["rig"]
pytestmark = pytest.mark.feature("D10")


def simulation(rig: Rig) -> Task:
    task = rig.task()
    task.mode = MODE_SIMULATE
    return task


async def test_a_simulation_leaves_nothing_in_the_ledger(rig: Rig) -> None:
    async with rig.hosting(mode_b(rig)) as executor:
        outcome = await executor.perform(simulation(rig))
        assert outcome.status == STATUS_SUCCEEDED, outcome.error
        assert await executor.ledger.count("run_1") == 0
        await executor.perform(rig.task())
        assert await executor.ledger.count("run_1") == 1
        assert await executor.ledger.count("run_") == 0, "another run is not counted"


async def test_a_host_that_delivers_in_a_dry_run_is_in_the_ledger(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Executor._dispatch

    async def delivers(self: Executor, task: Task, flight: object) -> object:
        task.mode = MODE_EXECUTE
        return await original(self, task, flight)  # type: ignore[arg-type]

    monkeypatch.setattr(Executor, "_dispatch", delivers)
    async with rig.hosting(mode_b(rig)) as executor:
        await executor.perform(simulation(rig))
        assert await executor.ledger.count("run_1") == 1


async def test_a_simulation_that_calls_what_does_it_is_stopped_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def delivers(self: WriteFileAction, input: WriteFile, call: Call) -> Predicted[FileWritten]:
        done = await self.perform(input, await self.capture(input, call), call)
        return Predicted(done.result, done.changes, done.summary)

    monkeypatch.setattr(WriteFileAction, "simulate", delivers)
    suite = FilesConformance()
    example = suite.examples()[0]
    before = await suite._prepared(tmp_path)
    outcome = await suite._perform(tmp_path, example, MODE_SIMULATE)
    assert outcome.error.code == "INTERNAL" and "write_file.perform" in outcome.error.message
    assert suite.observe(tmp_path) == before
    assert (await suite._perform(tmp_path, example)).status == STATUS_SUCCEEDED, "for real it is called"


@pytest.mark.parametrize("name", ["new", "replaced"])
async def test_an_action_whose_dry_run_writes_fails_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    predicts = WriteFileAction.simulate

    async def delivers(self: WriteFileAction, input: WriteFile, call: Call) -> Predicted[FileWritten]:
        predicted = await predicts(self, input, call)
        captured = await self.capture(input, call)
        await self._blobs.stage(call.key, input.content, call.artifacts)
        self._write(input, captured, call.key)
        return predicted

    suite = FilesConformance()
    (example,) = [item for item in suite.examples() if item.name == name]
    passes, fails = tmp_path / "passes", tmp_path / "fails"
    for place in (passes, fails):
        place.mkdir()
    row = suite.test_a_simulation_changes_nothing_and_predicts_what_then_happens
    await row(passes, example)
    monkeypatch.setattr(WriteFileAction, "simulate", delivers)
    with pytest.raises(AssertionError):
        await row(fails, example)
