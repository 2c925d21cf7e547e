"""`aios watch`: nothing waits for a person unseen."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import pytest

from aios.api.v1 import api_pb2
from aios.error.v1.error_pb2 import Error
from aios.run.v1.state_pb2 import Approval, ApprovalKind, Failure, RunState
from aios_cli.watching import changes, things
from tests.served import Server

pytestmark = pytest.mark.feature("J2")

AT_MOST = "120"  # seconds; the process ends then, and with it the lines


def status(state: RunState.ValueType = RunState.RUN_STATE_RUNNING) -> api_pb2.GetStatusResponse:
    return api_pb2.GetStatusResponse(
        needs_you=[
            Approval(
                approval_id="apr_a",
                run_id="run_1",
                workflow="w",
                title="Pay",
                kind=ApprovalKind.APPROVAL_KIND_GATE,
            )
        ],
        failures=[Failure(run_id="run_2", workflow="w", error=Error(code="BROKEN", message="It broke."))],
        running=[api_pb2.Run(run_id="run_1", workflow="w", state=state)],
        services=[api_pb2.ServiceHealth(service="memory", detail="no store")],
    )


def told(lines: IO[str]) -> Iterator[dict[str, str]]:
    for line in lines:
        yield json.loads(line)


def test_what_stands_is_told_first_then_only_what_is_otherwise() -> None:
    first = things(status())
    began = [(item["change"], item["kind"], item["id"]) for item in changes({}, first)]
    assert began == [
        ("began", "approval", "apr_a"),
        ("began", "failure", "run_2"),
        ("began", "run", "run_1"),
        ("began", "service", "memory"),
    ]
    assert changes(first, things(status())) == []
    cancelling = things(status(state=RunState.RUN_STATE_CANCELLING))
    (changed,) = changes(first, cancelling)
    assert (changed["change"], changed["kind"], changed["title"]) == ("changed", "run", "cancelling")
    over = changes(first, things(api_pb2.GetStatusResponse()))
    assert {item["change"] for item in over} == {"over"} and len(over) == 4


@pytest.mark.feature("I4")
def test_a_reminder_and_an_escalation_are_told_as_changes_of_the_approval() -> None:
    before, reminded = status(), status()
    reminded.needs_you[0].reminders = 1
    (told_again,) = changes(things(before), things(reminded))
    assert (told_again["change"], told_again["id"], told_again["reminders"]) == ("changed", "apr_a", 1)
    reminded.needs_you[0].escalated_to = "person:ada"
    (passed_on,) = changes(things(before), things(reminded))
    assert passed_on["escalated_to"] == "person:ada"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ApprovalKind.APPROVAL_KIND_GATE, "approval"),
        (ApprovalKind.APPROVAL_KIND_QUESTION, "question"),
        (ApprovalKind.APPROVAL_KIND_UNKNOWN, "unknown"),
    ],
)
def test_each_way_of_needing_a_person_has_its_kind_and_a_command(
    kind: ApprovalKind.ValueType, name: str
) -> None:
    (thing,) = things(
        api_pb2.GetStatusResponse(needs_you=[Approval(approval_id="apr_a", step="s", kind=kind)])
    ).values()
    assert (thing["kind"], thing["title"]) == (name, "s")
    assert str(thing["command"]).startswith("aios approval show ")


def test_an_approval_is_told_when_it_begins_and_when_it_is_over(server: Server) -> None:
    words = ["--data-dir", str(server.data), "watch", "--json", "--timeout", AT_MOST]
    with subprocess.Popen(
        [sys.executable, "-m", "aios_cli", *words], stdout=subprocess.PIPE, text=True
    ) as watching:
        try:
            assert watching.stdout is not None
            lines = told(watching.stdout)
            run = server.json("run", "start", "ask-first", "--input", "name=Watch", "--wait")
            (approval,) = run["pending_approvals"]
            began = next(item for item in lines if item["id"] == approval)
            assert (began["change"], began["kind"], began["run_id"]) == ("began", "approval", run["run_id"])
            assert began["title"] == "Remember Watch"
            server.aios("approval", "reject", approval, "--note", "no")
            over = next(item for item in lines if item["id"] == approval)
            assert over["change"] == "over"
        finally:
            watching.kill()


def test_where_there_is_no_screen_it_prints_what_aios_alone_shows(server: Server) -> None:
    server.json("run", "start", "ask-first", "--input", "name=Plain", "--wait")
    said = server.aios("watch", "--timeout", "0.01")
    assert (said.code, said.err) == (0, "")
    assert "Needs you" in said.out and "Remember Plain" in said.out
