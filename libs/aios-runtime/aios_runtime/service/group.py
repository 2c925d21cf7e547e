"""Start and stop of the services of one process: each when what it stands on is ready, stopped in the reverse order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Final

from aios_core.errors import AiosError
from aios_runtime.service.port import Health, Service

STOP_SECONDS: Final = (
    10.0  # for all services together; then the process leaves, which is safe: they recover at start
)

Make = Callable[[str], Awaitable[Service]]


class Group:
    """The services of one process. `after` maps each to those that must be ready before it starts.

    `make(name)` builds a service. Each starts and stops in context variables of its own, so that what is set there
    (the service's name for traces and logs) holds in every task it ever creates.
    """

    def __init__(self, after: Mapping[str, Sequence[str]], make: Make) -> None:
        self._after = {name: [other for other in needed if other in after] for name, needed in after.items()}
        self._make = make
        self._services: dict[str, Service] = {}
        self._order: list[str] = []  # in which they were started
        self._variables = {name: copy_context() for name in after}
        self._ready = {name: asyncio.Event() for name in after}

    async def start(self) -> None:
        """Make and start all; returns when every one is ready. If one fails, the others are stopped and its error is
        raised."""
        tasks = [
            asyncio.create_task(self._start_one(name), name=f"start {name}", context=self._variables[name])
            for name in self._after
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                await task
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
            await self.stop()
            raise

    async def stop(self) -> list[str]:
        """Stop all within `STOP_SECONDS`; returns the names of those that did not stop in time or failed to."""
        late: list[str] = []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_SECONDS
        unstarted = [name for name in self._services if name not in self._order]
        for name in [*unstarted, *reversed(self._order)]:
            service = self._services.pop(name)
            task = loop.create_task(service.stop(), name=f"stop {name}", context=self._variables[name])
            done, _ = await asyncio.wait([task], timeout=max(0.1, deadline - loop.time()))
            if not done:
                task.cancel()
            if not done or task.exception() is not None:
                late.append(name)
        self._order.clear()
        return late

    def health(self) -> dict[str, Health]:
        """What each service says of itself, or that it is starting."""
        starting = Health(ready=False, detail="starting")
        return {
            name: self._services[name].health()
            if self._ready[name].is_set() and name in self._services
            else starting
            for name in self._after
        }

    async def _start_one(self, name: str) -> None:
        self._services[name] = await self._make(name)
        for needed in self._after[name]:
            await self._ready[needed].wait()
        self._order.append(name)
        try:
            await self._services[name].start()
        except AiosError as problem:
            problem.details.setdefault("service", name)
            raise
        self._ready[name].set()
