"""A look at every month of every client, and at what one of them holds."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aios_connector_files.listing import Listing, fingerprint, list_folder
from aios_connector_files.paths import is_client, is_month
from aios_connector_files.root import Root, hash_file, open_file
from aios_core.errors import AiosError

MAX_FOLDERS: Final = 20_000  # months that are looked at; more are told, not watched
MAX_HASHED_BYTES: Final = 64 * 1024 * 1024  # of one file; a larger one is refused when it is read
UNREADABLE: Final = "unreadable"

Month = tuple[str, str]
"""Client and month."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands below the root: signatures by month, clients, and how many folders were left out."""

    months: dict[Month, str]
    clients: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a month holds: the fingerprint as `files.read_folder` computes it, and the names."""

    signature: str
    fingerprint: str
    names: tuple[str, ...]


def scan(root: Root) -> Seen:
    """Look at everything. A root that is not there has nothing."""
    months: dict[Month, str] = {}
    clients = []
    left_out = 0
    for client in _folders(root):
        if not is_client(client):
            left_out += 1
            continue
        clients.append(client)
        for month in _folders(root, client):
            if not is_month(month):
                continue
            if len(months) >= MAX_FOLDERS:
                left_out += 1
                continue
            months[client, month] = signature(root, (client, month))
    return Seen(months, tuple(clients), left_out)


def signature(root: Root, month: Month) -> str:
    """What a look tells of a month's state; `unreadable` and why when it can't be listed, empty without files."""
    try:
        return _state(_list(root, month))
    except (OSError, AiosError) as error:
        return f"{UNREADABLE} {type(error).__name__}"


def look_into(root: Root, month: Month) -> Content:
    """Read what a month holds. A file that can't be read counts by its name: the workflow that reads it says why."""
    try:
        listing = _list(root, month)
    except (OSError, AiosError):
        state = signature(root, month)
        return Content(state, state, ())
    contents = []
    for entry in listing.files:
        sha256 = UNREADABLE
        if entry.size <= MAX_HASHED_BYTES:
            try:
                with root.folder(*month) as directory, open_file(directory, entry.name) as file:
                    sha256 = hash_file(file)
            except (OSError, AiosError):
                pass
        contents.append((entry.shown, sha256))
    names = tuple(entry.shown for entry in listing.files)
    return Content(_state(listing), fingerprint(contents) if contents else "", names)


def _list(root: Root, month: Month) -> Listing:
    with root.folder(*month) as directory:
        return list_folder(directory, "/".join(month))


def _state(listing: Listing) -> str:
    return listing.signature if listing.files else ""


def _folders(root: Root, *parts: str) -> Iterator[str]:
    try:
        with root.folder(*parts) as directory, os.scandir(directory) as entries:
            yield from sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
