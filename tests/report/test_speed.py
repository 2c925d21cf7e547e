"""A large month is quick enough: 100,000 rows in at most 10 s on one core, with rejected and double ones."""

import time

import pytest

from aios_agent_runner.agents.monthly_report.folder import MAX_LINES
from tests.report.months import TIMES, Folder, places

ROWS = 100_000
MAX_CPU_SECONDS = 10.0


def rows() -> list[str]:
    """Every tenth row is of another month, every eleventh a double."""
    lines: list[str] = []
    for n in range(ROWS):
        if n % 11 == 10:
            lines.append(lines[-1])
            continue
        month = "09" if n % 10 == 0 else "10"
        lines.append(
            f"{n % 30 + 1:02d}.{month}.2026;Project {n % 40};task {n};{n % 2400 / 100 + 0.01:.2f};{n % 999}.50;EUR"
        )
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("quoted", [False, True])
def test_a_hundred_thousand_rows_take_at_most_ten_seconds(folder: Folder, quoted: bool) -> None:
    lines = rows()
    if quoted:
        lines = ['"' + line.replace(";", '";"') + '"' for line in lines]
    folder.times(*lines, header=TIMES.replace(",", ";"))
    begun = time.process_time()
    outputs = folder.outputs()
    assert time.process_time() - begun < MAX_CPU_SECONDS
    assert outputs["accepted_rows"] + outputs["rejected_rows_total"] == ROWS


@pytest.mark.slow
def test_a_file_of_unclosed_marks_is_no_slower(folder: Folder) -> None:
    folder.times(*('2026-10-05,"A ""x"" b,c,8,100,EUR' for _ in range(ROWS)))
    begun = time.process_time()
    outputs = folder.outputs()
    assert time.process_time() - begun < MAX_CPU_SECONDS
    assert outputs["rejected_rows_total"] == ROWS


def test_more_lines_than_a_month_may_have_reject_the_file_that_passes_the_limit(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8,100,EUR", name="timesheet-1.csv")
    folder.put("timesheet-2.csv", TIMES + "\n" * (MAX_LINES + 1))
    outputs = folder.outputs()
    assert places(outputs) == [("timesheet-2.csv", 0, "TOO_MANY_LINES")]
    assert outputs["total_hours"] == "8"
