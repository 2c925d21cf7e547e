"""A real OTLP receiver: what Jaeger or Tempo would get."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it was received; ids in hexadecimal, `parent` empty for a root."""

    service: str
    name: str
    trace: str
    own: str
    parent: str
    attributes: dict[str, str]
    error: bool


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._news = Condition()

    def Export(  # noqa: N802 - the name of the contract
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._news:
            for resource in request.resource_spans:
                named = {item.key: item.value.string_value for item in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = {item.key: item.value.string_value for item in span.attributes}
                        self.spans.append(
                            Span(
                                named.get("service.name", ""),
                                span.name,
                                span.trace_id.hex(),
                                span.span_id.hex(),
                                span.parent_span_id.hex(),
                                attributes,
                                span.status.code == 2,
                            )
                        )
            self._news.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, trace: str, name: str, seconds: float) -> list[Span]:
        """The spans of a trace, once one of that name is among them."""
        with self._news:
            found = self._news.wait_for(
                lambda: any(s.name == name and s.trace == trace for s in self.spans), seconds
            )
            assert found, f"no span {name!r} of trace {trace} came within {seconds} s"
            return [span for span in self.spans if span.trace == trace]


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    """(endpoint, collector) of a receiver on loopback."""
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(4))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", collector
    finally:
        server.stop(None)
