"""What the workflow language can say, run by a served AIOS through the command line, killed in the middle."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.drill.kept import Kept, patiently

NOTES = """apiVersion: aios/v1
kind: Workflow
metadata: {name: all-notes}
spec:
  inputs: {type: object, properties: {names: {type: array, items: {type: string}}}, required: [names]}
  steps:
    - name: each
      map:
        over: "${inputs.names}"
        at_once: 3
        on_failure: collect
        steps:
          - {name: hello, agent: echo, input: {text: "hello ${item}"}}
          - {name: note, workflow: one-note, input: {name: "${item}", text: "${steps.hello.text}"}}
    - name: count
      repeat:
        limit: 5
        until: "index == 2"
        steps: [{name: turn, agent: echo, input: {n: "${index}", before: "${previous}"}}]
  outputs: {notes: "${steps.each.results}", errors: "${steps.each.errors}", turns: "${steps.count.turns}"}
"""
NOTE = """apiVersion: aios/v1
kind: Workflow
metadata: {name: one-note}
spec:
  inputs: {type: object, properties: {name: {type: string}, text: {type: string}}, required: [name, text]}
  steps:
    - {name: ok, gate: {title: "Note for ${inputs.name}", approves: [put]}}
    - name: put
      connector: files.append_line
      effect: write
      input: {path: "${inputs.name}.jsonl", entry: {text: "${inputs.text}"}}
  outputs: {path: "${inputs.name}.jsonl"}
"""


def shown(kept: Kept, run: str, open_approvals: int) -> Any:
    """The run once so many approvals are open."""
    for _ in patiently():
        said = kept.aios("run", "show", run)
        if len(said["pending_approvals"]) == open_approvals:
            return said
    raise AssertionError(f"there are not {open_approvals} approvals: {said}")


@pytest.mark.feature("B1", "D1", "D6", "I4")
def test_a_map_of_a_sub_workflow_is_killed_and_goes_on_and_is_undone(tmp_path: Path) -> None:
    """The folder's files use each other in the wrong order; one note is rejected, the others are written once."""
    files, resources = tmp_path / "files", tmp_path / "resources"
    files.mkdir()
    resources.mkdir()
    (resources / "a.yaml").write_text(NOTES)
    (resources / "b.yaml").write_text(NOTE)
    arguments = ["--files-root", str(files), "--resources", str(resources)]
    with Kept(tmp_path / "data", arguments, environment={}, marker=tmp_path / "crashed") as kept:
        names = json.dumps({"names": ["ann", "bob", "cy", "dan"]})
        started = kept.aios("run", "start", "all-notes", "--input-json", names, "--request-id", "notes")
        run = str(started["run_id"])
        first = shown(kept, run, 3)["pending_approvals"]
        titles = {kept.aios("approval", "show", approval)["title"]: approval for approval in first}
        assert set(titles) == {"Note for ann", "Note for bob", "Note for cy"}
        kept.kill()
        kept.aios("approval", "approve", titles["Note for ann"], "--request-id", "1")
        kept.aios("approval", "reject", titles["Note for bob"], "--request-id", "2", "--note", "not he")
        kept.kill()
        kept.aios("approval", "approve", titles["Note for cy"], "--request-id", "3")
        (last,) = shown(kept, run, 1)["pending_approvals"]
        kept.aios("approval", "approve", last, "--request-id", "4")
        ended = kept.aios(
            "run", "start", "all-notes", "--input-json", names, "--request-id", "notes", "--wait"
        )
        assert (ended["run_id"], ended["state"]) == (run, "succeeded")
        notes, errors = ended["outputs"]["notes"], ended["outputs"]["errors"]
        assert [note and note["path"] for note in notes] == ["ann.jsonl", None, "cy.jsonl", "dan.jsonl"]
        assert [error["code"] for error in errors] == ["REJECTED"] and ended["outputs"]["turns"] == 3
        assert sorted(path.name for path in files.iterdir()) == ["ann.jsonl", "cy.jsonl", "dan.jsonl"]
        assert all(len(path.read_text().splitlines()) == 1 for path in files.iterdir())
        states = {step["step"]: step["state"] for step in ended["steps"]}
        assert "each[1].note.put" not in states and states["each[3].note.put"] == "succeeded"
        kept.aios("run", "undo", run, "--request-id", "back", "--wait")
        assert not list(files.glob("*.jsonl"))
