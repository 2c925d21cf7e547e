"""Runs that wait for events, in a served AIOS that is killed in between."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.drill.kept import Kept, patiently

TALK = """apiVersion: aios/v1
kind: Workflow
metadata: {name: talk}
spec:
  inputs: {type: object, properties: {thread: {type: string}}, required: [thread]}
  steps:
    - {name: first, wait: {event: mail.replied, match: "event.data.thread == inputs.thread"}}
    - {name: second, wait: {event: mail.replied, match: "event.data.thread == inputs.thread"}}
  outputs: {first: "${steps.first.event.id}", second: "${steps.second.event.data.words}"}
"""


def waits_at(kept: Kept, run: str, step: str) -> Any:
    """The run once the step waits."""
    for _ in patiently():
        said = kept.aios("run", "show", run)
        if any(item["step"] == step and item["state"] == "waiting" for item in said["steps"]):
            return said
    raise AssertionError(f"{step} does not wait: {said}")


@pytest.mark.feature("D1", "D3", "B1")
def test_an_event_that_was_accepted_reaches_its_run_once_although_everything_is_killed(
    tmp_path: Path,
) -> None:
    resources = tmp_path / "resources"
    resources.mkdir()
    (resources / "talk.yaml").write_text(TALK)
    with Kept(
        tmp_path / "data", ["--resources", str(resources)], environment={}, marker=tmp_path / "crashed"
    ) as kept:

        def start(thread: str, *more: str) -> Any:
            given = json.dumps({"thread": thread})
            return kept.aios("run", "start", "talk", "--input-json", given, "--request-id", thread, *more)

        def publish(name: str, thread: str, words: str = "") -> Any:
            data = json.dumps({"thread": thread, "words": words})
            return kept.aios("event", "publish", "mail.replied", "--id", name, "--data", data)

        run, other = start("a")["run_id"], start("b")["run_id"]
        waits_at(kept, run, "first")
        kept.kill()
        publish("e1", "a")
        kept.kill()
        waits_at(kept, run, "second")
        publish("e1", "a")
        publish("e2", "a", "yes")
        kept.kill()
        ended = start("a", "--wait")
        assert (ended["run_id"], ended["state"]) == (run, "succeeded")
        assert ended["outputs"] == {"first": "e1", "second": "yes"}
        waits_at(kept, other, "first")
