"""`aios serve`: builds the services of a target on their bus and stores, tells when they are ready, stops them."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Final, Protocol, cast

from aios_cli.launcher import address, buses, modules, places, ports, report, stores
from aios_cli.launcher.apart import Apart
from aios_cli.launcher.settings import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, ServeSettings
from aios_cli.version import VERSION
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.minting import mint, now_ms
from aios_runtime.bus.endpoint import Endpoint
from aios_runtime.bus.failures import Buried
from aios_runtime.service import datadir, options
from aios_runtime.service.connected import Connected
from aios_runtime.service.group import Group
from aios_runtime.service.health import answer_health
from aios_runtime.service.port import Context, Health, Service
from aios_runtime.telemetry import identity, tracing

BESIDE: Final = "beside"  # what the second process is called among the services of the first
Trouble = Callable[[], AiosError | None]

_log = logging.getLogger(__name__)


def run(settings: ServeSettings, *, beside: Trouble | None = None) -> int:
    """Serve on uvloop until SIGTERM or SIGINT; returns the exit code. `beside`: for a process that serves the same data
    directory, has its lock, and tells what is wrong with the bus."""
    import uvloop

    gc.disable()  # until all is loaded: what is imported stays, so looking through it again and again is lost time
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, beside=beside))


async def serve(settings: ServeSettings, *, beside: Trouble | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0, or the exit code of what went wrong, which it has said by then."""
    say = report.Report(settings.json)
    # until the log is open, `say` has all there is to read
    logging.getLogger().addHandler(logging.NullHandler())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await Launcher(settings, say, beside=beside).run(stop)
    except AiosError as problem:
        _log.error("start failed", extra={"code": problem.code, "reason": problem.message})
        return say.failed(problem)
    except Exception:
        _log.exception("start failed")
        where = settings.data_dir / settings.log_file if settings.logs_to_file else "the log above"
        return say.failed(
            TerminalError("INTERNAL", f"A defect of AIOS itself stopped the start; see {where}.")
        )
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return report.EXIT_OK


class Door(Service, Protocol):
    """The service that clients talk to; its ports are known once it has started."""

    @property
    def grpc_port(self) -> int: ...

    @property
    def http_port(self) -> int: ...


