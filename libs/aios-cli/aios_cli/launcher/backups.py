"""A backup of a data directory, made while it is served: one file, of one moment."""

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from aios_cli.launcher.modules import MODULES
from aios_cli.version import VERSION
from aios_core.errors import TerminalError
from aios_core.minting import now_ms
from aios_runtime.backup import archive, layout, proof
from aios_runtime.service.datadir import place_error
from aios_runtime.store import snapshots

FORMAT: Final = 1
KIND: Final = "aios-backup"
STORES: Final = tuple(module.name for module in MODULES.values() if module.stores)
LAYOUT: Final = layout.Layout(STORES, tuple(folder for module in MODULES.values() for folder in module.keeps))

Report = Callable[[str, int, int], None]
"""What is done now, how much of it, and of how much (0: not known)."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. `stores` have size and hash; `folders` how many files, their bytes, and a hash over their
    names, which are hashes themselves; `heads` are the last event positions of each store's partitions."""

    format: int
    aios: str
    time_ms: int
    workspaces: list[str]
    stores: dict[str, dict[str, Any]]
    folders: dict[str, dict[str, Any]]
    heads: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made. `sha256` is that of the whole file."""

    path: Path
    size: int
    sha256: str
    manifest: Manifest


def create(data_dir: Path, target: Path, report: Report) -> Made:
    """Write a backup of `data_dir` to the new file `target`, whole or not at all.

    Raises NO_STORES, IN_USE, UNAVAILABLE, CORRUPT_STORE, NEWER_STORE, DISK_FULL, READ_ONLY or DATA_DIR.
    """
    missing = [name for name in STORES if not (data_dir / f"{name}.db").is_file()]
    if missing:
        raise TerminalError(
            "NO_STORES",
            f"{data_dir} has no store of {', '.join(missing)}, and half an installation is no backup. Stores in "
            "MongoDB are backed up with mongodump: see docs/how-to/backups.md.",
        )
    if os.path.lexists(target):
        raise TerminalError(
            "IN_USE", f"{target} is there already; a backup overwrites nothing. Give another name."
        )
    partial = target.with_name(f"{target.name}.part")
    try:
        with ExitStack() as stack:
            file = stack.enter_context(_claimed(partial))
            manifest = _write(data_dir, file, partial, report)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            os.link(partial, target)  # refuses a name that was taken meanwhile
            sync(target.parent)
    except FileExistsError:
        raise TerminalError(
            "IN_USE", f"{target} was made by somebody else meanwhile; nothing was written."
        ) from None
    except OSError as problem:
        raise place_error(problem, target, "The backup") from None
    return Made(target, size, sha256, manifest)


def _write(data_dir: Path, file: IO[bytes], partial: Path, report: Report) -> Manifest:
    writing = archive.Writing(file)
    manifest = Manifest(FORMAT, VERSION, now_ms(), [], {}, {}, {})
    _note(
        writing, layout.HEAD, {"kind": KIND, "format": FORMAT, "aios": VERSION, "time_ms": manifest.time_ms}
    )
    copy = partial.with_name(f"{partial.name}-store")
    found: set[str] = set()
    try:
        with snapshots.moment({name: data_dir / f"{name}.db" for name in STORES}) as readers:
            for name, reader in readers.items():
                found |= set(proof.workspaces(reader))
                manifest.heads[name] = {str(key): last for key, last in proof.heads(reader).items()}
                snapshots.copy(reader, copy, lambda done, total, name=name: report(name, done, total))  # type: ignore[misc]
                with copy.open("rb") as source:
                    part = writing.add(f"{name}.db", source, os.fstat(source.fileno()).st_size)
                manifest.stores[name] = {"size": part.size, "sha256": part.sha256}
    finally:
        copy.unlink(missing_ok=True)
    # Bytes are there before a store speaks of them and are never changed, so those of now are enough for that moment.
    for folder, parts in LAYOUT.files(data_dir).items():
        manifest.folders[folder] = _add_folder(writing, data_dir, folder, parts, report)
    manifest.workspaces.extend(sorted(found))
    _note(writing, layout.MANIFEST, asdict(manifest))
    writing.end()
    return manifest


def _add_folder(
    writing: archive.Writing, data_dir: Path, folder: str, parts: list[str], report: Report
) -> dict[str, Any]:
    names, size = hashlib.sha256(), 0
    for number, part in enumerate(parts, 1):
        with (data_dir / part).open("rb") as source:
            added = writing.add(part, source, os.fstat(source.fileno()).st_size)
        if added.sha256 != layout.hash_in(folder, part):
            raise TerminalError(
                "CORRUPT_STORE",
                f"The file {data_dir / part} is damaged: its bytes are not those of its name. No backup was made; "
                "move it away, or put it back from an earlier backup.",
            )
        names.update(f"{part}\n".encode())
        size += added.size
        report(folder, number, len(parts))
    return {"files": len(parts), "bytes": size, "names_sha256": names.hexdigest()}


def _note(writing: archive.Writing, name: str, content: Mapping[str, Any]) -> None:
    data = json.dumps(content, indent=1).encode()
    writing.add(name, io.BytesIO(data), len(data))


@contextmanager
def _claimed(partial: Path) -> Iterator[io.BufferedRandom]:
    """The file that is being written, for this process alone; gone afterwards, however it ends."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TerminalError("IN_USE", f"Another backup is being written to {partial} just now.") from None
        try:
            os.fchmod(descriptor, 0o600)
            file.truncate(0)
            yield file
        finally:
            partial.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
