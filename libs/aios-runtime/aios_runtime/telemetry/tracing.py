"""Spans. One trace leads from an event to the last change it caused; the context travels in message headers.

The context (W3C `traceparent`) exists always, so a trace id can be shown; spans leave the process over OTLP only after
`export_to`. Until then a span costs a function call and nothing of the SDK is imported.
"""

import hashlib
import secrets
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self

from aios_core.errors import AiosError
from aios_runtime.telemetry import identity
from aios_runtime.tracecontext import current

if TYPE_CHECKING:
    from aios_runtime.telemetry.otlp import Exporter, Recording

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool

SAMPLED: Final = "01"
NOT_SAMPLED: Final = "00"

_exporter: "Exporter | None" = None


def export_to(endpoint: str, ratio: float) -> None:
    """Send a share of the traces (0 to 1, by trace id; a caller's decision is kept) to an OTLP gRPC endpoint."""
    global _exporter
    from aios_runtime.telemetry.otlp import Exporter

    _exporter = Exporter(endpoint, ratio)


def shutdown() -> None:
    """Send what is left, at most a few seconds long; blocks, so call it in a thread or at the very end."""
    global _exporter
    exporter, _exporter = _exporter, None
    if exporter is not None:
        exporter.shutdown()


def enabled() -> bool:
    """Whether spans leave the process."""
    return _exporter is not None


def new_trace(seed: str = "") -> str:
    """The traceparent of a new trace; with a seed, such as a run id, always the same one.

    Its span id is that of the trace's first span: give it to `record` or `span(..., own=...)` once.
    """
    digest = hashlib.sha256(seed.encode()).digest() if seed else secrets.token_bytes(24)
    trace = digest[:16].hex()
    flags = SAMPLED if _exporter is not None and _exporter.samples(trace) else NOT_SAMPLED
    return f"00-{trace}-{digest[16:24].hex()}-{flags}"


def child(traceparent: str, seed: str = "") -> str:
    """A traceparent in the same trace with another span id; with a seed, always the same one."""
    span_id = hashlib.sha256(seed.encode()).digest()[:8].hex() if seed else secrets.token_hex(8)
    return f"{traceparent[:36]}{span_id}{traceparent[52:]}"


def trace_id(traceparent: str) -> str:
    """The trace id in hexadecimal; '' without one."""
    return traceparent[3:35]


def valid(traceparent: str) -> bool:
    """Whether it is a W3C traceparent of version 00."""
    parts = traceparent.split("-")
    return (
        [len(part) for part in parts] == [2, 32, 16, 2]
        and parts[0] == "00"
        and all(set(part) <= set("0123456789abcdef") for part in parts)
        and parts[1].strip("0") != ""
        and parts[2].strip("0") != ""
    )


class Span(Protocol):
    """A piece of work that runs. Inside its block `aios_runtime.tracecontext.current` is its `traceparent`."""

    traceparent: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def set(self, name: str, value: Attribute) -> None:
        """Add an attribute."""
        ...

    def fail(self, error: BaseException | str) -> None:
        """Mark the work as failed, with a reason code or an error. An error that leaves the block does so too."""
        ...


def span(
    name: str, *, kind: Kind = "internal", parent: str = "", attributes: Mapping[str, Attribute] | None = None
) -> Span:
    """A piece of work: `with span("perform agent", kind="consumer", parent=headers["traceparent"]) as s`.

    Without `parent` it is a child of what runs now, or begins a trace. `name` is `{operation} {destination template}`;
    ids belong in attributes.
    """
    if _exporter is None:
        return _Passing(parent)
    return _Recorded(_exporter, name, kind, parent, attributes or {})


class _Passing:
    """A span while traces are not exported: the context goes on, and that is all."""

    __slots__ = ("_token", "traceparent")
    _token: Token[str]

    def __init__(self, parent: str) -> None:
        self.traceparent = parent

    def __enter__(self) -> Self:
        here = self.traceparent or current.get()
        if not here:
            here = new_trace()
        self.traceparent = here
        self._token = current.set(here)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current.reset(self._token)

    def set(self, name: str, value: Attribute) -> None:
        pass

    def fail(self, error: BaseException | str) -> None:
        pass


class _Recorded:
    """A span that is exported, if its trace is sampled."""

    __slots__ = ("_recording", "_token", "traceparent")
    _token: Token[str]

    def __init__(
        self, exporter: "Exporter", name: str, kind: Kind, parent: str, attributes: Mapping[str, Attribute]
    ) -> None:
        self._recording: Recording = exporter.start(
            name, kind, parent or current.get(), attributes, identity.service.get()
        )
        self.traceparent = self._recording.traceparent

    def __enter__(self) -> Self:
        self._token = current.set(self.traceparent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current.reset(self._token)
        if error is not None:
            self.fail(error)
        self._recording.end()

    def set(self, name: str, value: Attribute) -> None:
        self._recording.set(name, value)

    def fail(self, error: BaseException | str) -> None:
        code = error.code if isinstance(error, AiosError) else error if isinstance(error, str) else "INTERNAL"
        self._recording.fail(code)


def record(
    name: str,
    own: str,
    *,
    start_ms: int,
    end_ms: int,
    parent: str = "",
    kind: Kind = "internal",
    attributes: Mapping[str, Attribute] | None = None,
    error: str = "",
) -> None:
    """Send a span that is over, under its own context `own`, whose span id others already named as their parent.

    So a run or a step that waited for days, over restarts, is one span, sent once when it ends.
    """
    if _exporter is not None:
        _exporter.record(
            name, own, parent, kind, attributes or {}, start_ms, end_ms, error, identity.service.get()
        )
