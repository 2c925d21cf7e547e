"""Several processes of every service on one bus and one database, and a client that uses them while they die."""

import asyncio
import os
import random
import signal
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from aios.api.v1 import api_pb2, api_pb2_grpc
from aios.run.v1 import queries_pb2 as query
from aios.run.v1.state_pb2 import RUN_STATE_SUCCEEDED, Approval, ApprovalKind, ApprovalState, RunState
from aios.value.v1.value_pb2 import Value
from aios_core.encoding import encode
from aios_core.errors import RetryableError
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.core.fold import fold
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.endpoint import Endpoint
from aios_runtime.run_states import ENDED
from tests.drill.kept import Kept

REPLICAS: Mapping[str, int] = {
    "gateway": 2,
    "orchestrator": 2,
    "memory": 2,
    "agent-runner": 2,
    "connector-files": 2,
}
WORKFLOWS = """\
apiVersion: aios/v1
kind: Workflow
metadata: {name: echoes}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - {name: a, agent: echo, input: {n: "${inputs.n}"}}
    - {name: b, agent: echo, input: {n: "${steps.a.n}"}}
    - {name: c, agent: echo, input: {n: "${steps.b.n}"}}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: waits}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - {name: a, agent: echo, input: {n: "${inputs.n}"}}
    - {name: pause, wait: 2s, needs: [a]}
    - {name: c, agent: echo, input: {n: "${steps.a.n}"}, needs: [pause]}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: keeps}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - {name: a, agent: echo, input: {n: "${inputs.n}"}}
    - name: ok
      needs: [a]
      gate: {title: "Note ${inputs.n}", approves: [keep]}
    - name: keep
      needs: [ok]
      connector: files.append_line
      effect: write
      input: {path: "notes/${inputs.n}.jsonl", entry: {n: "${steps.a.n}"}}
"""
# A map and a sub-workflow, which no version before them knows.
BODIES = """\
apiVersion: aios/v1
kind: Workflow
metadata: {name: maps}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - name: each
      map:
        over: [1, 2, 3]
        at_once: 2
        steps:
          - {name: a, workflow: echoes, input: {n: "${inputs.n}"}}
          - {name: ok, gate: {title: "Note ${item}", approves: [keep]}}
          - name: keep
            connector: files.append_line
            effect: write
            input: {path: "notes/m${inputs.n}-${item}.jsonl", entry: {n: "${item}"}}
"""
# Each step in a sandbox of its own: what one machine does of these in a second is a tenth of what it can accept.
SLOW = """\
apiVersion: aios/v1
kind: Workflow
metadata: {name: slow}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - {name: a, agent: echo-sandboxed, input: {n: "${inputs.n}"}}
    - {name: b, agent: echo-sandboxed, input: {n: "${steps.a.n}"}}
"""
PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
CALL_SECONDS = 10.0
PAUSE = 0.2
ASKS = 150  # of one question, which nobody answers while its service starts
MOST_DOWN = 1  # part at once, before the next is killed
PROBES = 1_000_000  # the numbers of runs that ask for the time begin here
ASKED = 20  # runs, how they stand, at once
LOOKS = 0.5  # seconds between two looks, where none has ended
CALLS = 8  # of starts, or of decisions, at once


