"""A disk under SQLite that can fail, run full, or lose its power, as a VFS of apsw.

It passes everything on to real files and remembers, for each file, what was on the disk at the last flush and what was
written since. After a loss of power any of what was not flushed may be there or not, whole or in part.
"""

# ruff: noqa: N802 (the names are apsw's)

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import apsw

SECTOR = 512


class _File:
    """What is known to be on the disk of one file, and the operations that are not."""

    def __init__(self, content: bytes) -> None:
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes | None]] = []  # offset and data; None truncates there

    def flush(self) -> None:
        for operation in self.pending:
            _apply(self.durable, *operation)
        self.pending.clear()

    def after_power_loss(self, random: Random) -> bytes:
        content = bytearray(self.durable)
        for offset, data in self.pending:
            if random.random() < 0.5:
                continue
            if data is not None and random.random() < 0.3:
                data = data[: random.randrange(len(data) // SECTOR + 1) * SECTOR]
            _apply(content, offset, data)
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class FaultyDisk(apsw.VFS):
    """Use its `name` as the store's `vfs`. `fail_write` and `fail_sync` are asked before each write and flush with the
    name of the file; what they return is raised."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.files: dict[str, _File] = {}
        self.syncs: list[str] = []
        self.fail_write: Callable[[str], Exception | None] = lambda _: None
        self.fail_sync: Callable[[str], Exception | None] = lambda _: None
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "_FaultyFile":
        return _FaultyFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.lock:
            super().xDelete(filename, syncdir)
            self.files.pop(Path(filename).name, None)

    def lose_power(self, folder: Path, random: Random) -> None:
        """Write to a folder what a loss of power at this instant could leave of the files."""
        with self.lock:
            for name, file in self.files.items():
                (folder / name).write_bytes(file.after_power_loss(random))


class _FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        path = Path(name if isinstance(name, str) else name.filename())
        self._disk = disk
        self._name = path.name
        with disk.lock:
            if path.name not in disk.files:
                disk.files[path.name] = _File(path.read_bytes() if path.exists() else b"")
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._disk.lock:
            if error := self._disk.fail_write(self._name):
                raise error
            self._disk.files[self._name].pending.append((offset, bytes(data)))
            super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        with self._disk.lock:
            self._disk.files[self._name].pending.append((size, None))
            super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        with self._disk.lock:
            if error := self._disk.fail_sync(self._name):
                raise error
            self._disk.syncs.append(self._name)
            self._disk.files[self._name].flush()
