"""Defects of a migration."""

from typing import Any

from aios_orchestrator.model import Run
from tests.sim.planting import replaced


def a_renamed_step_loses_what_it_did() -> Any:
    """A step that has another name in the new version has not begun there."""

    def rename(self: Run, name: str, to: str) -> None:
        if name != to:
            self.leave_out(name)

    return replaced((Run, "rename", rename))
