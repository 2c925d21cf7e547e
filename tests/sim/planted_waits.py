"""Planted defects of what begins by itself: waits for events, and schedules."""

from typing import Any

from aios.resource.v1.resource_pb2 import ScheduleState
from aios_orchestrator import commands, schedules
from tests.sim.planting import replaced


def event_heard_again() -> Any:
    """That a run has heard an event is not kept, so that one that comes again is another one to it."""
    original = commands.Item

    def item(*arguments: Any, once: str = "", **more: Any) -> Any:
        return original(*arguments, **more)

    return replaced((commands, "Item", item))


def queued_time_does_not_wait() -> Any:
    """What waits for the run before it is started once that is committed, not once it has ended."""

    async def busy(self: schedules.Schedules, state: ScheduleState) -> bool:
        return False

    return replaced((schedules.Schedules, "_busy", busy))
