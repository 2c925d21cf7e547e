"""A collector that takes real OTLP over gRPC and keeps the spans, so that tests can look at a whole trace."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came over the wire; ids in hexadecimal, `parent` '' for the first of a trace."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str]
    failed: bool


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """The received spans; ask with `spans`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self.endpoint = ""

    def Export(  # noqa: N802 - the name that the protocol gives it
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take spans."""
        with self._lock:
            for resource in request.resource_spans:
                named = {item.key: item.value.string_value for item in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self._spans += [_span(named.get("service.name", ""), span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace_id: str = "") -> list[Span]:
        """The spans so far, of one trace or all, by start."""
        with self._lock:
            found = [span for span in self._spans if not trace_id or span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.start_ns)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free loopback port: `collector.endpoint` for AIOS_OTLP_ENDPOINT."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(grace=0.5).wait()


def _span(service: str, span: object) -> Span:
    got = span
    return Span(
        service=service,
        name=got.name,  # type: ignore[attr-defined] # the generated classes have no stubs
        kind=got.kind,  # type: ignore[attr-defined]
        trace_id=got.trace_id.hex(),  # type: ignore[attr-defined]
        span_id=got.span_id.hex(),  # type: ignore[attr-defined]
        parent=got.parent_span_id.hex(),  # type: ignore[attr-defined]
        start_ns=got.start_time_unix_nano,  # type: ignore[attr-defined]
        end_ns=got.end_time_unix_nano,  # type: ignore[attr-defined]
        attributes={item.key: _text(item.value) for item in got.attributes},  # type: ignore[attr-defined]
        failed=got.status.code == 2,  # type: ignore[attr-defined]
    )


def _text(value: object) -> str:
    which = value.WhichOneof("value")  # type: ignore[attr-defined]
    return str(getattr(value, which)) if which else ""
