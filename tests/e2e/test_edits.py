"""What a person makes of a proposal is checked at once by whoever would carry it out; what is wrong changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.served import Server

pytestmark = pytest.mark.feature("I6")

DOCUMENTS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: edits}
spec:
  inputs: {type: object, properties: {key: {type: string}}, required: [key]}
  steps:
    - name: approve
      gate: {title: "Do it", approves: [line, keep, compute, gone]}
    - name: line
      connector: files.append_line
      effect: write
      input: {path: "edits/${inputs.key}.jsonl", entry: {text: "Hello"}}
    - name: keep
      memory: write
      input: {writes: [{kind: fact, key: "edits/${inputs.key}", expect: any, value: {a: 1}}]}
    - name: compute
      agent: monthly-report-compute
      input: {client: acme, month: "2026-07", files: [], facts: [], history: []}
    - {name: gone, connector: nowhere.send, effect: write, input: {to: ada}}
"""


def waiting(server: Server, place: Path, key: str) -> str:
    file = place / "edits.yaml"
    file.write_text(DOCUMENTS)
    assert server.aios("apply", str(file)).code == 0
    run = server.aios("run", "start", "edits", "--input", f"key={key}", "--wait", "--json").json
    (approval,) = run["pending_approvals"]
    return str(approval)


def edit(server: Server, approval: str, step: str, pair: str) -> Any:
    return server.aios("approval", "edit", approval, "--step", step, "--set", pair, "--json").json


@pytest.mark.parametrize(
    ("step", "pair", "code", "field", "words"),
    [
        ("line", "path=[1]", "INVALID_ARGUMENT", "arguments.path", "Input should be a valid string"),
        ("line", "path=../secret", "PATH_OUTSIDE_ROOT", "arguments.path", ".."),
        ("keep", "writes.0.expect=never", "INVALID_ARGUMENT", "arguments.writes[0].expect", "expect"),
        ("keep", "writes.0.kind=7", "INVALID_ARGUMENT", "arguments.writes[0].kind", "kind"),
        ("compute", "client=7", "INVALID_ARGUMENT", "arguments.client", "is not of type"),
        ("compute", 'files=[{"name": "a"}]', "INVALID_ARGUMENT", "arguments.files.0", "is missing"),
    ],
)
def test_what_would_not_be_taken_is_told_at_once_and_nothing_is_changed(
    server: Server, tmp_path: Path, step: str, pair: str, code: str, field: str, words: str
) -> None:
    approval = waiting(server, tmp_path, "wrong")
    before = server.json("approval", "show", approval)
    error = edit(server, approval, step, pair)["error"]
    assert (error["code"], error["details"]["field"]) == (code, field)
    assert words in error["message"] and "Nothing was changed: correct it" in error["message"]
    assert server.json("approval", "show", approval) == before


def test_what_is_taken_is_edited_and_what_nobody_can_check_says_so(server: Server, tmp_path: Path) -> None:
    approval = waiting(server, tmp_path, "right")
    new = edit(server, approval, "line", "entry.text=Good day")
    assert new["edited_from"] == approval and new["unchecked"] is None
    alone = edit(server, new["approval_id"], "gone", "to=bo")
    assert alone["edited_from"] == new["approval_id"]
    assert "connector-nowhere does not answer" in alone["unchecked"]
    said = server.aios("approval", "edit", alone["approval_id"], "--step", "gone", "--set", "to=cy").out
    assert "could not be asked: connector-nowhere does not answer" in said


@pytest.mark.feature("I4")
def test_what_it_would_change_is_shown_before_it_is_decided(server: Server, tmp_path: Path) -> None:
    approval = waiting(server, tmp_path, "shown")
    told = {item["step"]: item for item in server.json("approval", "show", approval)["proposed"]}
    (line,), (fact,) = told["line"]["changes"], told["keep"]["changes"]
    assert (line["resource"], line["verb"]) == ("file:edits/shown.jsonl", "create")
    assert fact["verb"] == "create" and "edits/shown" in fact["resource"]
    assert "connector-nowhere does not answer" in told["gone"]["no_preview"]
    assert not (server.files / "edits" / "shown.jsonl").exists()
    page = server.aios("approval", "show", approval).out
    assert "create file:edits/shown.jsonl" in page and "gone: no preview: connector-nowhere" in page
