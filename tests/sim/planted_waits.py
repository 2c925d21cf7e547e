"""Planted defects of waits for events."""

from typing import Any

from aios_orchestrator import commands
from tests.sim.planting import replaced


def event_heard_again() -> Any:
    """That a run has heard an event is not kept, so that one that comes again is another one to it."""
    original = commands.Item

    def item(*arguments: Any, once: str = "", **more: Any) -> Any:
        return original(*arguments, **more)

    return replaced((commands, "Item", item))
