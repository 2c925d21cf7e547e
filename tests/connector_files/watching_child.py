"""A watcher in a process of its own, to be killed: `python watching_child.py DIRECTORY URL PASSWORD`."""

import asyncio
import sys
from pathlib import Path

from aios_connector_files.root import Root
from aios_connector_files.watching.folders import Folders
from aios_connector_files.watching.watcher import Watcher
from aios_core.minting import now_ms
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.store.sqlite import open_store


async def main(directory: Path, url: str, password: str) -> None:
    """Watch until somebody ends this process."""
    bus = await NatsBus.connect(Credentials(url, "connector-files", password), service="connector-files")
    store = await open_store(directory / "files.db", service="connector-files", now_ms=now_ms)
    watcher = Watcher(
        Root(directory / "root"),
        Folders(store, "main"),
        bus,
        "main",
        now_ms,
        settle_seconds=0.3,
        rescan_seconds=60.0,
        report_existing=False,
    )
    await watcher.start()
    print("watching", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
