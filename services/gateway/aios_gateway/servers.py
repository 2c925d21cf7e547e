"""The two servers of the gateway, on their ports: gRPC and HTTP."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import grpc
import grpc.aio
import uvicorn
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from starlette.applications import Starlette

from aios.api.v1 import api_pb2
from aios_core.errors import TerminalError
from aios_gateway.settings import MAX_CALLS, MAX_WIRE_BYTES

GRACE_SECONDS: Final = 1.0  # for calls that run when the gateway stops; watches are ended at once
KEEPALIVE_MS: Final = 30_000
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_HTTP_CONNECTIONS: Final = 256
HTTP_KEEPALIVE_SECONDS: Final = 30

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share its clients
    ("grpc.max_receive_message_length", MAX_WIRE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class GrpcServer:
    """The API with health and reflection."""

    def __init__(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server = grpc.aio.server(options=list(_OPTIONS), maximum_concurrent_rpcs=MAX_CALLS)
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._health = grpc_health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = [service.full_name for service in api_pb2.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection(
            (
                *self._names,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ),
            self._server,
        )
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises PORT_TAKEN."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_insecure_port(place)
        except RuntimeError:
            raise _taken("gRPC", host, port, "grpc_port") from None
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """No new calls; those that run get `GRACE_SECONDS`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_SECONDS)


class HttpServer:
    """Events and probes."""

    def __init__(self, application: Starlette) -> None:
        self._server = _Uvicorn(
            uvicorn.Config(
                application,
                log_config=None,
                log_level="warning",  # what it says of its own start is the launcher's to say
                access_log=False,
                lifespan="off",
                server_header=False,
                date_header=False,
                ws="none",
                limit_concurrency=MAX_HTTP_CONNECTIONS,
                timeout_keep_alive=HTTP_KEEPALIVE_SECONDS,
                timeout_graceful_shutdown=int(GRACE_SECONDS),
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises PORT_TAKEN."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            listener.close()
            raise _taken("HTTP", host, port, "http_port") from None
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        await self._server.up.wait()

    async def stop(self) -> None:
        """No new requests; those that run get `GRACE_SECONDS`."""
        self._server.leave.set()
        if self._task is not None:
            await self._task


class _Uvicorn(uvicorn.Server):
    """Without signal handlers, which belong to the launcher, and without a clock that ticks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.leave.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _taken(name: str, host: str, port: int, field: str) -> TerminalError:
    sentence = f"The {name} port {port} on {host} is in use; stop the other program, or give another port."
    return TerminalError("PORT_TAKEN", sentence, field=f"gateway.{field}")
