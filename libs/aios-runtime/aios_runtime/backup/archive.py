"""The file of a backup: a plain tar of regular files alone, read strictly and in one pass.

Nothing in it is compressed, linked, sparse or extended, so reading it takes no more time, memory and disk than its own
size. The last part says what must have come before, so a file that was cut short has none.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from aios_core.errors import TerminalError

BLOCK: Final = tarfile.BLOCKSIZE
CHUNK_BYTES: Final = 1024 * 1024
MAX_PARTS: Final = 4_000_000  # files in one backup
MAX_NOTE_BYTES: Final = 1024 * 1024  # of the first and the last part
ENDING: Final = bytes(2 * BLOCK)


def bad(why: str) -> TerminalError:
    """A file that is no whole backup."""
    return TerminalError("BAD_BACKUP", f"{why}; nothing was restored from it.")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the archive that was read or written: its bytes, and their SHA-256 in hex."""

    name: str
    size: int
    sha256: str


class Writing:
    """An archive being written to an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, name: str, source: IO[bytes], size: int) -> Part:
        """Append `size` bytes of `source` as the part `name`. Raises CORRUPT_STORE when it has fewer."""
        self._file.write(_header(name, size))
        digest, left = hashlib.sha256(), size
        while left:
            chunk = source.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise TerminalError("CORRUPT_STORE", f"{name} became shorter while it was read.")
            digest.update(chunk)
            self._file.write(chunk)
            left -= len(chunk)
        self._file.write(bytes(-size % BLOCK))
        return Part(name, size, digest.hexdigest())

    def end(self) -> None:
        """Append what ends an archive."""
        self._file.write(ENDING)


def extract(
    path: Path, into: Path, allowed: Callable[[str], bool], report: Callable[[int, int], None]
) -> Iterator[Part]:
    """Write each part below the empty folder `into`, and yield it once it is there.

    `report` is told the bytes that are read, and all. Raises BAD_BACKUP for anything that an archive of ours would not
    hold: another kind of entry, a name that is not `allowed`, one twice, an end that is missing or is not the end.
    Raises OSError where it can't be read or written.
    """
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        for number in range(MAX_PARTS + 1):
            header = file.read(BLOCK)
            if header == bytes(BLOCK):
                if file.read(len(ENDING)) != ENDING[BLOCK:]:
                    raise bad("Something follows the end of the backup")
                return
            if number == MAX_PARTS:
                raise bad(f"The backup has more than {MAX_PARTS} parts")
            name, size = _entry(header)
            if not allowed(name):
                raise bad(f"The backup has a part {name[:100]!r}, which no backup has")
            if size > total - file.tell():
                raise bad(
                    f"The backup is cut short: {name} needs {size} bytes, and {total - file.tell()} are left"
                )
            yield _write(file, into, name, size)
            report(file.tell(), total)


def _write(file: IO[bytes], into: Path, name: str, size: int) -> Part:
    target = into / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _new(target, name) as written:
        digest, left = hashlib.sha256(), size
        while left:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise bad(f"The backup is cut short within {name}")
            digest.update(chunk)
            written.write(chunk)
            left -= len(chunk)
        written.flush()
        os.fsync(written.fileno())
    padding = -size % BLOCK
    if file.read(padding) != bytes(padding):
        raise bad(f"The backup is damaged behind {name}")
    return Part(name, size, digest.hexdigest())


@contextmanager
def _new(target: Path, name: str) -> Iterator[IO[bytes]]:
    try:
        descriptor = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except FileExistsError:
        raise bad(f"The backup has {name} twice") from None
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _entry(header: bytes) -> tuple[str, int]:
    """Name and size of a part. It must be, byte for byte, the header that we would write for it."""
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        same = info.size >= 0 and _header(info.name, info.size) == header
    except (tarfile.HeaderError, ValueError, UnicodeError):
        raise bad("The file is not a backup, or it is damaged") from None
    if not same:
        raise bad(f"The backup has an entry {info.name[:100]!r} of another kind")
    return info.name, info.size
