"""`make bench ARGS=--flat`: what a step costs beside a thousand and a million finished runs, and late in a long run.

The finished runs are put into the orchestrator's store as copies of a real one, under ids of their own; memory has
none of their episodes.
"""

import hashlib
import shutil
import tempfile
import time
from itertools import product
from pathlib import Path
from string import ascii_lowercase, digits

from aios.bus.v1.bus_pb2 import EventsFiled
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1.events_pb2 import RunEvent
from aios_core.ids import PARTITIONS, partition_of_run
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from aios_runtime.store.port import NewEvent, Write
from aios_runtime.store.sqlite import open_store
from tests.bench.served import STEPS, Served, cpu_seconds

BATCH = 500  # runs in one commit
LONG = 8_500  # steps of the long run: as many as fit into one document
EDGE = 1_000  # steps at its beginning and at its end that are compared
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # of run ids


async def figures(finished: list[int], runs: int) -> dict[str, float]:
    """CPU of a step and steps a second beside so many finished runs; ms a step early and late in a long run."""
    result: dict[str, float] = {}
    for count in finished:
        with tempfile.TemporaryDirectory(prefix="aios-bench-flat-") as folder:
            data = Path(folder) / "data"
            async with Served(data) as served:
                await served.run("template")
            began = time.perf_counter()
            await _fill(data, count)
            result[f"seconds to fill with {count}"] = time.perf_counter() - began
            result[f"file after {count}, MB"] = (data / "orchestrator.db").stat().st_size / 1e6
            async with Served(data) as served:
                result |= {
                    f"{name}, {count} finished": value for name, value in (await _rate(served, runs)).items()
                }
            shutil.rmtree(data)
    async with Served() as served:
        result |= await _long_run(served)
    return result


async def _rate(served: Served, runs: int) -> dict[str, float]:
    from tests.bench.__main__ import throughput

    await throughput(served.run, max(20, runs // 10), 20, "warm")
    cpu = cpu_seconds(served.tree())
    rate = await throughput(served.run, runs, 300, "flat")
    return {"steps/s": rate, "µs CPU a step": (cpu_seconds(served.tree()) - cpu) / runs / STEPS * 1e6}


async def _fill(data: Path, count: int) -> None:
    store = await open_store(
        data / "orchestrator.db", service="bench", now_ms=lambda: time.time_ns() // 1_000_000
    )
    (template,) = (await store.query("runs", "main", limit=1)).items
    old = template.key.rpartition("/")[2].encode()
    records = await store.records(template.key)
    events = [event.data for event in await store.events_of(template.key, 0, 100)]
    index = {"runs": "main", "workflow": "main/five"}
    for first in range(0, count, BATCH):
        writes = []
        for number in range(first, min(first + BATCH, count)):
            new = _identifier(number)
            partition = partition_of_run(new)
            name = new.encode()
            writes.append(
                Write(
                    f"main/run/{new}",
                    0,
                    template.head.replace(old, name),
                    records={key: data.replace(old, name) for key, data in records.items()},
                    events=[NewEvent(partition, data.replace(old, name)) for data in events],
                    index=index,
                )
            )
        await store.commit(writes)
    heads = {partition: await store.event_head(partition) for partition in range(PARTITIONS)}
    await store.close()
    await _pass_over(data / "memory.db", heads)


async def _pass_over(path: Path, heads: dict[int, int]) -> None:
    """Have memory take the events for told: what is measured is not how it catches up."""
    store = await open_store(path, service="bench", now_ms=lambda: 0)
    for partition, head in heads.items():
        key = f"main/episodes/{partition:04}"
        found = await store.read(key)
        await store.commit([Write(key, found.revision if found else 0, str(head).encode())])
    await store.close()


def _identifier(number: int) -> str:
    """Spread like real ones: a hash."""
    hashed = int.from_bytes(hashlib.blake2b(b"%d" % number, digest_size=17).digest(), "big")
    return "run_" + "".join(ALPHABET[hashed >> 5 * at & 31] for at in range(26))


async def _long_run(served: Served) -> dict[str, float]:
    """The same step, early and late."""
    letters = ascii_lowercase + digits
    names = ["".join(letter) for letter in product(ascii_lowercase, letters, letters)]
    named = [name for name in names if name not in ("yes", "off")][:LONG]
    steps = "".join(f" - {{name: {name},agent: echo}}\n" for name in named)
    text = (
        "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: long}\nspec:\n"
        f" inputs: {{type: object, properties: {{n: {{type: integer}}}}}}\n steps:\n{steps}"
    )
    request = ApplyResourcesRequest(workspace="main", yaml=text.encode(), file="long")
    await served.command(
        Message(subjects.resource_command("apply_resources", "main"), request.SerializeToString(), "long")
    )
    times: list[float] = []

    async def heard(data: bytes) -> None:
        filed = EventsFiled.FromString(data)
        for stored in (stored for part in (filed, *filed.more) for stored in part.events):
            if RunEvent.FromString(stored).WhichOneof("body") == "step_succeeded":
                times.append(time.perf_counter())

    await served.listen(heard)
    cpu, began = cpu_seconds(served.tree()), time.perf_counter()
    await served.run("long-run", "long")
    return {
        f"ms a step, the first {EDGE} of {LONG}": (times[EDGE] - times[0]) / EDGE * 1000,
        f"ms a step, the last {EDGE} of {LONG}": (times[-1] - times[-1 - EDGE]) / EDGE * 1000,
        f"seconds, the run of {LONG}": time.perf_counter() - began,
        f"µs CPU a step of the run of {LONG}": (cpu_seconds(served.tree()) - cpu) / LONG * 1e6,
    }
