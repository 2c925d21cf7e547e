"""The same promises on other machines: for an ordinary user, in a container without namespaces, without Landlock."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ORDINARY = 65534
WITHIN = "AIOS_TEST_ELSEWHERE"  # set in the run that this file starts, so that it doesn't start another
WALLS = ["test_walls.py"]
ALL = ["test_walls.py", "test_limits.py", "test_endings.py", "test_lives.py"]

pytestmark = [
    pytest.mark.feature("E3"),
    pytest.mark.slow,
    pytest.mark.skipif(WITHIN in os.environ, reason="this is elsewhere already"),
]


def python_for(user: int) -> str:
    """A Python 3.11 or later that `user` may run."""
    if user == os.geteuid():
        return sys.executable
    check = f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    for candidate in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if candidate is None:
            continue
        try:
            done = subprocess.run(
                [candidate, "-c", check], user=user, group=user, extra_groups=[], cwd="/", check=False
            )
        except PermissionError:
            continue
        if done.returncode == 0:
            return candidate
    pytest.skip("no Python here that an ordinary user may run")


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


def run_elsewhere(
    base: Path, user: int, deny: list[str], tests: list[str], python: str | None = None
) -> tuple[int, str]:
    if user != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    base.chmod(0o1777)  # as the usual directory for temporary files
    os.chown(base, user, user)
    config = {
        "user": user,
        "deny": deny,
        "packages": [p for p in sys.path if p.endswith("site-packages")],
        "pytest": [
            *tests,
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={base}/tests",
            "-c",
            str(ROOT / "pyproject.toml"),
        ],
    }
    done = subprocess.run(
        [python or python_for(user), "-B", str(HERE / "elsewhere.py"), json.dumps(config)],
        cwd=base,
        env={
            WITHIN: "1",
            "PATH": "/usr/bin:/bin",
            "HOME": str(base),
            "TMPDIR": str(base),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("user", "deny", "tests"),
    [
        pytest.param(ORDINARY, [], ALL, id="ordinary user"),
        pytest.param(ORDINARY, ["unshare"], ALL, id="ordinary user in a container"),
        pytest.param(ORDINARY, ["mount"], WALLS, id="ordinary user who may not mount"),
        pytest.param(ORDINARY, ["landlock_create_ruleset"], WALLS, id="ordinary user without Landlock"),
        pytest.param(os.geteuid(), ["unshare"], ALL, id="this user in a container"),
        pytest.param(os.geteuid(), ["landlock_create_ruleset"], WALLS, id="this user without Landlock"),
    ],
)
def test_every_promise_holds_for(base: Path, user: int, deny: list[str], tests: list[str]) -> None:
    code, output = run_elsewhere(base, user, deny, [str(HERE / name) for name in tests])
    assert code == 0, output[-20000:]
    assert " passed" in output


def test_root_in_a_container_runs_agents_as_nobody_if_all_may_read_its_python(base: Path) -> None:
    code, output = run_elsewhere(
        base, os.geteuid(), ["unshare"], [str(HERE / name) for name in ALL], python_for(ORDINARY)
    )
    assert code == 0, output[-20000:]


@pytest.mark.parametrize("deny", [["unshare", "landlock_create_ruleset"]])
def test_without_namespaces_and_landlock_the_sandbox_refuses_to_start(base: Path, deny: list[str]) -> None:
    code, output = run_elsewhere(
        base,
        os.geteuid(),
        deny,
        [f"{HERE}/test_walls.py::test_files_of_the_company_and_the_user_are_unreadable"],
    )
    assert code != 0
    assert "Not in force on this machine: no-credentials" in output
