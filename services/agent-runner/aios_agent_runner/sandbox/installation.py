"""What agents may read: this Python's installation and the code they import, and nothing that is private."""

import site
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aios_agent_runner.sandbox.model import SandboxSettings
from aios_core.errors import TerminalError

# Shared libraries, the loader's index of them, time zones, fonts for charts; /nix/store where everything lives there.
_SYSTEM: Final = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/usr/share/fonts", "/nix/store",
)  # fmt: skip
PACKAGES: Final = Path(__file__).resolve().parents[2]  # where this package lies, installed or in a checkout
_MAX_PTH_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Installation:
    """`roots`: files and directories to read, without links, none inside another.

    `path`: where agents import from, after the standard library.
    """

    roots: tuple[str, ...]
    path: tuple[str, ...]


def find_installation(settings: SandboxSettings) -> Installation:
    """Collect what agents may read.

    Only the standard library, site-packages and the directories that their .pth files name count, never the current
    directory, however Python was started. Raises TerminalError if that would open a private path.
    """
    packages = [Path(p) for p in site.getsitepackages()]
    path = [PACKAGES, *packages, *_named_in_pth(packages), *settings.code_roots]
    # Beside the standard library, a shared libpython and what a relocatable Python brings along lie there too.
    library = [
        Path(prefix) / lib for prefix in (sys.base_prefix, sys.base_exec_prefix) for lib in ("lib", "lib64")
    ]
    read = [*path, *library, *map(Path, _SYSTEM)]
    roots = _outermost(p.resolve() for p in read if p.exists())
    _refuse_private(roots, settings.private)
    return Installation(
        tuple(map(str, roots)), tuple(dict.fromkeys(str(p.resolve()) for p in path if p.is_dir()))
    )


def _named_in_pth(packages: Iterable[Path]) -> list[Path]:
    found = []
    for directory in packages:
        for file in sorted(directory.glob("*.pth")):
            if file.stat().st_size > _MAX_PTH_BYTES:
                continue
            for line in file.read_text(errors="replace").splitlines():
                entry = line.strip()
                if (
                    entry
                    and not entry.startswith(("#", "import ", "import\t"))
                    and (directory / entry).is_dir()
                ):
                    found.append(directory / entry)
    return found


def _outermost(paths: Iterable[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda p: p.parts):
        if not kept or not path.is_relative_to(kept[-1]):
            kept.append(path)
    return kept


def _refuse_private(roots: Iterable[Path], private: Iterable[Path]) -> None:
    home = Path.home().resolve()
    closed = [home, *(p.resolve() for p in private)]
    for root in roots:
        for path in closed:
            if path.is_relative_to(root):
                raise TerminalError(
                    "SANDBOX_UNAVAILABLE",
                    f"Agents would read {root}, where their code is, and with it {path}, which is private. "
                    "Move one of them.",
                    field="code_roots",
                )
