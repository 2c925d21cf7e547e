"""Text and bytes that a command is given: as they are, from a file, or from standard input."""

import sys
from pathlib import Path
from typing import Final

from aios_core.errors import TerminalError

MAX_BYTES: Final = 1024 * 1024


def read_text(argument: str) -> str:
    """The argument itself, the content of `@FILE`, or standard input for `-`. Raises INVALID_ARGUMENT, TOO_LARGE."""
    if argument != "-" and not argument.startswith("@"):
        return argument
    data = read_bytes("-" if argument == "-" else argument[1:])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TerminalError("INVALID_ARGUMENT", f"{argument} is not UTF-8 text.") from None


def read_bytes(name: str) -> bytes:
    """A file's content, or standard input for `-`, up to `MAX_BYTES`. Raises INVALID_ARGUMENT, TOO_LARGE."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"{name} can't be read: {problem.strerror}.",
            remedy="Give a file that exists and that you may read.",
        ) from None
    if len(data) > MAX_BYTES:
        raise TerminalError("TOO_LARGE", f"{name} has more than {MAX_BYTES} bytes.")
    return data
