"""What a person reads of an approval: who decided what, and what is still to be done."""

import io
from typing import Final

import pytest
from rich.console import Console

from aios.run.v1.state_pb2 import Approval, ApprovalState
from aios_cli.views import approval as terminal
from aios_cli.views import preview
from aios_orchestrator.core.decide import Cancel, Tick
from tests.orchestrator.runs import Driver, workflow

pytestmark = pytest.mark.feature("I4")

ASK: Final = (
    "- {name: a, ask: {title: Colour, questions: [{id: c, text: 'Which [one]?', options: [red, blue]}]}}"
)
GATE: Final = "- {name: g, gate: {title: Go on, expires: 1h, %s}}"


def page(item: Approval) -> str:
    out = io.StringIO()
    Console(file=out, width=100, markup=False, highlight=False).print(
        terminal.approval(item, (), item.decide_time_ms)
    )
    return out.getvalue()


def last(run: Driver) -> Approval:
    (item,) = run.run.approvals.values()
    return item


def test_an_answer_stands_below_its_question() -> None:
    run = Driver(workflow(ASK))
    assert "answered" not in page(run.approval) and "Which [one]?" in page(run.approval)
    run.decide(ApprovalState.APPROVAL_STATE_ANSWERED, {"c": "blue"})
    assert "answered: blue" in page(last(run)) and "just now by you" in page(last(run))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("fails: open", "by itself, as nobody decided in time"),
        ("confidence: {of: '1', at_least: 0.9}", "by itself, as it was sure enough"),
    ],
)
def test_what_was_decided_by_nobody_says_why(fields: str, words: str) -> None:
    run = Driver(workflow(GATE % fields))
    run.now += 3_700_000
    run.give(Tick())
    assert words in page(last(run))


def test_who_signed_is_named() -> None:
    run = Driver(workflow(GATE % "approvers: {of: [owner, ada], need: 2}"))
    for person in ("person:ada", "person:owner"):
        run.decide(ApprovalState.APPROVAL_STATE_APPROVED, actor=person)
    assert "approved   by ada" in page(last(run)) and "by you" in page(last(run))


def test_what_is_not_asked_any_more_is_not_asked_on_a_page() -> None:
    run = Driver(workflow(GATE % "why: it is time"))
    assert "aios approval approve" in preview.page(run.approval, ())
    run.give(Cancel("no"))
    shown = preview.page(last(run), ())
    assert "not asked any more" in shown and "aios approval approve" not in shown
    assert "not asked any more" in page(last(run))
