"""A small HTTP endpoint for probes: `/livez` (the loop turns) and `/readyz` (every service can work)."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Final

from aios_runtime.service.port import Health

REQUEST_SECONDS: Final = 5.0
MAX_REQUEST_BYTES: Final = 8 * 1024

_STATUS: Final = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


async def serve_probes(host: str, port: int, health: Callable[[], Mapping[str, Health]]) -> asyncio.Server:
    """Listen for probes; `health` is called for each `/readyz`. Raises OSError when the port is taken."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(_answer(request, health))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # who asks and goes away, or sends no request, gets no answer
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port, limit=MAX_REQUEST_BYTES)


def _answer(request: bytes, health: Callable[[], Mapping[str, Health]]) -> bytes:
    path = [*request.split(b" ", 2), b"", b""][1]
    if path == b"/livez":
        return _response(200, {"alive": True})
    if path != b"/readyz":
        return _response(404, {"error": "only /livez and /readyz are here"})
    services = health()
    ready = bool(services) and all(service.ready for service in services.values())
    body = {name: {"ready": service.ready, "detail": service.detail} for name, service in services.items()}
    return _response(200 if ready else 503, {"ready": ready, "services": body})


def _response(status: int, body: Mapping[str, object]) -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + data
