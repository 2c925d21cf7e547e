"""A backup that is older than the last effects, restored on another machine: nothing is done a second time."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios_runtime.store.sqlite import open_store
from tests.drill.kept import Kept, patiently
from tests.drill.served import CLIENT, MONTH, REPORT, Served, check_written
from tests.gateway.serving import value
from tests.served import Server, run

START = ("run", "start", "monthly-client-report", "--input", f"client={CLIENT}", "--input", f"month={MONTH}")


class Elsewhere(Kept):
    """Another machine, which sees the same folders of clients."""

    def __init__(self, place: Path, files: Path) -> None:
        self.files = files
        super().__init__(
            place / "data",
            ["--files-root", str(files)],
            environment={"AIOS_CONNECTOR_FILES_SETTLE_SECONDS": "3600"},
            marker=place / "crashed",
        )


def backup(*arguments: str) -> Any:
    """`aios backup …` in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-m", "aios_cli", "backup", *arguments, "--json"], capture_output=True, check=False
    )
    assert said.returncode == 0, said
    return json.loads(said.stdout)


def until(served: Served | Elsewhere, run: str, *states: str) -> Any:
    """The run when it is in one of the states, or needs a person."""
    shown: Any = {}
    for _ in patiently():
        shown = served.aios("run", "show", run)
        if shown["state"] in states or (not states and shown["pending_approvals"]):
            return shown
    raise AssertionError(shown)


def stamps(report: Path) -> dict[str, tuple[int, int]]:
    """Which file stands under each name, and when it was written: another one after any second write."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in report.iterdir()}


def reported_after_backup(place: Path) -> tuple[str, Path, Path]:
    """The machine that is lost: a backup was made before the approval, and the report was written after it."""
    with Served(place, settle_seconds=3600) as served:
        run = str(served.aios(*START, "--request-id", "start", "--wait")["run_id"])
        (gate,) = until(served, run)["pending_approvals"]
        made = backup("create", str(place / "aios.backup"), "--data-dir", str(served.data))
        assert Path(made["file"]).stat().st_mode & 0o777 == 0o600
        served.aios("approval", "approve", gate, "--request-id", "first")
        until(served, run, "succeeded")
        check_written(served, run)
        served.kill_for_good()
        return run, Path(made["file"]), served.files


@pytest.mark.feature("J5", "H10", "B3")
def test_after_a_restore_no_effect_happens_twice(tmp_path: Path) -> None:
    run, file, files = reported_after_backup(tmp_path)
    written = stamps(files / CLIENT / MONTH / "report")
    assert len(written) == len(REPORT)
    assert backup("verify", str(file))["proven"]
    other = tmp_path / "other"
    restored = backup("restore", str(file), "--data-dir", str(other / "data"))
    with Elsewhere(other, files) as served:
        (gate,) = until(served, run)["pending_approvals"]
        refused = served.aios("backup", "close")
        assert refused["error"]["code"] == "RESTORE_OPEN"
        assert run in refused["error"]["message"]
        served.aios("approval", "approve", gate, "--request-id", "second")
        served.kill()
        until(served, run, "succeeded")
        check_written(served, run)
        assert stamps(files / CLIENT / MONTH / "report") == written
        checks = {check["name"]: check for check in served.aios("doctor")["checks"]}
        assert checks["restore"]["facts"]["restore id"] == restored["restore_id"]
        (would,) = served.aios("backup", "close", "--dry-run")["open"]
        assert would["restore_id"] == restored["restore_id"]
        (closed,) = served.aios("backup", "close")["closed"]
        assert closed["restore_id"] == restored["restore_id"]
        assert served.aios("backup", "close")["open"] == []
        assert "restore" not in [check["name"] for check in served.aios("doctor")["checks"]]


@pytest.mark.feature("J5", "H10", "B3")
def test_after_a_restore_what_can_not_be_told_is_asked(tmp_path: Path) -> None:
    run, file, files = reported_after_backup(tmp_path)
    report = files / CLIENT / MONTH / "report"
    (report / "report.md").write_text("edited by a person\n")
    written = stamps(report)
    other = tmp_path / "other"
    backup("restore", str(file), "--data-dir", str(other / "data"))
    with Elsewhere(other, files) as served:
        (gate,) = until(served, run)["pending_approvals"]
        served.aios("approval", "approve", gate, "--request-id", "second")
        shown = served.aios("run", "show", run)
        for _ in patiently():
            if shown["pending_approvals"] not in ([], [gate]):
                break
            shown = served.aios("run", "show", run)
        (question,) = shown["pending_approvals"]
        asked = served.aios("approval", "show", question)
        assert asked["kind"] == "unknown"
        assert "restored from a backup" in json.dumps(asked)
        served.aios("approval", "answer", question, "yes", "--request-id", "answer")
        until(served, run, "succeeded")
    assert stamps(report) == written
    assert (report / "report.md").read_text() == "edited by a person\n"


@pytest.mark.feature("J5", "B1")
async def test_what_was_accepted_before_a_backup_under_load_is_in_it(server: Server, tmp_path: Path) -> None:
    accepted: list[str] = []
    stop = asyncio.Event()

    async def load(worker: int) -> None:
        async with server.client() as api:
            number = 0
            while not stop.is_set():
                request = api_pb2.StartRunRequest(
                    request_id=f"load-{worker}-{number}", workflow="greet", input=value({"name": "L"})
                )
                accepted.append((await api.call(api.runs.StartRun, request)).run.run_id)
                number += 1

    async def made(number: int) -> tuple[Path, list[str]]:
        before = list(accepted)
        file = tmp_path / f"{number}.backup"
        await asyncio.to_thread(backup, "create", str(file), "--data-dir", str(server.data))
        return file, before

    workers = [asyncio.create_task(load(worker)) for worker in range(4)]
    while len(accepted) < 20:
        await asyncio.wait(workers, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        assert not any(worker.done() for worker in workers)
    files = [await made(number) for number in range(3)]
    stop.set()
    await asyncio.gather(*workers)
    assert len(accepted) > len(files[-1][1]), "work went on while the backup was made"
    for number, (file, before) in enumerate(files):
        data = tmp_path / f"restored-{number}"
        await asyncio.to_thread(backup, "restore", str(file), "--data-dir", str(data))
        store = await open_store(data / "orchestrator.db", service="test", now_ms=lambda: 0)
        try:
            for run_id in before:
                assert await store.read(f"main/run/{run_id}") is not None, run_id
        finally:
            await store.close()


def test_a_restore_goes_into_an_empty_directory_alone(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "a.backup"
    server.json("backup", "create", str(file))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    said = run("--data-dir", str(taken), "backup", "restore", str(file), "--json")
    assert said.json["error"]["code"] == "IN_USE"
    assert os.listdir(taken) == ["mine"]
    assert sorted(os.listdir(tmp_path)) == ["a.backup", "taken"]
