"""The longest tests run in a session of their own beside the others: what one waits for is time to work for the other.

Those that are marked `drill` or `slow` are handed to one more pytest, which begins when everything has been collected
and gives way to the others where both want a core. Its reports are told last, as if they had been made here. Where only
one of the two kinds was chosen, nothing of this happens.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

MARKS = ("drill", "slow")
REPORTS = "AIOS_TEST_REPORTS"  # the file of the reports, for the session beside
COMMAND = ("nice", "-n", "5", sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


def register(config: pytest.Config) -> None:
    """Take part in a session, on whichever side it is."""
    file = os.environ.pop(REPORTS, None)
    if file is not None:
        config.pluginmanager.register(Told(config, Path(file)))
    elif not config.option.collectonly and not config.option.usepdb and config.option.capture != "no":
        config.pluginmanager.register(Aside())


class Told:
    """In the session beside: keeps each report for the other one."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self._config = config
        self._file = file.open("w", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        print(json.dumps(data), file=self._file, flush=True)


class Aside:
    """In the session that was asked for."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        long = [item for item in session.items if any(item.get_closest_marker(mark) for mark in MARKS)]
        rest = [item for item in session.items if item not in set(long)]
        if not long or not rest:
            return (yield)
        with (
            tempfile.TemporaryDirectory(prefix="aios-aside-") as place,
            (Path(place) / "said").open("w") as said,
        ):
            process = subprocess.Popen(
                [*COMMAND, *(item.nodeid for item in long)],
                cwd=session.config.rootpath,
                env={**os.environ, REPORTS: f"{place}/reports"},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            try:
                session.items = rest
                result = yield
                session.items = [*rest, *long]
                process.wait()
                _tell(session, long, Path(place))
                return result
            finally:
                process.terminate()
                process.wait()


def _tell(session: pytest.Session, items: list[pytest.Item], place: Path) -> None:
    hook = session.config.hook
    reports: dict[str, list[pytest.TestReport]] = {item.nodeid: [] for item in items}
    with (place / "reports").open(encoding="utf-8") as lines:
        for line in lines:
            report = hook.pytest_report_from_serializable(config=session.config, data=json.loads(line))
            if isinstance(report.longrepr, list):  # why it was skipped, which JSON has no tuple for
                report.longrepr = tuple(report.longrepr)
            reports[report.nodeid].append(report)
    for item in items:
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        told = reports[item.nodeid]
        if not any(report.when == "teardown" for report in told):
            told.append(_untold(item, (place / "said").read_text()))
        for report in told:
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _untold(item: pytest.Item, said: str) -> pytest.TestReport:
    text = f"the session beside has not come to the end of this test; the last that it said:\n{said[-3000:]}"
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
