"""While a simulation runs, its logs are looked through for defects, and nothing is heard of what dies with it."""

import gc
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from aios_core.errors import AiosError
from aios_testing.sim.loop import Node
from aios_testing.sim.record import Record
from aios_testing.sim.world import Silence


class _Defects(logging.Handler):
    """What is logged as a defect breaks the simulation."""

    def __init__(self, of: Record) -> None:
        super().__init__(logging.ERROR)
        self._record = of

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, AiosError | Silence):
            self._record.violate("no defect", f"{record.getMessage()}: {error!r}"[:400])


@contextmanager
def quiet(record: Record, nodes: Callable[[], Iterable[Node]]) -> Iterator[None]:
    """Logs go nowhere but into the record, and what still runs on the nodes at the end is closed in silence.

    The garbage collector rests meanwhile: it would run what a dead process leaves, at an instant that no seed decides.
    """
    root = logging.getLogger()
    before, level, collecting = root.handlers[:], root.level, gc.isenabled()
    root.handlers[:] = [_Defects(record)]
    root.setLevel(logging.ERROR)
    gc.disable()
    try:
        yield
    finally:
        root.handlers[:] = [logging.NullHandler()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for node in nodes():
                _bury(node)
        root.handlers[:] = before
        root.setLevel(level)
        if collecting:
            gc.enable()


def _bury(node: Node) -> None:
    """Close what still runs, outside the loop, where it can do nothing any more."""
    node.alive = False
    node.ready.clear()
    tasks, node.tasks = node.tasks, []
    for task in tasks:
        if task.done():
            task._log_traceback = False
            continue
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        with suppress(BaseException):
            task.get_coro().close()
