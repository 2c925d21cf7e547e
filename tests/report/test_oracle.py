"""The product against a second reading of the rules, on folders that nobody wrote by hand."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.often import tries
from tests.report.months import Folder
from tests.report.oracle import expect
from tests.report.strange_months import folder

CLASSES = {
    "BAD_DATE": "date",
    "OTHER_MONTH": "month",
    "MISSING_VALUE": "missing",
    "BAD_NUMBER": "number",
    "AMBIGUOUS_NUMBER": "number",
    "HOURS_OUT_OF_RANGE": "hours",
    "NEGATIVE_RATE": "rate",
    "UNKNOWN_CURRENCY": "currency",
    "UNKNOWN_STATUS": "status",
    "DUPLICATE_ROW": "duplicate",
    "CONFLICTING_INVOICE": "conflict",
    "UNCLOSED_QUOTE": "quote",
    "STRAY_QUOTE": "quote",
    "TOO_FEW_FIELDS": "ragged",
    "TOO_MANY_FIELDS": "ragged",
    "BINARY_FILE": "file",
    "MISSING_COLUMNS": "file",
    "NO_HEADER": "file",
    "UNANSWERED_COLUMN": "file",
}


def differences(files: dict[str, bytes]) -> dict[str, Any]:
    """What the product says and the oracle does not, by output, as (product, oracle)."""
    with tempfile.TemporaryDirectory() as place:
        month = Folder(Path(place))
        for name, data in files.items():
            month.put(name, data)
        outputs = month.outputs()
    expected = expect(files, "2026-10")
    found = {
        name: (outputs[name], getattr(expected, name))
        for name in ("billed", "invoiced", "outstanding", "accepted_rows")
        if outputs[name] != getattr(expected, name)
    }
    if (said := outputs["total_hours"]) != f"{expected.total_hours.normalize():f}":
        found["total_hours"] = (said, str(expected.total_hours))
    codes = {(row["file"], row["line"]): row["code"] for row in outputs["rejected_rows"]}
    for place_, code in codes.items():
        if CLASSES.get(code, code) not in expected.rejected.get(place_, set()):
            found[f"{place_[0]}:{place_[1]}"] = (code, expected.rejected.get(place_))
    for place_ in expected.rejected.keys() - codes.keys():
        found[f"{place_[0]}:{place_[1]}"] = (None, expected.rejected[place_])
    return found


@given(st.integers(0, 2**32))
@settings(max_examples=tries(250), deadline=None)
def test_a_folder_from_any_seed_gives_what_the_rules_say(seed: int) -> None:
    assert differences(folder(seed)) == {}


@pytest.mark.parametrize("block", range(8))
def test_many_folders_give_what_the_rules_say(block: int) -> None:
    found = {seed: said for seed in range(block * 60, block * 60 + 60) if (said := differences(folder(seed)))}
    assert found == {}
