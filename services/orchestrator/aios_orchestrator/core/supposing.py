"""What a fork supposes of how a step ends, so that one sees what comes of it."""

from aios.run.v1 import state_pb2 as st
from aios_core.errors import TerminalError
from aios_orchestrator.core import gates, rounds
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.workflow import Step, path_of


def ended(draft: Draft, step: Step) -> bool:
    """End a step as the fork supposes; False: nothing is supposed of its end, and it begins."""
    change = draft.run.change_of(path_of(step.name))
    if change is None or not change.ends:
        return False
    if change.ends == st.SUPPOSED_END_REJECTED:
        gates.give_up(draft, step.name, "REJECTED", "it is supposed that a person says no")
    else:
        rounds.fail(draft, step.name, TerminalError("ACTION_FAILED", "It is supposed that it fails."))
    return True
