"""How the gateway is put together."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from aios_core.errors import AiosError
from aios_gateway import ingress, settings
from aios_gateway.api.methods import Surroundings, methods
from aios_gateway.door import Door
from aios_gateway.notify.asking import needs_now
from aios_gateway.notify.book import Book
from aios_gateway.notify.notifier import Notifier
from aios_gateway.peers import PATIENCE_S, Call
from aios_gateway.servers import GrpcServer, HttpServer
from aios_gateway.starter import Starter
from aios_gateway.tokens import Identity, Scope, Tokens
from aios_gateway.watch import Watches
from aios_runtime.bus import subjects
from aios_runtime.service.port import Context, Health
from aios_runtime.store.port import Store

TOKEN_FILE: Final = "token"


class Gateway:
    """The service: its tokens, its watchers and its two servers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._options = settings.parse(context.options)
        self._watches = Watches(self._options.max_watches, self._options.watch_queue_events)
        self._store: Store | None = None
        self._notifier: Notifier | None = None
        self._grpc: GrpcServer | None = None
        self._http: HttpServer | None = None
        self._ready = False

    @property
    def grpc_port(self) -> int:
        """Where it listens, once it is started."""
        return self._grpc.port if self._grpc else 0

    @property
    def http_port(self) -> int:
        """Where it listens, once it is started."""
        return self._http.port if self._http else 0

    async def start(self) -> None:
        """Open the store, have an owner's token, follow the run events, listen. Raises PORT_TAKEN or DATA_DIR."""
        context, options = self._context, self._options
        self._store = await context.open_store("gateway")
        tokens = Tokens(self._store, context.workspace, context.now_ms)
        await tokens.ensure_owner(options.owner_token_file or context.data_dir / TOKEN_FILE)
        patience_s = PATIENCE_S if self._store.shared else ()  # otherwise nothing has replicas
        book = Book(self._store, context.workspace, context.now_ms)
        notifier = Notifier(book, partial(needs_now, self._own_call(patience_s)), context.now_ms)
        self._notifier = notifier
        await self._follow(notifier)
        around = Surroundings(
            tokens=tokens,
            watches=self._watches,
            starter=Starter(),
            book=book,
            notifier=notifier,
            services=tuple(name.strip() for name in options.services.split(",") if name.strip()),
            version=settings.VERSION,
            now_ms=context.now_ms,
        )
        door = Door(context.bus, tokens, options, methods(around), patience_s)
        try:
            self._grpc = GrpcServer(door.handlers())
            await self._grpc.start(options.grpc_host, options.grpc_port)
            self._http = HttpServer(ingress.application(door, options, self.health, context.now_ms))
            await self._http.start(options.http_host, options.http_port)
        except AiosError:
            await self.stop()
            raise
        notifier.start()
        self._ready = True

    async def stop(self) -> None:
        """Refuse new calls, end watches, let the others finish shortly, close the store."""
        self._ready = False
        servers = [server for server in (self._http, self._grpc) if server is not None and server.port]
        await asyncio.gather(*(server.stop() for server in servers))
        if self._notifier is not None:
            await self._notifier.stop()
        if self._store is not None:
            await self._store.close()

    def health(self) -> Health:
        """Ready when it listens and the bus is there."""
        return Health(self._ready, "" if self._ready else "it does not listen")

    def _own_call(self, patience_s: Sequence[float]) -> Call:
        """What the gateway asks for itself."""
        identity = Identity("gateway", self._context.workspace, "service:gateway", frozenset({Scope.READ}))
        call = Call(identity, "", 0.0, self._context.bus, patience_s=patience_s)
        return call.parted(self._options.default_timeout_s)

    async def _follow(self, notifier: Notifier) -> None:
        bus = self._context.bus
        every_partition = subjects.run_events("*", 0).removesuffix("0") + "*"

        async def filed(data: bytes) -> None:
            notifier.hint()
            await self._watches.filed(data)

        await bus.listen(every_partition, filed)

        async def again(_wiped: bool) -> None:
            self._watches.lost()
            notifier.hint()

        bus.on_restart(again)


def create(context: Context) -> Gateway:
    """The gateway, not yet started. Raises INVALID_ARGUMENT for a wrong option."""
    return Gateway(context)
