"""A run is written down as a test of its workflow, which then passes, and fails when the workflow decides otherwise."""

from pathlib import Path

import pytest

from tests.served import Server

pytestmark = pytest.mark.feature("D1")

WORKFLOW = """apiVersion: aios/v1
kind: Workflow
metadata: {name: noted-child}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps: [{name: twice, transform: "${inputs.n * 2}"}]
  outputs: {n: "${steps.twice}"}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: noted}
spec:
  inputs: {type: object, properties: {n: {type: integer}, client: {type: string}}, required: [n, client]}
  steps:
    - {name: words, agent: echo, input: {text: "For ${inputs.client}"}}
    - {name: which, ask: {title: Which?, questions: [{id: way, text: Which way?, options: [left, right]}]}}
    - {name: each, map: {over: [1, 2], steps: [{name: said, agent: echo, input: {n: "${item}"}}]}}
    - {name: sub, workflow: noted-child, input: {n: "${inputs.n}"}}
    - {name: missing, when: "inputs.n > 5", connector: files.read_folder, input: {client: none, month: 2026-01}}
    - {name: ok, gate: {title: Keep it, approves: [keep]}}
    - name: keep
      connector: files.append_line
      effect: write
      input: {path: "noted/${inputs.client}.jsonl", entry: {way: "${steps.which.answers.way}", n: "${steps.sub.n}"}}
  outputs: {way: "${steps.which.answers.way}", n: "${steps.sub.n}"}
"""


@pytest.fixture(scope="module", autouse=True)
def applied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("noted") / "noted.yaml"
    file.write_text(WORKFLOW)
    assert server.aios("apply", str(file)).code == 0


def ended(server: Server, client: str, n: int) -> str:
    run: str = server.aios(
        "run", "start", "noted", "-i", f"client={client}", "-i", f"n={n}", "--wait", "--json"
    ).json["run_id"]
    (asked,) = [item for item in server.json("approval", "list") if item["run_id"] == run]
    server.json("approval", "answer", asked["approval_id"], "left")
    server.aios("run", "watch", run, "--json")
    for item in server.json("approval", "list"):
        if item["run_id"] == run:
            server.json("approval", "approve", item["approval_id"])
    server.aios("run", "watch", run, "--json")
    return run


def test_a_run_that_succeeded_is_a_test_that_passes(server: Server, tmp_path: Path) -> None:
    run = ended(server, "ada", 3)
    assert server.json("run", "show", run)["state"] == "succeeded"
    written = server.json("workflow", "record", run, "-o", str(tmp_path))["written"]
    assert [Path(name).name for name in written] == ["noted.yaml", "noted.tests.yaml"]
    said = server.json("workflow", "test", written[1])
    assert said["failed"] == 0 and said["tests"][0]["outputs"] == {"way": "left", "n": 6}
    again = server.aios("workflow", "record", run, "-o", str(tmp_path))
    assert again.code == 2 and "--force" in again.err
    document = tmp_path / "noted.yaml"
    document.write_text(document.read_text().replace("inputs.n * 2", "inputs.n * 3"))
    assert server.aios("workflow", "test", written[1]).code == 1, "it decides otherwise now"


def test_a_run_that_failed_is_recorded_with_its_failure(server: Server, tmp_path: Path) -> None:
    run = ended(server, "bo", 7)
    assert server.json("run", "show", run)["state"] == "failed"
    written = server.json("workflow", "record", run, "-o", str(tmp_path))["written"]
    said = server.json("workflow", "test", written[1])
    assert said["failed"] == 0 and said["tests"][0]["state"] == "failed"


def test_a_run_that_was_taken_back_is_not_recorded(server: Server, tmp_path: Path) -> None:
    run = ended(server, "cy", 1)
    server.aios("run", "undo", run, "--yes", "--wait")
    said = server.aios("workflow", "record", run, "-o", str(tmp_path))
    assert said.code != 0 and "undone by somebody" in said.err and not list(tmp_path.iterdir())


def test_a_run_that_was_cancelled_is_not_recorded_and_says_why(server: Server, tmp_path: Path) -> None:
    run: str = server.aios("run", "start", "noted", "-i", "client=di", "-i", "n=1", "--json").json["run_id"]
    said = server.aios("workflow", "record", run, "-o", str(tmp_path))
    assert said.code != 0 and "this one: working." in said.err, said.err
    server.json("run", "cancel", run)
    server.aios("run", "watch", run, "--json")
    said = server.aios("workflow", "record", run, "-o", str(tmp_path))
    assert said.code != 0 and not list(tmp_path.iterdir())
    assert "cancelled by somebody, which a test can't be." in said.err, said.err
