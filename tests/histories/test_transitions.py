"""Runs of every kind of event, as they were stored, are read as they were meant by every later version."""

import pytest

from aios.run.v1.state_pb2 import RunHead
from aios_memory.narration import episode_of
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core.fold import fold
from tests.histories.transitions import KINDS, Told, covered, kept

FILES = kept()
RUNS = [
    pytest.param(run, id=f"{file.partition('.')[0]}-{number}")
    for file, runs in FILES.items()
    for number, run in enumerate(runs)
]


@pytest.mark.feature("B1", "D7")
@pytest.mark.parametrize("run", RUNS)
def test_a_stored_run_is_still_the_fold_of_its_events(run: Told) -> None:
    folded = fold(run.events)
    stored = run_of(RunHead.FromString(run.head), run.records)
    assert head_of(folded) == RunHead.FromString(run.head)
    assert folded == stored


@pytest.mark.parametrize("run", RUNS)
def test_each_of_its_events_is_still_told_as_an_episode(run: Told) -> None:
    for data in run.events:
        assert episode_of(data).what


def test_there_is_a_run_of_every_kind_of_event() -> None:
    """A new kind is recorded by `python -m tests.histories.transitions` when it comes."""
    assert covered(run for runs in FILES.values() for run in runs) == KINDS
