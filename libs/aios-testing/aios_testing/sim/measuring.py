"""What modules that measure their work see of time: that of the simulation."""

from collections.abc import Iterator
from contextlib import contextmanager

from aios_runtime import ahead, lanes
from aios_testing.sim.loop import SimLoop


class _Time:
    """What modules that measure their work see as `time`: otherwise the speed of this machine would decide."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def perf_counter_ns(self) -> int:
        return int(self._loop.time() * 1e9)


@contextmanager
def timed(loop: SimLoop) -> Iterator[None]:
    """Within it they measure by the loop."""
    name, modules = "time", (lanes, ahead)  # what they have imported
    before = [getattr(module, name) for module in modules]
    try:
        for module in modules:
            setattr(module, name, _Time(loop))
        yield
    finally:
        for module, original in zip(modules, before, strict=True):
            setattr(module, name, original)
