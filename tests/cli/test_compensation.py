"""A change that is made good by what its document names: through a real connector, whose operator demands approvals."""

import json
from pathlib import Path

import pytest

from tests.served import Server

DOCUMENT = """apiVersion: aios/v1
kind: Workflow
metadata: {name: announce}
spec:
  on_failure: undo
  inputs: {type: object, properties: {fails: {type: boolean}, place: {type: string}}, required: [fails, place]}
  steps:
    - {name: ok, gate: {title: Announce it, approves: [note]}}
    - name: note
      connector: files.append_line
      effect: write
      input: {path: "${inputs.place}/says.jsonl", entry: {text: "It begins"}}
      compensate:
        connector: files.append_line
        input: {path: "${inputs.place}/says.jsonl", entry: {text: "It was called off", after: "${steps.note.size}"}}
    - {name: never, agent: echo, when: inputs.fails, deadline: "2001-01-01T00:00:00Z"}
"""


def ran(server: Server, tmp_path: Path, place: str, fails: str) -> str:
    """A run that was approved and has ended; its id."""
    (tmp_path / "announce.yaml").write_text(DOCUMENT)
    assert server.aios("apply", str(tmp_path / "announce.yaml")).code == 0
    pairs = ("-i", f"place={place}", "-i", f"fails={fails}")
    run = server.json("run", "start", "announce", *pairs, "--wait")
    server.aios("approval", "approve", run["pending_approvals"][0])
    server.aios("run", "watch", run["run_id"])
    return str(run["run_id"])


def says(server: Server, place: str) -> list[str]:
    lines = (server.files / place / "says.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.feature("D2", "D6")
def test_a_person_who_undoes_a_run_has_it_made_good_once(server: Server, tmp_path: Path) -> None:
    run = ran(server, tmp_path, "called-off", "false")
    undone = server.json("run", "undo", run)
    assert undone["state"] == "undone"
    assert says(server, "called-off") == ["It begins", "It was called off"]
    server.aios("run", "undo", run)
    assert len(says(server, "called-off")) == 2


@pytest.mark.feature("D2", "D6", "I4")
def test_an_undo_that_began_by_itself_leaves_what_needs_consent_to_a_person(
    server: Server, tmp_path: Path
) -> None:
    run = ran(server, tmp_path, "failed", "true")
    left = server.json("run", "show", run)
    assert left["state"] == "undo_incomplete" and left["error"]["code"] == "DEADLINE_EXCEEDED"
    (note,) = [step for step in left["steps"] if step["step"] == "note"]
    assert note["error"]["code"] == "APPROVAL_REQUIRED"
    assert says(server, "failed") == ["It begins"]
    assert server.json("run", "undo", run)["state"] == "undone"
    assert says(server, "failed") == ["It begins", "It was called off"]


@pytest.mark.feature("D6")
def test_the_preview_names_what_makes_it_good_and_a_recorded_run_expects_it(
    server: Server, tmp_path: Path
) -> None:
    run = ran(server, tmp_path, "previewed", "true")
    (item,) = server.json("run", "undo", run, "--preview")["items"]
    text = {"text": "It was called off", "after": item["instead_input"]["entry"]["after"]}
    assert item["instead"] == "files.append_line" and item["instead_input"]["entry"] == text
    assert "files.append_line makes it good" in server.aios("run", "undo", run, "--preview").out
    written = server.json("workflow", "record", run, "-o", str(tmp_path / "kept"))["written"]
    (told,) = server.json("workflow", "test", written[1])["tests"]
    assert (told["passed"], told["state"]) == (True, "failed"), told["problems"]
    assert [(one["step"], one["instead"]) for one in told["undo"]] == [("note", "files.append_line")]
    assert "1. note: by files.append_line" in server.aios("workflow", "test", written[1]).out
    document = Path(written[0])
    document.write_text(document.read_text().replace("It was called off", "Never mind"))
    said = server.aios("workflow", "test", written[1])
    assert said.code == 1 and "compensated.note.entry.text: expected" in said.out
