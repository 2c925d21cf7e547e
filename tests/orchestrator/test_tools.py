"""A workflow explained, compared and rehearsed: pure functions over compiled documents."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from aios_core.errors import TerminalError
from aios_orchestrator import definition, explaining
from aios_orchestrator.cases import Case, cases_of
from aios_orchestrator.differing import difference
from aios_orchestrator.document import parse_documents
from aios_orchestrator.rehearsing import rehearse
from aios_orchestrator.workflow import Workflow
from tests.orchestrator.runs import workflow

STEPS = """
- name: route
  branch: {cases: {large: "inputs.n > 100"}, otherwise: small}
- name: find
  connector: bank.find
  gives: {type: object, properties: {account: {type: string}}, required: [account]}
- {name: rest, when: "steps.route.case == 'large'", wait: 2d}
- {name: ok, gate: {title: "Pay ${inputs.n}?", approves: [pay]}}
- {name: pay, connector: bank.pay, effect: payment, budget: "0.10", input: {to: "${steps.find.account}"}}
- name: each
  map:
    over: [1, 2]
    on_failure: collect
    steps: [{name: note, agent: noter, input: {n: "${item}"}}]
"""
OUT = "  outputs: {to: '${steps.find.account}', notes: '${steps.each.results}'}\n"
RIGHT = {"find": {"account": "DE1"}, "ok": "approve", "pay": {}, "each[].note": {"text": "hi"}}


def case(n: object = 5, expect: object = None, **results: object) -> Case:
    (only,) = cases_of([{"input": {"n": n}, "results": {**RIGHT, **results}, "expect": expect or {}}])
    return only


@pytest.mark.feature("D1")
def test_a_rehearsal_runs_the_core_in_virtual_time() -> None:
    told = rehearse(
        workflow(STEPS, OUT),
        case(
            500,
            {"outputs": {"to": "DE1", "notes": [{"text": "hi"}, None]}, "gave": {"route": {"case": "large"}},
             "ran": ["route", "find", "rest", "ok", "pay", "each", "each[0].note", "each[1].note"]},
            **{"find": {"$attempts": [{"$error": {"retryable": True}}, {"account": "DE1"}]},
               "each[1].note": {"$error": {"code": "AGENT_FAILED"}}},
        ),
    )  # fmt: skip
    assert told.problems == [] and told.state == "succeeded"
    assert told.virtual_ms >= 2 * 24 * 3_600_000, "it waited two days, and for a second attempt"
    assert told.shape()["passed"] is True


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        (case(expect={"outputs": {"to": "DE2"}}), "outputs.to: expected 'DE2', got 'DE1'"),
        (case(expect={"ran": ["route"]}), "ran: expected route; got route, find, ok, pay, "
            "each, each[0].note, each[1].note"),
        (case(expect={"gave": {"rest": 1}}), "gave.rest: expected 1, got None"),
        (case(expect={"gave": {"nothing": 1}}), "gave: nothing did not begin"),
        (case(ok="reject"), "state: expected succeeded, got cancelled"),
        (case(ok="perhaps"), "ok: 'perhaps' is no decision; say `approve`, `reject` or `expire`"),
        (case(find={"acount": "x"}), "state: expected succeeded, got failed (What bank.find gave is not "
            "what `gives` says: "
            '"account" is missing. [BAD_OUTPUT])'),
        (case(expect={"state": "failed", "error": "CONFLICT"}, find={"$error": {"code": "NOT_FOUND"}}),
            "error: expected CONFLICT, got It failed. [NOT_FOUND]"),
        (Case("none", {"n": 1}, {}, {}), "no result of find (bank.find) is declared under `results`"),
        (Case("nobody", {"n": 1}, {"find": {"account": "x"}}, {}),
            "no decision on ok is declared under `results`: `approve`, `reject` or `expire`"),
    ],
)  # fmt: skip
def test_what_is_not_as_expected_is_said(given_: Case, problem: str) -> None:
    assert rehearse(workflow(STEPS, OUT), given_).problems == [problem]


def test_an_input_that_the_workflow_does_not_take_is_refused() -> None:
    with pytest.raises(TerminalError, match=r"input\.m"):
        rehearse(workflow(STEPS), Case("wrong", {"m": 1}, {}, {}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "at least one test"),
        ({}, "at least one test"),
        (["x"], r"tests\[0\]: must be a map"),
        ([{"inputs": {}}], "there is no such field"),
        ([{"input": []}], r"tests\[0\].input: must be a map"),
    ],
)
def test_wrong_tests_are_told(data: object, words: str) -> None:
    with pytest.raises(TerminalError, match=words):
        cases_of(data)


@pytest.mark.feature("D1")
def test_a_workflow_is_explained_in_words() -> None:
    told = explaining.explain(workflow(STEPS, OUT))
    text = "\n".join(told.lines())
    assert "- rest: waits 2d. Only when steps.route.case == 'large'." in text
    assert "- ok: a person approves pay (Pay <inputs.n>?)." in text
    assert "  - note: the agent noter works on it." in text
    assert told.person == ("ok: to approve pay, within 30d",)
    assert told.changes == ("pay: bank.pay, after ok is approved",)
    assert told.final == ("pay: bank.pay spends money, which undo does not bring back",)
    assert "A run may spend at most $1.00; one attempt of each step holds $0.10." in text
    assert told.shape()["cannot_be_undone"] == list(told.final)


KINDS = {
    "agent": "agent: x", "connector": "connector: a.b", "memory": "memory: read", "gate": "gate: {}",
    "ask": "ask: {questions: [{id: q, text: Why?}]}", "branch": "branch: {cases: {a: 'inputs.n > 1'}}",
    "transform": "transform: 1", "wait": "wait: {until: '2026-12-24T09:00:00Z'}",
    "map": "map: {over: '${[1]}', steps: [{name: in, agent: x}]}",
    "repeat": "repeat: {limit: 2, until: 'index > 1', steps: [{name: in, agent: x}]}", "workflow": "workflow: child",
    "plan": "plan: {agent: x, goal: g, may: {agents: [y]}}",
}  # fmt: skip


@pytest.mark.parametrize("kind", definition.KINDS)
def test_every_kind_is_explained_and_compared(kind: str) -> None:
    uses = {"child": workflow("- {name: own, agent: y}", name="child")}
    found = workflow(f"- {{name: s, {KINDS[kind]}}}", uses=uses)
    (first, *_) = explaining.explain(found).steps
    assert first.what and "None" not in first.what
    assert not difference(found, workflow(f"- {{name: s, {KINDS[kind]}}}", uses=uses))


@pytest.mark.feature("D11")
def test_what_a_run_under_way_could_not_follow_is_said() -> None:
    old = workflow(STEPS, OUT)
    new = (
        STEPS.replace("bank.find", "bank.look")
        .replace("wait: 2d", "wait: 3d")
        .replace("- {name: ok,", "- {name: extra, agent: x}\n- {name: ok,")
    )
    told = difference(old, workflow(new, OUT + "  budget: {cap: '0.50'}\n"))
    assert told.added == ("extra",) and told.removed == ()
    changed = {change.step: change.fields for change in told.changed}
    assert changed == {
        "find": ("target",),
        "rest": ("wait",),
        "ok": ("needs",),
    }
    assert told.other == ("cap: $1.00 → $0.50",)
    assert told.breaks == (
        "find is another thing now: where it has begun, its result is of the earlier one.",
        "rest has another wait: where it has begun, or was approved, that was the earlier.",
        "ok has another needs: where it has begun, or was approved, that was the earlier.",
        "extra comes before ok: where those have begun, it was left out.",
        "the cap is lower: a run may have spent more than $0.50 already.",
    )
    back = difference(workflow(new, OUT), old)
    assert back.removed == ("extra",)
    assert any(words.startswith("extra is not there any more") for words in back.breaks)


EDITS = (
    ("bank.find", "bank.look"), ("inputs.n > 100", "inputs.n > 99"),
    ("Pay $", "Really pay $"), ("2d", "5d"), ('"0.10"', '"0.11"'),
    ("effect: payment", "effect: irreversible"),
    ("over: [1, 2]", "over: [1]"), ("on_failure: collect", "at_once: 3"),
    ("approves: [pay]", "approves: [pay], expires: 1d"), ("'large'\"", "'small'\""),
    ("required: [account]", "required: []"),
    ("noter", "writer"), ('"${item}"', '"${index}"'), ("steps.find.account", "steps.route.case"),
)  # fmt: skip


@given(some.sets(some.integers(0, len(EDITS) - 1)))
def test_every_edit_is_seen_and_nothing_else(edits: set[int]) -> None:
    text = STEPS
    for at in edits:
        assert EDITS[at][0] in text
        text = text.replace(*EDITS[at])
    old, new = workflow(STEPS), workflow(text)
    assert bool(difference(old, new)) == bool(edits)
    assert len(difference(old, new).changed) <= len(edits)


def test_retries_and_time_outs_break_nothing() -> None:
    def of(more: str) -> Workflow:
        return workflow(f"- {{name: a, agent: x{more}}}")

    told = difference(of(""), of(", timeout: 1s, retry: {limit: 2}, budget: 1"))
    assert told.changed[0].fields == ("retry", "timeout", "budget") and not told.breaks
    more = ", timeout: {total: 1h}, deadline: 2h, service_level: 5m, cache: 1d, mode: deterministic"
    told = difference(of(""), of(more))
    assert set(told.changed[0].fields) == {"time", "cache", "mode"} and not told.breaks


@pytest.mark.feature("D1")
def test_what_a_workflow_says_of_its_runs_is_compared() -> None:
    step = "- {name: a, connector: f.w, effect: write, compensate: {connector: f.x, input: {n: %d}}}"
    head = "  deadline: 2h\n  on_failure: undo\n  mode: creative\n"
    told = difference(workflow(step % 1), workflow(step % 2, head))
    assert told.other == ("deadline or service_level", "on_failure", "mode")
    assert told.changed[0].fields == ("compensate",) and len(told.breaks) == 1


WAITS = """
- name: reply
  wait: {event: mail.replied, match: "event.data.n == inputs.n", timeout: 3d, on_timeout: go-on}
