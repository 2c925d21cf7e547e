"""Each command as a person and as a script meets it."""

import json
from pathlib import Path

import pytest

from tests.served import Server

NO_SUCH = "0" * 64


def started(server: Server, workflow: str, *pairs: str) -> dict[str, object]:
    inputs = [word for pair in pairs for word in ("--input", pair)]
    answer: dict[str, object] = server.json("run", "start", workflow, *inputs, "--wait")
    return answer


def waiting(run: dict[str, object]) -> str:
    approvals = run["pending_approvals"]
    assert isinstance(approvals, list)
    return str(approvals[0])


def test_a_run_that_needs_nobody_ends_with_its_outputs_and_code_0(server: Server) -> None:
    said = server.aios("run", "start", "greet", "-i", "name=Ada", "-i", "times=3", "--wait", "--json")
    assert said.code == 0
    run = said.json
    assert run["state"] == "succeeded"
    assert run["needs_person"] is False
    assert run["outputs"] == {"text": "hello Ada", "times": 3}
    assert {"run_id", "pending_approvals", "cost", "trace_id"} <= run.keys()


def test_without_wait_a_start_says_the_run_and_how_to_follow_it(server: Server) -> None:
    said = server.aios("run", "start", "greet", "-i", "name=Ada", "--request-id", "follow")
    assert (said.code, said.err) == (0, "")
    assert "aios run watch" in said.out
    again = server.json("run", "start", "greet", "-i", "name=Ada", "--request-id", "follow")
    assert again["duplicate"] is True


def test_a_run_that_needs_a_person_returns_3_and_says_so_in_both_forms(server: Server) -> None:
    said = server.aios("run", "start", "ask-first", "-i", "name=Three", "--wait", "--json")
    assert said.code == 3
    run = said.json
    assert (run["state"], run["needs_person"]) == ("running", True)
    assert len(run["pending_approvals"]) == 1
    shown = server.aios("run", "watch", run["run_id"])
    assert shown.code == 3
    assert "needs you" in shown.out
    assert "aios approval show" in shown.out
    mine = {item["run_id"] for item in server.json("run", "list", "--needs-me")}
    assert run["run_id"] in mine


def test_an_approval_is_shown_approved_and_undone(server: Server) -> None:
    run = started(server, "ask-first", "name=Life")
    approval = waiting(run)
    shown = server.aios("approval", "show", approval)
    assert "Remember Life" in shown.out
    assert "it may be the wrong name" in shown.out
    assert server.json("approval", "show", approval)["state"] == "open"
    decided = server.aios("approval", "approve", approval, "--note", "right", "--wait", "--json")
    assert (decided.code, decided.json["state"]) == (0, "succeeded")
    twice = server.aios("approval", "reject", approval, "--json")
    assert (twice.code, twice.json["error"]["code"]) == (5, "APPROVAL_USED")
    story = server.aios("run", "show", str(run["run_id"]))
    assert "you approved" in story.out
    assert "right" in story.out
    undone = server.aios("run", "undo", str(run["run_id"]), "--json")
    assert (undone.code, undone.json["state"]) == (0, "undone")
    again = server.aios("run", "undo", str(run["run_id"]))
    assert again.code == 0
    assert "undone" in again.out


def test_an_approval_for_other_bytes_than_those_seen_is_refused(server: Server) -> None:
    approval = waiting(started(server, "ask-first", "name=Seen"))
    stale = server.aios("approval", "approve", approval, "--seen", NO_SUCH, "--json")
    assert (stale.code, stale.json["error"]["code"]) == (5, "APPROVAL_STALE")
    wrong = server.aios("approval", "approve", approval, "--seen", "x", "--json")
    assert (wrong.code, wrong.json["error"]["details"]["field"]) == (2, "seen")
    seen = server.json("approval", "show", approval)["arguments_sha256"]
    assert server.aios("approval", "approve", approval, "--seen", seen, "--wait").code == 0


