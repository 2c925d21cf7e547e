"""Runs started through the gRPC API, durable when answered: one by one, many in a call, and while many are watched.

The runs' first step waits, so that what is measured is the start alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from aios.api.v1 import api_pb2, api_pb2_grpc
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from tests.bench.served import Served, cpu_seconds

WAITS = (
    "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: waits}\nspec:\n  steps:\n"
    "    - {name: pause, wait: 1d}\n    - {name: go, agent: echo, input: {n: 1}}\n"
)
IN_ONE_CALL = 200
HALF = 750.0  # starts a second: half of those that are promised one by one
SETTLE_SECONDS = 1.0  # until memory has written what came before

Figures = dict[str, float]


class Api:
    """A client of a served AIOS."""

    def __init__(self, served: Served) -> None:
        self._channel = grpc.aio.insecure_channel(served.ready["grpc"])
        self._runs = api_pb2_grpc.RunServiceStub(self._channel)
        token = (served.data / "token").read_text().strip()
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def start(self, name: str) -> str:
        """Start one run; returns its id."""
        answer = await self._runs.StartRun(_request(name), metadata=self._metadata, timeout=30)
        return str(answer.run.run_id)

    async def start_many(self, name: str) -> None:
        """Start `IN_ONE_CALL` runs in one call."""
        requests = [_request(f"{name}-{number}") for number in range(IN_ONE_CALL)]
        answer = await self._runs.StartRuns(
            api_pb2.StartRunsRequest(requests=requests), metadata=self._metadata, timeout=30
        )
        assert all(result.HasField("started") for result in answer.results)

    async def watch(self, run: str, sequence: int) -> None:
        """Until an event after a sequence comes."""
        request = api_pb2.WatchRunRequest(run_id=run, after_sequence=sequence, follow=True)
        async for _ in self._runs.WatchRun(request, metadata=self._metadata):
            return

    async def cancel(self, run: str) -> None:
        request = api_pb2.CancelRunRequest(request_id=f"cancel-{run}", run_id=run)
        await self._runs.CancelRun(request, metadata=self._metadata, timeout=30)

    async def close(self) -> None:
        await self._channel.close()


def _request(name: str) -> api_pb2.StartRunRequest:
    return api_pb2.StartRunRequest(request_id=name, workflow="waits")


async def figures(served: Served, starts: int, at_once: int, watched: int) -> Figures:
    """Starts a second one by one and in calls of many, latency at `HALF`, and what watching costs."""
    request = ApplyResourcesRequest(workspace="main", yaml=WAITS.encode(), file="waits")
    subject = subjects.resource_command("apply_resources", "main")
    await served.command(Message(subject, request.SerializeToString(), "waits"))
    api = Api(served)
    await _rate(api.start, at_once * 2, at_once, "warm")
    await asyncio.sleep(SETTLE_SECONDS)
    cpu = cpu_seconds(served.tree())
    alone = await _rate(api.start, starts, at_once, "one")
    cpu = (cpu_seconds(served.tree()) - cpu) / starts * 1e6
    calls = max(4, starts // IN_ONE_CALL * 2)
    together = await _rate(api.start_many, calls, 4, "many") * IN_ONE_CALL
    await asyncio.sleep(SETTLE_SECONDS)
    p50, p99 = await _latency(api, min(HALF, alone / 2), starts // 2)
    idle, told = await _watching(served, api, watched)
    await api.close()
    return {
        "starts_per_second": alone,
        "cpu_us_per_start": cpu,
        "starts_per_second_many_in_a_call": together,
        "start_p50_ms_at_half_rate": p50,
        "start_p99_ms_at_half_rate": p99,
        "cpu_percent_of_idle_watches": idle,
        "seconds_until_all_watches_are_told": told,
    }


async def _rate(start: Callable[[str], Awaitable[object]], count: int, at_once: int, prefix: str) -> float:
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with places:
            await start(f"{prefix}-{number}")

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    return count / (time.perf_counter() - began)


async def _latency(api: Api, rate: float, count: int) -> tuple[float, float]:
    """p50 and p99 in ms of starts that come at a steady rate, whether or not earlier ones are answered."""
    times: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await api.start(f"half-{number}")
        times.append((time.perf_counter() - began) * 1000)

    first, tasks = time.perf_counter(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, first + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


async def _watching(served: Served, api: Api, watched: int) -> tuple[float, float]:
    """CPU of the server in percent of a core while so many runs are watched and nothing happens, and the seconds until
    each watcher has its event when all runs are cancelled."""
    runs = [await api.start(f"watched-{number}") for number in range(watched)]
    watches = [asyncio.create_task(api.watch(run, 2)) for run in runs]
    await asyncio.sleep(SETTLE_SECONDS * 2)
    cpu, began = cpu_seconds(served.tree()), time.perf_counter()
    await asyncio.sleep(SETTLE_SECONDS * 3)
    idle = (cpu_seconds(served.tree()) - cpu) / (time.perf_counter() - began) * 100
    began = time.perf_counter()
    await asyncio.gather(*(api.cancel(run) for run in runs), *watches)
    return idle, time.perf_counter() - began
