"""Backups of a data directory: made while it is served, proven aside, restored into an empty place."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

from aios_cli.launcher.modules import MODULES
from aios_cli.version import VERSION
from aios_core.errors import AiosError, TerminalError
from aios_core.minting import mint, now_ms
from aios_runtime.backup import archive, layout, proof
from aios_runtime.service.datadir import place_error
from aios_runtime.store import snapshots
from aios_runtime.store.sqlite import open_store
from aios_sdk.host.mark import RESTORE_META, RestoreMark

FORMAT: Final = 1
KIND: Final = "aios-backup"
STORES: Final = tuple(module.name for module in MODULES.values() if module.stores)
CONNECTORS: Final = tuple(name for name in STORES if name.startswith("connector-"))
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


@dataclass(frozen=True, slots=True)
class Checked:
    """A backup that was proven, and what was proven of it."""

    sha256: str
    size: int
    manifest: Manifest
    proven: list[proof.Proven]


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
            _sync(target.parent)
    except FileExistsError:
        raise TerminalError(
            "IN_USE", f"{target} was made by somebody else meanwhile; nothing was written."
        ) from None
    except OSError as problem:
        raise place_error(problem, target, "The backup") from None
    return Made(target, size, sha256, manifest)


def verify(path: Path, report: Report) -> Checked:
    """Restore a backup aside, prove it, and throw that away again. Raises BAD_BACKUP, NEWER_BACKUP, NEWER_STORE,
    CORRUPT_STORE, DISK_FULL, UNREADABLE."""
    with _aside(path.absolute().with_name(f".{path.name}.verify-{secrets.token_hex(4)}")) as folder:
        return _restore_aside(path, folder, report)


def restore(path: Path, data_dir: Path, report: Report) -> tuple[Checked, RestoreMark]:
    """Restore a backup into `data_dir`, which must be empty or missing; all of it, proven, or nothing.

    Its connectors look before each change that they don't know, until a person closes the restore.
    """
    data_dir = data_dir.absolute()
    if os.path.lexists(data_dir) and not (data_dir.is_dir() and not any(data_dir.iterdir())):
        raise TerminalError(
            "IN_USE", f"{data_dir} is not empty; a backup is restored into an empty or a new directory alone."
        )
    if os.path.ismount(data_dir):
        raise TerminalError("IN_USE", f"{data_dir} is a mount point; give a directory inside it.")
    with _aside(data_dir.with_name(f".{data_dir.name}.restore-{secrets.token_hex(4)}")) as folder:
        checked = _restore_aside(path, folder, report)
        mark = RestoreMark(mint("restore"), checked.manifest.time_ms, now_ms())
        _mark(folder, mark)
        for left in folder.glob("*.lock"):
            left.unlink()
        _sync(folder)
        try:
            folder.rename(data_dir)
            _sync(data_dir.parent)
        except OSError as problem:
            if problem.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise TerminalError("IN_USE", f"{data_dir} was filled by somebody else meanwhile.") from None
            raise place_error(problem, data_dir, "The data directory") from None
    return checked, mark


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


def _restore_aside(path: Path, folder: Path, report: Report) -> Checked:
    """Extract into an empty folder and prove all of it."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as problem:
        raise TerminalError("UNREADABLE", f"{path} can't be read: {problem.strerror}.") from None
    try:
        manifest, found = _extract(path, folder, report)
        import asyncio

        asyncio.run(_prove(folder, manifest, found, report))
    except OSError as problem:
        raise place_error(problem, folder, "The place for restoring") from None
    return Checked(sha256, size, manifest, found.proven)


