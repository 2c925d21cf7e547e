"""Artifacts: the files behind them, uploads in chunks, and what is left after a crash."""

import errno
import hashlib
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios.memory.v1.memory_pb2 import GetArtifactRequest, PutArtifactRequest, PutArtifactResponse
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_memory import artifacts as limits
from aios_memory import blobs
from aios_memory.kept_blobs import InStore
from aios_runtime.store.port import Store
from tests.memory.serving import WORKSPACE, Clock, Memory
from tests.often import tries

CHUNK = limits.MAX_CHUNK_BYTES
PLACES = ("on disk", "in the store")
on_disk = pytest.mark.parametrize("memory", ["on disk"], indirect=True)


@pytest.fixture(params=PLACES)
async def memory(request: pytest.FixtureRequest, store: Store, tmp_path: Path, clock: Clock) -> Memory:
    shared = InStore(store, WORKSPACE, clock) if request.param == "in the store" else None
    memory = Memory(store, tmp_path / "artifacts", clock, blobs=shared)
    await memory.artifacts.start()
    return memory


def chunk(data: bytes, start: int, end: int, upload: str = "up", **fields: object) -> PutArtifactRequest:
    request = PutArtifactRequest(
        workspace=WORKSPACE, upload_id=upload, offset=start, chunk=data[start:end], last=end >= len(data),
        sha256=hashlib.sha256(data).digest(), size=len(data), media_type="text/plain", name="report.md",
    )  # fmt: skip
    for name, value in fields.items():
        setattr(request, name, value)
    return request


async def content(memory: Memory, data: bytes) -> bytes:
    read = b""
    while True:
        request = GetArtifactRequest(sha256=hashlib.sha256(data).digest(), offset=len(read))
        response = await memory.artifacts.get(request)
        read += response.chunk
        if len(read) == response.size:
            return read


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=tries(30), deadline=None)
@given(st.data())
async def test_an_upload_in_any_chunks_with_repeats_gives_the_same_bytes_back(
    memory: Memory, data: st.DataObject
) -> None:
    size = data.draw(st.integers(0, 60))
    body = data.draw(st.binary(min_size=size, max_size=size))
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=4))})
    ranges = list(pairwise(cuts)) or [(0, 0)]
    response = PutArtifactResponse()
    for start, end in ranges:
        for _ in range(data.draw(st.integers(1, 3))):
            response = await memory.artifacts.put(chunk(body, start, end))
    assert response == PutArtifactResponse(received=size, stored=True)
    assert await content(memory, body) == body


async def test_a_large_artifact_comes_back_whole_under_its_hash_with_its_name(
    memory: Memory, tmp_path: Path
) -> None:
    data = os.urandom(3 * CHUNK + 17)
    for start in range(0, len(data), CHUNK):
        await memory.artifacts.put(chunk(data, start, min(start + CHUNK, len(data))))
    assert await content(memory, data) == data
    known = await memory.artifacts.find(hashlib.sha256(data).hexdigest())
    assert (known.name, known.media_type, known.size) == ("report.md", "text/plain", len(data))
    sha256 = hashlib.sha256(data).hexdigest()
    if (tmp_path / "artifacts").exists():
        assert files(tmp_path / "artifacts") == [f"{sha256[:2]}/{sha256[2:]}"]
    only_facts = await memory.artifacts.get(
        GetArtifactRequest(sha256=hashlib.sha256(data).digest(), limit=-1)
    )
    assert (only_facts.chunk, only_facts.size) == (b"", len(data))


@on_disk
async def test_what_is_stored_already_needs_no_upload_and_is_never_written_again(
    memory: Memory, tmp_path: Path
) -> None:
    pointer = await memory.put(b"bytes")
    path = tmp_path / "artifacts" / pointer.sha256[:2] / pointer.sha256[2:]
    before = path.stat()
    first = chunk(b"bytes", 0, 2, upload="another", last=False)
    assert await memory.artifacts.put(first) == PutArtifactResponse(received=5, stored=True)
    assert path.stat() == before


@pytest.mark.parametrize("cut", [0, 3])
async def test_bytes_with_another_hash_are_refused_and_leave_nothing(
    memory: Memory, tmp_path: Path, cut: int
) -> None:
    data = b"what was sent"
    wrong = hashlib.sha256(b"what was promised").digest()
    if cut:
        await memory.artifacts.put(chunk(data, 0, cut, sha256=wrong))
    with pytest.raises(TerminalError, match="nothing was stored") as caught:
        await memory.artifacts.put(chunk(data, cut, len(data), sha256=wrong))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert files(tmp_path / "artifacts") == []
    assert await memory.artifacts.find(wrong.hex()) is None


async def test_a_chunk_that_leaves_a_gap_is_refused_with_where_to_go_on(memory: Memory) -> None:
    data = b"0123456789"
    await memory.artifacts.put(chunk(data, 0, 4))
    with pytest.raises(RetryableError) as caught:
        await memory.artifacts.put(chunk(data, 6, 10))
    assert caught.value.details["received"] == "4"
    assert (await memory.artifacts.put(chunk(data, 0, 0))).received == 4
    assert (await memory.artifacts.put(chunk(data, 4, 10))).stored


@on_disk
async def test_an_upload_goes_on_after_a_restart_and_an_old_one_is_thrown_away(
    memory: Memory, tmp_path: Path, clock: Clock
) -> None:
    data = b"0123456789"
    clock.ms = int((tmp_path / "artifacts").stat().st_mtime * 1000)
    await memory.artifacts.put(chunk(data, 0, 4))
    (tmp_path / "artifacts" / "staging" / "left.tmp").write_bytes(b"half")
    again = Memory(memory.store, tmp_path / "artifacts", clock)
    assert await again.artifacts.start() == 1
    assert (await again.artifacts.put(chunk(data, 4, 10))).stored

    await again.artifacts.put(chunk(b"other bytes", 0, 4))
    clock.ms += limits.MAX_UPLOAD_AGE_MS + 60_000
    assert await Memory(memory.store, tmp_path / "artifacts", clock).artifacts.start() == 1
    assert len(files(tmp_path / "artifacts")) == 1


