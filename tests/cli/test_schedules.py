"""`aios schedule …` against a served AIOS."""

from datetime import datetime
from pathlib import Path

import pytest

from tests.drill.kept import Kept, patiently
from tests.served import Server, run

DOCUMENTS = """apiVersion: aios/v1
kind: Workflow
metadata: {name: note-time}
spec:
  inputs: {type: object, properties: {at: {type: string}}, required: [at]}
  steps: [{name: said, agent: echo, input: {at: "${inputs.at}"}}]
  outputs: {at: "${steps.said.at}"}
---
apiVersion: aios/v1
kind: Schedule
metadata: {name: %s, title: The month}
spec:
  %s
  timezone: Europe/Berlin
  workflow: note-time
  input: {at: "${event.time}"}
"""


@pytest.mark.feature("D1")
def test_a_schedule_is_listed_paused_resumed_and_run_now(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "month.yaml"
    file.write_text(DOCUMENTS % ("the-month", 'cron: "0 9 1 * *"'))
    applied = server.json("apply", str(file))["applied"]
    assert [(item["kind"], item["change"]) for item in applied] == [
        ("Workflow", "created"),
        ("Schedule", "created"),
    ]
    for _ in patiently():
        shown = server.json("schedule", "show", "the-month", "--times", "3")
        if shown["next_times"]:
            break
    assert [datetime.fromisoformat(time).day for time in shown["next_times"]] == [1, 1, 1]
    assert (shown["when"], shown["timezone"], shown["missed"]) == ("0 9 1 * *", "Europe/Berlin", "run-once")
    assert "the-month" in server.aios("schedule", "list").out
    assert "09:00:00 CE" in server.aios("schedule", "show", "the-month").out

    paused = server.json("schedule", "pause", "the-month")
    assert (paused["paused"], paused["next_times"]) == (True, [])
    assert "paused" in server.aios("schedule", "list").out
    resumed = server.json("schedule", "resume", "the-month")
    assert (resumed["paused"], len(resumed["next_times"])) == (False, 1)

    first = server.json("schedule", "run-now", "the-month", "--request-id", "once")
    again = server.json("schedule", "run-now", "the-month", "--request-id", "once")
    assert (first["duplicate"], again) == (False, {"run_id": first["run_id"], "duplicate": True})
    assert "finished" in server.aios("run", "watch", first["run_id"]).out
    shown = server.json("run", "show", first["run_id"])
    assert shown["outputs"]["at"].endswith(("+01:00", "+02:00"))
    said = server.aios("run", "show", first["run_id"]).out
    assert "an event" not in said
    assert "schedule the-month" in said


def test_a_schedule_that_there_is_not_is_told_with_the_nearest(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "week.yaml"
    file.write_text(DOCUMENTS % ("the-week", 'cron: "0 9 * * MON"'))
    server.json("apply", str(file))
    said = server.aios("schedule", "show", "the-weak")
    assert said.code != 0
    assert "Did you mean 'the-week'?" in said.err
    bad = tmp_path / "bad.yaml"
    bad.write_text(DOCUMENTS % ("bad", 'cron: "99 9 * * *"'))
    refused = server.aios("apply", str(bad))
    assert refused.code != 0
    assert "not a cron expression" in refused.err


def test_a_schedule_is_checked_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "month.yaml"
    file.write_text(DOCUMENTS % ("month", 'cron: "0 9 1 * *"'))
    assert run("workflow", "lint", str(file)).code == 0
    file.write_text(DOCUMENTS % ("month", 'cron: "0 25 1 * *"'))
    refused = run("workflow", "lint", str(file))
    assert refused.code != 0
    assert "spec.cron" in refused.out + refused.err


@pytest.mark.feature("D1", "D3")
def test_a_time_is_run_once_although_the_server_is_killed_around_it(tmp_path: Path) -> None:
    resources = tmp_path / "resources"
    resources.mkdir()
    (resources / "often.yaml").write_text(DOCUMENTS % ("often", "every: 10s"))
    with Kept(
        tmp_path / "data", ["--resources", str(resources)], environment={}, marker=tmp_path / "crashed"
    ) as kept:

        def runs() -> list[str]:
            found = kept.aios("run", "list", "--workflow", "note-time", "--limit", "50")
            return [str(item["run_id"]) for item in found]

        for wanted in (1, 2):
            for _ in patiently():
                if len(runs()) >= wanted:
                    break
            kept.kill()
        times = [kept.aios("run", "show", run)["input"]["at"] for run in runs()]
        assert len(times) >= 2
        assert len(set(times)) == len(times)
        assert all(int(time[17:19]) % 10 == 0 for time in times)
