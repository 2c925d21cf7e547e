"""The memory service alone in a process: `python -m tests.memory.child <data dir> <bus's data dir>`.

It prints `ready` once it serves, and ends in order on SIGTERM.
"""

import asyncio
import signal
import sys
from pathlib import Path

from aios_core.minting import mint, now_ms
from aios_memory.module import create
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.endpoint import load_endpoint
from aios_runtime.service.port import Context
from aios_runtime.store.sqlite import SqliteStore, open_store
from tests.memory.serving import WORKSPACE


async def serve(data_dir: Path, bus_dir: Path) -> None:
    async def open_in_place(name: str) -> SqliteStore:
        return await open_store(data_dir / f"{name}.db", service="memory", now_ms=now_ms)

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    bus = await NatsBus.connect(load_endpoint(bus_dir).credentials("memory"), service="memory")
    service = create(
        Context(
            service="memory",
            instance="memory-1",
            workspace=WORKSPACE,
            data_dir=data_dir,
            options={},
            bus=bus,
            open_store=open_in_place,
            now_ms=now_ms,
            mint=mint,
        )
    )
    await service.start()
    print("ready", flush=True)
    await stopped.wait()
    await bus.close(5.0)
    await service.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
