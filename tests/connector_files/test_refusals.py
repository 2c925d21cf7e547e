"""What the operating system refuses: a clear sentence, and nothing half done."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aios.task.v1.task_pb2 import STATUS_FAILED, STATUS_SUCCEEDED
from aios_sdk.conformance import pointer_to
from tests.connector_files.acting import UNPRIVILEGED, Desk, run_as_nobody

REPORT = b"# October\n"
POINTER = pointer_to(REPORT)


@pytest.fixture
def nobodys(desk: Desk) -> Iterator[Desk]:
    """A desk that a person without rights uses; what a test takes away, it takes away from them."""
    content = asyncio.run(desk.artifacts.put(REPORT))
    assert content.size == len(REPORT)
    if os.getuid() == 0:
        for above in (desk.path, *desk.path.parents):
            if above.owner() == "root" and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o755)
        for path in (desk.path, *desk.path.rglob("*")):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
    yield desk
    for path in desk.root.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def test_a_folder_that_may_not_be_written_is_named(nobodys: Desk) -> None:
    (nobodys.root / "acme").chmod(0o555)
    before = nobodys.tree()
    outcome = run_as_nobody(nobodys, "write_file", {"path": "acme/notes.md", "content": POINTER})
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "READ_ONLY")
    assert outcome.error.message == "acme/notes.md can't be written: permission denied; nothing was changed."
    assert nobodys.tree() == before


def test_a_folder_that_can_not_be_made_is_named(nobodys: Desk) -> None:
    (nobodys.root / "acme" / "2026-10").chmod(0o555)
    outcome = run_as_nobody(nobodys, "write_file", {"path": "acme/2026-10/report/x.md", "content": POINTER})
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "READ_ONLY")
    assert nobodys.tree() == {"acme/2026-10/": b""}


def test_a_file_that_can_not_be_read_is_named(nobodys: Desk) -> None:
    month = nobodys.root / "acme" / "2026-10"
    (month / "invoice.csv").write_text("number\n")
    (month / "timesheet.csv").write_text("date\n")
    (month / "timesheet.csv").chmod(0)
    if os.getuid() == 0:
        os.chown(month / "timesheet.csv", 0, 0)
    outcome = run_as_nobody(nobodys, "read_folder", {"client": "acme", "month": "2026-10"})
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "UNREADABLE")
    assert "acme/2026-10/timesheet.csv can't be read: permission denied" in outcome.error.message


def test_a_folder_that_can_not_be_listed_is_named(nobodys: Desk) -> None:
    (nobodys.root / "acme" / "2026-10").chmod(0)
    outcome = run_as_nobody(nobodys, "read_folder", {"client": "acme", "month": "2026-10"})
    assert outcome.error.code == "UNREADABLE"
    assert "acme/2026-10" in outcome.error.message


@pytest.fixture
def small_disk(desk: Desk) -> Iterator[Path]:
    """The root on a file system of 256 KiB, where this machine allows one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(desk.root)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    yield desk.root
    subprocess.run(["umount", "-l", str(desk.root)], check=True)


async def test_a_full_disk_is_told_and_the_work_goes_on_when_there_is_room(
    desk: Desk, small_disk: Path
) -> None:
    (small_disk / "acme").mkdir()
    (small_disk / "filler").write_bytes(bytes(200 * 1024))
    outcome = await desk.write("acme/big.bin", bytes(100 * 1024))
    assert (outcome.status, outcome.error.code, outcome.error.retryable) == (STATUS_FAILED, "DISK_FULL", True)
    assert set(desk.tree()) == {"acme/", "filler"}
    (small_disk / "filler").unlink()
    assert (await desk.write("acme/big.bin", bytes(100 * 1024))).status == STATUS_SUCCEEDED


async def test_a_read_only_file_system_is_told(desk: Desk, small_disk: Path) -> None:
    (small_disk / "acme").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    outcome = await desk.write("acme/new.md", REPORT)
    assert outcome.error.code == "READ_ONLY"
    assert "the file system is read-only" in outcome.error.message
