"""Exit codes, which scripts may rely on, and the errors that a command ends with."""

import traceback
from pathlib import Path
from typing import Final

from aios_core.errors import REASONS, AiosError, TerminalError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NEEDS_PERSON: Final = 3
NO_SERVER: Final = 4
REFUSED: Final = 5
NOT_ALLOWED: Final = 6
NOT_FOUND: Final = 7
TIMED_OUT: Final = 8
INTERRUPTED: Final = 130

EPILOG: Final = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage or input; 3 it waits for a person; 4 no AIOS here; 5 refused, or "
    "changed meanwhile; 6 not allowed; 7 not found; 8 not in time; 10 to 17 `aios serve` can't start; 130 interrupted."
)

SHOWN_FRAMES: Final = 3  # the innermost, of a defect
MAX_SAID: Final = 300  # characters

_BY_STATUS: Final = {
    "INVALID_ARGUMENT": USAGE,
    "UNAUTHENTICATED": NOT_ALLOWED,
    "PERMISSION_DENIED": NOT_ALLOWED,
    "NOT_FOUND": NOT_FOUND,
    "ALREADY_EXISTS": REFUSED,
    "ABORTED": REFUSED,
    "FAILED_PRECONDITION": REFUSED,
    "DEADLINE_EXCEEDED": TIMED_OUT,
}


class NoServerError(TerminalError):
    """There is no AIOS to talk to."""

    remedy = "Start it with `aios serve`, or say where it is: --data-dir DIR, or AIOS_ADDRESS and AIOS_TOKEN."

    def __init__(self, message: str) -> None:
        super().__init__("NO_SERVER", message)


def exit_code(error: AiosError) -> int:
    """The exit code for an error."""
    if isinstance(error, NoServerError):
        return NO_SERVER
    reason = REASONS.get(error.code)
    return _BY_STATUS.get(reason.grpc, FAILED) if reason else FAILED


def remedy(error: AiosError) -> str:
    """What a person does about it."""
    if isinstance(error, NoServerError):
        return error.remedy
    reason = REASONS.get(error.code)
    return error.details.get("remedy") or (reason.remedy if reason else "")


def defect(error: Exception) -> TerminalError:
    """What a person is told of an exception that nobody expected: which, and where, for whoever mends it."""
    frames = traceback.extract_tb(error.__traceback__)[-SHOWN_FRAMES:]
    where = ", ".join(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}" for frame in frames)
    said = f"{type(error).__name__}: {error}"[:MAX_SAID]
    return TerminalError(
        "INTERNAL", f"A defect of AIOS: {said} ({where}).", remedy="Report it with these words."
    )
