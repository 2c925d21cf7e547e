"""HTTP: events from outside as CloudEvents 1.0, answered once they are committed, and the probes."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aios.event.v1.event_pb2 import AcceptEventResponse, ExternalEvent
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_gateway.api import events
from aios_gateway.door import Door
from aios_gateway.peers import Call
from aios_gateway.settings import Options
from aios_gateway.status import http_body, http_status
from aios_gateway.tokens import Scope
from aios_runtime import cloudevents
from aios_runtime.service.port import Health
from aios_runtime.telemetry import tracing

MULTI_STATUS: Final = 207

_log = logging.getLogger(__name__)
_Endpoint = Callable[[Request], Awaitable[Response]]


def application(
    door: Door, options: Options, health: Callable[[], Health], now_ms: Callable[[], int]
) -> Starlette:
    """The HTTP application: `POST /v1/events`, `GET /healthz` (the loop turns), `GET /readyz` (it can work)."""

    async def publish(request: Request) -> Response:
        with tracing.span("POST /v1/events", kind="server", parent=_parent(request)) as span:
            try:
                call = await door.call(
                    request.headers.get("authorization", ""), span.traceparent, Scope.EVENTS, None
                )
                body = await _body(request, options.max_body_bytes)
                headers = {name.lower(): text for name, text in request.headers.items()}
                found, batch = cloudevents.from_http(headers, body, options.max_batch_events)
                if batch:
                    return await _answer_batch(call.parted(options.default_timeout_s), found, now_ms())
                return JSONResponse(_accepted(await events.accept(call, found[0], now_ms())))
            except AiosError as error:
                span.fail(error)
                return _refused(error)

    async def alive(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def ready(_: Request) -> Response:
        now = health()
        return JSONResponse({"ready": now.ready, "detail": now.detail}, status_code=200 if now.ready else 503)

    routes = [
        Route("/v1/events", _guarded(publish), methods=["POST"]),
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
    return Starlette(routes=routes)


def _guarded(endpoint: _Endpoint) -> _Endpoint:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except Exception:
            _log.exception("a defect in %s", request.url.path)
            return _refused(
                TerminalError(
                    "INTERNAL", "A defect of AIOS itself stopped this request; the log has the details."
                )
            )

    return guarded


async def _answer_batch(call: Call, batch: list[ExternalEvent], now_ms: int) -> Response:
    """Each event of the parted call is accepted on its own, in order; the answer says for each what became of it."""
    results: list[dict[str, object]] = []
    for event in batch:
        try:
            results.append(_accepted(await events.accept(call.renewed(), event, now_ms)))
        except AiosError as error:
            results.append(http_body(error))
    failed = any("error" in result for result in results)
    return JSONResponse(results, status_code=MULTI_STATUS if failed else 200)


async def _body(request: Request, limit: int) -> bytes:
    """At most `limit` bytes, however the length was announced. Raises TOO_LARGE."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TerminalError("TOO_LARGE", f"The body has more than {limit} bytes.")
    return bytes(body)


def _accepted(answer: AcceptEventResponse) -> dict[str, object]:
    resolution = answer.resolution
    return {
        "event_id": answer.event_id,
        "duplicate": answer.duplicate,
        "resolution": {
            "id": resolution.id,
            "outcome": resolution.outcome,
            "intent": resolution.intent,
            "question": resolution.question,
            "rules": resolution.rules,
            "rules_version": resolution.rules_version,
        },
        "run_id": resolution.run_id,
    }


def _refused(error: AiosError) -> JSONResponse:
    headers = {}
    if error.code == "UNAUTHENTICATED":
        headers["WWW-Authenticate"] = 'Bearer realm="aios"'
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(max(1, round(error.retry_after or 1)))
    return JSONResponse(http_body(error), status_code=http_status(error), headers=headers)


def _parent(request: Request) -> str:
    given = request.headers.get("traceparent", "")
    return given if tracing.valid(given) else ""
