"""Who begins to watch misses nothing, whatever was announced while nobody did."""

import asyncio

import pytest

from aios.bus.v1.bus_pb2 import EventsFiled
from aios.run.v1 import events_pb2 as run
from aios.run.v1.events_pb2 import RunEvent
from aios_core.ids import partition_of_run
from aios_gateway.watch import Watches

RUN, OTHER = "run_7", "run_8"


def event(sequence: int, **body: object) -> RunEvent:
    return RunEvent(workspace="main", run_id=RUN, sequence=sequence, **body)


def filed(first: int, *events: RunEvent) -> bytes:
    stored = [item.SerializeToString() for item in events]
    return EventsFiled(
        partition=partition_of_run(RUN), first_position=first, events=stored
    ).SerializeToString()


@pytest.mark.feature("K1")
async def test_what_is_lost_after_nobody_watched_is_read_from_the_log() -> None:
    watches = Watches(10, 10)
    log = [event(1), event(2)]

    async def read(after: int) -> list[RunEvent]:
        return [item for item in log if item.sequence > after]

    await watches.filed(filed(1, *log))  # nobody watches yet
    watching = watches.watch("main", RUN, 0, True, read)
    assert [(await anext(watching)).sequence for _ in range(2)] == [1, 2]
    task = asyncio.ensure_future(anext(watching))
    for _ in range(10):  # it has read the log to its end, and waits
        await asyncio.sleep(0)
    log.append(event(3, run_succeeded=run.RunSucceeded()))  # its announcement, at position 3, is lost
    await watches.filed(filed(4, RunEvent(workspace="main", run_id=OTHER, sequence=1)))
    assert (await asyncio.wait_for(task, 10)).sequence == 3
    await watching.aclose()  # type: ignore[attr-defined]
