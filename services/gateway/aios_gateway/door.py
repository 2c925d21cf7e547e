"""The one way in for gRPC calls: who calls, may they, until when, what do they ask, and how an error is told."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from aios.api.v1 import api_pb2
from aios_core.errors import AiosError, TerminalError
from aios_gateway.api.methods import Streaming, Unary
from aios_gateway.peers import Call
from aios_gateway.settings import MAX_REQUEST_BYTES, Options
from aios_gateway.status import grpc_code, to_status
from aios_gateway.tokens import Scope, Tokens
from aios_runtime.bus.port import Bus
from aios_runtime.telemetry import tracing

DETAILS_KEY = "grpc-status-details-bin"

_log = logging.getLogger(__name__)
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Door:
    """Makes gRPC handlers of the table of methods."""

    def __init__(
        self,
        bus: Bus,
        tokens: Tokens,
        options: Options,
        methods: Mapping[str, Unary | Streaming],
        patience_s: Sequence[float] = (),
    ) -> None:
        """`patience_s` as `Call` has it."""
        self._patience_s = patience_s
        self._bus = bus
        self._tokens = tokens
        self._options = options
        self._methods = methods

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """One handler a service. Requests arrive as bytes, so that a wrong one is answered with a reason."""
        return [self._handler(service) for service in api_pb2.DESCRIPTOR.services_by_name.values()]

    async def call(self, authorization: str, traceparent: str, scope: Scope, remaining: float | None) -> Call:
        """A call that is allowed. `remaining` are the client's seconds. Raises UNAUTHENTICATED, PERMISSION_DENIED."""
        identity = await self._tokens.identify(authorization)
        identity.require(scope)
        options = self._options
        seconds = options.default_timeout_s if remaining is None else min(remaining, options.max_timeout_s)
        deadline = asyncio.get_running_loop().time() + seconds
        return Call(identity, traceparent, deadline, self._bus, patience_s=self._patience_s)

    def _handler(self, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
        rpcs = {method.name: self._rpc(service, method) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, rpcs)

    def _rpc(
        self, service: ServiceDescriptor, descriptor: MethodDescriptor
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        method = self._methods[f"{service.name}.{descriptor.name}"]
        request_type = GetMessageClass(descriptor.input_type)
        name = f"{service.full_name}/{descriptor.name}"

        async def unary(raw: bytes, context: _Context) -> Any:
            assert isinstance(method, Unary)
            with tracing.span(name, kind="server", parent=_parent(context), attributes=_ATTRIBUTES) as span:
                try:
                    call = await self._allowed(
                        context, span.traceparent, method.scope, context.time_remaining()
                    )
                    return await method.respond(call, _decode(request_type, raw))
                except Exception as error:
                    failure = _failure(error, name)
                    span.fail(failure)
            return await _abort(context, failure)

        async def streaming(raw: bytes, context: _Context) -> AsyncIterator[Any]:
            assert isinstance(method, Streaming)
            failure = None
            with tracing.span(name, kind="server", parent=_parent(context), attributes=_ATTRIBUTES) as span:
                try:
                    call = await self._allowed(context, span.traceparent, method.scope, None)
                    parted = call.parted(self._options.default_timeout_s)
                    async for answer in method.stream(parted, _decode(request_type, raw)):
                        yield answer
                except Exception as error:
                    failure = _failure(error, name)
                    span.fail(failure)
            if failure is not None:
                await _abort(context, failure)

        if isinstance(method, Streaming):
            return grpc.unary_stream_rpc_method_handler(streaming, response_serializer=_encode)
        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=_encode)

    async def _allowed(
        self, context: _Context, traceparent: str, scope: Scope, remaining: float | None
    ) -> Call:
        return await self.call(_metadata(context, "authorization"), traceparent, scope, remaining)


_ATTRIBUTES = {"rpc.system": "grpc"}


def _metadata(context: _Context, name: str) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else ""
    return ""


def _parent(context: _Context) -> str:
    given = _metadata(context, "traceparent")
    return given if tracing.valid(given) else ""


def _decode(request_type: type[Message], raw: bytes) -> Message:
    if len(raw) > MAX_REQUEST_BYTES:
        raise TerminalError(
            "TOO_LARGE", f"The request takes {len(raw)} bytes; at most {MAX_REQUEST_BYTES} are taken."
        )
    try:
        return request_type.FromString(raw)
    except DecodeError:
        name = request_type.DESCRIPTOR.full_name
        raise TerminalError("UNDECODABLE", f"The request is not a {name}, or is nested too deeply.") from None


def _encode(answer: Message) -> bytes:
    return answer.SerializeToString()


def _failure(error: Exception, name: str) -> AiosError:
    if isinstance(error, AiosError):
        return error
    _log.error("a defect in %s", name, exc_info=error)
    return TerminalError("INTERNAL", "A defect of AIOS itself stopped this call; the log has the details.")


async def _abort(context: _Context, error: AiosError) -> NoReturn:
    details = ((DETAILS_KEY, to_status(error).SerializeToString()),)
    await context.abort(grpc_code(error), error.message, details)
