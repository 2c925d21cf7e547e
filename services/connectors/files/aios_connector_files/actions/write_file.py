"""files.write_file: put an artifact's bytes into a file, and take it back."""

import asyncio
import re
from typing import Final

from pydantic import field_validator

from aios_connector_files import failures
from aios_connector_files.actions.target import Seen, Target, in_words
from aios_connector_files.blobs import Blobs
from aios_connector_files.paths import check_path, check_writable
from aios_connector_files.root import Root, hash_file, open_file
from aios_connector_files.swap import Changed, FileSwap, Judged, Swap
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.values import Pointer
from aios_sdk.connector import (
    Action,
    Arguments,
    Call,
    CannotTell,
    Change,
    Conflict,
    Done,
    Effect,
    Inverse,
    Lookup,
    NotDone,
    Predicted,
    Rediscovered,
    Result,
    Standing,
    Traced,
    Undone,
    action,
)

ANY: Final = "any"
ABSENT: Final = "absent"
MAX_FILE_BYTES: Final = 64 * 1024 * 1024

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class WriteFile(Arguments):
    """`path` is relative to the root. `expect` is what must stand there now: `any`, `absent`, or a SHA-256 in hex."""

    path: str
    content: Pointer
    expect: str = ANY

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        check_writable(check_path(path))
        return path

    @field_validator("content")
    @classmethod
    def _content(cls, content: Pointer) -> Pointer:
        if not 0 <= content.size <= MAX_FILE_BYTES:
            raise ValueError(f"has {content.size} bytes; at most {MAX_FILE_BYTES} are written")
        return content

    @field_validator("expect")
    @classmethod
    def _expect(cls, expect: str) -> str:
        if expect not in (ANY, ABSENT) and not _SHA256.fullmatch(expect):
            raise ValueError("must be any, absent, or a SHA-256 of 64 small hex digits")
        return expect


class FileWritten(Result):
    """`before` is the SHA-256 that stood there, empty when the file is new."""

    path: str
    sha256: str
    size: int
    before: str


