"""The files of an embedded store: its lock, and connections with the settings that its durability rests on."""

import fcntl
import os
from pathlib import Path
from typing import Final

import apsw

from aios_core.errors import TerminalError
from aios_runtime.store import migrations
from aios_runtime.store.failures import as_error

WRITER_CACHE_KIB: Final = 16 * 1024
READER_CACHE_KIB: Final = 8 * 1024
STATEMENTS_CACHED: Final = 256
WAL_KEPT_BYTES: Final = (
    16 * 1024 * 1024
)  # a longer log is cut to this when it is written from its start again
BUSY_MS: Final = 10_000


def lock(path: Path) -> int:
    """Take the lock beside the file for this process; returns the descriptor that holds it.

    Raises ALREADY_SERVING when another one has it. The lock goes with its holder, so a killed one leaves none behind.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        _make_folder(path.parent)
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise as_error(error, str(path)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise TerminalError(
            "ALREADY_SERVING",
            f"Process {holder or 'unknown'} already serves the store {path}; use that one, or another data directory.",
            path=str(path),
            process=holder,
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:  # a full disk: the lock holds all the same
        os.close(descriptor)
        raise as_error(error, str(path)) from error
    return descriptor


def unlock(descriptor: int) -> None:
    """Give the lock back. The lock file stays: removing it would let two processes lock two files of one name."""
    os.close(descriptor)


def open_writer(path: Path, vfs: str | None = None) -> apsw.Connection:
    """The writing connection of a locked store, migrated. The file is created readable by its owner alone."""
    connection = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _sync_folder(path.parent)
        connection = _connect(path, apsw.SQLITE_OPEN_READWRITE, vfs)
        migrations.check_version(connection, str(path))
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise TerminalError(
                "DATA_DIR", f"The file system of {path} can't hold a store: no shared memory."
            )
        connection.pragma("synchronous", "full")
        connection.pragma("cache_size", -WRITER_CACHE_KIB)
        connection.pragma(
            "cache_spill", False
        )  # a transaction that fails before its COMMIT has touched no file
        connection.pragma("journal_size_limit", WAL_KEPT_BYTES)
        connection.wal_autocheckpoint(0)
        migrations.migrate(connection, str(path))
        return connection
    except (apsw.Error, OSError) as error:
        number = connection.system_errno if connection else 0
        _close(connection)
        raise as_error(error, str(path), number) from error
    except TerminalError:
        _close(connection)
        raise


def open_reader(path: Path, vfs: str | None = None) -> apsw.Connection:
    """The reading connection of a store that is open already."""
    connection = _connect(path, apsw.SQLITE_OPEN_READWRITE, vfs)
    connection.pragma("cache_size", -READER_CACHE_KIB)
    connection.pragma("query_only", True)
    connection.wal_autocheckpoint(0)
    return connection


def _make_folder(folder: Path) -> None:
    """Create a folder with its parents, durably: a store whose folder is lost with the power was not durable."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path, flags: int, vfs: str | None) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=STATEMENTS_CACHED)
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("temp_store", "memory")
    return connection


def _close(connection: apsw.Connection | None) -> None:
    if connection is not None:
        connection.close(True)
