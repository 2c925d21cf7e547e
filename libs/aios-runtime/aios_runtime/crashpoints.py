"""Named crash points: instants at which a drill kills the process. Free when off: one module-level boolean test.

A point's name says between which verbs of the durability rule it stands, such as `orchestrator.committed` or
`connector.intent`. `AIOS_CRASH_AT=<name>[:<n>]` kills this process with SIGKILL at the n-th passing (or the first);
`AIOS_CRASH_AT=@<file>` does so at what the file says, counted since it says so, and takes the file away before: a drill
lets one process die at one instant after the other.
"""

import os
import signal
from pathlib import Path
from typing import Final

POINTS: Final[dict[str, str]] = {}
_chosen = os.environ.get("AIOS_CRASH_AT", "")
_file = Path(_chosen[1:]) if _chosen.startswith("@") else None
_last, _passed = "", 0  # what was chosen, and its passings since
ENABLED: Final = bool(_chosen)


def point(name: str, meaning: str) -> str:
    """Declare a crash point at import; returns its name."""
    POINTS[name] = meaning
    return name


def crash(name: str) -> None:
    """Die here, if this point is the chosen one."""
    global _last, _passed
    if not ENABLED:
        return
    chosen = _chosen if _file is None else _said(_file)
    if chosen != _last:
        _last, _passed = chosen, 0
    target, _, count = chosen.partition(":")
    if name != target:
        return
    _passed += 1
    if _passed == int(count or 1):
        if _file is not None:
            _file.unlink()  # before the marker, on which a drill writes the next one
        marker = os.environ.get("AIOS_CRASH_MARKER")
        if marker:
            Path(marker).write_text(name)
        os.kill(os.getpid(), signal.SIGKILL)


def _said(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""
