"""Random workflows with every kind of step, and random histories of them: what is applied is accepted or explained;
what is accepted ends; an undo of any prefix leaves the world as it was, save what was said to be irreversible."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios_orchestrator.definition import KINDS
from tests.often import tries
from tests.orchestrator import draws
from tests.orchestrator.planted import DEFECTS
from tests.orchestrator.random_histories import lived
from tests.orchestrator.random_world import SEEN

RARE: Final = [
    "planned",
    "recorded",
    "revised",
    "waited for money",
    "a person saw",
    "followed another version",
    "did not follow",
    "forked",
    "can't be forked so",
    "signed by several",
    "heard",
    "edited",
    "undid some",
    "simulated",
    "told together",
    "came late",
    "undo did not do",
    "turn",
    "left out",
    "asked about money",
    "cost too much",
    "answered before",
]
SLOW: Final = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


@pytest.mark.feature("D1", "D2", "D6", "D9", "D10")
@settings(max_examples=tries(100), deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_what_is_accepted_ends_and_its_undo_leaves_the_world_as_it_was(data: st.DataObject) -> None:
    lived(draws.hypothesis(data))


@pytest.mark.feature("D1", "D2", "D6", "D9", "D10")
def test_so_it_is_from_seeds() -> None:
    """Draws that are even go further than those that shrink well."""
    for seed in range(tries(300)):
        try:
            lived(draws.seeded(seed))
        except Exception as error:
            error.add_note(f"python -m tests.orchestrator.histories --first {seed} --count 1")
            raise


@pytest.mark.feature("D1", "D2", "D6")
@pytest.mark.parametrize("plant", DEFECTS, ids=lambda plant: plant.__name__)
def test_a_planted_defect_is_found_and_nothing_without_it(plant: Callable[[], Any]) -> None:
    lived(draws.seeded(DEFECTS[plant]))
    with plant(), pytest.raises((AssertionError, KeyError)):
        lived(draws.seeded(DEFECTS[plant]))


@pytest.mark.feature("D1")
def test_every_kind_was_met_and_both_verdicts() -> None:
    """Of the property above, which ran before in this process; alone there is nothing to look at."""
    if not SEEN:
        pytest.skip("the property test did not run in this process")
    assert set(KINDS) <= set(SEEN) and SEEN["accepted"] > 10 and SEEN["explained"] > 0
    # The rarer ones are met one more, one less often; were they out of reach, many would be.
    missed = [what for what in RARE if not SEEN[what]]
    assert len(missed) <= len(RARE) // 2, missed
