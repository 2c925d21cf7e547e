"""Planted defects of replicas that leave: what is let go of is taken for handed out."""

from typing import Any

from aios_orchestrator import delivery, ownership
from tests.sim.planting import replaced


def left_in_good_order_with_something_not_handed_out() -> Any:
    """Whoever lets go does not look whether all that it has committed is on the bus."""
    return replaced((ownership.SharedOwnership, "_behind", lambda self, table: frozenset()))


def what_waits_for_its_place_taken_for_handed_out() -> Any:
    """Whoever lets go does not look at the tasks for which there was no room on their lanes."""
    return replaced((delivery.Delivery, "waiting_runs", lambda self: set()))
