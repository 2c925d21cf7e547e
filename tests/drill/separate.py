"""Each service in a process of its own, on one bus: each is kept alive, and dies once where it is told to."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from aios_cli.launcher import modules
from tests.drill.kept import Kept
from tests.drill.served import CLIENT, MONTH, SAMPLE


class Separate:
    """An installation of as many processes as there are services. The bus is somebody else's."""

    def __init__(self, place: Path, nats_url: str, nats_users: Path, die_at: dict[str, str]) -> None:
        """`die_at` has a crash point by the service that is to die there."""
        self.files = place / "files"
        shutil.copytree(SAMPLE / CLIENT / MONTH, self.files / CLIENT / MONTH)
        bus = {"AIOS_NATS_URL": nats_url, "AIOS_NATS_USERS": str(nats_users)}
        self.parts = {
            name: Kept(
                place / name,
                ["--target", name, *(["--files-root", str(self.files)] if name == "connector-files" else [])],
                environment=bus,
                marker=place / f"{name}.crashed",
                die_at=die_at.get(name, ""),
            )
            for name in modules.MODULES
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def aios(self, *arguments: str) -> Any:
        """A command to the gateway, until it has answered."""
        return self.parts["gateway"].aios(*arguments)
