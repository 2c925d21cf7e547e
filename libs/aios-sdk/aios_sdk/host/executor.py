"""The shell around the ledger's state machine: task in, exactly one effect, outcome out.

    receive ▸ ledger ▸ admit ▸ capture ▸ commit INTENT ▸ perform ▸ commit OUTCOME ▸ answer

`core` decides each step; here are the store, the clock and the calls of the connector.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from aios.effect.v1.effect_pb2 import STATE_INTENT, STATE_OUTCOME, STATE_UNKNOWN, LedgerEntry
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_SIMULATE, MODE_UNDO, STATUS_UNKNOWN, Outcome, Task
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.values import Value
from aios_runtime.crashpoints import crash, point
from aios_sdk.connector.actions import Action, Arguments, Call
from aios_sdk.connector.answers import Conflict, Done
from aios_sdk.connector.artifacts import Artifacts
from aios_sdk.connector.connector import Connector
from aios_sdk.host import codec, core
from aios_sdk.host.ledger import Ledger, Stored

RECEIVED: Final = point("connector.received", "a task has arrived, nothing is written")
INTENT: Final = point("connector.intent", "the INTENT is durable, the effect has not begun")
PERFORMED: Final = point("connector.performed", "the effect has happened, its OUTCOME is not durable")
OUTCOME: Final = point("connector.outcome", "the OUTCOME is durable, nobody was told")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows. `needs_approval`: whatever changes something must bring an approval. `sole_owner`: no
    other process can act under this ledger (its store is locked by this one)."""

    needs_approval: bool = True
    sole_owner: bool = True


@dataclass(frozen=True, slots=True)
class _Effect:
    """An effect that is being carried out: what it is, and where its ledger entry stands."""

    task: Task
    action: Action[Any, Any, Any]
    value: Value
    input: Arguments
    call: Call
    stored: Stored


