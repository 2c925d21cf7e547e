"""Records a store file of the current version for `tests/histories/stores`: `record_store.py <file>`.

A recorded file is never made again: it is what that version wrote. Run this once when a version is added.
"""

import asyncio
import sys
from pathlib import Path

import apsw

from aios_runtime.store.port import NewEvent, OutboxMessage, Write
from aios_runtime.store.sqlite import open_store

WRITES = [
    Write(
        "main/run/one",
        0,
        b"first head",
        records={"step/1": b"one", "step/2": b"two"},
        events=[NewEvent(3, b"started"), NewEvent(3, b"stepped")],
        outbox=[
            OutboxMessage("aios.cmd.test", b"sent", "id-1"),
            OutboxMessage("aios.cmd.test", b"\x00", "id-2", {"a": "ü"}),
        ],
        inbox=["mark-1"],
        due_ms=1_700_000_000_500,
        index={"state": "open", "client": "acme"},
    ),
    Write("main/run/two", 0, b"second head", index={"state": "open"}),
    Write("main/run/gone", 0, b"deleted", records={"a": b"1"}, events=[NewEvent(0, b"e")]),
    Write("main/run/gone", 1, None),
    Write(
        "main/run/one",
        1,
        b"third head",
        records={"step/1": None},
        due_ms=1_700_000_000_900,
        index={"state": "done"},
    ),
]


async def record(path: Path) -> None:
    store = await open_store(path, service="test", now_ms=lambda: 1_700_000_000_000)
    for write in WRITES:
        await store.commit([write])
    await store.mark_sent([1])
    await store.set_meta("incarnation", b"abc")
    await store.close()
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "delete")
    connection.execute("VACUUM")
    connection.close()


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1])))
