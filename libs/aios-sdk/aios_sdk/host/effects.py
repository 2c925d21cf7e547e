"""One effect, from its INTENT to its OUTCOME: the shell around `core`, with the ledger and the calls of the action."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel

from aios.effect.v1.effect_pb2 import STATE_INTENT, STATE_OUTCOME, LedgerEntry
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_REDO, MODE_UNDO, Outcome, Task
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.values import Value
from aios_runtime.crashpoints import crash, point
from aios_runtime.lanes import UnansweredError
from aios_runtime.task_time import too_late
from aios_sdk.connector.actions import Action, Call
from aios_sdk.connector.answers import Conflict, Done
from aios_sdk.connector.artifacts import Artifacts
from aios_sdk.connector.connector import Connector
from aios_sdk.connector.effects import Key, Lookup
from aios_sdk.host import codec, core
from aios_sdk.host.attempt import Attempt, state_of
from aios_sdk.host.flight import Flight, Rules, StillOpen
from aios_sdk.host.ledger import Ledger, Stored
from aios_sdk.host.restored import AfterRestore
from aios_sdk.host.writing import intended, written

INTENT: Final = point("connector.intent", "the INTENT is durable, the effect has not begun")
PERFORMED: Final = point("connector.performed", "the effect has happened, its OUTCOME is not durable")
OUTCOME: Final = point("connector.outcome", "the OUTCOME is durable, nobody was told")
SETTLE_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)  # before the n-th try to record what has happened

log = logging.getLogger("aios.connector")


class Effects:
    """Carries out effects and takes them back. The caller sees to it that one key is worked on once at a time."""

    def __init__(
        self,
        connector: Connector,
        ledger: Ledger,
        artifacts: Artifacts,
        now_ms: Callable[[], int],
        rules: Rules,
    ) -> None:
        self._connector, self._ledger, self._artifacts = connector, ledger, artifacts
        self._now_ms, self._rules = now_ms, rules
        self.limiter = ledger.limiter(connector.name, connector.rate, now_ms)
        self.restores = AfterRestore(connector.name, ledger, now_ms)

    def call(self, task: Task, key: str, effect_key: str) -> Call:
        """What an action is told besides its input."""
        return Call(
            key, effect_key, self._ledger.workspace, self._artifacts, self._now_ms(), task.traceparent
        )

    def admit(self, task: Task, action: Action[Any, Any, Any], value: Value) -> None:
        """Check approval and labels again. Raises what `core.admit` raises."""
        core.admit(
            task.target,
            action.spec.steering,
            value,
            codec.arguments_sha256(task.input),
            task.approval if task.HasField("approval") else None,
            self._now_ms(),
            needs_approval=action.spec.changes_something and self._rules.needs_approval,
            place=(task.run_id, task.step),
            needs_person=action.spec.needs_person,
        )

    async def execute(self, task: Task, action: Action[Any, Any, Any], flight: Flight) -> Outcome:
        """The one outcome of an effect."""
        stored = await self._ledger.read(task.task_id)
        restored = await self.restores.of(task.task_id, action)
        move = core.next_move(
            stored.entry,
            codec.arguments_sha256(task.input),
            task.dispatch,
            action.spec.idempotency,
            self._now_ms(),
            can_look_up=_can_look_up(action),
            restored=restored,
            sole_owner=self._rules.sole_owner,
        )
        if isinstance(move, core.Replay):
            return move.outcome
        value, input = codec.arguments(task.target, action.spec, task.input)
        call = self.call(task, task.task_id, task.task_id)
        effect = Attempt(task, action, value, input, call, stored, restored.restore_id if restored else "")
        if isinstance(move, core.Rediscover):
            await _until_visible(action)
            await self.limiter.take()
            looked = await self.restores.look(effect)
            if isinstance(looked, Outcome):
                return looked
            move = looked
        if isinstance(move, core.Park) and (stored.entry is None or stored.entry.state != STATE_INTENT):
            return await self.restores.park(effect, move.why)
        if isinstance(move, core.Begin):
            try:
                late = too_late(task, self._now_ms())
                if late is not None:
                    raise late
                self.admit(task, action, value)
                await self.limiter.take()
                begun = await self._begin(effect, flight)
            except AiosError as error:
                return await self._refused(effect, error)
            return await self._perform(begun)
        flight.begun = True
        if isinstance(move, core.LookUp):
            await _until_visible(action)
            found = await self._looked_up(effect)
            if isinstance(found, Outcome):
                return found
            move = found
        if isinstance(move, core.Park):
            return await self._settle(effect, codec.unknown(task, move.why, effect.token))
        return await self._resume(effect, surely_open=move.surely_open)

    async def settle_if_done(self, entry: LedgerEntry) -> None:
        """After a start: look an interrupted effect up, and settle it if it has happened. Otherwise it stays open."""
        action = self._connector.find(entry.action)
        if not _can_look_up(action):
            return
        if not self._rules.sole_owner:
            core.leave_to_another(entry, self._now_ms())
        task = Task(
            run_id=entry.run_id,
            task_id=entry.effect_key,
            target=entry.action,
            mode=MODE_EXECUTE,
            input=entry.input,
        )
        value, input = codec.arguments(task.target, action.spec, task.input)
        stored = await self._ledger.read(entry.effect_key)
        effect = Attempt(task, action, value, input, self.call(task, task.task_id, task.task_id), stored)
        await _until_visible(action)
        await self._looked_up(effect)

    async def undo(self, task: Task, effect_key: str, flight: Flight) -> Outcome:
        """Take an effect back, or put it back, once."""
        undo_key = core.undo_key(effect_key, task.task_id)
        effect = (await self._ledger.read(effect_key)).entry
        action = self._connector.find(effect.action if effect else task.target)
        inverse = action.spec.inverse
        if inverse is None:
            raise TerminalError("ACTION_FAILED", f"{task.target} can't be taken back.", field="undo_token")
        if task.mode == MODE_REDO and not action.can_redo():
            raise TerminalError("ACTION_FAILED", f"{task.target} can't be put back once it is undone.")
        undos = await self._ledger.undos(effect_key)
        restored = await self.restores.of(undo_key, action)
        move = core.next_undo(
            effect,
            undos,
            undo_key,
            task.dispatch,
            inverse,
            self._now_ms(),
            restored,
            sole_owner=self._rules.sole_owner,
        )
        if isinstance(move, core.Replay):
            return move.outcome
        if isinstance(move, core.NothingToUndo):
            return codec.succeeded(task, b"", (), move.why)
        assert effect is not None
        if not effect.captured:
            raise TerminalError("ACTION_FAILED", f"What stood before {task.target} isn't known any more.")
        value, input = codec.arguments(effect.action, action.spec, effect.input)
        if not isinstance(move, core.Park):
            await self.limiter.take()
        stored = await self._ledger.read(undo_key)
        if isinstance(move, core.Begin):
            stored = await self._begin_undo(undo_key, effect, stored, flight, restored)
        elif (
            stored.entry is None or stored.entry.state != STATE_INTENT
        ):  # parked by a restore: no INTENT before it
            stored = Stored(self._undo_entry(undo_key, effect, stored, restored), stored.revision)
            self.restores.asked += 1
        flight.begun = True
        undoing = Attempt(task, action, value, input, self.call(task, undo_key, effect_key), stored)
        if isinstance(move, core.Park):
            return await self._settle(undoing, codec.unknown(task, move.why))
        return await self._perform_undo(undoing, effect)

    async def _begin(self, effect: Attempt, flight: Flight) -> Attempt:
        captured: BaseModel = await effect.action.capture(effect.input, effect.call)
        entry = effect.entry(
            STATE_INTENT, attempts=effect.attempts + 1, approval_id=effect.task.approval.approval_id
        )
        entry.captured, entry.intent_time_ms = captured.model_dump_json().encode(), self._now_ms()
        flight.begin()
        revision = await intended(
            self._ledger, entry, effect.stored.revision, sole_owner=self._rules.sole_owner
        )
        crash(INTENT)
        return replace(effect, stored=Stored(entry, revision))

    async def _refused(self, effect: Attempt, error: AiosError) -> Outcome:
        """Nothing was done, and for this dispatch nothing will be: the task may come again after it was answered."""
        entry = effect.entry(STATE_OUTCOME, attempts=effect.attempts)
        entry.outcome.CopyFrom(codec.failed(effect.task, error))
        entry.outcome_time_ms = self._now_ms()
        await written(self._ledger, entry, effect.stored.revision)
        return entry.outcome

    async def _perform(self, effect: Attempt, *, repeated: bool = False) -> Outcome:
        try:
            done: Done[Any] = await effect.action.perform(effect.input, effect.captured, effect.call)
        except AiosError as error:
            if repeated:
                return await self._after_repeat(effect, error)
            if effect.attempts > 1 and _can_look_up(effect.action):
                # An earlier call of it may have got there after it had been looked for.
                return await self._failed_unless_found(effect, error)
            return await self._settle(effect, codec.failed(effect.task, error))
        except Exception as defect:
            return await self._after_defect(effect, defect)
        crash(PERFORMED)
        return await self._settle_done(effect, done)

    async def _after_repeat(self, effect: Attempt, error: AiosError) -> Outcome:
        """A repeated call failed. That says something of the call before it, which another worker may have under way,
        only where a terminal answer is the answer to the key, or where a look still finds nothing."""
        by_key = isinstance(effect.action.spec.idempotency, Key)
        if by_key and isinstance(error, RetryableError):
            raise error  # no answer: it comes again
        if not by_key and _can_look_up(effect.action):
            return await self._failed_unless_found(effect, error)
        return await self._settle(effect, codec.failed(effect.task, error))

    async def _after_defect(self, effect: Attempt, defect: Exception) -> Outcome:
        """The action broke its contract in the middle: look, as after a crash, but don't try again."""
        log.error(
            "%s broke off by a defect",
            effect.task.target,
            exc_info=defect,
            extra={"run_id": effect.task.run_id},
        )
        why = f"{effect.task.target} broke off by a defect ({type(defect).__name__})"
        if not _can_look_up(effect.action):
            return await self._settle(
                effect, codec.unknown(effect.task, f"{why}; nobody can tell.", effect.token)
            )
        return await self._failed_unless_found(effect, TerminalError("INTERNAL", f"{why}; nothing was done."))

    async def _failed_unless_found(self, effect: Attempt, error: AiosError) -> Outcome:
        await _until_visible(effect.action)
        found = await self._looked_up(effect)
        if isinstance(found, Outcome):
            return found
        if isinstance(found, core.Park):
            return await self._settle(effect, codec.unknown(effect.task, found.why, effect.token))
        return await self._settle(effect, codec.failed(effect.task, error))

    async def _looked_up(self, effect: Attempt) -> Outcome | core.Resume | core.Park:
        try:
            await self.limiter.take()
            found = await effect.action.lookup(effect.input, effect.captured, effect.call)
        except TerminalError as error:
            return core.Park(f"The call was interrupted, and looking it up failed: {error.message}")
        except RetryableError as error:
            raise StillOpen(error.message) from error
        except Exception as defect:
            log.error("looking %s up broke off by a defect", effect.task.target, exc_info=defect)
            raise StillOpen(f"looking it up broke off by a defect ({type(defect).__name__})") from defect
        if isinstance(found, Done):
            return await self._settle_done(effect, found)
        return core.after_lookup(found, effect.action.spec.idempotency, sole_owner=self._rules.sole_owner)

    async def _resume(self, effect: Attempt, *, surely_open: bool) -> Outcome:
        try:
            self.admit(effect.task, effect.action, effect.value)
        except TerminalError as error:
            if surely_open:
                return await self._settle(effect, codec.failed(effect.task, error))
            why = f"The call was interrupted and may not be repeated: {error.message}"
            return await self._settle(effect, codec.unknown(effect.task, why, effect.token))
        await self.limiter.take()
        return await self._perform(await self._renewed(effect), repeated=True)

    async def _renewed(self, effect: Attempt) -> Attempt:
        """Before another call under the same INTENT: how long that one may stay unseen counts from now."""
        if not isinstance(effect.action.spec.idempotency, Lookup):
            return effect
        entry = LedgerEntry()
        assert effect.stored.entry is not None
        entry.CopyFrom(effect.stored.entry)
        entry.intent_time_ms, entry.attempts = self._now_ms(), entry.attempts + 1
        revision = await intended(
            self._ledger, entry, effect.stored.revision, sole_owner=self._rules.sole_owner
        )
        crash(INTENT)
        return replace(effect, stored=Stored(entry, revision))

    def _undo_entry(
        self, undo_key: str, effect: LedgerEntry, before: Stored, restored: core.Restored | None
    ) -> LedgerEntry:
        return LedgerEntry(
            effect_key=undo_key,
            run_id=effect.run_id,
            action=effect.action,
            mode=MODE_REDO if core.way_of(undo_key)[0] == core.REDO else MODE_UNDO,
            state=STATE_INTENT,
            arguments_sha256=effect.arguments_sha256,
            intent_time_ms=self._now_ms(),
            attempts=(before.entry.attempts if before.entry else 0) + 1,
            restore_id=restored.restore_id if restored else "",
        )

    async def _begin_undo(
        self,
        undo_key: str,
        effect: LedgerEntry,
        before: Stored,
        flight: Flight,
        restored: core.Restored | None,
    ) -> Stored:
        entry = self._undo_entry(undo_key, effect, before, restored)
        flight.begin()
        stored = Stored(
            entry, await intended(self._ledger, entry, before.revision, sole_owner=self._rules.sole_owner)
        )
        crash(INTENT)
        return stored

    async def _perform_undo(self, undo: Attempt, effect: LedgerEntry) -> Outcome:
        spec = undo.action.spec
        assert spec.captured is not None
        captured = spec.captured.model_validate_json(effect.captured)
        act = undo.action.redo if undo.task.mode == MODE_REDO else undo.action.undo
        try:
            answer = await act(undo.input, captured, codec.result_of(spec, effect.outcome), undo.call)
        except AiosError as error:
            return await self._settle(undo, codec.failed(undo.task, error))
        crash(PERFORMED)
        if isinstance(answer, Conflict):
            return await self._settle(undo, codec.conflicted(undo.task, answer.why, answer.changes))
        return await self._settle(undo, codec.succeeded(undo.task, b"", answer.changes, answer.summary))

    async def _settle_done(self, effect: Attempt, done: Done[Any]) -> Outcome:
        output = codec.output_bytes(done.result, effect.value, self._connector.name)
        return await self._settle(
            effect, codec.succeeded(effect.task, output, done.changes, done.summary, effect.token)
        )

    async def _settle(self, effect: Attempt, outcome: Outcome) -> Outcome:
        """Record what came of an effect whose INTENT stands. It is tried several times: the effect is there."""
        entry = LedgerEntry()
        assert effect.stored.entry is not None
        entry.CopyFrom(effect.stored.entry)
        entry.state = state_of(outcome)
        entry.outcome.CopyFrom(outcome)
        entry.outcome_time_ms = self._now_ms()
        for wait in (*SETTLE_SECONDS, None):
            try:
                await self._ledger.write(entry, effect.stored.revision)
                break
            except AiosError as error:
                if error.code == "LEASE_LOST":
                    return await self._settled_by_another(entry.effect_key)
                if wait is None:
                    raise StillOpen(f"what came of it could not be recorded: {error.message}") from error
                await asyncio.sleep(wait)
        crash(OUTCOME)
        return outcome

    async def _settled_by_another(self, key: str) -> Outcome:
        """What the ledger says, which another worker has written, or this one in a write that seemed to fail. Raises
        UnansweredError while the other is at it."""
        entry = (await self._ledger.read(key)).entry
        if entry is None or entry.state == STATE_INTENT:
            raise UnansweredError(f"Another worker has taken up {key}; its outcome counts.")
        return entry.outcome


async def _until_visible(action: Action[Any, Any, Any]) -> None:
    """Wait until what an interrupted call did can be seen."""
    if isinstance(action.spec.idempotency, Lookup):
        await asyncio.sleep(action.spec.idempotency.lag_ms / 1000)


def _can_look_up(action: Action[Any, Any, Any]) -> bool:
    return type(action).lookup is not Action.lookup
