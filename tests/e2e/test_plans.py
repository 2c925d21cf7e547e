"""Plans over the command line of a served AIOS: drafted, edited, approved, carried out, revised; and after a kill."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.drill.kept import patiently
from tests.drill.served import Served
from tests.e2e.test_it_survives import until_state
from tests.served import Server

WORKFLOW = """apiVersion: aios/v1
kind: Workflow
metadata: {name: year-end}
spec:
  inputs: {type: object, properties: {client: {type: string}}, required: [client]}
  steps:
    - name: work
      plan:
        agent: planner
        goal: "Prepare the year's end for ${inputs.client}"
        input: {client: "${inputs.client}"}
        may: {agents: [echo], actions: {files.append_line: write}}
        steps: 5
  outputs: {said: "${steps.work}"}
"""
WORDS = '- {name: words, agent: echo, input: {text: "Thank you, ${inputs.client}"}}'
STOP = '- {name: stop, ask: {title: "Go on?", questions: [{id: go, text: "Go on?", options: [go, wait]}]}}'
OK = '- {name: ok, gate: {title: "Keep it", approves: [keep]}}'
KEEP = """- name: keep
  connector: files.append_line
  input: {path: "plans/${inputs.client}.jsonl", entry: {text: "${steps.words.text}"}}"""


def plan(*steps: str) -> str:
    return "\n".join(["why: mine", "steps:", *steps, 'outputs: {text: "${steps.words.text}"}']) + "\n"


def started(server: Server, tmp_path: Path, client: str) -> str:
    (tmp_path / "year-end.yaml").write_text(WORKFLOW)
    server.json("apply", str(tmp_path / "year-end.yaml"))
    run: str = server.json("run", "start", "year-end", "--input", f"client={client}", "--wait")["run_id"]
    return run


def open_approval(server: Server, run: str) -> str:
    for _ in patiently():
        found: list[str] = server.json("run", "show", run)["pending_approvals"]
        if found:
            return found[0]
    raise AssertionError(run)


def edited(server: Server, tmp_path: Path, run: str, text: str) -> Any:
    (tmp_path / "mine.yaml").write_text(text)
    return server.json("plan", "edit", run, "--file", str(tmp_path / "mine.yaml"))


@pytest.mark.feature("C3")
def test_a_plan_is_drafted_edited_approved_revised_and_carried_out(server: Server, tmp_path: Path) -> None:
    run = started(server, tmp_path, "ann")
    shown = server.aios("approval", "show", open_approval(server, run))
    assert "follow plan" in shown.out and "agent: echo" in shown.out
    assert edited(server, tmp_path, run, "steps: [{name: a, agent: root}]")["error"]["code"] == "BAD_PLAN"
    mine = edited(server, tmp_path, run, plan(WORDS, STOP, OK, KEEP))
    assert mine["plan"]["parent"] and "+- name: keep" in mine["plan"]["diff"]
    server.json("approval", "approve", mine["approval_id"])
    assert server.aios("run", "watch", run).code == 3  # the plan's own question
    assert server.aios("plan", "revise", run, "--note", "No question").code == 0
    for _ in patiently():
        if server.json("plan", "list", run)[-1]["state"] == "proposed":
            break
    refused = edited(server, tmp_path, run, plan(WORDS, OK, KEEP))
    assert "stop is not there any more" in refused["error"]["message"]
    other = edited(server, tmp_path, run, plan(WORDS, STOP, OK, KEEP, "- {name: last, transform: 1}"))
    server.json("approval", "approve", other["approval_id"])
    assert server.aios("approval", "answer", open_approval(server, run), "go").code == 0
    for _ in patiently():
        if (waiting := server.json("run", "show", run)["pending_approvals"]) and (
            server.json("approval", "show", waiting[0])["step"] == "work.plan.ok"
        ):
            break
    assert server.aios("approval", "approve", waiting[0], "--wait").code == 0
    assert server.json("run", "show", run)["outputs"] == {"said": {"text": "Thank you, ann"}}
    lines = (server.files / "plans" / "ann.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["Thank you, ann"]
    found = server.json("plan", "list", run)
    assert [item["state"] for item in found] == ["edited", "replaced", "edited", "followed"]
    assert found[3]["parent"] == found[1]["version"] and found[1]["parent"] == found[0]["version"]
    assert "+- name: last" in server.aios("plan", "diff", run).out
    assert "\nwhy: mine" in server.aios("plan", "show", run).out
    assert "follows plan" in server.aios("run", "show", run).out
    assert server.json("run", "undo", run, "--yes", "--wait")["state"] == "undone"
    assert not (server.files / "plans").exists()


@pytest.mark.feature("C3")
def test_without_a_plan_there_is_nothing_to_see_or_to_revise(server: Server) -> None:
    run = server.json("run", "start", "greet", "--input", "name=ann", "--wait")["run_id"]
    assert server.json("plan", "list", run) == []
    assert server.json("plan", "show", run)["error"]["code"] == "NOT_FOUND"
    assert "no plan yet" in server.json("plan", "revise", run)["error"]["message"]
    assert server.json("plan", "revise", "run_" + "x" * 26)["error"]["code"] == "NOT_FOUND"


@pytest.mark.feature("C3", "D2", "D10")
def test_a_planned_run_is_simulated_forked_and_recorded_as_a_test(server: Server, tmp_path: Path) -> None:
    run = started(server, tmp_path, "cy")
    mine = edited(server, tmp_path, run, plan(WORDS))
    assert server.aios("approval", "approve", mine["approval_id"], "--wait").code == 0
    rec = tmp_path / "rec"
    assert server.aios("workflow", "record", run, "-o", str(rec)).code == 0
    told = server.aios("workflow", "test", str(rec / "year-end.tests.yaml"))
    assert told.code == 0, told.out + told.err
    assert "name: words" in (rec / "year-end.tests.yaml").read_text()
    fork = server.json("run", "fork", run, "--from", "work")
    assert fork["state"] == "succeeded" and fork["mode"] == "simulate"
    simulated = server.json("run", "simulate", "year-end", "--input", "client=cy")
    assert simulated["outputs"]["said"]["result"]["inputs"] == {"client": "cy"}
    assert server.json("plan", "list", simulated["run_id"])[0]["state"] == "followed"
    assert server.aios("run", "simulate", "year-end", "--input", "client=cy", "--all-branches").code == 0


@pytest.mark.feature("C3", "D3")
def test_a_plan_that_is_followed_is_there_after_a_kill(tmp_path: Path) -> None:
    """The server dies with the plan adopted and its question open; the one that is started again goes on by it."""
    with Served(tmp_path, "") as served:
        (tmp_path / "year-end.yaml").write_text(WORKFLOW)
        served.aios("apply", str(tmp_path / "year-end.yaml"))
        run = str(served.aios("run", "start", "year-end", "--input", "client=bo", "--wait")["run_id"])
        (tmp_path / "mine.yaml").write_text(plan(WORDS, STOP))
        new = served.aios("plan", "edit", run, "--file", str(tmp_path / "mine.yaml"))
        served.aios("approval", "approve", new["approval_id"])
        asked = until_asked(served, run, "work.plan.stop")
        served.kill()
        assert [item["state"] for item in served.aios("plan", "list", run)] == ["edited", "followed"]
        command = [sys.executable, "-m", "aios_cli", "--data-dir", str(served.data)]
        subprocess.run([*command, "approval", "answer", asked, "go"], check=True, capture_output=True)
        shown = until_state(served, run, "succeeded", "failed")
        assert shown["outputs"] == {"said": {"text": "Thank you, bo"}}, shown


def until_asked(served: Served, run: str, step: str) -> str:
    for _ in patiently():
        for name in served.aios("run", "show", run)["pending_approvals"]:
            if served.aios("approval", "show", name)["step"] == step:
                return str(name)
    raise AssertionError(step)
