"""Processes and what they have started, as the kernel lists them."""

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


def below(pid: int, command: str) -> list[int]:
    """Those below a process whose command line has that text."""
    found = []
    for child in descendants(pid):
        with suppress(OSError):
            if command.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found
