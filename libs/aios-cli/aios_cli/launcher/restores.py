"""The way back from a backup: proven aside, restored into an empty place, and marked until a person closes it."""

import asyncio
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from aios_cli.launcher import stores
from aios_cli.launcher.backups import FORMAT, KIND, LAYOUT, STORES, Manifest, Report, sync
from aios_cli.launcher.modules import MODULES
from aios_cli.launcher.settings import ServeSettings
from aios_cli.version import VERSION
from aios_core.errors import AiosError, TerminalError
from aios_core.minting import mint, now_ms
from aios_runtime.backup import archive, layout, proof
from aios_runtime.service.datadir import place_error
from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store
from aios_sdk.host.mark import RESTORE_META, RestoreMark

CONNECTORS: Final = tuple(name for name in STORES if name.startswith("connector-"))


@dataclass(frozen=True, slots=True)
class Checked:
    """A backup that was proven, and what was proven of it."""

    sha256: str
    size: int
    manifest: Manifest
    proven: list[proof.Proven]


def verify(path: Path, report: Report) -> Checked:
    """Restore a backup aside, prove it, and throw that away again. Raises BAD_BACKUP, NEWER_BACKUP, NEWER_STORE,
    CORRUPT_STORE, DISK_FULL, UNREADABLE."""
    beside = path.absolute().parent
    place = beside if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())
    with _aside(place / f".{path.name}.verify-{secrets.token_hex(4)}") as folder:
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
        opened = RestoreMark(mint("restore"), checked.manifest.time_ms, now_ms())
        asyncio.run(
            mark(
                lambda name: open_store(folder / f"{name}.db", service=name, now_ms=now_ms),
                opened,
            )
        )
        for left in folder.glob("*.lock"):
            left.unlink()
        for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
            sync(inner)
        try:
            folder.rename(data_dir)
            sync(data_dir.parent)
        except OSError as problem:
            if problem.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise TerminalError("IN_USE", f"{data_dir} was filled by somebody else meanwhile.") from None
            raise place_error(problem, data_dir, "The data directory") from None
    return checked, opened


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
        asyncio.run(_prove(folder, manifest, found, report))
    except OSError as problem:
        raise place_error(problem, folder, "The place for restoring") from None
    return Checked(sha256, size, manifest, found.proven)


@dataclass(slots=True)
class _Counted:
    """The files of a folder, as they are read."""

    files: int = 0
    size: int = 0
    names: Any = field(default_factory=hashlib.sha256)

    def add(self, part: archive.Part) -> None:
        self.files += 1
        self.size += part.size
        self.names.update(f"{part.name}\n".encode())

    def note(self) -> dict[str, Any]:
        return {"files": self.files, "bytes": self.size, "names_sha256": self.names.hexdigest()}


def _extract(path: Path, folder: Path, report: Report) -> tuple[Manifest, proof.Proof]:
    found: dict[str, dict[str, Any]] = {}
    folders = {name: _Counted() for name in LAYOUT.folders}
    last, note = "", None
    for part in archive.extract(path, folder, _allowed, lambda done, total: report("reading", done, total)):
        if (last == "") != (part.name == layout.HEAD) or last == layout.MANIFEST:
            raise archive.bad("The parts of the backup are not in their order")
        last = part.name
        if part.name == layout.HEAD:
            _check_head(_read_note(folder, part))
        elif store := LAYOUT.store_of(part.name):
            found[store] = {"size": part.size, "sha256": part.sha256}
        elif kept := LAYOUT.folder_of(part.name):
            if part.sha256 != layout.hash_in(kept, part.name):
                raise archive.bad(f"The bytes of {part.name} are not those of its name")
            folders[kept].add(part)
        else:
            note = _read_note(folder, part)
    if last != layout.MANIFEST:
        raise archive.bad("The backup is cut short: it has no manifest")
    manifest = _manifest(note)
    for name in STORES:
        if name not in found or found[name] != manifest.stores.get(name):
            raise archive.bad(f"The store {name} is not what the manifest says")
    for name, counted in folders.items():
        if counted.note() != manifest.folders.get(name):
            raise archive.bad(f"The files of {name} are not those that the manifest counts")
    for name in (layout.HEAD, layout.MANIFEST):
        (folder / name).unlink()
    proven = proof.Proof()
    proven.holds("stores have the bytes that the manifest says", len(found))
    proven.holds(
        "kept files have the bytes of their names", sum(counted.files for counted in folders.values())
    )
    return manifest, proven


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


async def mark(open_store: Callable[[str], Awaitable[Store]], mark: RestoreMark) -> None:
    """Open a restore at each connector's ledger, which `open_store` opens by its name."""
    for name in CONNECTORS:
        store = await open_store(name)
        try:
            await store.set_meta(RESTORE_META, mark.encode())
        finally:
            await store.close()


async def open_marked(settings: ServeSettings) -> RestoreMark:
    """Open a restore where another tool has put the stores back; from when they are is not known.

    Raises NO_STORES for a connector without a store, ALREADY_SERVING while it is served from files.
    """
    missing = [name for name in CONNECTORS if not (settings.data_dir / f"{name}.db").is_file()]
    if missing and not settings.mongodb_url:
        raise TerminalError("NO_STORES", f"{settings.data_dir} has no store of {', '.join(missing)}.")
    opened = RestoreMark(mint("restore"), 0, now_ms())
    await mark(partial(stores.open_for, settings), opened)
    return opened


def _allowed(part: str) -> bool:
    return (
        part in (layout.HEAD, layout.MANIFEST)
        or LAYOUT.store_of(part) is not None
        or LAYOUT.folder_of(part) is not None
    )


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
