"""While an action is simulated, what it does for real can't be called: a dry run that delivers is stopped."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

from aios_core.errors import TerminalError

_DRY: Final[ContextVar[bool]] = ContextVar("aios_dry_run", default=False)


@contextmanager
def dry_run() -> Iterator[None]:
    """What is called inside, also in other threads and tasks that begin there, is a simulation."""
    token = _DRY.set(True)
    try:
        yield
    finally:
        _DRY.reset(token)


def for_real(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The method of an action, which raises INTERNAL in a simulation. `name` is the action's and the method's."""

    @wraps(method)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if _DRY.get():
            raise TerminalError(
                "INTERNAL", f"The simulation called {name}, which would have done it; nothing was done."
            )
        return await method(*args, **kwargs)

    return guarded
