"""What an undo, or the undo of one, would find: asked of the action, and nothing is changed."""

import logging

from aios.effect.v1.effect_pb2 import STATE_INTENT, UndoCheck
from aios.run.v1 import state_pb2 as st
from aios.task.v1.task_pb2 import STATUS_FAILED, Task
from aios_core.errors import AiosError
from aios_sdk.connector.answers import Conflict, Stands
from aios_sdk.connector.connector import Connector
from aios_sdk.host import codec
from aios_sdk.host.effects import Effects
from aios_sdk.host.ledger import Ledger

log = logging.getLogger("aios.connector")


async def check_undo(
    connector: Connector, ledger: Ledger, effects: Effects, token: bytes, *, redo: bool
) -> UndoCheck:
    """One effect. What can't be told is UNASKED, and why."""
    try:
        return await _check(connector, ledger, effects, codec.effect_of_token(token), redo=redo)
    except AiosError as error:
        return _unasked(error.message)
    except Exception as defect:
        log.error("looking whether an effect stands broke off by a defect", exc_info=defect)
        return _unasked(f"Looking at it broke off by a defect ({type(defect).__name__}).")


async def _check(
    connector: Connector, ledger: Ledger, effects: Effects, key: str, *, redo: bool
) -> UndoCheck:
    entry = (await ledger.read(key)).entry
    if entry is None:
        return UndoCheck(
            verdict=st.UNDO_VERDICT_IMPOSSIBLE, why="this connector's ledger does not know the change"
        )
    if entry.state == STATE_INTENT:
        return _unasked("the change itself is still under way")
    if entry.outcome.status == STATUS_FAILED:
        return UndoCheck(verdict=st.UNDO_VERDICT_WILL, why="the change had not been made")
    action = connector.find(entry.action)
    spec = action.spec
    if spec.inverse is None or spec.captured is None or not entry.captured:
        return UndoCheck(verdict=st.UNDO_VERDICT_IMPOSSIBLE, why="what stood before it is not known")
    if redo and not action.can_redo():
        return UndoCheck(verdict=st.UNDO_VERDICT_IMPOSSIBLE, why="this action can't be put back")
    _, input = codec.arguments(entry.action, spec, entry.input)
    captured = spec.captured.model_validate_json(entry.captured)
    result = codec.result_of(spec, entry.outcome)
    found = await action.stands(input, captured, result, effects.call(Task(), key, key), undone=redo)
    if isinstance(found, Stands):
        return UndoCheck(verdict=st.UNDO_VERDICT_WILL, why=spec.inverse.says if not redo else "")
    if isinstance(found, Conflict):
        changes = [codec.change_proto(change) for change in found.changes]
        return UndoCheck(verdict=st.UNDO_VERDICT_CHANGED, why=found.why, changes=changes)
    return _unasked(found.why)


def _unasked(why: str) -> UndoCheck:
    return UndoCheck(verdict=st.UNDO_VERDICT_UNASKED, why=why)
