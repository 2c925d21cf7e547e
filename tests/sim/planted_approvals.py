"""Planted defects of approvals: what widens by itself, and what goes by the gate."""

from collections.abc import Callable
from typing import Any, Final

from aios.run.v1.state_pb2 import Approval
from aios_orchestrator.core import approve, editing
from aios_orchestrator.workflow import Workflow
from aios_sdk.host import core
from tests.sim.planting import replaced


def an_approval_widens_itself() -> Any:
    """Who approved what was proposed first has approved what a person made of it since."""
    original = editing._renewed

    def renewed(draft: Any, approval: Approval, *arguments: Any) -> Approval:
        new = original(draft, approval, *arguments)
        new.assents.extend(approval.assents)
        return new

    return replaced((editing, "_renewed", renewed))


def gate_passed_by_in_a_map() -> Any:
    """Steps in the rounds of a map are looked up under their own names, which no gate approves; nobody else checks."""
    original = Workflow.gate_of

    def gate_of(self: Workflow, name: str) -> str:
        return "" if "[" in name else original(self, name)

    return replaced((Workflow, "gate_of", gate_of), (core, "admit", lambda *_, **__: None))


def one_approver_is_enough() -> Any:
    """The gate passes when the first of several has approved."""
    original = approve._enough

    def enough(draft: Any, approval: Approval, request: Any) -> bool:
        original(draft, approval, request)
        return True

    return replaced((approve, "_enough", enough))


# Each defect with a seed in which it shows.
APPROVALS: Final[dict[Callable[[], Any], int]] = {
    an_approval_widens_itself: 20,
    gate_passed_by_in_a_map: 1,
    one_approver_is_enough: 12,
}
