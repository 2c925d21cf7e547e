"""`aios run simulate`: every way, what it would change, ask and cost, and what the ledgers say of it."""

from typing import Any

import pytest

from aios_cli import exploring
from tests.served import Server

pytestmark = pytest.mark.feature("D10")

WORKFLOW = """apiVersion: aios/v1
kind: Workflow
metadata: {name: many-ways}
spec:
  inputs:
    type: object
    properties: {name: {type: string}, often: {type: boolean, default: false}}
    required: [name]
  steps:
    - {name: words, agent: echo, budget: "0.05", input: {text: "hello ${inputs.name}"}}
    - name: mood
      branch: {cases: {loud: "steps.words.text.contains('!')"}, otherwise: calm}
    - name: shout
      agent: echo
      when: "steps.mood.case == 'loud'"
      input: {text: "${steps.words.text}"}
    - {name: ok, gate: {title: "Note for ${inputs.name}", approves: [put]}}
    - name: put
      connector: files.append_line
      effect: write
      input: {path: "ways/${inputs.name}.jsonl", entry: {text: "${steps.words.text}"}}
    - name: sure
      when: "steps.mood.case == 'loud'"
      gate: {title: "Louder", approves: [more]}
    - name: more
      when: "steps.mood.case == 'loud'"
      connector: files.append_line
      effect: write
      input: {path: "ways/${inputs.name}-loud.jsonl", entry: {text: "${steps.shout.text}"}}
    - {name: twice, when: inputs.often, agent: echo, input: {text: "${steps.words.text}"}}
"""


DEPENDENT = """apiVersion: aios/v1
kind: Workflow
metadata: {name: in-a-row}
spec:
  inputs: {type: object, properties: {name: {type: string}}, required: [name]}
  steps:
    - {name: words, agent: echo, budget: "0.05", input: {text: "hello ${inputs.name}"}}
    - name: mood
      branch: {cases: {loud: "steps.words.text.contains('!')"}, otherwise: calm}
    - name: size
      branch:
        cases:
          big: "steps.mood.case == 'loud' && steps.words.text.contains('xl')"
          huge: "steps.words.text.contains('xxl')"
        otherwise: small
    - name: put
      connector: files.append_line
      effect: write
      input: {path: "rows/${steps.mood.case}-${steps.size.case}.jsonl", entry: {n: 1}}
    - name: apart
      branch: {cases: {left: "steps.words.text.contains('l?')"}, otherwise: right}
    - {name: left, when: "steps.apart.case == 'left'", agent: echo, input: {n: 1}}
    - name: each
      map:
        over: [1, 2]
        on_failure: collect
        steps: [{name: look, agent: echo, input: {n: "${item}"}}]
    - name: sorry
      when: "steps.each.failed == 2"
      connector: files.append_line
      effect: write
      input: {path: rows/sorry.jsonl, entry: {failed: "${steps.each.failed}"}}
"""
IN_A_BODY = """apiVersion: aios/v1
kind: Workflow
metadata: {name: in-a-body}
spec:
  inputs: {type: object, properties: {name: {type: string}}, required: [name]}
  steps:
    - name: each
      map:
        over: ["${inputs.name}", x]
        steps:
          - {name: look, agent: echo, input: {text: "${item}"}}
          - {name: kind, branch: {cases: {odd: "steps.look.text.contains('!')"}, otherwise: even}}
          - {name: size, branch: {cases: {big: "steps.look.text.contains('?')"}, otherwise: small}}
          - name: put
            connector: files.append_line
            effect: write
            input: {path: "bodies/${steps.kind.case}-${steps.size.case}.jsonl", entry: {n: "${index}"}}
"""
ROWS = ("calm-small", "calm-huge", "loud-big", "loud-huge", "loud-small")


def written(way: dict[str, Any]) -> list[str]:
    """The names of the files that a way would write."""
    changes = (change for changes in way["predicted"].values() for change in changes)
    return [change["resource"].rpartition("/")[2].removesuffix(".jsonl") for change in changes]


@pytest.fixture(scope="module")
def applied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    document = tmp_path_factory.mktemp("ways") / "many-ways.yaml"
    document.write_text(f"{WORKFLOW}---\n{DEPENDENT}---\n{IN_A_BODY}")
    server.json("apply", str(document))
    return server


def test_every_case_is_walked_once_and_nothing_is_written(applied: Server) -> None:
    said = applied.json("run", "simulate", "many-ways", "--input", "name=ann", "--all-branches")
    assert (said["state"], said["mode"]) == ("succeeded", "simulate")
    ways = {way["way"]: way for way in said["ways"]}
    base = ways["as it would go now"]
    assert set(base["predicted"]) == {"put"}
    loud = ways["mood takes loud"]
    assert set(loud["predicted"]) == {"put", "more"} and loud["state"] == "succeeded"
    assert "shout" in loud["ran"] and "shout" not in base["ran"]
    assert said["not_walked"] == [] and said["combinations_not_walked"] == 0
    rejected = ways["mood takes loud, sure is rejected"]
    assert rejected["state"] == "cancelled" and set(rejected["predicted"]) == {"put"}, "what stands then"
    assert "sure is rejected" in applied.aios("run", "show", rejected["run_id"]).out
    assert set(ways) == {
        "as it would go now",
        "mood takes loud",
        "ok is rejected",
        "mood takes loud, sure is rejected",
    }
    assert said["decided_by_input"] == ["twice"], "with this input it never comes out otherwise"
    asks = {item["step"]: item for item in said["asks"]}
    assert asks["ok"]["changes_before"] == 0
    assert asks["sure"]["changes_before"] == 1 and "as it would go now" not in asks["sure"]["ways"]
    proof = said["proof"]
    assert proof["nothing_written"] and len(proof["runs"]) == len(ways)
    assert [(one["service"], one["before"], one["after"]) for one in proof["ledgers"]] == [
        ("connector-files", 0, 0)
    ]
    assert not (applied.files / "ways").exists()


