"""What may be in a backup: the stores of services, and the folders that they keep files in under their hash."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

HEAD: Final = "backup.json"
"""The first part: what this is, and in which format."""
MANIFEST: Final = "manifest.json"
"""The last part: what must have come before it."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Layout:
    """`stores` are names of stores, `folders` paths below the data directory of files under their SHA-256."""

    stores: Sequence[str]
    folders: Sequence[str]

    def store_of(self, part: str) -> str | None:
        """The store that a part is, or None."""
        name = part.removesuffix(".db")
        return name if part == f"{name}.db" and name in self.stores else None

    def folder_of(self, part: str) -> str | None:
        """The folder that a part is a file of, or None."""
        return next((folder for folder in self.folders if hash_in(folder, part)), None)

    def files(self, data_dir: Path) -> Mapping[str, list[str]]:
        """The files of each folder as they are now, sorted; what is being written there is left out."""
        found: dict[str, list[str]] = {}
        for folder in self.folders:
            paths = (data_dir / folder).rglob("*")
            parts = (path.relative_to(data_dir).as_posix() for path in paths if path.is_file())
            found[folder] = sorted(part for part in parts if hash_in(folder, part))
        return found


def hash_in(folder: str, part: str) -> str | None:
    """The SHA-256 that a file of `folder` has for its name, `<folder>/<hash>` or `<folder>/<two digits>/<the rest>`."""
    if not part.startswith(f"{folder}/"):
        return None
    within = PurePosixPath(part[len(folder) + 1 :])
    digits = "".join(within.parts)
    usual = str(within) in (digits, f"{digits[:2]}/{digits[2:]}") and f"{folder}/{within}" == part
    return digits if usual and _SHA256.fullmatch(digits) else None
