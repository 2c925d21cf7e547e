"""Runs under way go on under another version of their workflow, over the command line and the API of a served AIOS."""

import json
from pathlib import Path

import grpc.aio
import pytest

from aios.api.v1 import api_pb2
from tests.gateway.serving import reason
from tests.served import Server

pytestmark = pytest.mark.feature("D11")

HEAD = "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: moved}\nspec:\n  steps:\n"
FIRST = "    - {name: first, agent: echo, input: {n: 1}}\n"
PAUSE = "    - {name: pause, ask: {title: Go on?, questions: [{id: go, text: Go on?}]}}\n"
LAST = '    - {name: last, agent: echo, input: {n: "${steps.first.n}"}}\n'
BEGUN = HEAD + FIRST + PAUSE + LAST


def apply(server: Server, folder: Path, text: str) -> None:
    file = folder / "moved.yaml"
    file.write_text(text)
    assert server.aios("apply", str(file)).code == 0


def started(server: Server, name: str) -> str:
    """A run that waits for a person's answer."""
    said = server.aios("run", "start", "moved", "--request-id", name, "--wait", "--json")
    assert said.code == 3, said.out
    run: str = said.json["run_id"]
    return run


@pytest.mark.feature("K2")
def test_runs_go_on_under_the_new_version_one_by_one_or_all(server: Server, tmp_path: Path) -> None:
    apply(server, tmp_path, BEGUN)
    one, other = started(server, "moved-1"), started(server, "moved-2")
    apply(server, tmp_path, BEGUN + "    - {name: more, agent: echo, input: {n: 9}}\n")
    assert server.json("run", "show", one)["workflow_version"] != _newest(server), "it keeps its own"
    before = len(server.json("run", "show", one)["timeline"])
    told = server.json("run", "migrate", one, "--dry-run")
    assert told["breaks"] == [] and told["to_version"] == _newest(server) and told["error"] is None
    assert len(server.json("run", "show", one)["timeline"]) == before, "a dry run does nothing"
    assert "could follow" in server.aios("run", "migrate", one, "--dry-run").out
    assert server.json("run", "migrate", one, "--why", "one more")["to_version"] == _newest(server)
    both = server.json("run", "migrate", "--all-of", "moved")
    assert {item["run_id"] for item in both} >= {one, other} and not any(item["error"] for item in both)
    shown = server.json("run", "show", other)
    assert shown["workflow_version"] == _newest(server)
    story = server.json("run", "show", one)["timeline"]
    assert any("go on as version" in line["what"] and line["why"] == "one more" for line in story)
    assert {step["step"] for step in shown["steps"]} == {"first", "pause", "last", "more"}


def test_what_a_run_could_not_follow_is_refused_in_words(server: Server, tmp_path: Path) -> None:
    apply(server, tmp_path, BEGUN)
    run = started(server, "moved-3")
    apply(server, tmp_path, BEGUN.replace("first", "begin"))
    said = server.aios("run", "migrate", run)
    assert said.code != 0 and "--rename first=begin" in said.err
    refusal = server.aios("run", "migrate", run, "--json")
    assert json.loads(refusal.out)["error"]["code"] == "INCOMPATIBLE"
    told = server.json("run", "migrate", run, "--dry-run")
    assert told["breaks"][0]["final"] and told["breaks"][0]["step"] == "first"
    assert "could not follow" in server.aios("run", "migrate", run, "--dry-run").out
    moved = server.json("run", "migrate", run, "--rename", "first=begin")
    assert moved["to_version"] == _newest(server)
    begun = next(step for step in server.json("run", "show", run)["steps"] if step["step"] == "begin")
    assert begun["state"] == "succeeded"
    assert server.aios("run", "migrate", run, "--rename", "first").code == 2
    assert server.aios("run", "migrate").code == 2


async def test_a_migration_is_safe_to_repeat(server: Server, tmp_path: Path) -> None:
    apply(server, tmp_path, BEGUN)
    run = started(server, "moved-4")
    apply(server, tmp_path, BEGUN + "    - {name: again, agent: echo, input: {n: 9}}\n")
    async with server.client() as api:
        request = api_pb2.MigrateRunRequest(request_id="move-1", run_id=run)
        first = await api.call(api.runs.MigrateRun, request)
        second = await api.call(api.runs.MigrateRun, request)
        assert first.run.workflow_version == second.run.workflow_version == first.to_version
        request.workflow_version = "0" * 64
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await api.call(api.runs.MigrateRun, request)
        assert reason(gone.value)[0] == "NOT_FOUND"


def _newest(server: Server) -> str:
    version: str = server.json("resource", "show", "Workflow", "moved")["version"]
    return version
