"""The service as the launcher makes it: its lane over a real bus, artifacts in the real memory."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aios.task.v1.task_pb2 import (
    MODE_EXECUTE,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    ApprovalBinding,
    Outcome,
    PerformTasks,
    ReportOutcomes,
    Task,
)
from aios_connector_files import module
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.minting import mint, now_ms
from aios_core.values import Plain, Pointer, labeled
from aios_memory import module as memory
from aios_runtime.artifacts import CHUNK_BYTES, MemoryArtifacts
from aios_runtime.bus import patience, subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.port import Delivery, Message
from aios_runtime.service.port import Context
from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store
from aios_sdk.host.codec import arguments_sha256
from tests.bus.serving import Server, until
from tests.connector_files.acting import output


class Rig:
    """Memory and the connector, each with its own identity; the test speaks as the orchestrator."""

    def __init__(self, path: Path, server: Server) -> None:
        self.path, self.server = path, server
        self.root = path / "root"
        self.outcomes: dict[str, Outcome] = {}
        self._dispatch = itertools.count(1)

    async def start_memory(self, stack: AsyncExitStack) -> None:
        """All but the connector."""
        self.bus = await self.connect(stack, "orchestrator")
        await self.bus.consume("orchestrator__report_outcomes", self._outcomes, batch=64, slots=64)
        self.memory_bus = await self.connect(stack, "memory")
        kept = memory.create(self.context("memory", self.memory_bus, {}))
        await kept.start()
        stack.push_async_callback(kept.stop)
        stack.push_async_callback(self.memory_bus.close, 1.0)
        self.files_bus = await self.connect(stack, "connector-files")
        stack.push_async_callback(self.files_bus.close, 1.0)
        self.artifacts = MemoryArtifacts(self.files_bus, "main", mint)

    async def start(self, stack: AsyncExitStack) -> None:
        await self.start_memory(stack)
        options = {"root": str(self.root), "watch": "false"}
        self.service = module.create(self.context("connector-files", self.files_bus, options))
        await self.service.start()
        stack.push_async_callback(self.service.stop)

    async def connect(self, stack: AsyncExitStack, service: str) -> NatsBus:
        bus = await NatsBus.connect(self.server.endpoint.credentials(service), service=service)
        stack.push_async_callback(bus.close, 1.0)
        return bus

    def context(self, service: str, bus: NatsBus, options: dict[str, str]) -> Context:
        async def open_it(name: str) -> Store:
            return await open_store(self.path / f"{name}.db", service=name, now_ms=now_ms)

        return Context(service, f"{service}-1", "main", self.path, options, bus, open_it, now_ms, mint)

    async def _outcomes(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            for outcome in ReportOutcomes.FromString(delivery.data).outcomes:
                self.outcomes[f"{outcome.task_id}@{outcome.dispatch}"] = outcome
            await delivery.ack()

    async def do(self, action: str, input: Plain, key: str = "run_1/step/0/0", **fields: Any) -> Outcome:
        data, dispatch = encode(labeled(input, OWNER)), next(self._dispatch)
        task = Task(
            workspace="main",
            run_id="run_1",
            task_id=key,
            step="step",
            target=f"files.{action}",
            mode=MODE_EXECUTE,
            dispatch=dispatch,
            input=data,
            approval=ApprovalBinding(approval_id="a", arguments_sha256=arguments_sha256(data)),
        )
        for name, value in fields.items():
            setattr(task, name, value)
        subject = subjects.perform("main", subjects.connector_lane("files"))
        message = Message(subject, PerformTasks(tasks=[task]).SerializeToString(), f"{key}@{dispatch}")
        await self.bus.publish([message])
        await until(lambda: f"{key}@{dispatch}" in self.outcomes)
        return self.outcomes[f"{key}@{dispatch}"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        server = Server(tmp_path / "bus")
        server.endpoint = await server.start()
        stack.push_async_callback(server.stop)
        rig = Rig(tmp_path, server)
        (rig.root / "acme" / "2026-10").mkdir(parents=True)
        await rig.start(stack)
        yield rig


@pytest.mark.feature("H1")
async def test_what_is_read_lies_in_memory_and_can_be_written_from_there(rig: Rig) -> None:
    content = bytes(range(256)) * 2000  # several chunks
    (rig.root / "acme/2026-10/scan.pdf").write_bytes(content)
    read = await rig.do("read_folder", {"client": "acme", "month": "2026-10"}, "run_1/read/0/0")
    assert read.status == STATUS_SUCCEEDED, read.error
    (file,) = output(read)["files"]
    assert await rig.artifacts.get(file["file"]) == content
    written = await rig.do(
        "write_file", {"path": "acme/copy.pdf", "content": file["file"]}, "run_1/write/0/0"
    )
    assert written.status == STATUS_SUCCEEDED, written.error
    assert (rig.root / "acme/copy.pdf").read_bytes() == content
    assert written.worker == "connector-files-1"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
async def test_artifacts_of_any_size_come_back_as_they_were(rig: Rig, size: int) -> None:
    content = bytes(size)
    first = await rig.artifacts.put(content, "text/plain", "x.txt")
    assert await rig.artifacts.put(content, "text/plain", "x.txt") == first
    assert first.size == size
    assert await rig.artifacts.get(first) == content


async def test_an_artifact_that_is_not_there_is_a_clear_error(rig: Rig) -> None:
    with pytest.raises(TerminalError, match="There is no artifact"):
        await rig.artifacts.get(Pointer("0" * 64, 1))


async def test_without_memory_a_write_fails_before_anything_is_touched_and_can_be_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.5)
    pointer = await rig.artifacts.put(b"report")
    await rig.memory_bus.close(1.0)
    input: Plain = {"path": "acme/2026-10/report/report.md", "content": pointer}
    outcome = await rig.do("write_file", input)
    assert (outcome.status, outcome.error.retryable) == (STATUS_FAILED, True), outcome
    assert not (rig.root / "acme/2026-10/report").exists()


@pytest.mark.feature("B3")
async def test_a_task_that_comes_again_is_answered_from_the_ledger(rig: Rig) -> None:
    pointer = await rig.artifacts.put(b"report")
    input: Plain = {"path": "acme/notes.md", "content": pointer}
    assert (await rig.do("write_file", input)).status == STATUS_SUCCEEDED
    (rig.root / "acme/notes.md").write_text("edited since")
    again = await rig.do("write_file", input)
    assert (again.status, again.dispatch) == (STATUS_SUCCEEDED, 2)
    assert (rig.root / "acme/notes.md").read_text() == "edited since"


async def test_it_says_what_it_does(rig: Rig) -> None:
    health = rig.service.health()
    assert health.ready
    assert health.facts is not None
    assert health.facts["changes found open at start"] == "0"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "root"),
        ({"root": "/x", "settle_seconds": "-1"}, "settle_seconds"),
        ({"root": "/x", "rooot": "/"}, "rooot"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: dict[str, str], named: str) -> None:
    context = Context("connector-files", "1", "main", tmp_path, options, None, None, now_ms, mint)  # type: ignore[arg-type]
    with pytest.raises(TerminalError, match=f"option {named} of connector-files"):
        module.create(context)
