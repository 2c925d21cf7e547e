"""AIOS as it is served, and a client that starts runs of five trivial steps and sees them end."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Self

from aios.bus.v1.bus_pb2 import EventsFiled
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1.commands_pb2 import StartRunRequest
from aios.run.v1.events_pb2 import RunEvent
from aios_core.encoding import encode
from aios_core.ids import partition_of_run, run_id
from aios_core.labels import OWNER
from aios_core.values import Plain, labeled
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.endpoint import load_endpoint
from aios_runtime.bus.port import Message
from tests.processes import below, tree

STEPS = 5
ENDED = ("run_succeeded", "run_failed", "run_cancelled")


def workflow(name: str, agent: str) -> str:
    """Five steps, each the input of the next."""
    steps = "\n".join(
        f'    - {{name: s{at}, agent: {agent}, input: {{n: "${{{"inputs" if at == 0 else f"steps.s{at - 1}"}.n}}"}}}}'
        for at in range(STEPS)
    )
    return (
        f"apiVersion: aios/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:\n"
        "  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}\n"
        f'  outputs: {{n: "${{steps.s{STEPS - 1}.n}}"}}\n  steps:\n{steps}\n'
    )


class Served:
    """`aios serve` in a process of its own, on a directory of its own, or on the one that is given."""

    def __init__(self, data: Path | None = None) -> None:
        self._given = data

    async def __aenter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="aios-bench-")
        self.data = self._given or Path(self._directory.name) / "data"
        started = time.perf_counter()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aios_cli", "serve", "--data-dir", str(self.data), "--json",
            "--grpc-port", "0", "--http-port", "0", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = json.loads(await self.process.stdout.readline())
        self.ready_seconds = time.perf_counter() - started
        endpoint = load_endpoint(self.data)
        self._bus = await NatsBus.connect(endpoint.credentials("gateway"), service="gateway")
        self._waiting: dict[str, asyncio.Future[None]] = {}
        await self.listen(self._heard)
        for name, agent in (("five", "echo"), ("five-sandboxed", "echo-sandboxed")):
            request = ApplyResourcesRequest(workspace="main", yaml=workflow(name, agent).encode(), file=name)
            subject = subjects.resource_command("apply_resources", "main")
            await self.command(Message(subject, request.SerializeToString(), name))
        return self

    async def listen(self, heard: Callable[[bytes], Awaitable[None]]) -> None:
        """Have announcements of events handed over."""
        await self._bus.listen(subjects.run_events("*", 0).removesuffix("0") + "*", heard)

    async def command(self, message: Message) -> None:
        """A command to a service, until it is answered."""
        await self._bus.command(message, 10)

    async def __aexit__(self, *_: object) -> None:
        await self._bus.close(0)
        self.process.terminate()
        await self.process.wait()
        self._directory.cleanup()

    async def _heard(self, data: bytes) -> None:
        filed = EventsFiled.FromString(data)
        for stored in (stored for part in (filed, *filed.more) for stored in part.events):
            event = RunEvent.FromString(stored)
            if event.WhichOneof("body") in ENDED:
                done = self._waiting.pop(event.run_id, None)
                if done is None or done.done():
                    continue
                if event.HasField("run_succeeded"):
                    done.set_result(None)
                else:
                    done.set_exception(RuntimeError(f"{event.run_id} did not succeed: {event}"))

    async def run(
        self, name: str, workflow: str = "five", values: Mapping[str, Plain] = MappingProxyType({"n": 1})
    ) -> None:
        """One run to its end."""
        run = run_id("main", "manual", name)
        done = self._waiting[run] = asyncio.get_running_loop().create_future()
        request = StartRunRequest(
            workspace="main",
            request_id=name,
            workflow=workflow,
            input=encode(labeled(dict(values), OWNER)),
            actor="person:owner",
            trigger="manual",
        )
        subject = subjects.run_command("start_run", "main", partition_of_run(run))
        await self._bus.command(Message(subject, request.SerializeToString(), name), 30)
        await asyncio.wait_for(done, 60)

    def tree(self) -> list[int]:
        """The process ids of the server and all below it."""
        return tree(self.process.pid)

    def bus_pid(self) -> int:
        """The process id of the embedded nats-server."""
        return below(self.process.pid, "nats-server")[0]

    def stored_bytes(self) -> int:
        """What the stores take on disk, write-ahead logs left out."""
        return sum(file.stat().st_size for file in self.data.glob("*.db"))


def cpu_seconds(pids: list[int]) -> float:
    """CPU that processes have used so far, their ended children included."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):  # a call's own process may be over; its parent has its time
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: list[int]) -> int:
    """Proportional set size of processes together."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(rollup.split("Pss:")[1].split()[0]) * 1024
    return total


def read_bytes(pid: int) -> int:
    """What a process has read from sockets and files so far."""
    return int(Path(f"/proc/{pid}/io").read_text().split("rchar:")[1].split()[0])
