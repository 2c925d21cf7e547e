"""Memory's parts on a real store, and tasks as the orchestrator would send them."""

import hashlib
from pathlib import Path
from typing import Any

from aios.memory.v1.memory_pb2 import PutArtifactRequest
from aios.task.v1 import task_pb2
from aios_core.encoding import decode, encode
from aios_core.ids import effect_key
from aios_core.labels import OWNER, Label
from aios_core.values import Pointer, Value, labeled, plain
from aios_memory.artifacts import Artifacts
from aios_memory.blobs import Blobs
from aios_memory.kept_blobs import KeptBlobs, OnDisk
from aios_memory.steps import Steps
from aios_memory.store import Records
from aios_memory.writing import Writing
from aios_runtime.store.port import Store

WORKSPACE = "main"
START_MS = 1_790_000_000_000


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


class Memory:
    """The steps of memory over a store, without a bus."""

    def __init__(self, store: Store, root: Path, clock: Clock, *, blobs: KeptBlobs | None = None) -> None:
        """`blobs` are kept under `root` unless said otherwise."""
        self.store = store
        self.records = Records(store, WORKSPACE)
        self.artifacts = Artifacts(store, blobs or OnDisk(Blobs(root)), WORKSPACE, clock)
        self.steps = Steps(WORKSPACE, self.records, Writing(store, self.records), self.artifacts, clock)

    async def write(
        self, *writes: Any, run: str = "run_1", step: str = "remember", **fields: Any
    ) -> task_pb2.Outcome:
        return await self.steps.perform(write_task(*writes, run=run, step=step, **fields))

    async def undo(
        self, outcome: task_pb2.Outcome, run: str = "run_1", step: str = "remember"
    ) -> task_pb2.Outcome:
        task = make_task("memory.write", None, run=run, step=step, mode=task_pb2.MODE_UNDO)
        task.undo_token = outcome.undo_token
        return await self.steps.perform(task)

    async def read(self, *reads: Any, label: Label = OWNER, run: str = "run_1") -> Any:
        return plain(await self.read_value(*reads, label=label, run=run))

    async def read_value(self, *reads: Any, label: Label = OWNER, run: str = "run_1") -> Any:
        task = make_task("memory.read", labeled({"reads": list(reads)}, label), run=run, step="recall")
        return decode((await self.steps.perform(task)).output)

    async def put(self, data: bytes, name: str = "x.txt") -> Pointer:
        digest = hashlib.sha256(data).digest()
        request = PutArtifactRequest(
            workspace=WORKSPACE,
            upload_id=name,
            chunk=data,
            last=True,
            sha256=digest,
            size=len(data),
            name=name,
        )
        await self.artifacts.put(request)
        return Pointer(digest.hex(), len(data), "text/plain", name)


def make_task(
    target: str,
    value: Value | None,
    *,
    run: str,
    step: str,
    mode: task_pb2.Mode.ValueType = task_pb2.MODE_EXECUTE,
) -> task_pb2.Task:
    return task_pb2.Task(
        workspace=WORKSPACE,
        run_id=run,
        task_id=effect_key(run, step, 0, 1),
        dispatch=1,
        attempt=1,
        step=step,
        target=target,
        mode=mode,
        input=b"" if value is None else encode(value),
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )


def write_task(
    *writes: Any,
    run: str = "run_1",
    step: str = "remember",
    mode: task_pb2.Mode.ValueType = task_pb2.MODE_EXECUTE,
    label: Label = OWNER,
    event_id: str = "",
) -> task_pb2.Task:
    value = labeled({"writes": list(writes), "event_id": event_id or None}, label)
    return make_task("memory.write", value, run=run, step=step, mode=mode)


def fact(key: str, value: Any, expect: Any = "absent", **fields: Any) -> dict[str, Any]:
    return {"kind": "fact", "key": key, "value": value, "expect": expect, **fields}
