"""Which states of a run are its end. In any other it goes on, also in one that a later version has."""

from typing import Final

from aios.run.v1.state_pb2 import RunState

ENDED: Final = frozenset(
    {
        RunState.RUN_STATE_SUCCEEDED,
        RunState.RUN_STATE_FAILED,
        RunState.RUN_STATE_CANCELLED,
        RunState.RUN_STATE_UNDONE,
        RunState.RUN_STATE_UNDO_INCOMPLETE,
        RunState.RUN_STATE_PARTLY_UNDONE,
        RunState.RUN_STATE_SKIPPED,
    }
)
ACTIVE: Final = frozenset(RunState.values()) - ENDED - {RunState.RUN_STATE_UNSPECIFIED}
