"""One durable change of one file, from the version that was seen to a new one, without a gap for anybody's edit.

The new bytes lie complete and flushed under a name of ours in the same folder; then one atomic rename decides:

    create   `.new` moves to the name; refused when the name is there
    replace  `.new` and the name are exchanged; what came out must be the version that was seen, or they go back
    remove   the name moves to `.out`; what came out must be the version that was seen, or it goes back

A file system that can't exchange replaces in two steps (remove, create): for a moment the name is absent, but nothing
is lost. After a crash at any point `recover` reads what lies there, finishes or takes back, and says which. It may do
so too while the worker that was taken for dead still works: what is staged is whole, whoever staged it; one of the two
does the rename, and the other finds it done, or gives way.

An edit that a person makes through a file they already hold open, after the rename, lands in the old file. No rename
can see that; the connector keeps the bytes it saw before, not later ones.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from typing import Final, TypeAlias

from aios_connector_files import renames
from aios_connector_files.paths import OURS
from aios_connector_files.root import hash_file, open_file
from aios_core.errors import RetryableError, TerminalError
from aios_runtime.crashpoints import crash, point

STAGED: Final = point("files.staged", "the new bytes are durable beside the file, the file is untouched")
DECIDED: Final = point("files.decided", "the rename has happened, what came out of it is not judged")
MAX_KEPT: Final = 100  # copies that are kept aside of one file
MAX_RACES: Final = 8  # times that an edit is put back while it is edited again
_ABSENT: Final = "-"
LINK: Final = "link"
OTHER: Final = "not a file"


class Swap(Enum):
    """How a swap stands. UNCLEAR: what is there is neither the old version nor the new one, and we left no trace."""

    DONE = "done"
    NOT_DONE = "not done"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Changed:
    """Somebody else changed the file: `found` is its version now (None: absent). `kept` is the name of a copy beside
    it, when there was an edit that could not be put back in its place."""

    found: str | None
    kept: str = ""


Judged: TypeAlias = Swap | Changed


def version_of(directory: int, name: str) -> str | None:
    """SHA-256 in hex of a regular file, None when absent, `LINK` or `OTHER`. Raises OSError when it can't be read."""
    try:
        with open_file(directory, name) as file:
            return hash_file(file)
    except FileNotFoundError:
        return None
    except TerminalError:
        return OTHER
    except OSError as error:
        if error.errno == errno.ELOOP:
            return LINK
        if error.errno == errno.ENXIO:  # a socket
            return OTHER
        raise


def _tag(name: str, key: str) -> str:
    return hashlib.sha256(f"{key}\0{name}".encode()).hexdigest()[:20]


