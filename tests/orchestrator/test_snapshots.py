"""What is stored of a run is the run; and its history gives it back as it was at any step."""

import pytest

from aios.run.v1.state_pb2 import ApprovalState
from aios_orchestrator.codec import head_of, records_of, run_of
from aios_orchestrator.core.decide import Undo
from aios_orchestrator.core.fold import fold
from aios_orchestrator.model import Run
from tests.orchestrator.runs import Driver, workflow

WRITES = """
- {name: read, connector: files.read, input: {n: "${inputs.n}"}}
- {name: ok, gate: {title: "Write", approves: [one]}}
- {name: one, connector: files.write, effect: write, input: {n: "${steps.read.n}"}}
"""


def stored(run: Run, before: Run | None, records: dict[str, bytes]) -> Run:
    """The run as another process reads it after this change."""
    for name, data in records_of(run, before, run.own).items():
        assert data is not None
        records[name] = data
    return run_of(head_of(run), records)


@pytest.mark.feature("D3", "E5")
def test_a_run_read_from_the_store_is_the_run_that_was_decided_on() -> None:
    driver = Driver(workflow(WRITES))
    records: dict[str, bytes] = {}
    before: Run | None = None
    for act in (
        lambda: None,
        lambda: driver.settle("read"),
        lambda: driver.decide(ApprovalState.APPROVAL_STATE_APPROVED),
        lambda: driver.settle("one"),
        lambda: driver.give(Undo("")),
        lambda: driver.settle("one"),
    ):
        act()
        read = stored(driver.run, before, records)
        read.decoded = driver.run.decoded
        assert read == driver.run
        before = driver.run
    assert records["step/one"]  # what went in and what came out stays


@pytest.mark.feature("D7")
def test_every_beginning_of_a_history_is_the_run_as_it_was_then() -> None:
    driver = Driver(workflow(WRITES))
    snapshots = {len(driver.history): driver.run}
    driver.settle("read")
    snapshots[len(driver.history)] = driver.run
    driver.decide(ApprovalState.APPROVAL_STATE_APPROVED)
    snapshots[len(driver.history)] = driver.run
    driver.settle("one")
    for count, run in snapshots.items():
        then = fold(driver.history[:count])
        then.decoded = run.decoded
        assert then == run


def test_an_input_is_kept_as_long_as_the_step_may_be_handed_out_again() -> None:
    driver = Driver(workflow(WRITES))
    assert driver.run.at("read").input
    driver.settle("read")
    assert driver.run.at("read").input == b""  # its event has it
    driver.decide(ApprovalState.APPROVAL_STATE_APPROVED)
    driver.settle("one")
    assert driver.run.at("one").input  # to undo it takes it
