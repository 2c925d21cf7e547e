"""files.append_line: one JSON line at the end of an index, exactly once, and take that line back."""

import asyncio
import os
from functools import partial
from typing import Any, Final

from pydantic import field_validator

from aios_connector_files import failures, lines
from aios_connector_files.actions.target import Seen, Target
from aios_connector_files.paths import check_path, check_writable
from aios_connector_files.root import Root
from aios_connector_files.swap import Changed, FileSwap, Judged, Swap
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.hashing import content_hash
from aios_sdk.connector import (
    Action,
    Arguments,
    Call,
    CannotTell,
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
    Stands,
    Traced,
    Undone,
    action,
)

MAX_INDEX_BYTES: Final = 16 * 1024 * 1024
MAX_ROUNDS: Final = 8  # times that an undo begins again because others write into the index
RETRY: Final = 1.0  # seconds


class AppendLine(Arguments):
    """`path` is relative to the root; `entry` is the line's content, to which the effect key is added as `effect`."""

    path: str
    entry: dict[str, Any]

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        check_writable(check_path(path))
        return path

    @field_validator("entry")
    @classmethod
    def _entry(cls, entry: dict[str, Any]) -> dict[str, Any]:
        if lines.EFFECT in entry:
            raise ValueError(f"the field {lines.EFFECT} is written by the connector")
        if len(lines.line_of("", entry)) > lines.MAX_LINE_BYTES:
            raise ValueError(f"is longer than {lines.MAX_LINE_BYTES} bytes as JSON")
        return entry


class LineAppended(Result):
    """`sha256` and `size` are those of the whole file after it."""

    path: str
    sha256: str
    size: int


class SeenIndex(Seen):
    """The index before the line, and what it is to be after it."""

    after: str
    size: int


