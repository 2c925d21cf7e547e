"""Memory's steps: one task in, one outcome out. The same task, given again, has the effect of once."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.message import DecodeError

from aios.effect.v1 import effect_pb2
from aios.memory.v1 import memory_pb2
from aios.run.v1.state_pb2 import UNDO_VERDICT_CHANGED, UNDO_VERDICT_IMPOSSIBLE, UNDO_VERDICT_WILL
from aios.task.v1 import task_pb2
from aios_core.encoding import decode
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_core.values import Value
from aios_memory import answers, operations
from aios_memory.artifacts import Artifacts
from aios_memory.codec import parse
from aios_memory.model import Name, Provenance, Undo, Version, Written, check_key, check_kind
from aios_memory.requests import MAX_WRITES, Read, Writes, parse_reads, parse_writes
from aios_memory.store import Records
from aios_memory.writing import Writing
from aios_runtime.bus.replies import error_from_proto, error_to_proto
from aios_runtime.crashpoints import crash, point
from aios_runtime.lanes import UnansweredError
from aios_runtime.previews import task_of

MAX_CHECKS: Final = 500  # steps that one question is about
MAX_SCANNED: Final = 10_000  # records under a prefix that one read looks at

_MODES: Final = (
    task_pb2.MODE_EXECUTE,
    task_pb2.MODE_SIMULATE,
    task_pb2.MODE_UNDO,
    task_pb2.MODE_REDO,
)
COMMITTED: Final = point(
    "memory.committed", "a memory task's versions are committed, its outcome is not reported"
)


class Steps:
    """Carries out tasks of the memory lane in one workspace."""

    def __init__(
        self,
        workspace: str,
        records: Records,
        writing: Writing,
        artifacts: Artifacts,
        now_ms: Callable[[], int],
    ) -> None:
        self._records = records
        self._writing = writing
        self._artifacts = artifacts
        self._workspace = workspace
        self._now_ms = now_ms

    async def perform(self, task: task_pb2.Task) -> task_pb2.Outcome:
        """The outcome of any task; one that failed still tells which changes it left. Raises AiosError, and
        UnansweredError where a change can't be made now: what an earlier dispatch of the task has written may stand."""
        outcome = task_pb2.Outcome(status=task_pb2.STATUS_SUCCEEDED)
        self._check(task)
        undoes = task.mode in (task_pb2.MODE_UNDO, task_pb2.MODE_REDO)
        if task.target == operations.READ and not undoes:
            await self._read(decode(task.input), outcome)
            return outcome
        try:
            if undoes:
                await self._undo(task, outcome)
            else:
                await self._write(task, decode(task.input), outcome)
        except RetryableError as error:
            if task.mode == task_pb2.MODE_SIMULATE:
                raise
            raise UnansweredError(error.message) from error
        return outcome

    async def check_input(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        """CheckInputRequest → CheckInputResponse. Raises what is wrong with the input of a step."""
        request = parse(task_pb2.CheckInputRequest, data)
        value = decode(request.input)
        if request.target == operations.READ:
            parse_reads(value)
        else:
            parse_writes(value)
        return task_pb2.CheckInputResponse().SerializeToString()

    async def preview(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        """PreviewStepRequest → PreviewStepResponse. Raises what a step would fail with."""
        request = parse(task_pb2.PreviewStepRequest, data)
        answer = task_pb2.PreviewStepResponse(input_sha256=sha256(request.input))
        if request.target == operations.READ:
            answer.summary = "it reads, and changes nothing"
            return answer.SerializeToString()
        outcome = await self.perform(task_of(request))
        if outcome.HasField("error"):
            raise error_from_proto(outcome.error)
        answer.changes.extend(outcome.changes)
        answer.summary = outcome.summary
        return answer.SerializeToString()

    async def check_undo(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        """CheckUndoRequest → CheckUndoResponse: what an undo, or a redo, of steps would find now."""
        request = parse(effect_pb2.CheckUndoRequest, data)
        answer = effect_pb2.CheckUndoResponse()
        for token in request.undo_tokens[:MAX_CHECKS]:
            try:
                written = _token(token)
                if request.redo:
                    await self._check_undone(written)
                error = await self._writing.check_undo(written, self._now_ms())
            except AiosError as refused:
                impossible = effect_pb2.UndoCheck(verdict=UNDO_VERDICT_IMPOSSIBLE, why=refused.message)
                answer.checks.append(impossible)
                continue
            verdict = UNDO_VERDICT_WILL if error is None else UNDO_VERDICT_CHANGED
            why = error.message if error is not None else ""
            answer.checks.append(effect_pb2.UndoCheck(verdict=verdict, why=why))
        return answer.SerializeToString()

    async def _check_undone(self, written: list[Undo]) -> None:
        """Raises ACTION_FAILED for what no undo has written, since there is nothing to put back."""
        for item in written:
            if not (await self._records.stored(item.name, item.version)).provenance.undoes:
                raise TerminalError("ACTION_FAILED", f"How to put {item.name} back was not kept.")

    def _check(self, task: task_pb2.Task) -> None:
        if task.workspace != self._workspace:
            raise TerminalError(
                "NOT_FOUND",
                f"This memory keeps workspace {self._workspace}, not {task.workspace[:80]!r}.",
                field="workspace",
            )
        if task.target not in operations.OPERATIONS:
            raise TerminalError(
                "NOT_FOUND",
                f"Memory has no operation {task.target[:80]!r}; it has {', '.join(operations.OPERATIONS)}.",
                target=task.target[:80],
            )
        if task.mode not in _MODES:
            raise TerminalError("INVALID_ARGUMENT", "The task does not say its mode.", field="mode")

    async def _read(self, value: Value, outcome: task_pb2.Outcome) -> None:
        results: dict[str, Value] = {}
        for read in parse_reads(value):
            if read.single:
                results[read.result] = answers.read_record(read, await self._one(read))
            else:
                results[read.result] = answers.read_list(read, await self._many(read))
        outcome.output = answers.read_output(results)
        outcome.summary = answers.read_summary(results)

    async def _one(self, read: Read) -> Version | None:
        return (
            await self._records.as_of(read.name, read.as_of_ms)
            if read.as_of_ms
            else await self._records.newest(read.name)
        )

    async def _many(self, read: Read) -> list[Version]:
        found: deque[Version] = deque(maxlen=None if read.first else read.limit)
        seen = 0
        async for version in self._records.under(read.name.kind, read.name.key, read.as_of_ms):
            if read.before and version.name.key >= read.before:
                break
            found.append(version)
            seen += 1
            if read.first and seen == read.limit:
                break
            if seen > MAX_SCANNED:
                raise TerminalError(
                    "TOO_LARGE",
                    f"More than {MAX_SCANNED} records start with {read.name.key!r}; give a longer prefix.",
                )
        return list(found)

    async def _write(self, task: task_pb2.Task, value: Value, outcome: task_pb2.Outcome) -> None:
        writes = parse_writes(value)
        provenance = Provenance(
            run_id=task.run_id,
            step=task.step,
            effect_key=task.task_id,
            actor=f"step:{task.step}",
            event_id=writes.event_id,
            traceparent=task.traceparent,
        )
        simulated = task.mode == task_pb2.MODE_SIMULATE
        if simulated:
            written = await self._writing.predict(writes.changes, provenance, self._now_ms())
        else:
            await self._check_pointers(writes)
            written = await self._writing.write(writes.changes, provenance, self._now_ms())
            crash(COMMITTED)
            if written.done:
                outcome.undo_token = answers.undo_token(written.done)
        notes = {change.name: change.note for change in writes.changes}
        outcome.changes.extend(answers.change(done, notes.get(done.after.name, "")) for done in written.done)
        outcome.summary = answers.summary(written.done, "would write" if simulated else "wrote")
        if written.errors:
            outcome.status = task_pb2.STATUS_FAILED
            outcome.error.CopyFrom(error_to_proto(_refusal(written, writes)))
        else:
            outcome.output = answers.write_output(written.done)

    async def _check_pointers(self, writes: Writes) -> None:
        """A blob is durable before a pointer to it is committed. (A simulation may point to what it did not make.)"""
        for digest in writes.pointers:
            if await self._artifacts.find(digest) is None:
                raise TerminalError(
                    "NOT_FOUND",
                    f"A value points to artifact {digest}, which is not stored; store it first.",
                    sha256=digest,
                )

    async def _undo(self, task: task_pb2.Task, outcome: task_pb2.Outcome) -> None:
        """Take versions back; to put them back is to take those back that took them."""
        written = _token(task.undo_token)
        provenance = Provenance(
            run_id=task.run_id,
            step=task.step,
            effect_key=task.task_id,
            actor=f"step:{task.step}",
            traceparent=task.traceparent,
        )
        redo = task.mode == task_pb2.MODE_REDO
        if redo:
            await self._check_undone(written)
        undone = await self._writing.undo(written, provenance, self._now_ms())
        crash(COMMITTED)
        outcome.changes.extend(answers.change(done) for done in undone.done)
        outcome.summary = answers.summary(undone.done, "put back" if redo else "took back")
        outcome.undo_token = answers.undo_token(undone.done[::-1])  # what takes the next step back or forth
        if undone.errors:
            outcome.status = task_pb2.STATUS_CONFLICT
            outcome.error.CopyFrom(error_to_proto(_all(undone.errors)))


def _token(data: bytes) -> list[Undo]:
    """What an undo token names, the last written first."""
    try:
        token = memory_pb2.UndoToken.FromString(data)
    except DecodeError:
        raise TerminalError(
            "UNDECODABLE", "The undo token is not one of memory.write.", field="undo_token"
        ) from None
    if len(token.written) > MAX_WRITES:
        raise TerminalError(
            "TOO_LARGE", f"The undo token names more than {MAX_WRITES} versions.", field="undo_token"
        )
    return [
        Undo(
            Name(check_kind(item.kind, "undo_token.kind"), check_key(item.key, "undo_token.key")),
            item.version,
            item.before,
        )
        for item in reversed(token.written)
    ]


def _refusal(written: Written, writes: Writes) -> AiosError:
    """Why the step failed, and what of it stands all the same."""
    error = _all(written.errors)
    if written.done:
        standing = ", ".join(str(done.after.name) for done in written.done)
        error.message += f" What was written before stays: {standing}."
    elif len(writes.changes) > 1:
        error.message += f" None of the {len(writes.changes)} records was written."
    return error


def _all(errors: tuple[AiosError, ...]) -> AiosError:
    first = errors[0]
    if len(errors) > 1:
        first.details["also"] = ", ".join(error.details.get("resource", "") for error in errors[1:])
        first.message += f" Refused as well: {first.details['also']}."
    return first
