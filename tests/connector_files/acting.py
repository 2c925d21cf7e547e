"""Calls of the files connector's actions, hosted with a ledger, as tests make them."""

import asyncio
import itertools
import json
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_REDO, MODE_UNDO, Mode, Outcome, Task
from aios_connector_files.blobs import Blobs
from aios_connector_files.connector import files_connector
from aios_connector_files.root import Root
from aios_core.encoding import decode, encode
from aios_core.labels import OWNER
from aios_core.values import Plain, labeled, plain
from aios_sdk.conformance import FolderArtifacts
from aios_sdk.conformance.hosting import hosted
from aios_sdk.connector import Connector
from aios_sdk.host.executor import Executor
from aios_sdk.host.flight import Rules

UNPRIVILEGED = 65534


class Desk:
    """A root, the connector's own place and an artifact folder, below one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root"
        self.artifacts = FolderArtifacts(path / "artifacts")
        self._keys = itertools.count(1)

    def connector(self, directory: Path) -> Connector:
        return files_connector(Root(self.root), Blobs(self.path / "own"))

    async def do(
        self,
        action: str,
        input: Plain,
        mode: Mode.ValueType = MODE_EXECUTE,
        key: str = "",
        dispatch: int = 1,
    ) -> Outcome:
        task = Task(
            workspace="main",
            run_id="run_1",
            task_id=key or f"run_1/step-{next(self._keys)}/0/0",
            step="step",
            dispatch=dispatch,
            target=f"files.{action}",
            mode=mode,
            input=encode(labeled(input, OWNER)),
        )
        return await self.perform(task)

    async def undo(self, done: Outcome, dispatch: int = 1) -> Outcome:
        return await self._back(done, MODE_UNDO, done.task_id, dispatch)

    async def redo(self, done: Outcome, dispatch: int = 1) -> Outcome:
        return await self._back(done, MODE_REDO, f"{done.task_id}/redo-1", dispatch)

    async def _back(self, done: Outcome, mode: Mode.ValueType, task_id: str, dispatch: int) -> Outcome:
        return await self.perform(
            Task(
                workspace="main",
                run_id="run_1",
                task_id=task_id,
                step="step",
                target="files.write_file",
                mode=mode,
                dispatch=dispatch,
                undo_token=done.undo_token,
            )
        )

    async def perform(self, task: Task) -> Outcome:
        async with hosted(self, self.path, artifacts=self.artifacts) as executor:
            return await self.trusting(executor).perform(task)

    @staticmethod
    def trusting(executor: Executor) -> Executor:
        """Approvals have tests of their own."""
        executor._effects._rules = Rules(needs_approval=False)
        return executor

    async def write(self, path: str, content: bytes, **more: Plain) -> Outcome:
        return await self.do(
            "write_file", {"path": path, "content": await self.artifacts.put(content), **more}
        )

    def tree(self) -> dict[str, bytes]:
        """Every file below the root; a folder without files ends with a slash."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_file():
                found[name] = path.read_bytes()
            elif path.is_dir() and not any(path.iterdir()):
                found[name + "/"] = b""
        return found


def output(outcome: Outcome) -> dict[str, Any]:
    """The output's plain data."""
    data = plain(decode(outcome.output))
    assert isinstance(data, Mapping)
    return dict(data)


def as_nobody(work: Callable[[], Outcome]) -> Outcome:
    """Do the work in a child that has no rights; its outcome, or the trace of what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(UNPRIVILEGED)
                os.setuid(UNPRIVILEGED)
            answer = {"outcome": work().SerializeToString().hex()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "outcome" in answer, answer["error"]
    return Outcome.FromString(bytes.fromhex(answer["outcome"]))


def run_as_nobody(desk: Desk, action: str, input: Plain) -> Outcome:
    """An action carried out by somebody without rights, on a desk that is otherwise theirs."""
    return as_nobody(lambda: asyncio.run(desk.do(action, input)))
