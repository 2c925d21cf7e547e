"""Deadlines and service levels as a person and a script see them."""

from pathlib import Path

import pytest

from tests.served import Server

DOCUMENT = """apiVersion: aios/v1
kind: Workflow
metadata: {name: hurried}
spec:
  service_level: 100ms
  steps:
    - name: ok
      deadline: 400ms
      gate: {title: "Hurry"}
"""


@pytest.mark.feature("B4")
def test_a_run_that_is_late_and_misses_its_deadline_says_so_everywhere(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "hurried.yaml").write_text(DOCUMENT)
    assert server.aios("apply", str(tmp_path / "hurried.yaml")).code == 0
    started = server.json("run", "start", "hurried", "--request-id", "hurried")
    server.aios("run", "start", "greet", "-i", "name=Hurry", "--wait")
    ended = ended_run(server, started["run_id"])
    assert (ended["state"], ended["error"]["code"]) == ("failed", "DEADLINE_EXCEEDED")
    assert ended["late_time"] and ended["service_level"]
    (step,) = ended["steps"]
    assert step["overdue"] and step["deadline"]
    told = [line["what"] for line in ended["timeline"]]
    assert "is late with the run" in told and "saw the deadline of ok pass" in told
    late = server.json("run", "list", "--late")
    assert {run["workflow"] for run in late} == {"hurried"}
    assert "late" in server.aios("run", "list", "--late", "--workflow", "hurried").out
    assert server.json("run", "list", "--late", "--workflow", "greet") == []
    assert "late" in server.aios("run", "show", started["run_id"]).out


CACHED = """apiVersion: aios/v1
kind: Workflow
metadata: {name: thrifty}
spec:
  inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
  steps:
    - {name: say, agent: echo, cache: 1h, input: {n: "${inputs.n}"}}
    - {name: look, memory: read, cache: 1h, input: {reads: [{name: all, kind: fact, prefix: "none/"}]}}
  outputs: {n: "${steps.say.n}"}
"""


@pytest.mark.feature("D2")
def test_an_answer_is_given_again_and_its_story_says_from_where(server: Server, tmp_path: Path) -> None:
    (tmp_path / "thrifty.yaml").write_text(CACHED)
    assert server.aios("apply", str(tmp_path / "thrifty.yaml")).code == 0
    first = server.json("run", "start", "thrifty", "-i", "n=4", "--wait")
    assert (first["state"], [step["cached_from"] for step in first["steps"]]) == ("succeeded", [None, None])
    again = server.json("run", "start", "thrifty", "-i", "n=4", "--wait")
    assert again["outputs"] == {"n": 4}
    assert [step["cached_from"] for step in again["steps"]] == [first["run_id"]] * 2
    assert (
        f"the answer of run {first['run_id'][-6:]} again" in server.aios("run", "show", again["run_id"]).out
    )
    other = server.json("run", "start", "thrifty", "-i", "n=5", "--wait")
    assert other["steps"][0]["cached_from"] is None


def ended_run(server: Server, run_id: str) -> dict[str, object]:
    """The run once it has ended: it waits for nobody who could say when."""
    server.aios("run", "watch", run_id)
    while True:
        run: dict[str, object] = server.json("run", "show", run_id)
        if run["state"] != "running":
            return run