def _extract(path: Path, folder: Path, report: Report) -> tuple[Manifest, proof.Proof]:
    stores: dict[str, dict[str, Any]] = {}
    folders = {name: {"files": 0, "bytes": 0, "names_sha256": hashlib.sha256()} for name in LAYOUT.folders}
    last = ""
    for part in archive.extract(path, folder, _allowed, lambda done, total: report("reading", done, total)):
        if (last == "") != (part.name == layout.HEAD) or last == layout.MANIFEST:
            raise archive.bad("The parts of the backup are not in their order")
        last = part.name
        if part.name == layout.HEAD:
            _check_head(_read_note(folder, part))
        elif store := LAYOUT.store_of(part.name):
            stores[store] = {"size": part.size, "sha256": part.sha256}
        elif kept := LAYOUT.folder_of(part.name):
            if part.sha256 != layout.hash_in(kept, part.name):
                raise archive.bad(f"The bytes of {part.name} are not those of its name")
            folders[kept]["files"] += 1
            folders[kept]["bytes"] += part.size
            folders[kept]["names_sha256"].update(f"{part.name}\n".encode())
        else:
            note = _read_note(folder, part)
    if last != layout.MANIFEST:
        raise archive.bad("The backup is cut short: it has no manifest")
    manifest = _manifest(note)
    counted = {
        name: {**kept, "names_sha256": kept["names_sha256"].hexdigest()} for name, kept in folders.items()
    }
    for name in STORES:
        if stores.get(name) != manifest.stores.get(name) or name not in stores:
            raise archive.bad(f"The store {name} is not what the manifest says")
    for name, kept in counted.items():
        if kept != manifest.folders.get(name):
            raise archive.bad(f"The files of {name} are not those that the manifest counts")
    for name in (layout.HEAD, layout.MANIFEST):
        (folder / name).unlink()
    found = proof.Proof()
    found.holds("stores have the bytes that the manifest says", len(stores))
    found.holds("kept files have the bytes of their names", sum(kept["files"] for kept in counted.values()))
    return manifest, found


async def _prove(folder: Path, manifest: Manifest, found: proof.Proof, report: Report) -> None:
    events = 0
    for name in STORES:
        report(f"checking {name}", 0, 0)
        heads = {int(key): last for key, last in manifest.heads.get(name, {}).items()}
        events += proof.prove_file(folder / f"{name}.db", heads)
    found.holds("stores pass SQLite's own check", len(STORES))
    found.holds("events are there, without a gap in their positions", events)
    for module in MODULES.values():
        if not module.proof:
            continue
        store = await open_store(folder / f"{module.name}.db", service=module.name, now_ms=now_ms)
        try:
            await import_module(module.proof).prove(
                store,
                manifest.workspaces,
                folder,
                found,
                lambda done, name=module.name: report(f"proving {name}", done, 0),
            )
        except AiosError:
            raise
        except Exception as error:  # of damaged bytes, anything may come
            raise TerminalError(
                "CORRUPT_STORE", f"The store of {module.name} can't be read: {error}."
            ) from None
        finally:
            await store.close()
    found.check_pointers()


def _mark(folder: Path, mark: RestoreMark) -> None:
    import asyncio

    async def write() -> None:
        for name in CONNECTORS:
            store = await open_store(folder / f"{name}.db", service=name, now_ms=now_ms)
            await store.set_meta(RESTORE_META, mark.encode())
            await store.close()

    asyncio.run(write())


def _allowed(part: str) -> bool:
    return (
        part in (layout.HEAD, layout.MANIFEST)
        or LAYOUT.store_of(part) is not None
        or LAYOUT.folder_of(part) is not None
    )


def _note(writing: archive.Writing, name: str, content: Mapping[str, Any]) -> None:
    import io

    data = json.dumps(content, indent=1).encode()
    writing.add(name, io.BytesIO(data), len(data))


def _read_note(folder: Path, part: archive.Part) -> Any:
    if part.size > archive.MAX_NOTE_BYTES:
        raise archive.bad(f"{part.name} of the backup is too large")
    try:
        return json.loads((folder / part.name).read_bytes())
    except (ValueError, RecursionError):
        raise archive.bad(f"{part.name} of the backup is damaged") from None


def _check_head(head: Any) -> None:
    if not isinstance(head, dict) or head.get("kind") != KIND or not isinstance(head.get("format"), int):
        raise archive.bad("The file is not a backup of AIOS")
    if head["format"] > FORMAT:
        raise TerminalError(
            "NEWER_BACKUP",
            f"The backup has format {head['format']}, made by AIOS {str(head.get('aios'))[:40]}; this is {VERSION}, "
            f"which reads formats up to {FORMAT}.",
        )


def _manifest(note: Any) -> Manifest:
    try:
        manifest = Manifest(**note)
        heads = manifest.heads.values()
        known = all(int(key) >= 0 and isinstance(last, int) for of in heads for key, last in of.items())
        stores = all(
            isinstance(entry, dict) for entry in (*manifest.stores.values(), *manifest.folders.values())
        )
        names = all(isinstance(name, str) for name in manifest.workspaces)
    except (TypeError, ValueError, AttributeError):
        raise archive.bad("The manifest of the backup is not one") from None
    if not (known and stores and names and isinstance(manifest.time_ms, int)):
        raise archive.bad("The manifest of the backup is not one")
    return manifest


@contextmanager
def _claimed(partial: Path) -> Iterator[IO[bytes]]:
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


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A private folder that is gone afterwards, unless it was given another name."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as problem:
        raise place_error(problem, folder, "The place for restoring") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