def test_a_rejected_run_stops_and_nothing_of_it_is_written(server: Server) -> None:
    approval = waiting(started(server, "ask-first", "name=No"))
    said = server.aios("approval", "reject", approval, "--note", "not now", "--wait", "--json")
    assert (said.code, said.json["state"]) == (1, "cancelled")
    assert said.json["outputs"] is None


def test_a_run_is_cancelled_while_it_waits_and_its_approval_is_over(server: Server) -> None:
    run = started(server, "ask-first", "name=Stop")
    said = server.aios("run", "cancel", str(run["run_id"]), "--why", "changed my mind")
    assert said.code == 0
    assert "stopped" in said.out
    late = server.aios("approval", "approve", waiting(run), "--json")
    assert (late.code, late.json["error"]["code"]) == (5, "APPROVAL_STALE")
    nothing = server.aios("run", "undo", str(run["run_id"]))
    assert "nothing was left to take back" in nothing.out


def test_a_question_is_answered_by_one_of_its_options(server: Server) -> None:
    run = started(server, "question")
    asked = server.aios("approval", "show", waiting(run))
    assert "Which color?" in asked.out
    assert "(color)" not in asked.out, "the only question needs no name"
    wrong = server.aios("approval", "answer", waiting(run), "green", "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (2, "BAD_ANSWER")
    assert "red, blue" in wrong.json["error"]["message"]
    said = server.aios("approval", "answer", waiting(run), "blue", "--wait", "--json")
    assert said.json["outputs"] == {"answered": "blue"}
    story = server.aios("run", "show", str(run["run_id"]))
    assert "you answered: Which color? blue" in story.out


def test_a_question_may_be_rejected_and_not_approved(server: Server) -> None:
    run = started(server, "question")
    assert server.aios("approval", "approve", waiting(run)).code == 2
    assert server.aios("approval", "reject", waiting(run), "--wait").code == 1


def test_runs_are_shown_by_the_end_of_their_ids(server: Server) -> None:
    run = started(server, "greet", "name=Short")
    shown = server.json("run", "show", str(run["run_id"])[-6:])
    assert shown["run_id"] == run["run_id"]
    assert [line["what"] for line in shown["timeline"]][-1] == "finished"


def test_a_watch_of_an_ended_run_goes_on_after_a_position_as_json_lines(server: Server) -> None:
    run = started(server, "greet", "name=Watch")
    lines = server.aios("run", "watch", str(run["run_id"]), "--json")
    told = [json.loads(line)["sequence"] for line in lines.out.splitlines()]
    later = server.aios("run", "watch", str(run["run_id"]), "--json", "--after", str(told[0]))
    assert [json.loads(line)["sequence"] for line in later.out.splitlines()] == told[1:]


def test_lists_are_arrays_and_bounded(server: Server) -> None:
    for _ in range(3):
        started(server, "greet", "name=List")
    runs = server.json("run", "list", "--workflow", "greet", "--limit", "2")
    assert [run["workflow"] for run in runs] == ["greet", "greet"]
    assert server.aios("run", "list", "--limit", "0", "--json").code == 2
    assert "greet" in server.aios("run", "list").out
    assert isinstance(server.json("approval", "list", "--all"), list)
    assert isinstance(server.json("event", "list"), list)


def test_an_event_is_published_once_and_its_run_is_named(server: Server) -> None:
    event = ("event", "publish", "visitor.came", "--data", '{"name": "Ada"}', "--source", "cli", "--id", "v1")
    first = server.json(*event)
    assert first["resolution"]["intent"] == "greet"
    again = server.json(*event)
    assert (again["duplicate"], again["run_id"]) == (True, first["run_id"])
    other = server.aios(*event[:4], '{"name": "Bob"}', *event[5:], "--json")
    assert (other.code, other.json["error"]["code"]) == (5, "REQUEST_ID_REUSED")
    unclear = server.aios("event", "publish", "visitor.came", "--data", "{}")
    assert unclear.code == 0
    assert "question" in unclear.out
    assert "Nothing was started" in unclear.out
    assert "nothing follows" in server.aios("event", "publish", "unheard.of").out


def test_resources_are_applied_listed_and_shown(server: Server, tmp_path: Path) -> None:
    document = tmp_path / "own.yaml"
    document.write_text(
        "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: own, title: Mine}\nspec:\n"
        "  inputs: {type: object, properties: {}}\n  steps:\n    - name: say\n      transform: {text: hi}\n"
        '  outputs: {text: "${steps.say.text}"}\n'
    )
    dry = server.json("apply", str(document), "--dry-run")
    assert (dry["dry_run"], dry["applied"][0]["change"]) == (True, "created")
    assert server.aios("resource", "show", "Workflow", "own").code == 7
    assert "Workflow own: created" in server.aios("apply", str(document)).out
    assert server.json("apply", str(document))["applied"][0]["change"] == "unchanged"
    assert started(server, "own")["outputs"] == {"text": "hi"}
    assert server.json("resource", "show", "workflow", "own")["document"]["metadata"]["title"] == "Mine"
    assert "title: Mine" in server.aios("resource", "show", "Workflow", "own").out
    assert "own" in [item["name"] for item in server.json("resource", "list", "--kind", "workflow")]
    document.write_text(document.read_text().replace("transform", "tranform"))
    wrong = server.aios("apply", str(document), "--json")
    assert wrong.code == 2
    assert "transform" in wrong.json["error"]["message"]


def test_what_is_not_there_is_named_with_the_nearest(server: Server) -> None:
    for command, near in (
        (("run", "start", "gret"), "greet"),
        (("resource", "show", "Workflow", "ask-frist"), "ask-first"),
        (("resource", "list", "--kind", "Wrokflow"), "Workflow"),
    ):
        said = server.aios(*command, "--json")
        assert said.code == 7
        assert near in said.json["error"]["message"]
    for command in (("run", "show", "zzzzzz"), ("approval", "show", "zzzzzz"), ("artifact", "get", NO_SUCH)):
        assert server.aios(*command, "--json").code == 7


@pytest.mark.parametrize(
    ("pairs", "field", "words"),
    [
        ((), "input", '"name" is missing'),
        (("nmae=x",), "nmae", "did you mean 'name'"),
        (("name",), "input", "key=value"),
        (("name=x", "times=many"), "times", "whole number"),
    ],
)
def test_a_wrong_input_is_told_by_its_name(
    server: Server, pairs: tuple[str, ...], field: str, words: str
) -> None:
    inputs = [word for pair in pairs for word in ("--input", pair)]
    said = server.aios("run", "start", "greet", *inputs, "--json")
    assert said.code == 2
    error = said.json["error"]
    assert error["details"]["field"] == field
    assert words in error["message"]


def test_a_file_that_is_not_there_is_wrong_input(server: Server) -> None:
    for command in (("apply", "/no/such.yaml"), ("run", "start", "greet", "--input-json", "@/no/such.json")):
        said = server.aios(*command, "--json")
        assert said.code == 2
        assert "No such file" in said.json["error"]["message"]


def test_tokens_open_what_they_say_until_they_are_revoked(server: Server) -> None:
    made = server.json("token", "create", "reader", "--scope", "read")
    listed = {item["token_id"]: item for item in server.json("token", "list")}
    assert listed[made["token_id"]]["scopes"] == ["read"]
    assert made["token"] not in json.dumps(listed)
    assert "opens nothing any more" in server.aios("token", "revoke", made["token_id"]).out


def test_the_first_screen_says_what_needs_you_and_the_doctor_who_is_well(server: Server) -> None:
    run = started(server, "ask-first", "name=Screen")
    assert "Remember Screen" in server.aios().out
    status = server.json()
    assert waiting(run) in [item["approval_id"] for item in status["needs_you"]]
    doctor = server.aios("doctor", "--json")
    checks = {check["name"]: check for check in doctor.json["checks"]}
    assert str(server.data) in checks["data directory"]["detail"]
    assert checks["agent-runner"]["ok"]
    assert "connector-files" in server.aios("doctor").out
