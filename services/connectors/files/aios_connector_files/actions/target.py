"""What the writing actions share: the file they are about, what was seen of it, and what a change of it is called."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import Field

from aios_connector_files import failures
from aios_connector_files.root import Root, open_file
from aios_connector_files.swap import LINK, OTHER, Changed, FileSwap, version_of
from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_sdk.connector import Change, Conflict, Result, Standing, Stands

MAX_MADE: Final = 5  # times that a folder is made for one change

T = TypeVar("T")


class Seen(Result):
    """A file as it was before the change. `before` is its SHA-256 in hex, empty when absent; `mode` its permission
    bits; `missing` the depths of the folders on its way that did not exist."""

    before: str
    mode: int = 0
    mtime_ns: int = 0
    missing: list[int] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """A file below the root, by its checked parts."""

    root: Root
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        return "/".join(self.parts)

    @property
    def folder(self) -> tuple[str, ...]:
        return self.parts[:-1]

    @property
    def name(self) -> str:
        return self.parts[-1]

    def see(self) -> Seen:
        """What stands there now. Raises UNREADABLE, PATH_OUTSIDE_ROOT, CONFLICT when it is not a regular file."""
        try:
            missing = self.root.missing(*self.folder)
            if missing:
                return Seen(before="", missing=missing)
            with self.root.folder(*self.folder) as directory:
                version = version_of(directory, self.name)
                if version is None:
                    return Seen(before="")
                if version in (LINK, OTHER):
                    raise TerminalError(
                        "CONFLICT",
                        f"{self.path} is {'a link' if version == LINK else version}; it is not written through.",
                    )
                status = os.stat(self.name, dir_fd=directory, follow_symlinks=False)
                return Seen(before=version, mode=status.st_mode & 0o7777, mtime_ns=status.st_mtime_ns)
        except OSError as error:
            raise failures.reading(error, self.path) from None

    def finish_left(self, key: str) -> None:
        """Finish or take back what a process that died under this effect key has left beside the file."""
        try:
            with self.root.folder(*self.folder) as directory:
                for swap in FileSwap.left_behind(directory, self.name, key):
                    swap.recover()
        except FileNotFoundError:
            return
        except OSError as error:
            raise failures.writing(error, self.path) from None

    def read(self, limit: int) -> tuple[str, bytes]:
        """Version (empty: absent) and bytes. Raises OSError, TOO_LARGE past `limit` bytes."""
        try:
            with self.root.folder(*self.folder) as directory, open_file(directory, self.name) as file:
                content = file.read(limit + 1)
                if len(content) > limit:
                    raise TerminalError(
                        "TOO_LARGE", f"{self.path} is larger than {limit} bytes.", path=self.path
                    )
                return content_hash(content), content
        except FileNotFoundError:
            return "", b""

    def in_folder(self, work: Callable[[int], T]) -> T:
        """`work` in the file's folder, which is made where it is missing. It is made again where it went while it was
        still empty: another change, that did not come to be, has taken it along. Raises OSError."""
        for _ in range(MAX_MADE - 1):
            with contextlib.suppress(FileNotFoundError):
                return self._in_folder(work)
        return self._in_folder(work)

    def _in_folder(self, work: Callable[[int], T]) -> T:
        self.root.make(*self.folder)
        with self.root.folder(*self.folder) as directory:
            return work(directory)

    def drop_folders(self, missing: Sequence[int]) -> None:
        """Remove the folders that were made for the change, innermost first, where they are empty: after an undo, and
        after a change that did not come to be, since the next attempt would find them there and not take them along."""
        for depth in sorted(missing, reverse=True):
            if not self.root.remove_empty(*self.parts[:depth]):
                return

    def change(self, verb: str, before: str, after: str, size: int = 0, note: str = "") -> Change:
        return Change(f"file:{self.path}", verb, before, after, after, size, note)

    def standing(self, left: str, other: str) -> Standing:
        """Whether the file is at version `left` (empty: absent), or at the `other` already, where nothing is left to
        do. Raises UNREADABLE, PATH_OUTSIDE_ROOT."""
        try:
            found = self._version()
        except OSError as error:
            raise failures.reading(error, self.path) from None
        return Stands() if found in (left, other) else self.conflict(left, Changed(found or None))

    def _version(self) -> str:
        try:
            with self.root.folder(*self.folder) as directory:
                return version_of(directory, self.name) or ""
        except FileNotFoundError:
            return ""

    def conflict(self, left: str, found: Changed) -> Conflict:
        """Somebody changed what we left at version `left`."""
        now = found.found or ""
        what = "was edited" if now else "was removed or moved"
        why = f"{self.path} {what} since; it was left as it is."
        if found.kept:
            why += f" An edit that came in between is kept beside it as {found.kept}."
        sha256 = now if now not in (LINK, OTHER) else ""
        change = Change(f"file:{self.path}", "update" if now else "delete", left, now, sha256, note=what)
        return Conflict(why, (change,))


def in_words(size: int) -> str:
    """A size for a person."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
