"""`aios run fork` and `aios run diff` against a served AIOS: nothing is written, nothing is repeated."""

from pathlib import Path

import pytest

from tests.served import Server

WORKFLOW = """apiVersion: aios/v1
kind: Workflow
metadata: {name: note-down}
spec:
  inputs: {type: object, properties: {name: {type: string}}, required: [name]}
  steps:
    - {name: words, agent: echo, input: {text: "hello ${inputs.name}"}}
    - {name: ok, gate: {title: "Note for ${inputs.name}", approves: [put]}}
    - name: put
      connector: files.append_line
      effect: write
      input: {path: "forks/${inputs.name}.jsonl", entry: {text: "${steps.words.text}"}}
    - {name: told, agent: echo, input: {text: "noted: ${steps.words.text}"}}
  outputs: {told: "${steps.told.text}"}
"""


@pytest.fixture(scope="module")
def finished(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that has written its note."""
    document = tmp_path_factory.mktemp("forks") / "note-down.yaml"
    document.write_text(WORKFLOW)
    server.json("apply", str(document))
    run: str = server.json("run", "start", "note-down", "--input", "name=ann", "--wait")["run_id"]
    server.json("approval", "approve", server.json("run", "show", run)["pending_approvals"][0])
    assert server.aios("run", "watch", run).code == 0
    return run


def note(server: Server) -> Path:
    return server.files / "forks" / "ann.jsonl"


@pytest.mark.feature("D9")
def test_a_fork_takes_over_what_was_done_changes_a_step_and_writes_nothing(
    server: Server, finished: str
) -> None:
    before = note(server).read_text()
    said = server.json(
        "run", "fork", finished, "--from", "put", "--step-input", 'told={"text": "something else"}'
    )
    assert said["state"] == "succeeded"
    assert said["mode"] == "simulate"
    assert (said["forked_from"], said["fork_step"]) == (finished, "put")
    assert [change["resource"] for change in said["predicted"]] == ["file:forks/ann.jsonl"]
    assert note(server).read_text() == before
    steps = {step["step"]: step for step in said["diff"]["steps"]}
    assert steps["words"]["other"]["reused"]
    assert steps["ok"]["other"]["reused"]
    assert not steps["told"]["same_output"]
    assert steps["told"]["one"]["output"] == {"text": "noted: hello ann"}
    assert steps["told"]["other"]["output"] == {"text": "something else"}
    again = server.json("run", "diff", finished, said["run_id"])
    assert again == said["diff"]


@pytest.mark.feature("D9")
def test_a_person_reads_both_runs_side_by_side(server: Server, finished: str) -> None:
    said = server.aios("run", "fork", finished, "--step-input", 'words={"text": "good evening"}')
    assert said.code == 0, said.err
    assert "taken over" not in said.out, "all others need the step that was changed"
    assert '- "text": "noted: hello ann"' in said.out.replace("-  ", "- ")
    assert '+ "text": "noted: good evening"' in said.out.replace("+  ", "+ ")


@pytest.mark.feature("D9")
def test_the_same_fork_again_is_the_same_run(server: Server, finished: str) -> None:
    first = server.json("run", "fork", finished, "--from", "told", "--request-id", "fork-once")
    again = server.json("run", "fork", finished, "--from", "told", "--request-id", "fork-once")
    assert again["duplicate"]
    assert again["run_id"] == first["run_id"]
    other = server.json("run", "fork", finished, "--from", "put", "--request-id", "fork-once")
    assert other["error"]["code"] == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "pit"), "did you mean 'put'"),
        (("--agent", "put=echo"), "no agent's step"),
        (("--from", "put", "--input", "name=bob"), "leave out the step"),
        (("--workflow-version", "0" * 16), "version"),
        (("--model", "words"), "STEP="),
    ],
)
@pytest.mark.feature("D9")
def test_what_can_not_be_forked_is_refused_in_words(
    server: Server, finished: str, arguments: tuple[str, ...], says: str
) -> None:
    said = server.aios("run", "fork", finished, *arguments)
    assert said.code != 0
    assert says.lower() in said.err.lower()
    assert "Traceback" not in said.err


@pytest.mark.feature("D9")
def test_a_model_that_is_not_there_fails_the_step_of_the_fork_alone(server: Server, finished: str) -> None:
    said = server.json("run", "fork", finished, "--agent", "told=no-such-agent")
    assert said["state"] == "failed"
    assert said["error"]["code"] == "NOT_FOUND"
    assert server.json("run", "show", finished)["state"] == "succeeded"
