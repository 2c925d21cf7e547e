"""`make bench ARGS=--map`: a map of 10,000 trivial items in one run, beside the floor's steps."""

import time

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from tests.bench.served import Served, cpu_seconds, memory_bytes

ITEMS = 10_000
ROUNDS = 3
MAP = """apiVersion: aios/v1
kind: Workflow
metadata: {name: each}
spec:
  inputs: {type: object, properties: {n: {type: integer}, items: {type: array}}}
  steps:
    - name: each
      map:
        over: "${inputs.items}"
        at_once: %d
        steps: [{name: work, agent: echo, input: {n: "${item}"}}]
"""


async def figures(at_once: list[int]) -> dict[str, float]:
    """Items a second, the best of a few rounds at each number of items under way; CPU of an item; memory afterwards."""
    result: dict[str, float] = {}
    async with Served() as served:
        for level in at_once:
            request = ApplyResourcesRequest(workspace="main", yaml=(MAP % level).encode(), file="each")
            subject = subjects.resource_command("apply_resources", "main")
            await served.command(Message(subject, request.SerializeToString(), f"each-{level}"))
            for number in range(ROUNDS):
                cpu, began = cpu_seconds(served.tree()), time.perf_counter()
                await served.run(f"map-{level}-{number}", "each", {"n": 1, "items": list(range(ITEMS))})
                rate = ITEMS / (time.perf_counter() - began)
                if rate > result.get(f"items a second, {level} at once", 0):
                    result[f"items a second, {level} at once"] = rate
                    result[f"µs CPU an item, {level} at once"] = (
                        (cpu_seconds(served.tree()) - cpu) / ITEMS * 1e6
                    )
        result["MiB of memory afterwards"] = memory_bytes(served.tree()) / 2**20
    return result