class FileSwap:
    """The change of `name` in the open folder `directory` from version `old` to `new` (None: absent) under the effect
    key `key`. Versions are SHA-256 in hex; they must differ."""

    def __init__(self, directory: int, name: str, key: str, old: str | None, new: str | None) -> None:
        self._directory, self._name, self._old, self._new_version = directory, name, old, new
        self._tag = _tag(name, key)
        # The names say what was to be changed into what, so that whoever finds them can finish or take back.
        self._stem = f"{OURS}{self._tag}.{old or _ABSENT}.{new or _ABSENT}"
        self._new, self._out = f"{self._stem}.new", f"{self._stem}.out"

    @classmethod
    def left_behind(cls, directory: int, name: str, key: str) -> "list[FileSwap]":
        """The swaps of `name` under `key` that left a file of ours in the folder."""
        pattern = re.compile(
            re.escape(OURS + _tag(name, key))
            + r"\.([0-9a-f]{64}|-)\.([0-9a-f]{64}|-)\.(?:(?:[0-9a-f]{16}\.)?part|new|out)"
        )
        found = {match.groups() for match in map(pattern.fullmatch, os.listdir(directory)) if match}
        versions = [tuple(None if text == _ABSENT else text for text in pair) for pair in sorted(found)]
        return [cls(directory, name, key, old, new) for old, new in versions]

    def stage(self, chunks: Iterable[bytes], mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Put the new bytes beside the file, durably. Raises OSError and leaves nothing; ACTION_FAILED when they are
        not those of `new`."""
        part = f"{self._stem}.{secrets.token_hex(8)}.part"  # nobody else's
        descriptor = os.open(
            part,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o666,
            dir_fd=self._directory,
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = hashlib.sha256()
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                if digest.hexdigest() != self._new_version:
                    raise TerminalError(
                        "ACTION_FAILED", f"The bytes for {self._name} are not those of their hash."
                    )
                file.flush()
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                if mtime_ns is not None:
                    os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
                os.fsync(file.fileno())
            self._put_beside(part)
        except BaseException:
            self._forget(part)
            raise
        crash(STAGED)

    def _put_beside(self, part: str) -> None:
        """What another worker has staged has the same bytes, unless it is what came out of its exchange."""
        try:
            renames.move(self._directory, part, self._new)
        except FileExistsError:
            if version_of(self._directory, self._new) not in (self._new_version, None):
                raise self._gives_way() from None
            self._forget(part)
        except FileNotFoundError:
            if os.fstat(self._directory).st_nlink == 0:
                raise  # the folder is gone
            raise self._gives_way() from None

    def _gives_way(self) -> RetryableError:
        return RetryableError(
            "CONFLICT", f"{self._name} is being written by another worker just now.", retry_after=1.0
        )

    def commit(self) -> Judged:
        """Do it, durably: DONE, or `Changed` with everything as it was. Needs `stage` first unless it removes. Raises
        CONFLICT (retryable) where another worker has taken the work away, and not done it."""
        try:
            judge = self._rename()
        except (FileNotFoundError, FileExistsError):
            self._forget(self._new)
            judged = self._judge_by_name()
        except OSError:
            self._forget(self._new)
            raise
        else:
            self._flush()
            crash(DECIDED)
            judged = judge()
        if judged is Swap.NOT_DONE:
            raise self._gives_way()
        return judged

    def recover(self) -> Judged:
        """Finish or take back what a crash interrupted, and say how it stands."""
        self._forget(*self._parts())
        if self._exists(self._out):
            return self._judge_taken()
        staged = version_of(self._directory, self._new)
        if staged is None:
            return self._judge_traceless()
        if staged == self._new_version or self._old is None:
            placed = self._same(self._new, self._name)
            self._forget(self._new)
            return Swap.DONE if placed else Swap.NOT_DONE
        return self._judge_exchanged()

    def _judge_traceless(self) -> Swap:
        found = version_of(self._directory, self._name)
        if found == self._new_version:
            return Swap.DONE
        return Swap.NOT_DONE if found == self._old else Swap.UNCLEAR

    def _judge_by_name(self) -> Judged:
        """Somebody else has changed what lay here. Where another worker did it, one of the two versions is there."""
        found = version_of(self._directory, self._name)
        if found == self._new_version:
            return Swap.DONE
        return Swap.NOT_DONE if found == self._old else Changed(found)

    def _rename(self) -> Callable[[], Judged]:
        """The one rename that decides; returns how to judge what came out. When it raises, nothing was changed."""
        if self._old is None:
            renames.move(self._directory, self._new, self._name)
            return lambda: Swap.DONE
        if self._new_version is not None and renames.exchange(self._directory, self._new, self._name):
            return self._judge_exchanged
        os.rename(self._name, self._out, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        return self._judge_taken

    def _judge_exchanged(self) -> Judged:
        """`.new` holds what came out."""
        came_out = version_of(self._directory, self._new)
        if came_out is None:
            return self._flushed(self._judge_by_name())
        if came_out == self._old:
            self._forget(self._new)
            return Swap.DONE
        for _ in range(MAX_RACES):
            now = version_of(self._directory, self._name)
            try:
                if now is None:
                    renames.move(self._directory, self._new, self._name)
                    return self._flushed(Changed(came_out))
                if now != self._new_version:
                    return self._flushed(Changed(now, self._keep_aside(self._new)))
                renames.exchange(self._directory, self._new, self._name)
            except (FileNotFoundError, FileExistsError):
                continue  # it changed again between the look and the rename
            if version_of(self._directory, self._new) != self._new_version:
                return self._flushed(Changed(came_out, self._keep_aside(self._new)))
            self._forget(self._new)
            return self._flushed(Changed(came_out))
        return self._flushed(Changed(came_out, self._keep_aside(self._new)))

    def _judge_taken(self) -> Judged:
        """`.out` holds what came out."""
        if self._same(self._out, self._name):  # putting it back was interrupted
            self._forget(self._out, self._new)
            found = version_of(self._directory, self._name)
            return Swap.NOT_DONE if found == self._old else Changed(found)
        came_out = version_of(self._directory, self._out)
        if came_out is None:
            self._forget(self._new)
            return self._flushed(self._judge_by_name())
        if came_out != self._old:
            self._forget(self._new)
            kept = self._put_back()
            return self._flushed(Changed(came_out, kept) if kept else self._judge_by_name())
        if self._new_version is not None:
            try:
                renames.move(self._directory, self._new, self._name)
            except FileExistsError:
                placed = self._same(self._new, self._name)
                self._forget(self._new, self._out)
                return self._flushed(
                    Swap.DONE if placed else Changed(version_of(self._directory, self._name))
                )
            except FileNotFoundError:
                if not self._exists(self._name):  # another worker took what was staged
                    self._put_back()
                    return self._flushed(self._judge_by_name())
            self._flush()
        self._forget(self._out)
        return self._flushed(Swap.DONE)

    def _put_back(self) -> str:
        """What was taken out stands again, or is kept aside under the name that is returned."""
        try:
            renames.move(self._directory, self._out, self._name)
        except FileExistsError:
            return self._keep_aside(self._out)
        except FileNotFoundError:
            return ""  # another worker has put it back
        return ""

    def _keep_aside(self, name: str) -> str:
        """Give an edit that has lost its place a name that a person sees."""
        path = PurePosixPath(self._name)
        for number in range(1, MAX_KEPT + 1):
            kept = f"{path.stem}.kept-{self._tag[:6]}-{number}{path.suffix}"
            with contextlib.suppress(FileExistsError):
                renames.move(self._directory, name, kept)
                return kept
        raise TerminalError(
            "CONFLICT", f"There are already {MAX_KEPT} copies kept beside {self._name}; remove some."
        )

    def _parts(self) -> list[str]:
        with os.scandir(self._directory) as entries:
            names = [entry.name for entry in entries]
        return [name for name in names if name.startswith(f"{self._stem}.") and name.endswith(".part")]

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _same(self, one: str, other: str) -> bool:
        try:
            first, second = (
                os.stat(name, dir_fd=self._directory, follow_symlinks=False) for name in (one, other)
            )
        except FileNotFoundError:
            return False
        return stat.S_ISREG(first.st_mode) and os.path.samestat(first, second)

    def _forget(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)

    def _flush(self) -> None:
        os.fsync(self._directory)

    def _flushed(self, judged: Judged) -> Judged:
        self._flush()
        return judged
