"""What lies directly in a folder: which files count, which don't and why, and two short names of that state."""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from aios_connector_files.paths import is_transient
from aios_core.errors import TerminalError

MAX_FILES: Final = 600  # files of one folder: what a value of 192 KiB holds of names, hashes and pointers
MAX_LISTED_BYTES: Final = 160 * 1024  # of a value of 192 KiB: what the list of a folder takes of it
ENTRY_BYTES: Final = 200  # of one file in it, beside its name, which stands in it twice
MAX_ENTRIES: Final = 10_000  # names looked at in one folder
MAX_FILE_BYTES: Final = 64 * 1024 * 1024  # of one file; a larger one is told, not read
MAX_IGNORED: Final = 50  # ignored names that are told


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file: its name as the system gave it and as text (`shown`), size in bytes, ns since 1970."""

    name: str
    shown: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """What does not count, and why."""

    shown: str
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The state of a folder, files by name."""

    files: tuple[Entry, ...]
    ignored: tuple[Ignored, ...]

    @property
    def signature(self) -> str:
        """Changes when a file comes, goes, grows, shrinks or is written to; cheap: nothing is read."""
        digest = hashlib.sha256()
        for entry in self.files:
            digest.update(f"{entry.shown}\0{entry.size}\0{entry.mtime_ns}\n".encode())
        return digest.hexdigest()


def fingerprint(contents: Iterable[tuple[str, str]]) -> str:
    """One hash of what files hold: (name, SHA-256) in any order. The same files give the same, whenever written."""
    digest = hashlib.sha256()
    for name, sha256 in sorted(contents):
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


def list_folder(directory: int, path: str) -> Listing:
    """What lies in an open folder; `path` is for messages. Raises OSError; TOO_LARGE past `MAX_FILES` or
    `MAX_LISTED_BYTES`."""
    files: list[Entry] = []
    ignored: list[Ignored] = []
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number >= MAX_ENTRIES:
                raise TerminalError("TOO_LARGE", f"{path} has more than {MAX_ENTRIES} entries.", path=path)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone between the listing and the look: the next look finds it so
            why = _why_ignored(entry.name, status.st_mode)
            if not why and status.st_size > MAX_FILE_BYTES:
                why = f"larger than {MAX_FILE_BYTES // 2**20} MiB"
            if why:
                ignored.append(Ignored(shown(entry.name), why))
            else:
                files.append(Entry(entry.name, shown(entry.name), status.st_size, status.st_mtime_ns))
    if len(files) > MAX_FILES:
        raise TerminalError(
            "TOO_LARGE", f"{path} has {len(files)} files; at most {MAX_FILES} are read.", path=path
        )
    files = sorted(_told_apart(files), key=lambda entry: entry.shown)
    if sum(ENTRY_BYTES + 2 * len(entry.shown.encode()) for entry in files) > MAX_LISTED_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"The names of the {len(files)} files in {path} are too long together; shorten them, or join files.",
            path=path,
        )
    ignored.sort(key=lambda item: item.shown)
    return Listing(tuple(files), tuple(ignored[:MAX_IGNORED]))


def _told_apart(files: list[Entry]) -> list[Entry]:
    """A name that is not UTF-8 is shown by its bytes where another file is shown the same."""
    whole = {entry.name for entry in files}
    return [
        replace(entry, shown=os.fsencode(entry.name).decode("utf-8", "backslashreplace"))
        if entry.shown != entry.name and entry.shown in whole
        else entry
        for entry in files
    ]


def shown(name: str) -> str:
    """A file's name as text: what is not UTF-8 on disk is read as Latin-1, as old systems wrote it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("latin-1")
    return name


def _why_ignored(name: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link; links are not followed"
    if stat.S_ISDIR(mode):
        return "a folder"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return "hidden or temporary" if is_transient(name) else ""
