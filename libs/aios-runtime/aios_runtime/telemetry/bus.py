"""Spans around what the bus delivers: each message and question that is worked on belongs to its sender's trace."""

from collections.abc import Mapping, MutableMapping

from aios_runtime.bus.subjects import HEADER_TRACE
from aios_runtime.telemetry import tracing
from aios_runtime.tracecontext import current


class Spans:
    """`aios_runtime.bus.tracing.Tracing` with spans, named after OpenTelemetry's messaging conventions."""

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Put the context of what runs now into a message's headers, unless the sender gave one."""
        here = current.get()
        if here and HEADER_TRACE not in headers:
            headers[HEADER_TRACE] = here

    def span(self, operation: str, destination: str, headers: Mapping[str, str]) -> tracing.Span:
        """A span that continues the trace which `headers` name. `operation` is `process` or `answer`."""
        parent = headers.get(HEADER_TRACE, "")
        if not tracing.enabled():
            return tracing.span(operation, parent=parent)
        return tracing.span(
            f"{operation} {destination}",
            kind="server" if operation == "answer" else "consumer",
            parent=parent,
            attributes={
                "messaging.system": "nats",
                "messaging.operation.name": operation,
                "messaging.operation.type": "process",
                "messaging.destination.template": destination,
            },
        )
