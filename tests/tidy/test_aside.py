"""The session beside the others: its tests run, and what became of them is told as if they had run here."""

import os
import re
import subprocess
import sys
from pathlib import Path

CONFTEST = (
    "import pytest\nfrom tests import aside\n\n\ndef pytest_configure(config):\n    aside.register(config)\n"
)
TESTS = """import os
import pytest
from pathlib import Path

HERE = Path(__file__).parent


def test_quick():
    (HERE / "quick").write_text(str(os.getpid()))


@pytest.mark.drill
def test_long():
    (HERE / "long").write_text(str(os.getpid()))


@pytest.mark.slow
def test_wrong():
    assert 1 == 2, "seen from outside"


@pytest.mark.slow
def test_left_out():
    pytest.skip("for a reason")
"""
DIES = """import os
import pytest


def test_quick():
    pass


@pytest.mark.drill
def test_dies():
    os._exit(3)


@pytest.mark.drill
def test_after():
    pass
"""


def _session(place: Path, tests: str, *more: str) -> tuple[str, int]:
    (place / "conftest.py").write_text(CONFTEST)
    (place / "pytest.ini").write_text("[pytest]\nmarkers =\n  drill\n  slow\n")
    (place / "test_it.py").write_text(tests)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *more]
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout, done.returncode


def test_long_tests_run_beside_the_others_and_are_told_as_if_here(tmp_path: Path) -> None:
    said, code = _session(tmp_path, TESTS)
    assert re.search(r"1 failed, 2 passed, 1 skipped in", said), said
    assert "seen from outside" in said
    assert "for a reason" in said
    assert code == 1
    assert (tmp_path / "quick").read_text() != (tmp_path / "long").read_text()


def test_of_one_kind_there_is_one_session(tmp_path: Path) -> None:
    said, code = _session(tmp_path, TESTS, "-m", "drill")
    assert "1 passed, 3 deselected" in said
    assert code == 0


def test_what_the_session_beside_did_not_come_to_has_failed(tmp_path: Path) -> None:
    said, code = _session(tmp_path, DIES)
    assert re.search(r"2 failed, 1 passed in", said), said
    assert "has not come to the end of this test" in said
    assert code == 1