- {name: said, transform: "${steps.reply.timed_out}"}
"""


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    ("results", "timed_out", "problem"),
    [
        ({"reply": {"$event": {"data": {"n": 5}}}}, False, ""),
        ({}, True, ""),
        ({"reply": {"$event": {"data": {"n": 6}}}}, None, "is not the one that it waits for"),
    ],
)
def test_an_event_that_is_waited_for_is_declared_or_its_time_runs_out(
    results: dict[str, object], timed_out: bool | None, problem: str
) -> None:
    of = workflow(WAITS, "  outputs: {late: '${steps.said}'}\n")
    told = rehearse(of, Case("waits", {"n": 5}, results, {}))
    assert problem in " ".join(told.problems)
    assert bool(told.problems) == bool(problem)
    assert told.outputs == (None if timed_out is None else {"late": timed_out})
    assert "waits for an event mail.replied for which event.data.n == inputs.n" in str(explaining.explain(of))


@pytest.mark.feature("D1", "F6")
def test_whom_a_run_is_for_and_when_its_cost_is_asked_about_is_explained() -> None:
    text = (
        "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: spends}\nspec:\n"
        "  inputs: {type: object, properties: {client: {type: string}}, required: [client]}\n"
        '  customer: "${inputs.client}"\n  spike: {times: 3, at_least: "0.50"}\n  on_failure: undo\n'
        "  steps:\n    - {name: a, agent: echo, input: {n: 1}}\n"
    )
    found = definition.compile_workflow(parse_documents(text.encode(), "spends.yaml")[0])
    told = explaining.explain(found)
    assert told.person == ("the run: whether to go on, when it costs much more than earlier ones, and $0.50",)
    lines = "\n".join(told.lines())
    assert "What it spends counts for the customer inputs.client too." in lines
    assert "If it fails, what it changed is undone by itself." in lines
    assert (told.shape()["customer"], told.shape()["undone_if_it_fails"]) == ("inputs.client", True)