class Launcher:
    """One process of AIOS: the services of a target with what they stand on."""

    def __init__(self, settings: ServeSettings, say: report.Report, *, beside: Trouble | None = None) -> None:
        self._settings = settings
        self._say = say
        self._beside = beside
        self._modules = {module.name: module for module in modules.select(settings.target)}
        self._there = [name for name, module in self._modules.items() if module.beside and _in_two(settings)]
        self._grpc = self._http = ports.Chosen(0)
        self._door: Door | None = None
        self._apart: Apart | None = None
        self._bus: Endpoint | None = None
        self._late: list[str] = []
        self._fault: AiosError | None = None
        self._stop_event = asyncio.Event()
        self._file: dict[str, dict[str, object]] = {}
        after = {name: module.after for name, module in self._modules.items() if name not in self._there}
        if self._there:
            after = {name: (BESIDE, *others) for name, others in after.items()} | {BESIDE: ()}
        self._group = Group(after, self._make)

    async def run(self, stop: asyncio.Event) -> None:
        """Start, say so, wait for `stop`, stop. Raises AiosError when it can't start or can't go on."""
        self._stop_event = stop
        async with AsyncExitStack() as stack:
            await self._start(stack)
            stopping = asyncio.create_task(stop.wait(), name="wait for a signal")
            starting = asyncio.create_task(self._group.start(), name="start services")
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                self._announce(stack)
                await stopping
                self._say.note("Stopping …")
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
        if self._fault is not None:
            raise self._fault
        self._say.stopped(self._late)

    async def _start(self, stack: AsyncExitStack) -> None:
        """What services stand on, each with its end on the stack."""
        self._prepare(stack)
        await self._begin_apart(stack)
        if self._settings.probe_port is not None:
            stack.push_async_callback(_close, await _probes(self._settings, self._healths))
        self._bus = await stack.enter_async_context(
            buses.endpoint(self._settings, self._give_up, self._troubled)
        )
        if self._beside is not None:
            self._bus = replace(self._bus, trouble=self._beside)
        stack.push_async_callback(self._stop)

    async def _begin_apart(self, stack: AsyncExitStack) -> None:
        """Have the second process load its code while this one loads its own."""
        settings = self._settings
        if not self._there:
            return
        told = replace(
            settings,
            target=",".join(self._there),
            log="file" if settings.logs_to_file else "stderr",
            grpc_port=self._grpc.port,
            http_port=self._http.port,
        )
        self._apart = Apart(told, self._give_up)
        stack.push_async_callback(self._apart.stop)
        await self._apart.begin()

    def _troubled(self, trouble: AiosError | None) -> None:
        if self._apart is not None:
            self._apart.tell(trouble)

    def _give_up(self, fault: AiosError) -> None:
        self._fault = fault
        self._stop_event.set()

    def _prepare(self, stack: AsyncExitStack) -> None:
        """What needs no service (places, locks, logs, ports), in the order in which a person wants to hear of it."""
        settings = self._settings
        if self._beside is None:
            datadir.prepare(settings.data_dir)
            stack.enter_context(
                datadir.Lock(settings.data_dir, tuple(self._modules), alone=settings.target == modules.ALL)
            )
        places.open_log(settings)
        if settings.otlp_endpoint:
            tracing.export_to(settings.otlp_endpoint, settings.trace_ratio)
            stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
        self._file = places.read_options(settings)
        if any(module.door for module in self._modules.values()):
            self._grpc = ports.choose(settings.host, settings.grpc_port, DEFAULT_GRPC_PORT, "grpc")
            self._http = ports.choose(
                settings.host, settings.http_port, DEFAULT_HTTP_PORT, "http", besides=self._grpc.port
            )
        if "connector-files" in self._modules:
            places.files_root(settings)

    async def _make(self, name: str) -> Service:
        if name == BESIDE:
            assert self._apart is not None
            self._door = self._apart
            return self._apart
        identity.service.set(name)
        module = self._modules[name]
        assert self._bus is not None
        create: Callable[[Context], Service] = import_module(module.package).create
        bus = await buses.connect(self._bus, name)
        context = Context(
            service=name,
            instance=f"{socket.gethostname()}-{os.getpid()}",
            workspace=self._settings.workspace,
            data_dir=self._settings.data_dir,
            options=self._options(module),
            bus=bus,
            open_store=partial(stores.open_for, self._settings, service=name),
            now_ms=now_ms,
            mint=mint,
        )
        try:
            service = create(context)
            await answer_health(bus, name, self._settings.workspace, lambda: _health(service, bus.buried))
        except BaseException:
            await bus.close(0)
            raise
        if module.door:
            self._door = cast(Door, service)
        return Connected(service, bus, module.door)

    def _options(self, module: modules.Module) -> dict[str, str]:
        """A service's options; what this launcher only presumes gives way to the options file and the environment."""
        settings = self._settings
        said = {
            "host": settings.host,
            "grpc_port": str(self._grpc.port),
            "http_port": str(self._http.port),
            "token_file": str(settings.token_file or ""),
            "files_root": str(settings.files_root.resolve()) if settings.files_root else "",
            "resources": str(settings.resources.resolve()) if settings.resources else "",
        }
        presumed = {"files_root": str(settings.files)}
        given = {option: said[setting] for option, setting in module.options.items() if said[setting]}
        base = {
            option: presumed[setting] for option, setting in module.options.items() if setting in presumed
        }
        file = base | self._file.get(module.name, {})
        return options.merge(
            module.name, file, settings.environ, {**given, **settings.options.get(module.name, {})}
        )

    def _announce(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        door = self._door
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - clients of this machine use loopback then
        local = everywhere.get(settings.host, settings.host)
        host = f"[{local}]" if ":" in local else local
        place = address.Address(
            pid=os.getpid(),
            grpc=f"{host}:{door.grpc_port}" if door else "",
            http=f"{host}:{door.http_port}" if door else "",
            nats=self._bus.url if self._bus else "",
            data_dir=str(settings.data_dir.resolve()),
            token_file=str(settings.tokens.resolve()),
            target=settings.target,
            version=VERSION,
            started_ms=now_ms(),
            stores_in="MongoDB" if settings.mongodb_url else "",
        )
        if door and self._beside is None:
            address.write(settings.data_dir, place, settings.environ)
            stack.callback(address.remove, settings.data_dir)
        moved = [name for name, chosen in (("gRPC", self._grpc), ("HTTP", self._http)) if chosen.moved]
        files = settings.files if "connector-files" in self._modules else None
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        gc.enable()
        took = report.process_age_ms()
        _log.info("ready", extra={"target": settings.target, "took_ms": took})
        self._say.ready(place, list(self._modules), files, moved, took)

    def _healths(self) -> dict[str, Health]:
        """Of every service; of those in the second process only whether that one runs is known here."""
        told = self._group.health()
        there = told.pop(BESIDE, None)
        return told if there is None else told | dict.fromkeys(self._there, there)

    async def _stop(self) -> None:
        if self._apart is not None:
            await self._apart.stop()  # the door is shut first: who decides still answers what came in before
        self._late = await self._group.stop()
        _log.info("stopped", extra={"late": self._late})


def _in_two(settings: ServeSettings) -> bool:
    return settings.target == modules.ALL and not settings.one_process and (os.cpu_count() or 1) > 1


def _health(service: Service, buried: Buried) -> Health:
    """What the service says, and what its bus could not give it."""
    now = service.health()
    return replace(now, facts={**(now.facts or {}), **buried.facts()})


async def _probes(settings: ServeSettings, health: Callable[[], dict[str, Health]]) -> asyncio.Server:
    from aios_runtime.service.probe import serve_probes

    assert settings.probe_port is not None
    chosen = ports.choose(settings.host, settings.probe_port, 0, "probe")
    try:
        return await serve_probes(settings.host, chosen.port, health)
    except OSError as problem:
        raise RetryableError("PORT_TAKEN", f"The probe port {chosen.port} is in use: {problem}.") from None


async def _close(server: asyncio.Server) -> None:
    server.close()
