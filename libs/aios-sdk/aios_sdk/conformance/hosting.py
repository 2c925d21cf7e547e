"""A connector under test: hosted with a real ledger, in this process or in one that is killed."""

import asyncio
import contextlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aios.task.v1.task_pb2 import Outcome, Task
from aios_runtime.store.sqlite import open_store
from aios_sdk.conformance.artifacts import FolderArtifacts
from aios_sdk.connector import Artifacts, Connector
from aios_sdk.host.executor import Executor
from aios_sdk.host.ledger import Ledger
from aios_sdk.host.mark import RESTORE_META, RestoreMark

NOW_MS: Final = 1_790_000_000_000
CHILD_SECONDS: Final = 60.0
WORKSPACE: Final = "main"


class Subject(Protocol):
    """What builds the connector under test in a directory."""

    def connector(self, directory: Path) -> Connector: ...


@contextlib.asynccontextmanager
async def hosted(
    subject: Subject,
    directory: Path,
    *,
    now_ms: Callable[[], int] = lambda: NOW_MS,
    artifacts: Artifacts | None = None,
) -> AsyncIterator[Executor]:
    """An executor over the ledger `directory/ledger.db`."""
    store = await open_store(directory / "ledger.db", service="conformance", now_ms=now_ms)
    try:
        ledger = Ledger(store, WORKSPACE)
        executor = Executor(
            subject.connector(directory), ledger, artifacts or artifacts_of(directory), now_ms
        )
        await executor.recover()
        yield executor
        await executor.close()
    finally:
        await store.close()


async def ledger_of(directory: Path) -> bytes:
    """The ledger as a backup would hold it now."""
    path = directory / "ledger.db"
    await (await open_store(path, service="conformance", now_ms=lambda: NOW_MS)).close()
    return path.read_bytes()


async def put_back(directory: Path, ledger: bytes, mark: RestoreMark) -> None:
    """The ledger of a backup in the place of what stands, marked as a restore marks it."""
    path = directory / "ledger.db"
    for left in directory.glob(f"{path.name}-*"):
        left.unlink()
    path.write_bytes(ledger)
    store = await open_store(path, service="conformance", now_ms=lambda: NOW_MS)
    await store.set_meta(RESTORE_META, mark.encode())
    await store.close()


def artifacts_of(directory: Path) -> FolderArtifacts:
    """Where the artifacts of a directory under test lie."""
    return FolderArtifacts(directory / "artifacts")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its return code (negative: the signal), and its outcome if it got that far."""

    code: int
    outcome: Outcome | None
    errors: str


async def in_child(subject: object, directory: Path, task: Task, crash_at: str = "") -> Ended:
    """Perform a task in a process of its own, which kills itself at a crash point if one is given."""
    given, answer = directory / "task.bin", directory / "outcome.bin"
    given.write_bytes(task.SerializeToString())
    answer.unlink(missing_ok=True)
    file = sys.modules[type(subject).__module__].__file__
    assert file is not None
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_CRASH")}
    environ |= {"AIOS_CRASH_AT": crash_at} if crash_at else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aios_sdk.conformance.child",
        file,
        type(subject).__name__,
        str(directory),
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), CHILD_SECONDS)
    assert process.returncode is not None
    outcome = Outcome.FromString(answer.read_bytes()) if answer.exists() else None
    return Ended(process.returncode, outcome, errors.decode(errors="replace"))


def load_subject(file: str, name: str) -> Subject:
    """The class `name` of a Python file, as an object."""
    spec = importlib.util.spec_from_file_location("aios_conformance_subject", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    subject: Subject = getattr(module, name)()
    return subject
