"""What a test of a workflow declares of its steps: what is written wrongly is told by its place, and nothing is passed
over in silence."""

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from aios_core.errors import TerminalError
from aios_orchestrator.cases import cases_of
from aios_orchestrator.rehearsing import rehearse
from tests.often import tries
from tests.orchestrator.runs import workflow

pytestmark = pytest.mark.feature("D1")

STEPS: Final = """
- {name: find, connector: bank.find}
- {name: route, branch: {cases: {large: "inputs.n > 100"}, otherwise: small}}
- {name: ok, gate: {title: Pay it, approves: [pay], expires: 1h}}
- {name: pay, connector: bank.pay, effect: payment, retry: {limit: 2}}
- {name: which, ask: {questions: [{id: q, text: Which?}]}}
- {name: paid, wait: {event: bank.paid, timeout: 2h}}
- name: each
  map:
    over: [1, 2]
    on_failure: collect
    steps: [{name: note, agent: noter, input: {n: "${item}"}}]
- name: work
  plan: {agent: planner, goal: Do it, may: {agents: [noter]}}
"""
PLAN: Final = {"steps": [{"name": "one", "agent": "noter", "input": {}}]}
RIGHT: Final = {
    "find": {"account": "DE1"},
    "ok": "approve",
    "pay": {"$attempts": [{"$error": {"code": "BUSY", "retryable": True}}, {}]},
    "which": {"q": "this"},
    "paid": {"$event": {"type": "bank.paid", "id": "1", "data": {"sum": 1}}},
    "each[].note": {"text": "hi"},
    "each[1].note": {"$error": {"code": "AGENT_FAILED", "message": "No."}},
    "work.draft": PLAN,
    "work.approve": "approve",
    "work.plan.one": {},
}
OF: Final = workflow(STEPS)


def told(results: dict[Any, Any], **fields: Any) -> list[str]:
    (case,) = cases_of([{"input": {"n": 1}, "results": results, **fields}])
    return rehearse(OF, case).problems


def test_what_is_written_rightly_passes() -> None:
    assert told(RIGHT) == []


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [
        ({"$attempts": []}, "BAD_RESOURCE", r"tests\[0\]\.results\.find\.\$attempts: must be a list of what"),
        ({"$attempts": None}, "BAD_RESOURCE", r"results\.find\.\$attempts: must be a list"),
        ({"$attempts": [{"$attempts": [1]}]}, "BAD_RESOURCE", r"\$attempts\[0\]: an attempt gives .* no \$attempts"),
        ({"$attempts": [{"$event": {}}]}, "BAD_RESOURCE", r"\$attempts\[0\]: an attempt gives a value or has \$error"),
        ({"$attempts": [1, {"$error": 2}]}, "BAD_RESOURCE", r"\$attempts\[1\]\.\$error: must be a map \(code, "),
        ({"$error": None}, "BAD_RESOURCE", r"results\.find\.\$error: must be a map"),
        ({"$error": {"retryble": True}}, "UNKNOWN_FIELD", r"results\.find\.\$error\.retryble: there is no such field"),
        ({"$error": {"retryable": "yes"}}, "BAD_RESOURCE", r"\$error\.retryable: must be true or false"),
        ({"$error": {}, "account": 1}, "BAD_RESOURCE", r"results\.find: what has \$error has nothing else"),
        ({"$event": 3}, "BAD_RESOURCE", r"results\.find\.\$event: must be a map \(type, id, "),
        ({"$event": {"body": 3}}, "UNKNOWN_FIELD", r"results\.find\.\$event\.body: there is no such field"),
    ],
)  # fmt: skip
def test_a_result_that_no_step_can_give_is_told_by_its_place(result: Any, code: str, words: str) -> None:
    with pytest.raises(TerminalError, match=words) as caught:
        told({**RIGHT, "find": result})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fnd", r"results: there is no step 'fnd' \(did you mean 'find'\?\)"),
        ("each[].not", r"there is no step 'each\[\]\.not' \(did you mean 'each\[\]\.note'\?\)"),
        ("each[7].x.y", r"there is no step 'each\[7\]\.x\.y'"),
        ("work.one", r"there is no step 'work\.one'"),
        ("route", r"results: route: a step of kind branch gives what the workflow says, and is not declared"),
        ("each", r"a step of kind map gives what the workflow says"),
        ("work.plan", r"a step of kind .* gives what the workflow says"),
    ],
)
def test_a_step_that_there_is_not_is_told(name: str, words: str) -> None:
    with pytest.raises(TerminalError, match=words) as caught:
        told({**RIGHT, name: {}})
    assert (caught.value.code, caught.value.details["field"]) == ("INVALID_ARGUMENT", "results")
    with pytest.raises(TerminalError, match="no_inverse: "):
        told(RIGHT, no_inverse=[name])


def test_the_name_of_a_step_is_a_string() -> None:
    with pytest.raises(TerminalError, match=r"tests\[0\]\.results\.1: must be the name of a step"):
        told({1: {}})


def test_an_event_of_another_kind_does_not_come() -> None:
    problems = told({**RIGHT, "paid": {"$event": {"type": "bank.refused"}}})
    assert problems == ["the event that is declared for paid is not the one that it waits for"]


ODD: Final[list[Any]] = [
    *(None, 1, "a", [], {}, {"n": None}, {"q": 7}, "approve", "reject", "expire", PLAN, {"steps": 1}),
    *(
        {"$event": None},
        {"$event": {"data": 1}},
        {"$event": {"id": None}},
        {"$error": {}},
        {"$error": {"code": 1}},
    ),
    *(
        {"$error": {"retryable": True}},
        {"$attempts": [{"$error": {"retryable": True}}]},
        {"$attempts": [1, 2, 3]},
    ),
]


@settings(max_examples=tries(100), deadline=None)
@given(
    some.permutations(list(RIGHT)), some.dictionaries(some.sampled_from(list(RIGHT)), some.sampled_from(ODD))
)
def test_whatever_is_declared_a_rehearsal_ends_and_says_what_is_wrong(
    order: list[str], odd: dict[str, Any]
) -> None:
    """It ends in its states, or says what it waits for or can't take; nothing else is raised."""
    declared = {name: odd.get(name, RIGHT[name]) for name in order}
    try:
        problems = told(declared)
    except TerminalError:
        return
    assert all(problems) and (odd or not problems)
