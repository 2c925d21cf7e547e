"""`python -m aios_cli.launcher.beside`: the process of the services that `aios serve` has started beside itself."""

import os
import sys
import threading
from importlib import import_module
from typing import Final

from aios_cli.launcher.apart import trouble_of, unpacked
from aios_cli.launcher.modules import select
from aios_cli.launcher.serve import run
from aios_core.errors import AiosError

READ_BYTES: Final = 4096


class Told:
    """What the parent says, a line at a time. It is read without a buffer, whose lock the interpreter wants when it
    ends while a thread still waits for a line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left = b""
        self._trouble: AiosError | None = None

    def line(self) -> bytes:
        """The next line; empty when the parent is over."""
        while b"\n" not in self._left:
            data = os.read(self._descriptor, READ_BYTES)
            if not data:
                return b""
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return line

    def trouble(self) -> AiosError | None:
        """Why the parent's bus does not run now; None when it does."""
        return self._trouble

    def listen(self) -> None:
        """Until the parent is over: where the kernel does not end this process with it, this does."""
        while line := self.line():
            self._trouble = trouble_of(line)
        os._exit(1)


def main() -> int:
    """Load the services' code, wait to be told to go, and serve until SIGTERM, or until the parent is over."""
    told = Told(sys.stdin.fileno())
    settings = unpacked(told.line())
    for module in select(settings.target):
        import_module(module.package)
    if not told.line():
        return 0
    threading.Thread(target=told.listen, daemon=True, name="the parent's words").start()
    return run(settings, beside=told.trouble)


if __name__ == "__main__":
    sys.exit(main())
