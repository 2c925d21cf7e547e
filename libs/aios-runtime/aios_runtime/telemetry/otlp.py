"""The OpenTelemetry side of spans, imported only when traces are exported. One tracer provider a service."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

MAX_QUEUED_SPANS: Final = 8192
MAX_BATCH_SPANS: Final = 512
MAX_DELAY_MS: Final = 1000
EXPORT_SECONDS: Final = 2  # a batch that a collector does not take by then is dropped
MAX_ATTRIBUTES: Final = 32
MAX_ATTRIBUTE_CHARS: Final = 1024

_KINDS: Final = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_wanted: Final[ContextVar[tuple[int, int] | None]] = ContextVar("wanted_ids", default=None)


class _Ids(IdGenerator):
    """Random ids, except where a span's own ids are given."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        wanted = _wanted.get()
        return wanted[1] if wanted else self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        wanted = _wanted.get()
        return wanted[0] if wanted else self._random.generate_trace_id()


def _remote(parent: str) -> SpanContext:
    """The context of a traceparent; an invalid one, with which the SDK begins a new trace, when it can't be read."""
    try:
        flags = TraceFlags(int(parent[53:55], 16))
        return SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), is_remote=True, trace_flags=flags)
    except ValueError:
        return SpanContext(0, 0, is_remote=True)


class Recording:
    """A span that will be sent."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        assert context is not None
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, value)

    def fail(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR, code))

    def end(self, end_ms: int | None = None) -> None:
        self._span.end(None if end_ms is None else end_ms * 1_000_000)


class Exporter:
    """Starts spans under the resource of their service, and sends them in batches; over its bound spans are dropped."""

    def __init__(self, endpoint: str, ratio: float) -> None:
        self._endpoint = endpoint
        self._ratio = TraceIdRatioBased(ratio)
        self._sampler: Sampler = ParentBased(self._ratio)
        self._providers: dict[str, TracerProvider] = {}

    def samples(self, trace: str) -> bool:
        """Whether a new trace with this id (hexadecimal) is sent."""
        return int(trace, 16) & self._ratio.TRACE_ID_LIMIT < self._ratio.bound

    def start(
        self,
        name: str,
        kind: str,
        parent: str,
        attributes: Mapping[str, str | int | float | bool],
        service: str,
    ) -> Recording:
        """A span that starts now."""
        return Recording(self._start(name, kind, parent, attributes, service, None))

    def record(
        self,
        name: str,
        own: str,
        parent: str,
        kind: str,
        attributes: Mapping[str, str | int | float | bool],
        start_ms: int,
        end_ms: int,
        error: str,
        service: str,
    ) -> None:
        """A span that is over, with its own ids; nothing when its trace is not sampled."""
        if own[53:55] != "01":
            return
        token = _wanted.set((int(own[3:35], 16), int(own[36:52], 16)))
        try:
            recording = Recording(self._start(name, kind, parent, attributes, service, start_ms))
        finally:
            _wanted.reset(token)
        if error:
            recording.fail(error)
        recording.end(end_ms)

    def shutdown(self) -> None:
        """Send what is queued and stop."""
        providers = list(self._providers.values())
        self._providers.clear()
        if providers:  # at once, since each may wait for a collector that is not there
            with ThreadPoolExecutor(max_workers=len(providers)) as pool:
                list(pool.map(TracerProvider.shutdown, providers))

    def _start(
        self,
        name: str,
        kind: str,
        parent: str,
        attributes: Mapping[str, str | int | float | bool],
        service: str,
        start_ms: int | None,
    ) -> Span:
        tracer = self._provider(service).get_tracer("aios")
        return tracer.start_span(  # type: ignore[return-value] # the SDK's own span, not only the API's
            name,
            context=set_span_in_context(NonRecordingSpan(_remote(parent))),
            kind=_KINDS[kind],
            attributes=dict(attributes),
            start_time=None if start_ms is None else start_ms * 1_000_000,
        )

    def _provider(self, service: str) -> TracerProvider:
        provider = self._providers.get(service)
        if provider is None:
            provider = TracerProvider(
                sampler=self._sampler,
                resource=Resource({"service.name": f"aios-{service}", "service.namespace": "aios"}),
                id_generator=_Ids(),
                span_limits=SpanLimits(
                    max_span_attributes=MAX_ATTRIBUTES, max_attribute_length=MAX_ATTRIBUTE_CHARS
                ),
                shutdown_on_exit=False,
            )
            provider.add_span_processor(
                BatchSpanProcessor(
                    OTLPSpanExporter(
                        endpoint=self._endpoint,
                        insecure=not self._endpoint.startswith("https://"),
                        timeout=EXPORT_SECONDS,
                    ),
                    max_queue_size=MAX_QUEUED_SPANS,
                    max_export_batch_size=MAX_BATCH_SPANS,
                    schedule_delay_millis=MAX_DELAY_MS,
                )
            )
            self._providers[service] = provider
        return provider
