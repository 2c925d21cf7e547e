"""`aios run undo` and `redo` against a served AIOS: previewed, of chosen steps, put back, and what a person changed."""

import json
from pathlib import Path

import pytest

from tests.served import Server

pytestmark = pytest.mark.feature("D6")

WORKFLOW = """apiVersion: aios/v1
kind: Workflow
metadata: {name: three-notes}
spec:
  inputs: {type: object, properties: {name: {type: string}}, required: [name]}
  steps:
    - {name: words, agent: echo, input: {text: "hello ${inputs.name}"}}
    - {name: ok, gate: {title: "Note for ${inputs.name}", approves: [first, second]}}
    - name: first
      connector: files.append_line
      effect: write
      input: {path: "undo/${inputs.name}/first.jsonl", entry: {text: "${steps.words.text}"}}
    - name: second
      connector: files.append_line
      effect: write
      input: {path: "undo/${inputs.name}/second.jsonl", entry: {text: "two"}}
    - {name: sure, gate: {title: "The third", approves: [third]}}
    - name: third
      connector: files.append_line
      effect: write
      input: {path: "undo/${inputs.name}/third.jsonl", entry: {size: "${steps.first.size}"}}
    - name: fact
      memory: write
      input: {writes: [{kind: fact, key: "undo/${inputs.name}", expect: any, value: {n: 1}, note: noted}]}
"""


@pytest.fixture(scope="module")
def applied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    document = tmp_path_factory.mktemp("undo") / "three-notes.yaml"
    document.write_text(WORKFLOW)
    server.json("apply", str(document))
    return server


def finished(server: Server, name: str) -> str:
    """A run of it that has written everything."""
    run: str = server.json("run", "start", "three-notes", "--input", f"name={name}", "--wait")["run_id"]
    for code in (3, 0):
        (waiting,) = server.json("run", "show", run)["pending_approvals"]
        server.json("approval", "approve", waiting)
        assert server.aios("run", "watch", run).code == code
    return run


def tree(server: Server, name: str) -> dict[str, str]:
    folder: Path = server.files / "undo" / name
    return {path.name: path.read_text() for path in sorted(folder.glob("*"))}


def test_a_preview_says_what_would_be_taken_back_and_what_a_person_has_changed(applied: Server) -> None:
    run = finished(applied, "preview")
    made = tree(applied, "preview")
    items = applied.json("run", "undo", run, "--preview")["items"]
    assert [(item["step"], item["verdict"]) for item in items] == [
        ("fact", "will"),
        ("third", "will"),
        ("second", "will"),
        ("first", "will"),
    ]
    second = applied.files / "undo" / "preview" / "second.jsonl"
    second.write_text(second.read_text().replace("two", "2"))
    items = applied.json("run", "undo", run, "--preview")["items"]
    (changed,) = [item for item in items if item["verdict"] == "changed"]
    assert changed["step"] == "second" and "edited" in changed["why"]
    assert changed["changes"][0]["resource"] == "file:undo/preview/second.jsonl"
    said = applied.aios("run", "undo", run, "--preview")
    assert said.code == 0 and "1 change would stay as it is" in said.out and "Nothing was done." in said.out
    assert set(tree(applied, "preview")) == set(made)
    assert applied.json("run", "show", run)["state"] == "succeeded"


def test_a_chosen_step_is_undone_with_what_came_of_it_and_put_back(applied: Server) -> None:
    run = finished(applied, "chosen")
    made = tree(applied, "chosen")
    items = applied.json("run", "undo", run, "--step", "first", "--preview")["items"]
    assert [(item["step"], item["along"]) for item in items] == [("third", True), ("first", False)]
    said = applied.aios("run", "undo", run, "--step", "first", "--yes")
    assert said.code == 0, said.err
    assert "It takes along what came of it: third." in said.err + said.out
    assert set(tree(applied, "chosen")) == {"second.jsonl"}
    assert applied.json("run", "show", run)["state"] == "partly_undone"
    would = applied.json("run", "redo", run, "--preview")["items"]
    assert [(item["step"], item["verdict"]) for item in would] == [("first", "will"), ("third", "will")]
    redone = applied.json("run", "redo", run, "--why", "after all")
    assert redone["state"] == "succeeded"
    story = applied.aios("run", "show", run).out
    for words in ("asked to undo first, and with it what came of it: third", "that part is undone"):
        assert words in " ".join(story.split()), story
    for words in ("asked to put back 2 steps", "after all", "everything is as the run had made it"):
        assert words in " ".join(story.split()), story
    assert tree(applied, "chosen") == made


def test_the_whole_is_undone_put_back_and_undone_again_with_what_memory_knows(applied: Server) -> None:
    run = finished(applied, "whole")
    made = tree(applied, "whole")
    for _ in range(2):
        assert applied.json("run", "undo", run)["state"] == "undone"
        assert tree(applied, "whole") == {}
        assert applied.json("run", "redo", run)["state"] == "succeeded"
        assert tree(applied, "whole") == made
    assert applied.json("run", "undo", run)["state"] == "undone"
    nothing = applied.aios("run", "undo", run, "--step", "first", "--json")
    assert nothing.code == 0, "what is undone stays so"
    again = applied.aios("run", "redo", finished(applied, "stands"))
    assert again.code != 0 and "Nothing of run" in again.err


def test_what_a_person_made_where_it_stood_is_left_alone_by_a_redo(applied: Server) -> None:
    run = finished(applied, "redo")
    applied.json("run", "undo", run, "--step", "third")
    path = applied.files / "undo" / "redo"
    assert set(tree(applied, "redo")) == {"first.jsonl", "second.jsonl"}
    (path / "third.jsonl").mkdir()
    said = applied.aios("run", "redo", run)
    assert "Not put back: third." in said.err + said.out
    assert (path / "third.jsonl").is_dir()
    assert applied.json("run", "show", run)["state"] == "partly_undone"


def test_an_undo_that_left_something_is_listed_as_a_failure(applied: Server) -> None:
    run = finished(applied, "left")
    second = applied.files / "undo" / "left" / "second.jsonl"
    second.write_text(second.read_text().replace("two", "2"))
    assert json.loads(applied.aios("run", "undo", run, "--json").out)["state"] == "undo_incomplete"
    assert run in [item["run_id"] for item in applied.json("failure", "list")]
    shown = applied.json("failure", "show", run)
    assert {item["action"] for item in shown["remedies"]} == {"retry", "skip", "redo"}
    would = applied.json("failure", "retry", run, "--dry-run")
    assert would["again"] == ["second"]
    second.unlink()
    assert applied.aios("failure", "retry", run, "--wait").code == 0
    assert applied.json("run", "show", run)["state"] == "undone"
    assert run not in [item["run_id"] for item in applied.json("failure", "list")]