@on_disk
async def test_uploads_are_bounded_in_number_and_old_ones_make_room(
    memory: Memory, tmp_path: Path, clock: Clock
) -> None:
    clock.ms = int((tmp_path / "artifacts").stat().st_mtime * 1000)
    for n in range(limits.MAX_UPLOADS):
        await memory.artifacts.put(chunk(b"0123", 0, 2, upload=f"up-{n}"))
    with pytest.raises(RetryableError, match="uploads are under way"):
        await memory.artifacts.put(chunk(b"4567", 0, 2, upload="one-more"))
    clock.ms += limits.MAX_UPLOAD_AGE_MS + 60_000
    assert (await memory.artifacts.put(chunk(b"4567", 0, 2, upload="one-more"))).received == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"chunk": b"x" * (CHUNK + 1)}, "TOO_LARGE"),
        ({"size": limits.MAX_ARTIFACT_BYTES + 1}, "TOO_LARGE"),
        ({"offset": limits.MAX_ARTIFACT_BYTES}, "TOO_LARGE"),
        ({"offset": -1}, "INVALID_ARGUMENT"),
        ({"size": 99}, "INVALID_ARGUMENT"),
        ({"sha256": b""}, "INVALID_ARGUMENT"),
        ({"sha256": b"short"}, "INVALID_ARGUMENT"),
        ({"upload_id": "../../etc/passwd\n"}, "INVALID_ARGUMENT"),
        ({"name": "x" * 301}, "INVALID_ARGUMENT"),
        ({"media_type": "x" * 201}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_wrong_upload_is_refused_and_leaves_nothing(
    memory: Memory, tmp_path: Path, fields: dict[str, object], code: str
) -> None:
    with pytest.raises(AiosError) as caught:
        await memory.artifacts.put(chunk(b"data", 0, 4, **fields))
    assert caught.value.code == code
    assert files(tmp_path / "artifacts") == []


async def test_an_artifact_that_is_not_there_or_an_offset_past_its_end_is_refused(memory: Memory) -> None:
    with pytest.raises(TerminalError) as caught:
        await memory.artifacts.get(GetArtifactRequest(sha256=b"\0" * 32))
    assert caught.value.code == "NOT_FOUND"
    pointer = await memory.put(b"bytes")
    with pytest.raises(TerminalError, match="has 5 bytes"):
        await memory.artifacts.get(GetArtifactRequest(sha256=bytes.fromhex(pointer.sha256), offset=6))


@on_disk
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
async def test_a_full_or_read_only_disk_is_a_clear_error_and_leaves_nothing(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(blobs.os, "fsync", fail)
        with pytest.raises(AiosError) as caught:
            await memory.put(b"bytes")
    assert caught.value.code == ("DISK_FULL" if number == errno.ENOSPC else "READ_ONLY")
    assert "nothing was stored" in caught.value.message
    assert files(tmp_path / "artifacts") == []
    assert await memory.artifacts.find(hashlib.sha256(b"bytes").hexdigest()) is None
    assert (await memory.put(b"bytes")).size == 5


async def test_a_blob_of_a_crash_before_its_commit_is_taken_over_by_the_next_upload(memory: Memory) -> None:
    data = b"bytes"
    memory_blobs = memory.artifacts._blobs
    await memory_blobs.put(data, hashlib.sha256(data).hexdigest())
    assert await memory.artifacts.find(hashlib.sha256(data).hexdigest()) is None
    await memory.put(data)
    assert await content(memory, data) == data


@on_disk
async def test_a_damaged_blob_is_not_taken_for_the_artifact(memory: Memory, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"bytes").hexdigest()
    folder = tmp_path / "artifacts" / sha256[:2]
    folder.mkdir(parents=True)
    (folder / sha256[2:]).write_bytes(b"rotten")
    with pytest.raises(TerminalError) as caught:
        await memory.put(b"bytes")
    assert caught.value.code == "CORRUPT_STORE"


async def test_a_file_may_have_any_name(memory: Memory) -> None:
    pointer = await memory.put(b"rows", name="up-1")
    assert (await memory.artifacts.find(pointer.sha256)).name == "up-1"
    odd = "Ma\u0308rz\u00a02026\n👩\u200d💻.csv"
    await memory.artifacts.put(chunk(b"other", 0, 5, name=odd))
    assert (await memory.artifacts.find(hashlib.sha256(b"other").hexdigest())).name == odd.replace(
        "\n", "\ufffd"
    )


async def test_chunks_of_an_upload_may_come_to_different_replicas(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    replicas = [
        Memory(store, tmp_path / "unused", clock, blobs=InStore(store, WORKSPACE, clock)) for _ in range(2)
    ]
    data = os.urandom(40 * CHUNK + 5)
    for at, start in enumerate(range(0, len(data), CHUNK)):
        replica = replicas[at % 2]
        response = await replica.artifacts.put(chunk(data, start, min(start + CHUNK, len(data))))
    assert response.stored
    assert await content(replicas[0], data) == await content(replicas[1], data) == data
    assert not files(tmp_path / "unused")
    await replicas[0].artifacts.put(chunk(b"other bytes", 0, 4))
    clock.ms += limits.MAX_UPLOAD_AGE_MS + 1
    assert await replicas[1].artifacts.start() == 1, "an upload that was given up"
    assert await replicas[1].artifacts.start() == 0
