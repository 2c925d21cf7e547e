"""The stores of services: in MongoDB where the settings name one, else in files of the data directory."""

from aios_cli.launcher.settings import ServeSettings
from aios_core.minting import now_ms
from aios_runtime.store.port import Store


async def open_for(settings: ServeSettings, name: str, service: str = "") -> Store:
    """Open the store `name`, for `service` (empty: of the same name). Raises what the stores raise."""
    service = service or name
    if settings.mongodb_url:
        from aios_runtime.store.mongo import open_mongo_store

        database = f"{settings.mongodb_database}-{name}"
        return await open_mongo_store(settings.mongodb_url, database=database, service=service, now_ms=now_ms)
    from aios_runtime.store.sqlite import open_store

    return await open_store(settings.data_dir / f"{name}.db", service=service, now_ms=now_ms)