class Executor:
    """Carries out the tasks of one connector. Tasks with one key run once at a time; a second waits for the first."""

    def __init__(
        self,
        connector: Connector,
        ledger: Ledger,
        artifacts: Artifacts,
        now_ms: Callable[[], int],
        rules: Rules = Rules(),
    ) -> None:
        self._connector = connector
        self._ledger = ledger
        self._artifacts = artifacts
        self._now_ms = now_ms
        self._rules = rules
        # At most as many as the lane has slots.
        self._flights: dict[str, asyncio.Task[Outcome]] = {}

    async def perform(self, task: Task) -> Outcome:
        """The outcome of a task, in any mode. Expected failures are outcomes.

        It raises RetryableError only when the effect may have happened and that can't be recorded or looked up now:
        then the task must be delivered again, and nothing may be said of it.
        """
        crash(RECEIVED)
        started = time.perf_counter_ns()
        try:
            outcome = codec.answering(await self._dispatch(task), task)
        except AiosError as error:
            if isinstance(error, _Open):
                raise
            outcome = codec.failed(task, error)
        outcome.usage.wall_us = (time.perf_counter_ns() - started) // 1000
        return outcome

    async def recover(self) -> int:
        """After a start: settle what was interrupted, where a look-up can tell that it happened, and clean up behind
        it. The rest waits for its task to come again. Returns how many intents stood open."""
        entries = self._ledger.open_intents()
        for entry in entries:
            if entry.mode == MODE_EXECUTE:
                await self._recover_one(entry)
        return len(entries)

    async def close(self) -> None:
        """Wait for the effects that are under way."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _dispatch(self, task: Task) -> Outcome:
        if task.mode == MODE_UNDO:
            effect_key = codec.effect_of_token(task.undo_token)
            undo_key = core.undo_key(effect_key, task.task_id)
            return await self._alone(effect_key, lambda: self._undo(task, effect_key, undo_key))
        action = self._connector.find(task.target)
        if task.mode == MODE_SIMULATE and action.spec.changes_something:
            return await self._simulate(task, action)
        if task.mode not in (MODE_EXECUTE, MODE_SIMULATE):
            raise TerminalError("INVALID_ARGUMENT", "The task's mode is not execute, simulate or undo.", field="mode")
        if not action.spec.changes_something:
            return await self._read(task, action)
        return await self._alone(task.task_id, lambda: self._execute(task, action))

    async def _alone(self, key: str, work: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Run one piece of work per key at a time, and to its end: whoever waits may be cancelled, the effect not."""
        while (running := self._flights.get(key)) is not None:
            await asyncio.wait([running])
        flight = asyncio.create_task(work())
        self._flights[key] = flight
        flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)

    async def _read(self, task: Task, action: Action[Any, Any, Any]) -> Outcome:
        value, input = codec.arguments(task.target, action.spec, task.input)
        self._admit(task, action, value)
        done: Done[Any] = await action.perform(input, None, self._call(task, task.task_id))
        return codec.succeeded(task, self._output(done.result, value), done.changes, done.summary)

    async def _simulate(self, task: Task, action: Action[Any, Any, Any]) -> Outcome:
        value, input = codec.arguments(task.target, action.spec, task.input)
        predicted = await action.simulate(input, self._call(task, task.task_id))
        return codec.succeeded(task, self._output(predicted.result, value), predicted.changes, predicted.summary)

    async def _execute(self, task: Task, action: Action[Any, Any, Any]) -> Outcome:
        spec = action.spec
        stored = self._ledger.read(task.task_id)
        move = core.next_move(
            stored.entry,
            codec.arguments_sha256(task.input),
            task.dispatch,
            spec.idempotency,
            self._now_ms(),
            can_look_up=type(action).lookup is not Action.lookup,
        )
        if isinstance(move, core.Replay):
            return move.outcome
        value, input = codec.arguments(task.target, spec, task.input)
        effect = _Effect(task, action, value, input, self._call(task, task.task_id), stored)
        if isinstance(move, core.LookUp):
            found = await self._looked_up(effect)
            if isinstance(found, Outcome):
                return found
            move = found
        if isinstance(move, core.Park):
            return await self._settle(effect, codec.unknown(task, move.why, self._token(effect)))
        if isinstance(move, core.Resume):
            return await self._resume(effect, move)
        self._admit(task, action, value)
        return await self._perform(await self._begin(effect))

    async def _looked_up(self, effect: _Effect) -> Outcome | core.Resume | core.Park:
        try:
            found = await _telling(effect.action.lookup(effect.input, self._captured(effect), effect.call))
        except TerminalError as error:
            return core.Park(f"The call was interrupted, and looking it up failed: {error.message}")
        if isinstance(found, Done):
            return await self._settle_done(effect, found)
        move = core.after_lookup(found, effect.action.spec.idempotency, sole_owner=self._rules.sole_owner)
        assert move is not None
        return move

    async def _resume(self, effect: _Effect, move: core.Resume) -> Outcome:
        try:
            self._admit(effect.task, effect.action, effect.value)
        except TerminalError as error:
            if move.surely_open:
                return await self._settle(effect, codec.failed(effect.task, error))
            why = f"The call was interrupted and may not be repeated: {error.message}"
            return await self._settle(effect, codec.unknown(effect.task, why, self._token(effect)))
        return await self._perform(effect)

    async def _begin(self, effect: _Effect) -> _Effect:
        """Capture and commit the INTENT."""
        captured: BaseModel = await effect.action.capture(effect.input, effect.call)
        task, before = effect.task, effect.stored.entry
        entry = LedgerEntry(
            effect_key=task.task_id,
            run_id=task.run_id,
            action=task.target,
            mode=MODE_EXECUTE,
            state=STATE_INTENT,
            arguments_sha256=codec.arguments_sha256(task.input),
            input=task.input,
            captured=captured.model_dump_json().encode(),
            intent_time_ms=self._now_ms(),
            attempts=(before.attempts if before else 0) + 1,
            approval_id=task.approval.approval_id,
        )
        revision = await self._ledger.write(entry, effect.stored.revision)
        crash(INTENT)
        return _Effect(task, effect.action, effect.value, effect.input, effect.call, Stored(entry, revision))

    async def _perform(self, effect: _Effect) -> Outcome:
        try:
            done: Done[Any] = await effect.action.perform(effect.input, self._captured(effect), effect.call)
        except AiosError as error:
            return await self._settle(effect, codec.failed(effect.task, error))
        crash(PERFORMED)
        return await self._settle_done(effect, done)

    async def _settle_done(self, effect: _Effect, done: Done[Any]) -> Outcome:
        output = self._output(done.result, effect.value)
        outcome = codec.succeeded(effect.task, output, done.changes, done.summary, self._token(effect))
        return await self._settle(effect, outcome)

    async def _settle(self, effect: _Effect, outcome: Outcome) -> Outcome:
        """Commit the OUTCOME (or UNKNOWN) of an effect whose INTENT stands."""
        entry = LedgerEntry()
        assert effect.stored.entry is not None
        entry.CopyFrom(effect.stored.entry)
        entry.state = STATE_UNKNOWN if outcome.status == STATUS_UNKNOWN else STATE_OUTCOME
        entry.outcome.CopyFrom(outcome)
        entry.outcome_time_ms = self._now_ms()
        try:
            await self._ledger.write(entry, effect.stored.revision)
        except AiosError as error:
            raise _Open(error.code, error.message, retry_after=1.0) from error
        crash(OUTCOME)
        return outcome

    async def _recover_one(self, entry: LedgerEntry) -> None:
        action = self._connector.actions.get(entry.action.partition(".")[2])
        if action is None or type(action).lookup is Action.lookup:
            return
        task = Task(run_id=entry.run_id, task_id=entry.effect_key, target=entry.action, mode=MODE_EXECUTE, input=entry.input)

        async def settle() -> Outcome:
            value, input = codec.arguments(task.target, action.spec, task.input)
            call = self._call(task, task.task_id)
            effect = _Effect(task, action, value, input, call, self._ledger.read(entry.effect_key))
            found = await action.lookup(input, self._captured(effect), call)
            return await self._settle_done(effect, found) if isinstance(found, Done) else Outcome()

        try:
            await self._alone(entry.effect_key, settle)
        except AiosError:
            return  # it stays open; its task will come again and say why

    async def _undo(self, task: Task, effect_key: str, undo_key: str) -> Outcome:
        effect = self._ledger.read(effect_key)
        action = self._connector.find(effect.entry.action if effect.entry else task.target)
        inverse = action.spec.inverse
        if inverse is None:
            raise TerminalError("ACTION_FAILED", f"{task.target} can't be taken back.", field="undo_token")
        undos = self._ledger.undos(effect_key)
        move = core.next_undo(effect.entry, undos, undo_key, task.dispatch, repeatable=inverse.repeatable)
        if isinstance(move, core.Replay):
            return move.outcome
        if isinstance(move, core.NothingToUndo):
            return codec.succeeded(task, b"", (), move.why)
        assert effect.entry is not None
        value, input = codec.arguments(effect.entry.action, action.spec, effect.entry.input)
        stored = self._ledger.read(undo_key)
        if isinstance(move, core.Begin):
            stored = await self._begin_undo(task, undo_key, effect.entry, stored)
        undo = _Effect(task, action, value, input, self._call(task, undo_key), stored)
        if isinstance(move, core.Park):
            return await self._settle(undo, codec.unknown(task, move.why))
        return await self._perform_undo(undo, effect.entry)

    async def _begin_undo(self, task: Task, undo_key: str, effect: LedgerEntry, before: Stored) -> Stored:
        entry = LedgerEntry(
            effect_key=undo_key,
            run_id=effect.run_id,
            action=effect.action,
            mode=MODE_UNDO,
            state=STATE_INTENT,
            arguments_sha256=effect.arguments_sha256,
            intent_time_ms=self._now_ms(),
            attempts=(before.entry.attempts if before.entry else 0) + 1,
        )
        stored = Stored(entry, await self._ledger.write(entry, before.revision))
        crash(INTENT)
        return stored

    async def _perform_undo(self, undo: _Effect, effect: LedgerEntry) -> Outcome:
        action = undo.action
        assert action.spec.captured is not None
        captured = action.spec.captured.model_validate_json(effect.captured)
        result = codec.result_of(action.spec, effect.outcome)
        try:
            answer = await action.undo(undo.input, captured, result, undo.call)
        except AiosError as error:
            return await self._settle(undo, codec.failed(undo.task, error))
        crash(PERFORMED)
        if isinstance(answer, Conflict):
            return await self._settle(undo, codec.conflicted(undo.task, answer.why, answer.changes))
        return await self._settle(undo, codec.succeeded(undo.task, b"", answer.changes, answer.summary))

    def _admit(self, task: Task, action: Action[Any, Any, Any], value: Value) -> None:
        core.admit(
            task.target,
            action.spec.steering,
            value,
            codec.arguments_sha256(task.input),
            task.approval if task.HasField("approval") else None,
            self._now_ms(),
            needs_approval=action.spec.changes_something and self._rules.needs_approval,
        )

    def _call(self, task: Task, key: str) -> Call:
        return Call(key, self._ledger.workspace, self._artifacts, self._now_ms(), task.traceparent)

    def _captured(self, effect: _Effect) -> BaseModel:
        entry, model = effect.stored.entry, effect.action.spec.captured
        assert entry is not None and model is not None
        return model.model_validate_json(entry.captured)

    def _token(self, effect: _Effect) -> bytes:
        return codec.undo_token(effect.call.key) if effect.action.spec.inverse else b""

    def _output(self, result: Any, value: Value) -> bytes:
        return codec.output_bytes(result, value, self._connector.name)


class _Open(RetryableError):
    """An INTENT stands and nothing can be said of it now."""


async def _telling(answer: Awaitable[T]) -> T:
    """Wait for what must not fail as an outcome: until it succeeds, whether the effect happened stays open."""
    try:
        return await answer
    except RetryableError as error:
        raise _Open(error.code, error.message, retry_after=error.retry_after or 1.0) from error
