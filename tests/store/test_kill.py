"""Whatever kills the process, acknowledged commits are there and no write is there in part."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aios_runtime.store.sqlite import open_store

from .histories import assert_nothing_torn

CHILD = Path(__file__).with_name("crash_child.py")
WRITERS = 20


def start(path: Path | str, commits: int, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(CHILD), str(path), str(WRITERS), str(commits)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | environment)


def acknowledgements(output: bytes) -> dict[int, int]:
    """The last revision of each writer that was acknowledged in whole lines."""
    lines = output[: output.rfind(b"\n") + 1].decode().splitlines()
    return {int(writer): int(revision) for writer, revision in (line.split() for line in lines)}


def run_until_killed(path: Path | str, after: int, pause: float) -> dict[int, int]:
    """Let a child commit until it has acknowledged so many commits, and kill it a moment later."""
    with start(path, 10**9) as child:
        assert child.stdout is not None
        output = b""
        while output.count(b"\n") < after:
            chunk = os.read(child.stdout.fileno(), 65536)
            assert chunk, "the child ended by itself"
            output += chunk
        time.sleep(pause)  # the instant of the kill is what varies
        child.send_signal(signal.SIGKILL)
        output += child.stdout.read()
    return acknowledgements(output)


@pytest.mark.feature("B1")
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_process_killed_again_and_again_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "test.db"
    random_ = random.Random(seed)
    for _ in range(5):
        acknowledged = run_until_killed(path, random_.randint(1, 300), random_.random() * 0.02)
        store = await open_store(path, service="test", now_ms=lambda: 0)
        await assert_nothing_torn(store, acknowledged)
        await store.close()


@pytest.mark.feature("B1")
@pytest.mark.parametrize("point", ["test.store.before_commit", "test.store.after_commit"])
@pytest.mark.parametrize("passing", [1, 7])
async def test_a_process_killed_at_a_crash_point_of_the_commit_loses_nothing_acknowledged(
    tmp_path: Path, point: str, passing: int
) -> None:
    path = tmp_path / "test.db"
    marker = tmp_path / "marker"
    child = start(path, 200, AIOS_CRASH_AT=f"{point}:{passing}", AIOS_CRASH_MARKER=str(marker))
    output, _ = child.communicate(timeout=60)
    assert (child.returncode, marker.read_text()) == (-signal.SIGKILL, point)
    acknowledged = acknowledgements(output)
    store = await open_store(path, service="test", now_ms=lambda: 0)
    revisions = await assert_nothing_torn(store, acknowledged)
    if point.endswith("after_commit"):
        assert sum(revisions.values()) > sum(acknowledged.values()), (
            "what was durable and not told is there as well"
        )
    else:
        assert sum(revisions.values()) >= sum(acknowledged.values())
    await store.close()


async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    run_until_killed(path, 1, 0)
    store = await open_store(path, service="test", now_ms=lambda: 0)
    await store.close()
