"""What telemetry hooks into the bus. Without it the trace context is passed on and nothing is recorded."""

from collections.abc import Generator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from aios_runtime import tracecontext
from aios_runtime.bus.subjects import HEADER_TRACE


class Tracing(Protocol):
    """Carries the trace context into and out of messages."""

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Put the context of what runs now into a message's headers, unless the sender gave one."""
        ...

    def span(
        self, operation: str, destination: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[object]:
        """What runs inside belongs to the trace that `headers` name. `operation` is `process` or `answer`,
        `destination` a subject without what varies."""
        ...


class PassThrough:
    """The trace context goes on as it came."""

    def inject(self, headers: MutableMapping[str, str]) -> None:
        here = tracecontext.current.get()
        if here and HEADER_TRACE not in headers:
            headers[HEADER_TRACE] = here

    @contextmanager
    def span(self, operation: str, destination: str, headers: Mapping[str, str]) -> Generator[None]:
        token = tracecontext.current.set(headers.get(HEADER_TRACE, ""))
        try:
            yield
        finally:
            tracecontext.current.reset(token)