@action(
    "write_file",
    input=WriteFile,
    output=FileWritten,
    captured=Seen,
    effect=Effect.REVERSIBLE,
    inverse=Inverse(
        "puts the earlier bytes back, or removes the file, unless it was edited since", repeatable=True
    ),
    idempotency=Lookup(conditional=True),
    steering=("path",),
)
class WriteFileAction(Action[WriteFile, Seen, FileWritten]):
    """Replaces a file in one step, or leaves it as it is; the version that it replaces is the one that it captured."""

    def __init__(self, root: Root, blobs: Blobs) -> None:
        self._root = root
        self._blobs = blobs

    async def simulate(self, input: WriteFile, call: Call) -> Predicted[FileWritten]:
        seen = await asyncio.to_thread(self._see, input)
        done = self._done(input, seen)
        return Predicted(done.result, done.changes, done.summary.replace("wrote", "would write", 1))

    async def capture(self, input: WriteFile, call: Call) -> Seen:
        seen = await asyncio.to_thread(self._see, input)
        if seen.before and seen.before != input.content.sha256:
            await asyncio.to_thread(self._keep, input, seen)
            await self._blobs.share(seen.before)
        await self._blobs.stage(call.key, input.content, call.artifacts)
        return seen

    async def perform(self, input: WriteFile, captured: Seen, call: Call) -> Done[FileWritten]:
        await self._blobs.stage(call.key, input.content, call.artifacts)
        try:
            await asyncio.to_thread(self._write, input, captured, call.key)
        finally:
            self._blobs.drop(call.key)
        return self._done(input, captured)

    async def lookup(
        self, input: WriteFile, captured: Seen, call: Call
    ) -> Done[FileWritten] | NotDone | CannotTell:
        target = self._target(input)
        judged = await asyncio.to_thread(
            self._recover, target, call.key, captured.before, input.content.sha256
        )
        if judged is Swap.DONE:
            self._blobs.drop(call.key)
            return self._done(input, captured)
        if judged is Swap.UNCLEAR:
            return CannotTell(
                f"Writing {input.path} was interrupted, and since then somebody changed it: it has neither the earlier "
                "nor the new content. Look at it and say whether it was written."
            )
        await asyncio.to_thread(target.drop_folders, captured.missing)
        return NotDone()

    async def rediscover(self, input: WriteFile, call: Call) -> Traced[Seen, FileWritten]:
        """The bytes tell. Where others stand, they may be an edit of what was written, so a person is asked; what
        stood there before is not known, so it can't be taken back."""
        target = self._target(input)
        await asyncio.to_thread(target.finish_left, call.key)
        seen = await asyncio.to_thread(target.see)
        if not seen.before:
            return NotDone()
        if seen.before == input.content.sha256:
            return Rediscovered(self._done(input, seen))
        return CannotTell(
            f"AIOS was restored from a backup, and {input.path} has other content than was to be written: what it had "
            "before, or an edit of what was written since. Look at it and say whether it was written."
        )

    async def undo(
        self, input: WriteFile, captured: Seen, result: FileWritten | None, call: Call
    ) -> Undone | Conflict:
        if captured.before not in ("", input.content.sha256):
            await self._blobs.fetch(captured.before)
        return await asyncio.to_thread(self._undo, input, captured, call.key)

    async def redo(
        self, input: WriteFile, captured: Seen, result: FileWritten | None, call: Call
    ) -> Done[FileWritten] | Conflict:
        await self._blobs.stage(call.key, input.content, call.artifacts)
        try:
            conflict = await asyncio.to_thread(self._put_back, input, captured, call.key)
        finally:
            self._blobs.drop(call.key)
        return conflict or self._done(input, captured)

    async def stands(
        self, input: WriteFile, captured: Seen, result: FileWritten | None, call: Call, *, undone: bool
    ) -> Standing:
        versions = (input.content.sha256, captured.before)
        return await asyncio.to_thread(
            self._target(input).standing, *(versions[::-1] if undone else versions)
        )

    def _target(self, input: WriteFile) -> Target:
        return Target(self._root, check_path(input.path))

    def _see(self, input: WriteFile) -> Seen:
        seen = self._target(input).see()
        expected = {ANY: seen.before, ABSENT: ""}.get(input.expect, input.expect)
        if seen.before != expected:
            found = (
                "it is there"
                if not expected
                else "it has other content"
                if seen.before
                else "it is not there"
            )
            raise TerminalError(
                "CONFLICT", f"{input.path} is not as expected: {found}. Nothing was changed.", path=input.path
            )
        return seen

    def _keep(self, input: WriteFile, seen: Seen) -> None:
        target = self._target(input)
        try:
            with self._root.folder(*target.folder) as directory, open_file(directory, target.name) as file:
                if hash_file(file) != seen.before:
                    raise RetryableError(
                        "CONFLICT", f"{input.path} is being edited just now; nothing was changed."
                    )
                file.seek(0)
                self._blobs.keep(seen.before, file)
        except OSError as error:
            raise failures.reading(error, input.path) from None

    def _write(self, input: WriteFile, seen: Seen, key: str) -> None:
        target, new = self._target(input), input.content.sha256
        if seen.before == new:
            return
        try:
            judged = target.in_folder(lambda directory: self._place(directory, target.name, key, seen, new))
        except AiosError:
            target.drop_folders(seen.missing)
            raise
        except OSError as error:
            target.drop_folders(seen.missing)
            raise failures.writing(error, input.path) from None
        if isinstance(judged, Changed):
            target.drop_folders(seen.missing)
            kept = f" An edit that came in between is kept beside it as {judged.kept}." if judged.kept else ""
            raise TerminalError(
                "CONFLICT",
                f"{input.path} was changed at the same moment; it was left as it is.{kept}",
                path=input.path,
            )

    def _place(self, directory: int, name: str, key: str, seen: Seen, new: str) -> Judged:
        swap = FileSwap(directory, name, key, seen.before or None, new)
        swap.stage(self._blobs.staged(key), seen.mode or None)
        return swap.commit()

    def _recover(self, target: Target, key: str, old: str, new: str) -> Judged:
        if old == new:
            return Swap.DONE
        try:
            with self._root.folder(*target.folder) as directory:
                return FileSwap(directory, target.name, key, old or None, new or None).recover()
        except FileNotFoundError:
            return Swap.DONE if not new else Swap.NOT_DONE if not old else Changed(None)
        except OSError as error:
            raise failures.writing(error, target.path) from None

    def _undo(self, input: WriteFile, seen: Seen, key: str) -> Undone | Conflict:
        target, ours = self._target(input), input.content.sha256
        if seen.before == ours:
            return Undone((), f"{input.path} had this content before; nothing to take back")
        judged = self._recover(target, key, ours, seen.before)
        if judged is Swap.NOT_DONE:
            judged = self._take_back(target, key, ours, seen)
        if judged is Swap.UNCLEAR:
            judged = Changed(target.see().before or None)
        if isinstance(judged, Changed):
            return target.conflict(ours, judged)
        target.drop_folders(seen.missing)
        if seen.before:
            return Undone((target.change("update", ours, seen.before),), f"put the earlier {input.path} back")
        return Undone((target.change("delete", ours, ""),), f"removed {input.path}")

    def _put_back(self, input: WriteFile, seen: Seen, key: str) -> Conflict | None:
        target, ours = self._target(input), input.content.sha256
        if seen.before == ours:
            return None
        judged = self._recover(target, key, seen.before, ours)
        if judged is Swap.NOT_DONE:
            try:
                judged = target.in_folder(
                    lambda directory: self._place(directory, target.name, key, seen, ours)
                )
            except OSError as error:
                target.drop_folders(seen.missing)
                raise failures.writing(error, target.path) from None
        if judged is Swap.UNCLEAR:
            judged = Changed(target.see().before or None)
        if not isinstance(judged, Changed):
            return None
        target.drop_folders(seen.missing)
        return target.conflict(seen.before, judged)

    def _take_back(self, target: Target, key: str, ours: str, seen: Seen) -> Judged:
        try:
            with self._root.folder(*target.folder) as directory:
                swap = FileSwap(directory, target.name, key, ours, seen.before or None)
                if seen.before:
                    swap.stage(self._blobs.kept(seen.before), seen.mode, seen.mtime_ns)
                return swap.commit()
        except OSError as error:
            raise failures.writing(error, target.path) from None

    def _done(self, input: WriteFile, seen: Seen) -> Done[FileWritten]:
        content = input.content
        result = FileWritten(path=input.path, sha256=content.sha256, size=content.size, before=seen.before)
        if seen.before == content.sha256:
            return Done(result, (), f"{input.path} has this content already")
        target = self._target(input)
        change: Change = target.change(
            "update" if seen.before else "create", seen.before, content.sha256, content.size
        )
        return Done(result, (change,), f"wrote {input.path} ({in_words(content.size)})")
