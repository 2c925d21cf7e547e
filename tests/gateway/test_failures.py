"""What failed is listed, explained and dealt with, over the command line and the API of a served AIOS."""

import json
from collections.abc import Iterator
from typing import Any

import grpc.aio
import pytest

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Recovery
from tests.gateway.serving import reason
from tests.served import Server

FAILS = """apiVersion: aios/v1
kind: Workflow
metadata: {name: needs-folder}
spec:
  inputs: {type: object, properties: {client: {type: string}}, required: [client]}
  steps:
    - {name: first, agent: echo, input: {n: 1}}
    - {name: read, connector: files.read_folder, input: {client: "${inputs.client}", month: 2026-01}}
  outputs: {first: "${steps.first.n}"}
"""


@pytest.fixture(scope="module", autouse=True)
def applied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file = tmp_path_factory.mktemp("failing") / "fails.yaml"
    file.write_text(FAILS)
    assert server.aios("apply", str(file)).code == 0
    yield
    for item in server.json("failure", "list"):
        server.json("failure", "undo", item["run_id"])


def failed(server: Server, client: str, number: int = 0) -> str:
    said = server.aios(
        "run", "start", "needs-folder", "-i", f"client={client}", "--wait", "--json", "--request-id",
        f"f-{client}-{number}",
    )  # fmt: skip
    assert said.json["state"] == "failed", said.out
    run: str = said.json["run_id"]
    return run


def of(server: Server, run: str) -> Any:
    (found,) = [item for item in server.json("failure", "list") if item["run_id"] == run]
    return found


@pytest.mark.feature("J2", "K2")
def test_what_failed_shows_at_once_until_somebody_deals_with_it(server: Server) -> None:
    run = failed(server, "shown")
    shown = of(server, run)
    assert (shown["workflow"], shown["step"], shown["target"]) == (
        "needs-folder",
        "read",
        "files.read_folder",
    )
    assert shown["class"] == "data" and "shown/2026-01" in shown["message"]
    assert run in [item["run_id"] for item in server.json("--json")["failures"]]
    alone = server.aios().out
    assert "Failed" in alone and "Nothing needs you" not in alone and run[-6:] in alone
    assert f"aios failure show {run[-6:]}" in server.aios("run", "watch", run).out
    closed = server.json("failure", "undo", run)
    assert closed["state"] in ("undoing", "undone")
    assert run not in [item["run_id"] for item in server.json("failure", "list")]
    assert run not in [item["run_id"] for item in server.json("--json")["failures"]]


@pytest.mark.feature("J1", "J2", "D8")
def test_all_failures_of_one_cause_are_shown_together_and_retried_together(server: Server) -> None:
    runs = [failed(server, "many", number) for number in range(3)]
    cause = of(server, runs[0])["cause"]
    shown = server.json("failure", "show", runs[0])
    assert set(runs) <= set(shown["blast_radius"]["runs"])
    remedies = {item["action"]: item for item in shown["remedies"]}
    assert {"retry", "skip", "edit", "rewind", "undo"} == set(remedies)
    assert remedies["retry"]["again"] == ["read"] and remedies["rewind"]["again"] == ["first", "read"]
    assert [item["suggested"] for item in shown["remedies"]].count(True) == 1
    words = server.aios("failure", "show", runs[0]).out
    assert "What you can do" in words and "--all-of" in words
    others = [item["run_id"] for item in server.json("failure", "list", "--cause", cause)]
    before = len(server.json("run", "show", runs[0])["timeline"])
    previews = server.json("failure", "retry", "--all-of", cause, "--dry-run")
    assert {item["run_id"] for item in previews} == set(others)
    assert all(item["again"] == ["read"] for item in previews if item["run_id"] in runs)
    assert len(server.json("run", "show", runs[0])["timeline"]) == before, "a dry run does nothing"
    asked = server.aios("failure", "retry", "--all-of", cause, "--json")
    assert asked.code == 2 and "--yes" in asked.out, "nobody can be asked here"
    server.month("many", "2026-01")
    done = server.json("failure", "retry", "--all-of", cause, "--yes")
    assert {item["run_id"] for item in done} == set(others)
    for run in runs:
        said = server.aios("run", "watch", run, "--json")
        assert server.json("run", "show", run)["state"] == "succeeded", said.out
    story = [line["what"] for line in server.json("run", "show", runs[0])["timeline"]]
    assert "had read tried again" in story


