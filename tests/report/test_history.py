"""Outliers and the comparison with the last month."""

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aios_agent_runner.agents.monthly_report.outliers import median
from tests.report.months import Folder


def earlier(
    tmp_path: Path, folder: Folder, month: str, hours: list[str], project: str = "A", rate: str = "100"
) -> None:
    """Compute a month before and put what it leaves into the folder's history."""
    past = Folder(tmp_path / month, month)
    past.times(*(f"{month}-05,{project},{n},{value},{rate},EUR" for n, value in enumerate(hours)))
    result = past.compute()
    shutil.copy(past.out / result["history_artifact"], folder.files)
    figures = {name: result["outputs"][name] for name in ("total_hours", "billed", "invoiced", "outstanding")}
    folder.history.append({"month": month, "figures": figures, "rows_artifact": result["history_artifact"]})


def outlying(folder: Folder, *hours: str, project: str = "A", rate: str = "100") -> list[tuple[int, str]]:
    folder.times(*(f"2026-10-05,{project},{n},{value},{rate},EUR" for n, value in enumerate(hours)))
    return [(item["line"], item["field"]) for item in folder.compute()["outliers"]]


def test_more_than_three_and_a_half_median_deviations_is_an_outlier(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["3", "4", "5", "6", "7"])  # median 5, median deviation 1
    assert outlying(folder, "8.5", "8.51", "1.5", "1.49") == [(3, "hours"), (5, "hours")]


def test_outliers_are_counted_all_the_same(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["3", "4", "5", "6", "7"])
    assert outlying(folder, "24") == [(2, "hours")]
    assert folder.outputs()["total_hours"] == "24"


def test_the_rows_of_all_twelve_months_before_are_put_together(tmp_path: Path, folder: Folder) -> None:
    for month, hours in (
        ("2025-10", "3"),
        ("2026-01", "4"),
        ("2026-03", "5"),
        ("2026-05", "6"),
        ("2026-09", "7"),
    ):
        earlier(tmp_path, folder, month, [hours])
    assert outlying(folder, "9") == [(2, "hours")]


def test_months_more_than_twelve_back_and_later_ones_do_not_count(tmp_path: Path, folder: Folder) -> None:
    for month in ("2025-09", "2026-10", "2026-11"):
        earlier(tmp_path, folder, month, ["3", "4", "5", "6", "7"])
    assert outlying(folder, "24") == []
    assert folder.compute()["month_over_month"] == {}


def test_too_few_rows_and_other_projects_say_nothing(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["3", "4", "5", "6"])
    earlier(tmp_path, folder, "2026-08", ["3", "4", "5", "6", "7"], project="B")
    assert outlying(folder, "24") == []


def test_where_most_rows_are_equal_the_mean_deviation_is_the_measure(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["8"] * 8 + ["6", "10"])  # mean deviation 0.4
    assert outlying(folder, "9.4", "9.5") == [(3, "hours")]


def test_where_all_rows_are_equal_any_other_value_is_an_outlier(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["8"] * 5)
    assert outlying(folder, "8", "8.25") == [(3, "hours")]


def test_a_new_rate_is_told_once(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["3", "4", "5", "6", "7"])
    assert outlying(folder, "5", "5", rate="110") == [(2, "rate")]
    assert folder.compute()["outliers"][0]["rows"] == 2


def test_damaged_history_is_a_warning(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-09", ["3", "4", "5", "6", "7"])
    for damage in (
        b"",
        b"{}",
        b"[",
        b'{"format":1,"projects":{"A":{"hours":{"NaN":1},"rates":{}}}}',
        b'{"format":9}',
    ):
        (folder.files / "history-2026-09.json").write_bytes(damage)
        result = folder.times("2026-10-05,A,b,24,100,EUR").compute()
        assert [warning["code"] for warning in result["warnings"]] == ["UNREADABLE_HISTORY"]
        assert result["outliers"] == []


def test_month_over_month_is_against_the_latest_month_that_is_known(tmp_path: Path, folder: Folder) -> None:
    earlier(tmp_path, folder, "2026-07", ["3"])
    earlier(tmp_path, folder, "2026-08", ["5", "5"], rate="10")
    folder.times("2026-10-05,A,b,12.5,10,EUR", "2026-10-05,A,b,1,10,JPY")
    compared: dict[str, Any] = folder.compute()["month_over_month"]
    assert (compared["previous"], compared["months_ago"]) == ("2026-08", 2)
    assert compared["total_hours"] == {"before": "10", "now": "13.5", "change": "3.5", "percent": "35.0"}
    assert compared["billed"] == {
        "EUR": {"before": "100.00", "now": "125.00", "change": "25.00", "percent": "25.0"},
        "JPY": {"before": "0", "now": "10", "change": "10", "percent": None},
    }


@given(st.lists(st.decimals(0, 24, places=2), min_size=1, max_size=40))
def test_the_median_of_counted_values_is_the_median_of_the_values(values: list[Decimal]) -> None:
    import statistics
    from collections import Counter

    assert median(Counter(values)) == statistics.median(values)
