"""One effect while the host works on it: its task, its action, and what the ledger has of it."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from aios.effect.v1.effect_pb2 import STATE_OUTCOME, STATE_UNKNOWN, LedgerEntry, State
from aios.task.v1.task_pb2 import MODE_EXECUTE, STATUS_UNKNOWN, Outcome, Task
from aios_core.values import Value
from aios_sdk.connector.actions import Action, Arguments, Call
from aios_sdk.host import codec
from aios_sdk.host.ledger import Stored


@dataclass(frozen=True, slots=True)
class Attempt:
    """An effect that is carried out, looked up or taken back. `restore_id`: the restore that is open, or empty."""

    task: Task
    action: Action[Any, Any, Any]
    value: Value
    input: Arguments
    call: Call
    stored: Stored
    restore_id: str = ""

    @property
    def captured(self) -> BaseModel:
        entry, model = self.stored.entry, self.action.spec.captured
        assert entry is not None
        assert model is not None
        return model.model_validate_json(entry.captured)

    @property
    def token(self) -> bytes:
        return codec.undo_token(self.call.effect_key) if self.action.spec.inverse else b""

    def entry(self, state: State.ValueType, *, attempts: int, approval_id: str = "") -> LedgerEntry:
        """A new entry for it, in the place of what stands."""
        return LedgerEntry(
            effect_key=self.task.task_id,
            run_id=self.task.run_id,
            action=self.task.target,
            mode=MODE_EXECUTE,
            state=state,
            arguments_sha256=codec.arguments_sha256(self.task.input),
            input=self.task.input,
            attempts=attempts,
            approval_id=approval_id,
            restore_id=self.restore_id,
        )

    @property
    def attempts(self) -> int:
        """How many were begun so far."""
        return self.stored.entry.attempts if self.stored.entry else 0


def state_of(outcome: Outcome) -> State.ValueType:
    """How an entry with this outcome is settled."""
    return STATE_UNKNOWN if outcome.status == STATUS_UNKNOWN else STATE_OUTCOME
