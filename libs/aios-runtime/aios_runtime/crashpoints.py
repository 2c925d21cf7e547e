"""Named crash points: instants at which a drill kills the process. Free when off: one module-level boolean test.

A point's name says between which verbs of the durability rule it stands, such as `orchestrator.committed` or
`connector.intent`. `AIOS_CRASH_AT=<name>[:<n>]` kills this process with SIGKILL at the n-th passing (or the first).
"""

import os
import signal
from pathlib import Path
from typing import Final

POINTS: Final[dict[str, str]] = {}
_target, _, _count = os.environ.get("AIOS_CRASH_AT", "").partition(":")
_remaining = int(_count or 1)
ENABLED: Final = bool(_target)


def point(name: str, meaning: str) -> str:
    """Declare a crash point at import; returns its name."""
    POINTS[name] = meaning
    return name


def crash(name: str) -> None:
    """Die here, if this point is the chosen one."""
    global _remaining
    if ENABLED and name == _target:
        _remaining -= 1
        if _remaining == 0:
            marker = os.environ.get("AIOS_CRASH_MARKER")
            if marker:
                Path(marker).write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)
