"""The file of a backup: what is in it, and every way in which one that is damaged or hostile is refused."""

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from aios.api.v1 import api_pb2
from aios_cli.launcher import address, backups, restores
from aios_cli.launcher.settings import ServeSettings
from aios_cli.launcher.stores import open_for
from aios_cli.views.status import restore_line
from aios_core.errors import AiosError
from aios_runtime.backup import archive
from aios_sdk.host.ledger import Ledger
from tests.e2e.test_it_survives import small_disk
from tests.mongo import some_mongo
from tests.served import Server, run


def silent(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="session")
def original(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the served AIOS, with a run that has artifacts."""
    server.month("backed-up", "2026-03")
    inputs = ("--input", "client=backed-up", "--input", "month=2026-03")
    server.aios("run", "start", "monthly-client-report", *inputs, "--wait", "--json")
    file = tmp_path_factory.mktemp("backup") / "original.backup"
    server.json("backup", "create", str(file))
    return file


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    """A backup, alone in its folder."""
    return Path(shutil.copy(original, tmp_path / "one.backup"))


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    """A data directory, alone in its folder."""
    restores.restore(original, tmp_path / "data", silent)
    return tmp_path / "data"


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(AiosError) as problem:
        work()
    return problem.value.code


def parts(file: Path) -> dict[str, bytes]:
    with tarfile.open(file, "r:") as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def written(file: Path, content: dict[str, bytes]) -> Path:
    with file.open("wb") as out:
        writing = archive.Writing(out)
        for name, data in content.items():
            writing.add(name, io.BytesIO(data), len(data))
        writing.end()
    return file


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.feature("J5")
def test_a_backup_is_proven_and_restored_with_every_byte(data: Path, tmp_path: Path) -> None:
    made = backups.create(data, tmp_path / "one.backup", silent).path
    assert made.stat().st_mode & 0o777 == 0o600
    proven = {item.what: item.count for item in restores.verify(made, silent).proven}
    assert proven["runs are what their events say"] > 0
    assert proven["artifacts have their bytes"] > 0
    checked, mark = restores.restore(made, tmp_path / "new", silent)
    assert checked.manifest.time_ms == mark.backup_time_ms
    for path in (tmp_path / "new" / "artifacts").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (data / path.relative_to(tmp_path / "new")).read_bytes()
    assert left(tmp_path) == ["data", "new", "one.backup"]


def test_secrets_are_not_in_a_backup(data: Path, tmp_path: Path) -> None:
    secret = b"a secret that is nobody's business"
    (data / "nats-users").mkdir()
    for name in ("token", "nats-users/gateway", "aios.toml", "server.json"):
        (data / name).write_bytes(secret)
    made = backups.create(data, tmp_path / "one.backup", silent)
    assert secret not in made.path.read_bytes()


@pytest.mark.parametrize("step", range(12))
def test_a_backup_that_is_cut_short_anywhere_is_refused(made: Path, tmp_path: Path, step: int) -> None:
    whole = made.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[: len(whole) * step // 12])
    assert refused(lambda: restores.verify(cut, silent)) == "BAD_BACKUP"
    assert refused(lambda: restores.restore(cut, tmp_path / "new", silent)) == "BAD_BACKUP"
    assert left(tmp_path) == ["cut", "one.backup"]


@pytest.mark.parametrize("step", range(23))
def test_one_byte_changed_anywhere_is_noticed(made: Path, tmp_path: Path, step: int) -> None:
    whole = bytearray(made.read_bytes())
    whole[len(whole) * step // 23] ^= 1
    (tmp_path / "changed").write_bytes(whole)
    assert refused(lambda: restores.verify(tmp_path / "changed", silent)) == "BAD_BACKUP"


def reforged(made: Path, name: str, store: Callable[[apsw.Connection], object]) -> Path:
    """A backup whose store was changed, with hashes that fit."""
    content = parts(made)
    place = made.parent / "forged.db"
    place.write_bytes(content[f"{name}.db"])
    connection = apsw.Connection(str(place))
    store(connection)
    connection.close()
    content[f"{name}.db"] = place.read_bytes()
    place.unlink()
    manifest = json.loads(content["manifest.json"])
    manifest["stores"][name] = {
        "size": len(content[f"{name}.db"]), "sha256": hashlib.sha256(content[f"{name}.db"]).hexdigest()
    }  # fmt: skip
    content["manifest.json"] = json.dumps(manifest).encode()
    return written(made.parent / "forged.backup", content)


@pytest.mark.feature("J5")
@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("orchestrator", "UPDATE events SET data = zeroblob(length(data)) WHERE id = (SELECT max(id) FROM events)"),
        ("orchestrator", "DELETE FROM events WHERE id = (SELECT min(id) FROM events)"),
        ("orchestrator", "DELETE FROM events WHERE id = (SELECT max(id) FROM events)"),
        ("orchestrator", "DELETE FROM records WHERE name LIKE 'step/%'"),
        ("memory", "DELETE FROM aggregates WHERE key LIKE 'main/artifact/%'"),
        ("gateway", "CREATE TRIGGER x AFTER INSERT ON meta BEGIN DELETE FROM aggregates; END"),
    ],
)  # fmt: skip
def test_a_store_that_was_changed_behind_its_hashes_is_found_out(made: Path, name: str, sql: str) -> None:
    forged = reforged(made, name, lambda connection: connection.execute(sql))
    assert refused(lambda: restores.verify(forged, silent)) == "CORRUPT_STORE"


def test_an_artifact_that_is_left_out_is_found_out(made: Path, tmp_path: Path) -> None:
    content = parts(made)
    kept = [name for name in content if name.startswith("artifacts/")]
    assert kept, "the recorded directory has artifacts"
    del content[kept[0]]
    manifest = json.loads(content["manifest.json"])
    names = "".join(f"{name}\n" for name in kept[1:]).encode()
    manifest["folders"]["artifacts"] = {
        "files": len(kept) - 1,
        "bytes": sum(len(content[name]) for name in kept[1:]),
        "names_sha256": hashlib.sha256(names).hexdigest(),
    }
    content["manifest.json"] = json.dumps(manifest).encode()
    forged = written(tmp_path / "forged.backup", content)
    assert refused(lambda: restores.verify(forged, silent)) == "CORRUPT_STORE"


def kinds() -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname, info.mode = kind, size, link, 0o600
        return info

    digest = "a" * 64
    yield "a path upwards", [entry("../evil")]
    yield "a path upwards inside", [entry("artifacts/../../evil.db")]
    yield "an absolute path", [entry("/tmp/evil.db")]
    yield "a token", [entry("token")]
    yield "a configuration", [entry("aios.toml")]
    yield "another store", [entry("other.db")]
    yield "a symbolic link", [entry("orchestrator.db", tarfile.SYMTYPE, link="/etc/passwd")]
    yield "a hard link", [entry(f"artifacts/{digest[:2]}/{digest[2:]}", tarfile.LNKTYPE, link="backup.json")]
    yield "a device", [entry("orchestrator.db", tarfile.CHRTYPE)]
    yield "a folder", [entry("artifacts", tarfile.DIRTYPE)]
    yield "a sparse file", [entry("orchestrator.db", tarfile.GNUTYPE_SPARSE)]
    yield "an extended header", [entry("orchestrator.db", tarfile.XHDTYPE)]
    yield "more bytes than there are", [entry("orchestrator.db", size=8 * 1024**3 - 1)]


@pytest.mark.parametrize(
    ("what", "entries"), list(kinds()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_no_backup_holds_is_refused_and_writes_nothing(
    made: Path, tmp_path: Path, what: str, entries: list[tarfile.TarInfo]
) -> None:
    head = parts(made)["backup.json"]
    bad = io.BytesIO()
    archive.Writing(bad).add("backup.json", io.BytesIO(head), len(head))
    for info in entries:
        bad.write(info.tobuf(tarfile.USTAR_FORMAT))
    bad.write(archive.ENDING)
    file = tmp_path / "hostile"
    file.write_bytes(bad.getvalue())
    assert refused(lambda: restores.restore(file, tmp_path / "new", silent)) == "BAD_BACKUP", what
    assert left(tmp_path) == ["hostile", "one.backup"]


def test_a_part_that_comes_twice_is_refused(made: Path, tmp_path: Path) -> None:
    content = parts(made)
    file = tmp_path / "twice"
    with file.open("wb") as out:
        writing = archive.Writing(out)
        for name in ("backup.json", "gateway.db", "gateway.db"):
            writing.add(name, io.BytesIO(content[name]), len(content[name]))
        writing.end()
    assert refused(lambda: restores.verify(file, silent)) == "BAD_BACKUP"


def test_a_newer_format_is_named(made: Path, tmp_path: Path) -> None:
    content = parts(made)
    content["backup.json"] = json.dumps({**json.loads(content["backup.json"]), "format": 2}).encode()
    file = written(tmp_path / "newer", content)
    assert refused(lambda: restores.verify(file, silent)) == "NEWER_BACKUP"


@pytest.mark.parametrize(
    "note", [b"", b"[]", b"{", b"[" * 100_000, b'{"kind": "aios-backup", "format": "x"}']
)
def test_a_note_that_is_none_is_refused(tmp_path: Path, note: bytes) -> None:
    file = written(tmp_path / "note", {"backup.json": note})
    assert refused(lambda: restores.verify(file, silent)) == "BAD_BACKUP"


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b'{"format": 1}', b'{"format":1,"aios":"","time_ms":0,'
    b'"workspaces":[],"stores":[],"folders":{},"heads":{}}'])  # fmt: skip
def test_a_manifest_that_is_none_is_refused(made: Path, tmp_path: Path, manifest: bytes) -> None:
    file = written(tmp_path / "manifest", {**parts(made), "manifest.json": manifest})
    assert refused(lambda: restores.verify(file, silent)) == "BAD_BACKUP"


@pytest.mark.feature("J5")
def test_what_another_tool_has_restored_can_be_marked(data: Path) -> None:
    said = run("--data-dir", str(data), "backup", "mark", "--json").json
    connection = apsw.Connection(str(data / "connector-files.db"))
    marked = json.loads(connection.execute("SELECT value FROM meta WHERE name = 'restore'").get)
    connection.close()
    assert marked["restore_id"] == said["restore_id"]
    assert marked["backup_time_ms"] == 0
    (data / "connector-files.db").unlink()
    assert run("--data-dir", str(data), "backup", "mark", "--json").json["error"]["code"] == "NO_STORES"
    assert not (data / "connector-files.db").exists()


async def test_what_mongorestore_has_put_back_can_be_marked(tmp_path: Path) -> None:
    with some_mongo(tmp_path) as url:
        settings = ServeSettings(data_dir=tmp_path, mongodb_url=url, mongodb_database="marked")
        mark = await restores.open_marked(settings)
        store = await open_for(settings, "connector-files")
        ledger = Ledger(store, "main")
        assert await ledger.restore() == mark
        await ledger.close_restore()
        assert await ledger.restore() is None
        await store.close()


def test_stores_that_are_elsewhere_are_never_backed_up_by_half(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--data-dir", str(data), "backup", "create", str(tmp_path / "x"), "--json")
    monkeypatch.setenv("AIOS_MONGODB_URL", "mongodb://127.0.0.1/")
    assert "mongodump" in run(*command).json["error"]["message"]
    monkeypatch.delenv("AIOS_MONGODB_URL")
    served = address.Address(os.getpid(), "", "", "", str(data), "", "all", "", 0, stores_in="MongoDB")
    address.write(data, served, {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert run(*command).json["error"]["code"] == "NO_STORES"
    assert not (tmp_path / "x").exists()


def test_half_an_installation_is_no_backup(data: Path, tmp_path: Path) -> None:
    (data / "memory.db").unlink()
    assert refused(lambda: backups.create(data, tmp_path / "half", silent)) == "NO_STORES"
    assert left(tmp_path) == ["data"]


def test_a_backup_overwrites_nothing(data: Path, made: Path) -> None:
    before = made.read_bytes()
    assert refused(lambda: backups.create(data, made, silent)) == "IN_USE"
    assert made.read_bytes() == before


def test_a_damaged_artifact_is_named_and_no_backup_is_made(data: Path, tmp_path: Path) -> None:
    artifact = next(path for path in sorted((data / "artifacts").rglob("*")) if path.is_file())
    artifact.chmod(0o600)
    artifact.write_bytes(b"other bytes")
    assert refused(lambda: backups.create(data, tmp_path / "bad", silent)) == "CORRUPT_STORE"
    assert left(tmp_path) == ["data"]


def test_a_disk_that_is_too_small_keeps_nothing_of_a_backup(data: Path, made: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "200k") as small:
        assert refused(lambda: backups.create(data, small / "new.backup", silent)) == "DISK_FULL"
        assert left(small) == []
        assert refused(lambda: restores.restore(made, small / "new", silent)) == "DISK_FULL"
        assert left(small) == []


def test_a_person_reads_what_was_made_and_what_was_proven(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.backup"
    said = run("--data-dir", str(data), "backup", "create", str(file))
    assert (said.code, str(file) in said.out) == (0, True)
    assert "are not in it" in said.out
    said = run("backup", "verify", str(file))
    assert "runs are what their events say" in said.out
    assert "is whole" in said.out
    said = run("--data-dir", str(tmp_path / "new"), "backup", "restore", str(file))
    assert "aios backup close" in said.out
    said = run("backup", "restore", str(file))
    assert said.code == 2, "it says that --data-dir is missing"
    opened = api_pb2.OpenRestore(service="connector-files", found=2, asked=1)
    assert "from a backup: what it doesn't know" in restore_line(opened)
    assert "2 changes found done, 1 asked about" in restore_line(opened, closed=True)


def test_a_full_disk_leaves_nothing_half_made(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archive.Writing, "end", full)
    assert refused(lambda: backups.create(data, tmp_path / "full", silent)) == "DISK_FULL"
    assert left(tmp_path) == ["data"]
