"""The bus of a target: an embedded server for `all`, or one at an address; a connection for each service."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aios_cli.launcher.modules import ALL
from aios_cli.launcher.settings import ServeSettings
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import Crash, EmbeddedNats
from aios_runtime.bus.endpoint import Credentials, Endpoint, load_endpoint
from aios_runtime.telemetry.bus import Spans


@asynccontextmanager
async def endpoint(
    settings: ServeSettings,
    given_up: Callable[[AiosError], None],
    troubled: Callable[[AiosError | None], None],
) -> AsyncIterator[Endpoint]:
    """Where the bus is; inside, it runs if it is ours. `troubled` hears why ours does not run, and None when it does
    again; `given_up` when it can't be kept running.

    Raises BUS_FAILED, UNREADABLE, or what the start of the server raises.
    """
    if settings.nats_url:
        yield Endpoint(settings.nats_url, _passwords(settings))
    elif settings.target != ALL:
        yield load_endpoint(settings.data_dir)
    else:
        server = EmbeddedNats(
            settings.data_dir, on_crash=lambda crash: _tell(crash, given_up), on_trouble=troubled
        )
        try:
            yield await server.start()
        finally:
            await server.stop()


async def connect(place: Endpoint, service: str) -> NatsBus:
    """A service's own connection, under its own identity. Raises BUS_FAILED or UNAUTHENTICATED."""
    return await NatsBus.connect(
        _credentials(place, service), service=service, tracing=Spans(), why_not=place.trouble
    )


def _tell(crash: Crash, given_up: Callable[[AiosError], None]) -> None:
    if crash.final:
        given_up(RetryableError("BUS_FAILED", f"The message bus could not be kept running: {crash.reason}"))


def _credentials(place: Endpoint, identity: str) -> Credentials:
    if not place.passwords:
        return Credentials(place.url, "", "")
    if identity not in place.passwords:
        raise TerminalError(
            "BUS_FAILED", f"There is no password of {identity} for the bus; add a file of that name."
        )
    return place.credentials(identity)


def _passwords(settings: ServeSettings) -> dict[str, str]:
    folder = settings.nats_users
    if folder is None:
        return {}
    try:
        files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
        return {file.name: file.read_text().strip() for file in files}
    except OSError as problem:
        raise TerminalError(
            "UNREADABLE",
            f"The folder of bus passwords {folder} can't be read: {problem.strerror}.",
            field="nats_users",
        ) from None