@action(
    "append_line",
    input=AppendLine,
    output=LineAppended,
    captured=SeenIndex,
    effect=Effect.REVERSIBLE,
    inverse=Inverse("removes that line and no other, unless it was edited since", repeatable=True),
    idempotency=Lookup(conditional=True),
    steering=("path",),
)
class AppendLineAction(Action[AppendLine, SeenIndex, LineAppended]):
    """The index is written anew and exchanged in one step, so a reader sees whole lines alone."""

    def __init__(self, root: Root) -> None:
        self._root = root

    async def simulate(self, input: AppendLine, call: Call) -> Predicted[LineAppended]:
        done = self._done(input, await asyncio.to_thread(self._see, input, call.key))
        return Predicted(done.result, done.changes, f"would add {done.summary.removeprefix('added ')}")

    async def capture(self, input: AppendLine, call: Call) -> SeenIndex:
        return await asyncio.to_thread(self._see, input, call.key)

    async def perform(self, input: AppendLine, captured: SeenIndex, call: Call) -> Done[LineAppended]:
        await asyncio.to_thread(self._append, input, captured, call.key)
        return self._done(input, captured)

    async def lookup(
        self, input: AppendLine, captured: SeenIndex, call: Call
    ) -> Done[LineAppended] | NotDone | CannotTell:
        happened = await asyncio.to_thread(self._happened, input, captured, call.key)
        if happened:
            return self._done(input, captured)
        await asyncio.to_thread(self._target(input).drop_folders, captured.missing)
        return NotDone()

    async def rediscover(self, input: AppendLine, call: Call) -> Traced[SeenIndex, LineAppended]:
        """The line names its effect, so it is found wherever it stands by now, and can be taken back."""
        seen = await asyncio.to_thread(self._stands, input, call.key)
        if seen is None:
            return NotDone()
        result = LineAppended(path=input.path, sha256=seen.after, size=seen.size)
        return Rediscovered(Done(result, (), f"{input.path} has this line already"), seen)

    async def undo(
        self, input: AppendLine, captured: SeenIndex, result: LineAppended | None, call: Call
    ) -> Undone | Conflict:
        return await asyncio.to_thread(self._undo, input, captured, call)

    async def redo(
        self, input: AppendLine, captured: SeenIndex, result: LineAppended | None, call: Call
    ) -> Done[LineAppended] | Conflict:
        return await asyncio.to_thread(self._redo, input, captured, call)

    async def stands(
        self, input: AppendLine, captured: SeenIndex, result: LineAppended | None, call: Call, *, undone: bool
    ) -> Standing:
        return await asyncio.to_thread(self._standing, input, captured, call.effect_key, undone)

    def _target(self, input: AppendLine) -> Target:
        return Target(self._root, check_path(input.path))

    def _see(self, input: AppendLine, key: str) -> SeenIndex:
        target = self._target(input)
        seen = target.see()
        version, content = self._read(target)
        if version != seen.before:
            raise _busy(target)
        new = lines.appended(content, lines.line_of(key, input.entry))
        if len(new) > MAX_INDEX_BYTES:
            raise TerminalError(
                "TOO_LARGE", f"{target.path} would pass {MAX_INDEX_BYTES} bytes.", path=target.path
            )
        return SeenIndex(**seen.model_dump(), after=content_hash(new), size=len(new))

    def _stands(self, input: AppendLine, key: str) -> SeenIndex | None:
        """The index as it is, if it has the line; what it was before the line is not known."""
        target = self._target(input)
        target.finish_left(key)
        try:
            version, content = self._read(target)
        except OSError as error:
            raise failures.reading(error, target.path) from None
        if lines.find(content, key) is None:
            return None
        return SeenIndex(**target.see().model_dump(), after=version, size=len(content))

    def _append(self, input: AppendLine, seen: SeenIndex, key: str) -> None:
        target = self._target(input)
        try:
            version, content = self._read(target)
            if version != seen.before:
                raise _busy(target)
            line = lines.line_of(key, input.entry)

            def place(directory: int) -> Judged:
                swap = FileSwap(directory, target.name, key, seen.before or None, seen.after)
                swap.stage([lines.appended(content, line)], seen.mode or None)
                return swap.commit()

            if isinstance(target.in_folder(place), Changed):
                raise _busy(target)
        except AiosError:
            target.drop_folders(seen.missing)
            raise
        except OSError as error:
            target.drop_folders(seen.missing)
            raise failures.writing(error, target.path) from None

    def _happened(self, input: AppendLine, seen: SeenIndex, key: str) -> bool:
        target = self._target(input)
        try:
            with self._root.folder(*target.folder) as directory:
                judged = FileSwap(directory, target.name, key, seen.before or None, seen.after).recover()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise failures.writing(error, target.path) from None
        return judged is Swap.DONE or lines.find(self._read(target)[1], key) is not None

    def _undo(self, input: AppendLine, seen: SeenIndex, call: Call) -> Undone | Conflict:
        target = self._target(input)
        ours = lines.line_of(call.effect_key, input.entry)
        try:
            interrupted = self._recover_undo(target, call.key)
            if interrupted is not None:
                return target.conflict(seen.after, interrupted)
            for _ in range(MAX_ROUNDS):
                version, content = self._read(target)
                line = lines.find(content, call.effect_key)
                if line is None:
                    target.drop_folders(seen.missing)
                    return Undone((), f"the line is not in {target.path} any more")
                if line.rstrip(b"\r\n") != ours.rstrip(b"\n"):
                    return target.conflict(seen.after, Changed(version))
                new = lines.without(content, line)
                # An index that the lines of others left empty goes as well, unless it was there empty before this one.
                after = content_hash(new) if new or seen.before == content_hash(b"") else ""
                with self._root.folder(*target.folder) as directory:
                    judged = _swap(directory, target, call.key, version, after, new)
                if judged is Swap.DONE:
                    target.drop_folders(seen.missing)
                    note = "one line removed"
                    return Undone(
                        (target.change("update" if after else "delete", version, after, len(new), note),),
                        f"removed the line from {target.path}",
                    )
        except OSError as error:
            raise failures.writing(error, target.path) from None
        raise _busy(target)

    def _recover_undo(self, target: Target, key: str) -> Changed | None:
        """Finish what an undo that was interrupted has begun; `Changed` if an edit lost its place to it."""
        try:
            with self._root.folder(*target.folder) as directory:
                for swap in FileSwap.left_behind(directory, target.name, key):
                    judged = swap.recover()
                    if isinstance(judged, Changed) and judged.kept:
                        return judged
        except FileNotFoundError:
            pass
        return None

    def _redo(self, input: AppendLine, seen: SeenIndex, call: Call) -> Done[LineAppended] | Conflict:
        """Put the line at the end of what stands there by now; only an index that was taken away is not made again."""
        target = self._target(input)
        ours = lines.line_of(call.effect_key, input.entry)
        try:
            interrupted = self._recover_undo(target, call.key)
            if interrupted is not None:
                return target.conflict(seen.before, interrupted)
            for _ in range(MAX_ROUNDS):
                version, content = self._read(target)
                if lines.find(content, call.effect_key) is not None:
                    return self._done(input, seen)
                if seen.before and not version:
                    return target.conflict(seen.before, Changed(None))
                new = lines.appended(content, ours)
                place = partial(
                    _swap, target=target, key=call.key, old=version, after=content_hash(new), new=new
                )
                if target.in_folder(place) is Swap.DONE:
                    return self._done(input, seen)
        except OSError as error:
            target.drop_folders(seen.missing)
            raise failures.writing(error, target.path) from None
        target.drop_folders(seen.missing)
        raise _busy(target)

    def _standing(self, input: AppendLine, seen: SeenIndex, key: str, undone: bool) -> Standing:
        """Lines of others change nothing."""
        target = self._target(input)
        try:
            version, content = self._read(target)
        except OSError as error:
            raise failures.reading(error, target.path) from None
        line = lines.find(content, key)
        ours = lines.line_of(key, input.entry)
        same = line is not None and line.rstrip(b"\r\n") == ours.rstrip(b"\n")
        if undone:
            gone = bool(seen.before) and not version
            return target.conflict(seen.before, Changed(None)) if gone else Stands()
        if line is None or same:
            return Stands()  # without the line there is nothing left to take back
        return target.conflict(seen.after, Changed(version or None))

    def _read(self, target: Target) -> tuple[str, bytes]:
        return target.read(MAX_INDEX_BYTES)

    def _done(self, input: AppendLine, seen: SeenIndex) -> Done[LineAppended]:
        target = self._target(input)
        verb = "append" if seen.before else "create"
        change = target.change(verb, seen.before, seen.after, seen.size)
        result = LineAppended(path=input.path, sha256=seen.after, size=seen.size)
        return Done(result, (change,), f"added one line to {input.path}")


def _swap(directory: int, target: Target, key: str, old: str, after: str, new: bytes) -> Judged:
    """Put `new` in the place of version `old` (empty: absent); where `after` is empty, the index goes."""
    mode = None
    if old:
        mode = os.stat(target.name, dir_fd=directory, follow_symlinks=False).st_mode & 0o7777
    swap = FileSwap(directory, target.name, key, old or None, after or None)
    if after:
        swap.stage([new], mode)
    return swap.commit()


def _busy(target: Target) -> RetryableError:
    return RetryableError(
        "CONFLICT", f"{target.path} is being written by others just now.", retry_after=RETRY
    )
