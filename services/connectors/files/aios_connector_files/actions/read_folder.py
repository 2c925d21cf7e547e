"""files.read_folder: the files of a client's month, as artifacts."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Final

from pydantic import BaseModel, model_validator

from aios_connector_files import failures
from aios_connector_files.listing import MAX_FILE_BYTES, Entry, Listing, fingerprint, list_folder
from aios_connector_files.paths import REPORT, check_client, check_month, check_path, is_client, is_month
from aios_connector_files.root import Root, open_file
from aios_core.errors import RetryableError, TerminalError
from aios_core.values import Pointer
from aios_sdk.connector import Action, Arguments, Call, Done, Effect, Result, action

CHANGED_RETRY: Final = 5.0  # seconds: as long as a folder takes to settle

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MEDIA_TYPES: Final = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".html": "text/html",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}


class ReadFolder(Arguments):
    """Either `client` and `month` (`YYYY-MM`), or the `path` of a folder below the root."""

    client: str = ""
    month: str = ""
    path: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> "ReadFolder":
        if bool(self.path) == bool(self.client or self.month):
            raise ValueError("give either client and month, or path")
        if self.path:
            if REPORT in check_path(self.path):
                raise ValueError(f"path leads into {REPORT}/, which is written and never read")
        else:
            check_client(self.client)
            check_month(self.month)
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The folder below the root."""
        return check_path(self.path) if self.path else (self.client, self.month)


class FileRead(Result):
    """One file: its name, where its bytes lie, their SHA-256 in hex, its size in bytes, when it was written."""

    name: str
    file: Pointer
    sha256: str
    size: int
    modified: datetime


class NotRead(Result):
    """What lies in the folder and does not count."""

    name: str
    why: str


class FolderRead(Result):
    """The files by name. `fingerprint` is the same as in the event of the same state. `client` and `month` are empty
    when the path is not a client's month."""

    client: str
    month: str
    path: str
    files: list[FileRead]
    fingerprint: str
    ignored: list[NotRead]


@action("read_folder", input=ReadFolder, output=FolderRead, effect=Effect.READ)
class ReadFolderAction(Action[ReadFolder, BaseModel, FolderRead]):
    """Lists the regular files directly in a folder and stores their bytes as artifacts."""

    def __init__(self, root: Root) -> None:
        self._root = root

    async def perform(self, input: ReadFolder, captured: BaseModel | None, call: Call) -> Done[FolderRead]:
        parts = input.parts
        path = "/".join(parts)
        try:
            with self._root.folder(*parts) as directory:
                listing = await asyncio.to_thread(list_folder, directory, path)
                files = [await self._read(directory, path, entry, call) for entry in listing.files]
        except OSError as error:
            raise failures.reading(error, path) from None
        month = parts if len(parts) == 2 and is_client(parts[0]) and is_month(parts[1]) else ("", "")
        result = FolderRead(
            client=month[0],
            month=month[1],
            path=path,
            files=files,
            fingerprint=fingerprint((file.name, file.sha256) for file in files),
            ignored=[NotRead(name=item.shown, why=item.why) for item in listing.ignored],
        )
        return Done(result, (), _summary(path, listing))

    async def _read(self, directory: int, folder: str, entry: Entry, call: Call) -> FileRead:
        path = f"{folder}/{entry.shown}"
        if entry.size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES // 2**20
            raise TerminalError(
                "TOO_LARGE", f"{path} has {entry.size} bytes; at most {limit} MiB are read.", path=path
            )
        try:
            with open_file(directory, entry.name) as file:
                pointer = await call.artifacts.put(file, _media_type(entry.shown), entry.shown)
                status = os.fstat(file.fileno())
        except FileNotFoundError:
            raise RetryableError(
                "CONFLICT", f"{path} went away while it was read.", retry_after=CHANGED_RETRY
            ) from None
        except OSError as error:
            raise failures.reading(error, path) from None
        if (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime_ns):
            raise RetryableError("CONFLICT", f"{path} changed while it was read.", retry_after=CHANGED_RETRY)
        modified = _EPOCH + timedelta(microseconds=entry.mtime_ns // 1000)
        return FileRead(
            name=entry.shown, file=pointer, sha256=pointer.sha256, size=pointer.size, modified=modified
        )


def _media_type(name: str) -> str:
    return _MEDIA_TYPES.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")


def _summary(path: str, listing: Listing) -> str:
    count = len(listing.files)
    size = sum(entry.size for entry in listing.files)
    ignored = f", ignored {len(listing.ignored)}" if listing.ignored else ""
    return f"read {count} file{'' if count == 1 else 's'} from {path} ({size:,} bytes{ignored})"
