"""Processes and what they have started, as the kernel lists them."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *descendants(pid)]


def descendants(pid: int) -> list[int]:
    """All below a process."""
    found = []
    with suppress(OSError):  # it is over
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def freeze(pid: int) -> None:
    """Stop a process, and come back when the last of its threads stands still: until then it writes and renames. The
    kernel tells that a parent alone, so it is looked for."""
    os.kill(pid, signal.SIGSTOP)
    ends = time.monotonic() + 10
    while any(_state(task) != "T" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < ends, f"process {pid} does not stand still"
        time.sleep(0.001)


def kill_and_delete(pid: int, folder: Path) -> None:
    """A process dies with all that it has there: neither it nor who takes its place writes while that is deleted."""
    freeze(pid)
    shutil.rmtree(folder)
    os.kill(pid, signal.SIGKILL)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # the thread has just ended
        return "T"


def below(pid: int, command: str) -> list[int]:
    """Those below a process whose command line has that text."""
    found = []
    for child in descendants(pid):
        with suppress(OSError):
            if command.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found
