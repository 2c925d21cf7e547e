"""Several processes of the connector, each with a data directory of its own: what one changed, another takes back."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from aios.task.v1.task_pb2 import MODE_UNDO, STATUS_SUCCEEDED, Outcome
from aios_connector_files import module
from aios_connector_files.blobs import Blobs
from aios_core.errors import TerminalError
from aios_core.minting import mint, now_ms
from aios_runtime.service.port import Context
from aios_runtime.store import parts
from aios_runtime.store.mongo import open_mongo_store
from aios_runtime.store.port import Store, Write
from aios_runtime.store.sqlite import open_store
from tests.bus.serving import Server
from tests.connector_files.test_service import Rig
from tests.mongo import some_mongo

EARLIER = secrets.token_bytes(parts.PART_BYTES * (parts.PAGE + 1) + 1)  # more than is written at once
SHA256 = hashlib.sha256(EARLIER).hexdigest()


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with some_mongo(tmp_path_factory.mktemp("mongo")) as url:
        yield url


@asynccontextmanager
async def connector(rig: Rig, mongo: str, name: str) -> AsyncIterator[None]:
    """One process of the connector, while it lives."""
    async with AsyncExitStack() as stack:
        bus = await rig.connect(stack, "connector-files")

        async def open_it(service: str) -> Store:
            database = f"several-{rig.path.name}"
            return await open_mongo_store(mongo, database=database, service=service, now_ms=now_ms)

        options = {"root": str(rig.root), "watch": "false"}
        (rig.path / name).mkdir()
        context = Context(
            "connector-files", name, "main", rig.path / name, options, bus, open_it, now_ms, mint
        )
        service = module.create(context)
        await service.start()
        stack.push_async_callback(service.stop)
        stack.push_async_callback(bus.close, 1.0)
        yield


@pytest.mark.feature("D6", "L2")
async def test_another_one_takes_back_what_one_has_changed(tmp_path: Path, mongo: str) -> None:
    async with AsyncExitStack() as stack:
        server = Server(tmp_path / "bus")
        server.endpoint = await server.start()
        stack.push_async_callback(server.stop)
        rig = Rig(tmp_path, server)
        (rig.root / "acme").mkdir(parents=True)
        (rig.root / "acme" / "report.md").write_bytes(EARLIER)
        await rig.start_memory(stack)
        async with connector(rig, mongo, "one"):
            pointer = await rig.artifacts.put(b"the new report")
            done = await rig.do("write_file", {"path": "acme/report.md", "content": pointer})
            assert (done.status, done.worker) == (STATUS_SUCCEEDED, "one"), done.error
            assert (rig.root / "acme" / "report.md").read_bytes() == b"the new report"
        async with connector(rig, mongo, "other"):
            undone: Outcome = await rig.do(
                "write_file", None, "run_1/step/0/0", mode=MODE_UNDO, undo_token=done.undo_token
            )
            assert (undone.status, undone.worker) == (STATUS_SUCCEEDED, "other"), undone.error
        assert (rig.root / "acme" / "report.md").read_bytes() == EARLIER


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "shared.db", service="test", now_ms=now_ms)
    yield opened
    await opened.close()


def kept(place: Path, store: Store) -> Blobs:
    """What one process has, of a store that is shared."""
    return Blobs(place, (store, "main"))


@pytest.mark.parametrize("size", [0, 1, parts.PART_BYTES, len(EARLIER)])
async def test_bytes_of_any_size_come_to_another_one_as_they_were(
    tmp_path: Path, store: Store, size: int
) -> None:
    content = EARLIER[:size]
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "file").write_bytes(content)
    one, other = kept(tmp_path / "one", store), kept(tmp_path / "other", store)
    with (tmp_path / "file").open("rb") as file:
        one.keep(sha256, file)
    for _ in range(2):  # again is the same
        await one.share(sha256)
        await other.fetch(sha256)
        assert b"".join(other.kept(sha256)) == content


async def test_what_was_shared_in_part_is_not_there(tmp_path: Path, store: Store) -> None:
    """Its process died in the middle; whoever keeps the same bytes next begins anew."""
    begun = Write(f"main/kept/{SHA256}", 0, parts.PARTLY, {parts.name(0): b"begun"})
    await store.commit([begun])
    one, other = kept(tmp_path / "one", store), kept(tmp_path / "other", store)
    await other.fetch(SHA256)
    with pytest.raises(TerminalError, match="are missing"):
        other.kept(SHA256)
    (tmp_path / "file").write_bytes(EARLIER)
    with (tmp_path / "file").open("rb") as file:
        one.keep(SHA256, file)
    await one.share(SHA256)
    await other.fetch(SHA256)
    assert b"".join(other.kept(SHA256)) == EARLIER
