"""A run's story as it happens: lines that stay, and below them what is being worked on."""

import sys
from types import TracebackType
from typing import Self

from rich.status import Status
from rich.text import Text

from aios.api.v1 import api_pb2
from aios_cli import words
from aios_cli.output import console
from aios_cli.views import story


class Live:
    """`with Live() as live:` then `live.show(entry)`. Silent when `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._working: dict[str, str] = {}
        self._status = Status("starting …", console=console()) if sys.stdout.isatty() and not quiet else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, entry: api_pb2.TimelineEntry) -> None:
        """The next line of the story."""
        if entry.tone == "working":
            self._working[entry.step] = f"{words.clean(entry.who)} {words.clean(entry.what)}"
        else:
            self._working.pop(entry.step, None)
            if not self._quiet:
                console().print(story.line(entry))
        if self._status is not None:
            now = ", ".join(self._working.values()) or "waiting"
            self._status.update(Text(f"{now} …", style="dim"))
