"""A connector on its work lane: the parts that every connector's service is made of."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from aios.effect.v1 import effect_pb2
from aios.task.v1.task_pb2 import (
    MODE_REDO,
    MODE_SIMULATE,
    MODE_UNDO,
    CheckInputRequest,
    CheckInputResponse,
    Outcome,
    PreviewStepRequest,
    PreviewStepResponse,
    Task,
)
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_runtime.artifacts import MemoryArtifacts
from aios_runtime.bus import subjects
from aios_runtime.lanes import LaneWorker
from aios_runtime.previews import task_of
from aios_runtime.service.port import Context, Restore
from aios_runtime.store.port import Store
from aios_runtime.telemetry.tracing import span
from aios_sdk.connector import Connector
from aios_sdk.host.executor import Executor
from aios_sdk.host.flight import Rules
from aios_sdk.host.ledger import Ledger

CLOSE_RESTORE: Final = "close_restore"
CHECK_UNDO: Final = "check_undo"
CHECK_INPUT: Final = "check_input"
PREVIEW_STEP: Final = "preview_step"
PREVIEW_S: Final = 2.0  # after which nobody waits for one any more
COUNT_EFFECTS: Final = "count_effects"
MAX_CHECKS: Final = 500  # effects that one question is about
MAX_ANSWER: Final = 190 * 1024  # bytes of an answer; what does not fit says no more than its verdict
AT_ONCE: Final = 32  # effects that are looked at at once
_VERBS: Final = {MODE_SIMULATE: "simulate", MODE_UNDO: "undo", MODE_REDO: "redo"}


class ConnectorLane:
    """Serves the tasks of one connector from the lane `connector-<name>`. At most `slots` run at once."""

    def __init__(
        self, context: Context, connector: Connector, store: Store, *, slots: int, rules: Rules
    ) -> None:
        lane = subjects.connector_lane(connector.name)
        self._context, self._name = context, lane
        rules = replace(rules, sole_owner=rules.sole_owner and not store.shared)
        artifacts = MemoryArtifacts(context.bus, context.workspace, context.mint)
        self._executor = Executor(
            connector, Ledger(store, context.workspace), artifacts, context.now_ms, rules
        )
        self._worker = LaneWorker(
            context.bus,
            service=lane,
            workspace=context.workspace,
            lane=lane,
            perform=self._perform,
            slots=slots,
            batch=slots,
            timeout_is_unknown=True,
            worker=context.instance,
            now_ms=context.now_ms,
            version_of=lambda task: connector.version,
        )
        self._recovered = 0

    async def start(self) -> None:
        """Settle what was interrupted, then take tasks."""
        await self._executor.restores.read()
        context = self._context
        await context.bus.answer(
            subjects.query(self._name, CLOSE_RESTORE, context.workspace),
            self._close_restore,
            queue=self._name,
        )
        for name, answer in (
            (CHECK_UNDO, self._check_undo),
            (CHECK_INPUT, self._check_input),
            (PREVIEW_STEP, self._preview_step),
            (COUNT_EFFECTS, self._count_effects),
        ):
            subject = subjects.query(self._name, name, context.workspace)
            await context.bus.answer(subject, answer, queue=self._name)
        self._recovered = await self._executor.recover()
        await self._worker.start()

    async def stop(self) -> None:
        """Let the effects that are under way finish. The bus was drained before."""
        await self._worker.stop()
        await self._executor.close()

    async def _perform(self, task: Task) -> Outcome:
        action = task.target.partition(".")[2]
        attributes = {"aios.run.id": task.run_id, "aios.step": task.step, "aios.action": task.target}
        with span(
            f"{_VERBS.get(task.mode, 'perform')} {action}",
            kind="consumer",
            parent=task.traceparent,
            attributes=attributes,
        ) as performing:
            outcome = await self._executor.perform(task)
            if outcome.HasField("error"):
                performing.fail(outcome.error.code)
            return outcome

    async def _close_restore(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        from aios.api.v1 import api_pb2  # only where somebody asks: the API's messages take a while to load

        request = api_pb2.CloseRestoreRequest.FromString(data)
        restores = self._executor.restores
        closed = await restores.close(request.restore_id)
        answer = api_pb2.CloseRestoreResponse()
        if closed is not None:
            answer.closed.append(
                api_pb2.OpenRestore(
                    restore_id=closed.restore_id,
                    service=self._name,
                    backup_time_ms=closed.backup_time_ms,
                    restore_time_ms=closed.restore_time_ms,
                    found=restores.found,
                    asked=restores.asked,
                )
            )
        return answer.SerializeToString()

    async def _check_undo(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        request = effect_pb2.CheckUndoRequest.FromString(data)
        if len(request.undo_tokens) > MAX_CHECKS:
            raise TerminalError(
                "TOO_LARGE", f"undo_tokens: at most {MAX_CHECKS} at once.", field="undo_tokens"
            )
        free = asyncio.Semaphore(AT_ONCE)

        async def check(token: bytes) -> effect_pb2.UndoCheck:
            async with free:
                return await self._executor.check_undo(token, redo=request.redo)

        checks = await asyncio.gather(*map(check, request.undo_tokens))
        answer, size = effect_pb2.CheckUndoResponse(), 0
        for found in checks:
            size += found.ByteSize() + 4
            answer.checks.append(found if size < MAX_ANSWER else effect_pb2.UndoCheck(verdict=found.verdict))
        return answer.SerializeToString()

    async def _check_input(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        request = CheckInputRequest.FromString(data)
        self._executor.check_input(request.target, request.input)
        return CheckInputResponse().SerializeToString()

    async def _preview_step(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        request = PreviewStepRequest.FromString(data)
        try:
            async with asyncio.timeout(PREVIEW_S):
                found = await self._executor.preview(task_of(request))
        except TimeoutError:
            raise RetryableError(
                "DEADLINE_EXCEEDED", f"A preview took longer than {PREVIEW_S:g} s."
            ) from None
        answer = PreviewStepResponse(
            input_sha256=sha256(request.input), changes=found.changes, summary=found.summary
        )
        if answer.ByteSize() > MAX_ANSWER:
            raise TerminalError(
                "TOO_LARGE", f"It would make {len(found.changes)} changes, which is too much to list."
            )
        return answer.SerializeToString()

    async def _count_effects(self, data: bytes, _headers: Mapping[str, str]) -> bytes:
        request = effect_pb2.CountEffectsRequest.FromString(data)
        counts = [await self._executor.ledger.count(run) for run in request.run_ids]
        return effect_pb2.CountEffectsResponse(recorded=sum(counts)).SerializeToString()

    def restore(self) -> Restore | None:
        """The restore from a backup that is open, for the service's health."""
        restores = self._executor.restores
        mark = restores.mark
        if mark is None:
            return None
        return Restore(
            mark.restore_id, mark.backup_time_ms, mark.restore_time_ms, restores.found, restores.asked
        )

    def facts(self) -> dict[str, str]:
        """For `aios doctor`."""
        return {
            "tasks at work": str(self._worker.working),
            "changes found open at start": str(self._recovered),
        }