def test_the_ways_are_bounded_and_those_that_were_not_walked_are_named(applied: Server) -> None:
    said = applied.json(
        "run", "simulate", "many-ways", "--input", "name=bob", "--all-branches", "--max-ways", "1"
    )
    assert len(said["ways"]) == 1 and "mood takes loud" in said["not_walked"]


def test_decisions_that_have_to_do_with_each_other_are_combined_and_others_are_not(applied: Server) -> None:
    said = applied.json("run", "simulate", "in-a-row", "--input", "name=gil", "--all-branches")
    ways = {way["way"]: written(way) for way in said["ways"]}
    rows = [file for files in ways.values() for file in files if file in ROWS]
    assert set(rows) == set(ROWS), "loud is never big where the mood is calm"
    combined = [way for way in ways if "mood takes" in way and "size takes" in way]
    assert len(combined) == 2 and not [way for way in ways if "apart takes" in way and ", " in way]
    assert ways["each[].look fails"] == ["calm-small", "sorry"], "what comes after goes by the failures"
    assert len(said["ways"]) == len(ways) == 5 + 1 + 2
    assert said["not_combined"] == [["mood", "size"], ["apart", "left"], ["each[].look", "sorry"]]
    taken = {item["decision"]: item["ways"] for item in said["decisions"]}
    assert taken["mood takes loud"] == 3 and taken["size takes huge"] == 2
    assert (said["not_walked"], said["combinations_not_walked"]) == ([], 0)
    assert len({way["run_id"] for way in said["ways"]} & set(said["proof"]["runs"])) == len(ways)


def test_decisions_within_one_body_are_combined_too(applied: Server) -> None:
    said = applied.json("run", "simulate", "in-a-body", "--input", "name=ida", "--all-branches")
    ways = {way["way"]: written(way) for way in said["ways"]}
    assert ways == {
        "as it would go now": ["even-small"] * 2,
        "each[].kind takes odd": ["odd-small"] * 2,
        "each[].size takes big": ["even-big"] * 2,
        "each[].kind takes odd, each[].size takes big": ["odd-big"] * 2,
    }


def test_each_decision_comes_before_combinations_and_what_is_left_out_is_counted(applied: Server) -> None:
    said = applied.json(
        "run", "simulate", "in-a-row", "--input", "name=hal", "--all-branches", "--max-ways", "7"
    )
    assert said["not_walked"] == [] and said["combinations_not_walked"] == 1
    assert all(item["ways"] for item in said["decisions"]) and len(said["ways"]) == 7


def test_a_person_reads_one_page(applied: Server) -> None:
    said = applied.aios("run", "simulate", "many-ways", "--input", "name=cat", "--all-branches")
    assert said.code == 0, said.err
    for words in (
        "It would make 1 change:",
        "If mood takes loud:",
        "If mood takes loud, sure is rejected:",
        "It would stop there; what was changed before would stand.",
        "4 ways; 10 of 10 decisions are taken on one",
        "It would also make 1 change:",
        "It would ask you:",
        "ok: to approve put",
        "It would cost:",
        "never more than $1.00",
        "connector-files: 0 effects recorded before, 0 after",
        "Nothing was written.",
    ):
        assert words in said.out, words
    assert len(said.out.splitlines()) < 60


@pytest.mark.parametrize("found", [(1, ""), (0, "it does not answer")], ids=["an effect", "no answer"])
def test_without_proof_it_says_so_and_fails(
    applied: Server, monkeypatch: pytest.MonkeyPatch, found: tuple[int, str]
) -> None:
    monkeypatch.setattr(exploring, "count", lambda session, runs: {"connector-files": found})
    said = applied.aios("run", "simulate", "many-ways", "--input", "name=fay")
    assert said.code == 1
    assert "NOT proven" in said.out and "Nothing was written." not in said.out


def test_what_earlier_runs_cost_is_in_the_estimate_and_the_proof_counts_what_a_run_did(
    applied: Server,
) -> None:
    run = applied.json("run", "start", "many-ways", "--input", "name=dan", "--wait")["run_id"]
    (waiting,) = applied.json("run", "show", run)["pending_approvals"]
    applied.json("approval", "approve", waiting)
    assert applied.aios("run", "watch", run).code == 0
    said = applied.json("run", "simulate", "many-ways", "--input", "name=eve")
    assert len(said["ways"]) == 1 and len(said["estimate"]["earlier_runs"]) == 1
    from aios.api.v1 import api_pb2
    from aios_cli.options import given, reset
    from aios_cli.session import Session

    reset()
    given.data_dir = applied.data
    try:
        with Session() as session:
            request = api_pb2.CountEffectsRequest(run_ids=[run])
            (ledger,) = session.client.call(session.client.runs.CountEffects, request).ledgers
    finally:
        reset()
    assert ledger.recorded == 1, "what was done is counted, so that nothing means nothing"
