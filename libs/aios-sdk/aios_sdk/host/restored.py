"""A ledger that was restored from a backup: what it doesn't know is looked up first, or a person is asked."""

import logging
from collections.abc import Callable
from typing import Any

from aios.effect.v1.effect_pb2 import STATE_UNKNOWN, LedgerEntry
from aios.task.v1.task_pb2 import Outcome
from aios_core.errors import RetryableError, TerminalError
from aios_runtime.lanes import UnansweredError
from aios_sdk.connector.actions import Action
from aios_sdk.connector.answers import NotDone, Rediscovered
from aios_sdk.host import codec, core
from aios_sdk.host.attempt import Attempt, state_of
from aios_sdk.host.ledger import Ledger
from aios_sdk.host.mark import RestoreMark

log = logging.getLogger("aios.connector")


class AfterRestore:
    """What the host does while a restore is open. `found` and `asked` count since the start of this process."""

    def __init__(self, connector: str, ledger: Ledger, now_ms: Callable[[], int]) -> None:
        self._connector, self._ledger, self._now_ms = connector, ledger, now_ms
        self.found = self.asked = 0
        self.mark: RestoreMark | None = None
        """The open restore, as it was read last."""

    async def read(self) -> RestoreMark | None:
        """The open restore, or None."""
        self.mark = await self._ledger.restore()
        return self.mark

    async def close(self, restore_id: str) -> RestoreMark | None:
        """Close the open restore if it is this one; returns what was closed, None when nothing of that id is open."""
        mark = await self.read()
        if mark is None or mark.restore_id != restore_id:
            return None
        await self._ledger.close_restore()
        self.mark = None
        log.info("the restore was closed", extra={"restore_id": restore_id})
        return mark

    async def of(self, key: str, action: Action[Any, Any, Any]) -> core.Restored | None:
        """How the open restore bears on an effect or undo; None when none is open."""
        mark = await self.read()
        if mark is None:
            return None
        before = core.attempt_before(key)
        entry = (await self._ledger.read(before)).entry if before else None
        asked = entry is not None and entry.state == STATE_UNKNOWN and entry.restore_id == mark.restore_id
        return core.Restored(
            mark.restore_id, can_rediscover=type(action).rediscover is not Action.rediscover, asked=asked
        )

    async def look(self, effect: Attempt) -> Outcome | core.Begin | core.Park:
        """Ask the outside world; what has happened is settled. Raises UnansweredError when it can't be asked now."""
        target = effect.task.target
        try:
            found = await effect.action.rediscover(effect.input, effect.call)
        except TerminalError as error:
            return core.Park(
                f"AIOS was restored from a backup, and looking {target} up failed: {error.message}"
            )
        except RetryableError as error:
            raise UnansweredError(error.message) from error
        except Exception as defect:
            log.error("looking %s up broke off by a defect", target, exc_info=defect)
            return core.Park(f"Looking {target} up broke off by a defect ({type(defect).__name__}).")
        if isinstance(found, NotDone):
            return core.Begin()
        if not isinstance(found, Rediscovered):
            return core.Park(found.why)
        done, captured = found.done, found.captured
        token = effect.token if captured is not None else b""
        output = codec.output_bytes(done.result, effect.value, self._connector)
        outcome = codec.succeeded(effect.task, output, done.changes, done.summary, token)
        await self._settle(effect, outcome, captured.model_dump_json().encode() if captured else b"")
        self.found += 1
        return outcome

    async def park(self, effect: Attempt, why: str) -> Outcome:
        """Nobody can tell whether it happened after the backup."""
        outcome = codec.unknown(effect.task, why)
        await self._settle(effect, outcome, b"")
        self.asked += 1
        return outcome

    async def _settle(self, effect: Attempt, outcome: Outcome, captured: bytes) -> LedgerEntry:
        entry = effect.entry(state_of(outcome), attempts=effect.attempts)
        entry.captured, entry.outcome_time_ms = captured, self._now_ms()
        entry.outcome.CopyFrom(outcome)
        try:
            await self._ledger.write(entry, effect.stored.revision)
        except RetryableError as error:
            raise UnansweredError(error.message) from error
        return entry