class Cluster:
    """The processes. Each has a data directory of its own, and is started again when it dies."""

    def __init__(
        self,
        place: Path,
        environment: Callable[[str], Mapping[str, str]],
        replicas: Mapping[str, int] = REPLICAS,
    ) -> None:
        """`environment` by the name of a part, such as `memory-2`."""
        self.files = place / "files"
        (self.files / "notes").mkdir(parents=True)
        self.parts: dict[str, Kept] = {}
        for service, count in replicas.items():
            for number in range(1, count + 1):
                name = f"{service}-{number}"
                arguments = ["--target", service]
                if service == "connector-files":
                    arguments += ["--files-root", str(self.files)]
                self.parts[name] = Kept(
                    place / name,
                    arguments,
                    environment=dict(environment(name)),
                    marker=place / f"{name}.crashed",
                )

    async def start(self) -> Self:
        """All at once."""
        await asyncio.gather(*(asyncio.to_thread(part.__enter__) for part in self.parts.values()))
        return self

    async def stop(self) -> None:
        """All at once; those that are frozen are woken first."""
        for name in self.parts:
            self.signal(name, signal.SIGCONT)
        await asyncio.gather(*(asyncio.to_thread(part.__exit__) for part in self.parts.values()))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the processes of a part."""
        process = self.parts[name].process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)

    async def kill_at_random(
        self, done: asyncio.Event, rng: random.Random, also: Mapping[str, Callable[[], None]] = {}
    ) -> dict[str, int]:
        """Kill a part, or what `also` names, every 0.2 to 2 seconds until `done`; how often each. Nothing more is
        killed while more than `MOST_DOWN` parts are down: on a machine on which they come back slower than they are
        killed, nothing would be up, and nothing tried."""
        killed = dict.fromkeys([*self.parts, *also], 0)
        while not done.is_set():
            name = rng.choice(list(killed))
            if name in also:
                also[name]()
            else:
                self.signal(name, signal.SIGKILL)
            killed[name] += 1
            await _until(done, rng.uniform(0.2, 2.0))
            while not done.is_set() and sum(not part.is_up for part in self.parts.values()) > MOST_DOWN:
                await _until(done, 0.1)
        return killed


class Person:
    """A client of all gateways that repeats what got no answer, and approves what it is asked."""

    def __init__(self, gateways: list[Kept]) -> None:
        self._gateways = gateways
        self._channels: dict[str, tuple[grpc.aio.Channel, str]] = {}
        self._turn = 0
        self._probes = 0
        self.started: dict[str, str] = {}
        self.slowest = 0.0
        self.created: dict[str, int] = {}  # when the runs that have ended were created, ms
        self.put_off = 0  # starts that were answered with UNAVAILABLE

    async def call(self, stub: Any, method: str, request: Any) -> Any:
        """One call, at one gateway after the other until one has answered. Raises what is refused for good."""
        began = time.monotonic()
        while True:
            self._turn += 1
            kept = self._gateways[self._turn % len(self._gateways)]
            try:
                channel, token = self._channel(kept)
                answer = await getattr(stub(channel), method)(
                    request, metadata=(("authorization", f"Bearer {token}"),), timeout=CALL_SECONDS
                )
                self.slowest = max(self.slowest, time.monotonic() - began)
                return answer
            except OSError:
                await asyncio.sleep(PAUSE)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
                await asyncio.sleep(PAUSE)

    def _channel(self, kept: Kept) -> tuple[grpc.aio.Channel, str]:
        address, token = kept.door()
        key = f"{address} {token}"
        if key not in self._channels:
            self._channels[key] = (grpc.aio.insecure_channel(address), token)
        return self._channels[key]

    async def apply(self, yaml: str) -> None:
        """Apply documents."""
        request = api_pb2.ApplyResourcesRequest(
            request_id=f"drill-{zlib.crc32(yaml.encode())}", yaml=yaml.encode(), file="drill.yaml"
        )
        await self.call(api_pb2_grpc.ResourceServiceStub, "ApplyResources", request)

    async def start(self, workflow: str, numbers: range, at_once: int = 25) -> None:
        """Start runs, many in a call and several calls at once."""
        places = asyncio.Semaphore(CALLS)

        async def some(first: int) -> None:
            async with places:
                await self._start(workflow, range(first, min(first + at_once, numbers.stop)))

        await asyncio.gather(*map(some, range(numbers.start, numbers.stop, at_once)))

    async def _start(self, workflow: str, numbers: range) -> None:
        missing = {
            n: api_pb2.StartRunRequest(
                request_id=f"{workflow}-{n}", workflow=workflow, input=_value({"n": n})
            )
            for n in numbers
        }
        while missing:
            request = api_pb2.StartRunsRequest(requests=missing.values())
            answer = await self.call(api_pb2_grpc.RunServiceStub, "StartRuns", request)
            for n, result in zip(list(missing), answer.results, strict=True):
                if result.HasField("started"):
                    self.started[f"{workflow}-{n}"] = result.started.run.run_id
                    del missing[n]
                elif not result.error.retryable:
                    raise AssertionError(str(result.error))
                self.put_off += result.error.code == "UNAVAILABLE"
            if missing:
                await asyncio.sleep(PAUSE)

    async def one_run(self, workflow: str, number: int) -> tuple[float, float]:
        """Start a run and see it end; how long it took until it was accepted, and until it ended, in seconds."""
        began = time.monotonic()
        await self.start(workflow, range(number, number + 1))
        accepted = time.monotonic() - began
        while (await self._run(f"{workflow}-{number}")).state not in ENDED:
            await asyncio.sleep(0.05)
        return accepted, time.monotonic() - began

    async def created_now(self) -> int:
        """When a run that is started now says that it was created, ms: what the clock of the service shows."""
        self._probes += 1
        name = f"echoes-{PROBES + self._probes}"
        await self.start("echoes", range(PROBES + self._probes, PROBES + self._probes + 1))
        created: int = (await self._run(name)).create_time_ms
        return created

    @asynccontextmanager
    async def approving(self) -> AsyncIterator[tuple[asyncio.TaskGroup, asyncio.Event]]:
        """Approve meanwhile, beside what else is begun in the group, which hears by the event that it is over. What
        goes wrong in one ends all."""
        done = asyncio.Event()
        async with asyncio.TaskGroup() as meanwhile:
            meanwhile.create_task(self.approve(done))
            yield meanwhile, done
            done.set()

    async def approve(self, done: asyncio.Event) -> None:
        """Approve whatever is asked, until `done`; say that nothing has happened where nobody knows and that is so."""
        decided: set[str] = set()
        while not done.is_set():
            request = api_pb2.ListApprovalsRequest(open_only=True, page_size=100)
            listed = await self.call(api_pb2_grpc.ApprovalServiceStub, "ListApprovals", request)
            new = [item for item in listed.approvals if item.approval_id not in decided]
            for first in range(0, len(new), CALLS):
                await asyncio.gather(*(self._approve(item, decided) for item in new[first : first + CALLS]))
            if not new:
                await _until(done, 0.2)

    async def _approve(self, item: Approval, decided: set[str]) -> None:
        assert item.kind != ApprovalKind.APPROVAL_KIND_UNKNOWN, item
        decision = api_pb2.DecideApprovalRequest(
            request_id=f"d-{item.approval_id}",
            approval_id=item.approval_id,
            decision=ApprovalState.APPROVAL_STATE_APPROVED,
            arguments_sha256=item.arguments_sha256,
        )
        with suppress(grpc.aio.AioRpcError):
            await self.call(api_pb2_grpc.ApprovalServiceStub, "DecideApproval", decision)
            decided.add(item.approval_id)

    async def ended(self, seconds: float) -> dict[str, "RunState.ValueType"]:
        """The final state of every run that was started, by its request id."""
        waiting, states = dict(self.started), dict[str, "RunState.ValueType"]()
        shown: dict[str, Any] = {}
        many = 1
        try:
            async with asyncio.timeout(seconds):
                while waiting:
                    some = list(waiting)[:many]  # they end about as they came: the rest is asked for then
                    before = len(waiting)
                    for name, run in zip(some, await asyncio.gather(*map(self._run, some)), strict=True):
                        shown[name] = run
                        if run.state in ENDED:
                            states[name] = run.state
                            self.created[name] = run.create_time_ms
                            del waiting[name]
                    if len(waiting) < before:
                        many = ASKED
                    else:
                        many = 1  # each look costs those that work
                        await asyncio.sleep(LOOKS)
        except TimeoutError:
            left = [str(shown[name]) for name in waiting if name in shown]
            raise AssertionError(f"{len(waiting)} runs have not ended, such as {left[:3]}") from None
        return states

    async def all_succeed(self, seconds: float) -> int:
        """Every run that was started ends, and well; how many. What failed is told with its steps."""
        states = await self.ended(seconds)
        failed = [name for name, state in states.items() if state != RUN_STATE_SUCCEEDED]
        assert not failed, [str(await self._run(name)) for name in failed[:3]]
        return len(states)

    async def _run(self, name: str) -> Any:
        request = api_pb2.GetRunRequest(run_id=self.started[name])
        return (await self.call(api_pb2_grpc.RunServiceStub, "GetRun", request)).run

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel, _ in self._channels.values()))


async def check_histories(endpoint: Endpoint, runs: Mapping[str, str], expected: "RunState.ValueType") -> int:
    """Every run's events follow each other without a gap, each names the hash of the one before it, and together they
    give the state that is shown. Returns how many events there are."""
    bus = await NatsBus.connect(endpoint.credentials("gateway"), service="gateway")
    total = 0
    try:
        for run in runs.values():
            history: list[bytes] = []
            while True:
                request = query.ReadRunEventsRequest(
                    workspace="main", run_id=run, after_sequence=len(history)
                )
                subject = subjects.query("run", "read_run_events", "main")
                answer = query.ReadRunEventsResponse.FromString(
                    await _asked(bus, subject, request.SerializeToString())
                )
                if not answer.events:
                    break
                history += answer.events
            folded = fold(history)
            assert folded.state == expected, f"{run}: {RunState.Name(folded.state)}"
            assert folded.sequence == len(history)
            total += len(history)
    finally:
        await bus.close(0)
    return total


async def _asked(bus: NatsBus, subject: str, request: bytes) -> bytes:
    """What is answered, by whoever has come back meanwhile."""
    for _ in range(ASKS):
        with suppress(RetryableError):
            return await bus.ask(subject, request, CALL_SECONDS)
        await asyncio.sleep(PAUSE)
    return await bus.ask(subject, request, CALL_SECONDS)


def _value(data: dict[str, Any]) -> Any:
    return Value.FromString(encode(labeled(data, OWNER)))


async def _until(done: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        pass