@pytest.mark.feature("J2", "D8")
def test_one_is_skipped_edited_or_rewound_and_finished_steps_are_not_repeated(
    server: Server,
) -> None:
    server.month("there", "2026-01")
    skipped, edited, rewound = (failed(server, "absent", number) for number in range(3))
    assert server.json("failure", "skip", skipped, "--why", "not needed", "--wait")["state"] == "succeeded"
    done = server.json("run", "show", edited)["steps"][0]
    said = server.json("failure", "edit", edited, "-i", "client=there", "--wait")
    assert said["state"] == "succeeded"
    assert server.json("run", "show", edited)["steps"][0] == done
    again = server.aios(
        "run", "rewind", rewound, "--to", "first", "--input-json", '{"n": 7}', "--dry-run", "--json"
    )
    assert again.json["again"] == ["first", "read"]
    server.month("absent", "2026-01")
    said = server.json("run", "rewind", rewound, "--to", "first", "--input-json", '{"n": 7}', "--wait")
    assert said["state"] == "succeeded" and said["outputs"] == {"first": 7}
    story = [line["what"] for line in server.json("run", "show", rewound)["timeline"]]
    assert "went back to first" in story and "gave first another input" in story


@pytest.mark.feature("J2", "D8")
@pytest.mark.parametrize("way", ["edit", "rewind"])
def test_an_input_that_would_not_be_taken_is_told_at_once_and_nothing_goes_on(
    server: Server, way: str
) -> None:
    run = failed(server, f"checked-{way}")
    to = ["--to", "read"] if way == "rewind" else []
    wrong = ["failure", way, run, *to, "--input-json", '{"client": 7, "month": "2026-01"}']
    before = server.json("run", "show", run)
    for more in ([], ["--dry-run"]):
        error = server.aios(*wrong, *more, "--json").json["error"]
        assert (error["code"], error["details"]["field"]) == ("INVALID_ARGUMENT", "value.client")
        assert "Nothing was changed: correct it, and give it again" in error["message"]
    assert server.json("run", "show", run) == before
    server.month(f"right-{way}", "2026-01")
    given = json.dumps({"client": f"right-{way}", "month": "2026-01"})
    right = ["failure", way, run, *to, "--input-json", given]
    said = server.aios(*right, "--request-id", f"right-{way}", "--json").json
    assert said["unchecked"] is None
    server.json("run", "wait", run)
    again = server.aios(*right, "--request-id", f"right-{way}", "--json")
    assert again.code == 0, "the same request has its answer, whatever the run does by now"


@pytest.mark.feature("B2", "J2")
async def test_a_recovery_is_safe_to_repeat_and_refused_in_words(server: Server) -> None:
    run = failed(server, "again")
    server.month("again", "2026-01")
    async with server.client() as api:
        request = api_pb2.RecoverRunRequest(
            request_id="mend-1", run_id=run, recovery=Recovery.RECOVERY_RETRY, why="there now"
        )
        await api.call(api.failures.RecoverRun, request)
        await api.call(api.failures.RecoverRun, request)
        request.why = "another"
        with pytest.raises(grpc.aio.AioRpcError) as reused:
            await api.call(api.failures.RecoverRun, request)
        assert reason(reused.value)[0] == "REQUEST_ID_REUSED"
        await api.ended(run)
        request.request_id = "mend-2"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.call(api.failures.RecoverRun, request)
        assert reason(refused.value)[0] == "NOT_FAILED"
        with pytest.raises(grpc.aio.AioRpcError) as nothing:
            await api.call(api.failures.GetFailure, api_pb2.GetFailureRequest(run_id=run))
        assert reason(nothing.value)[0] == "NOT_FAILED"
