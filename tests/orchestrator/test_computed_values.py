"""Whatever an agent or a stranger puts where a document computes something, the run goes on or fails in plain words."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.run.v1.state_pb2 import ApprovalKind, ApprovalState, RunState, StepState
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, outside
from aios_core.values import Plain, Pointer, labeled, plain
from aios_orchestrator.core.decide import Undo
from aios_orchestrator.core.questions import MAX_OPTIONS, MAX_QUESTIONS
from aios_orchestrator.mapping import compile_mapping
from aios_orchestrator.queueing import MAX_KEY_CHARS, key_of
from aios_orchestrator.workflow import Queueing
from tests.often import tries
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState

CHILD = workflow("- {name: inner, agent: x, input: {n: '${inputs.n}'}}", name="child")
V = "${steps.make.v}"
COMPUTED = {
    "questions": f'ask: {{title: "{V}", questions: "{V}"}}',
    "a question": f'ask: {{questions: [{{id: q, text: "{V}", why: "{V}", options: ["{V}", 2]}}]}}',
    "a pattern": f'ask: {{questions: [{{id: q, text: Which?, pattern: "{V}"}}]}}',
    "a gate": f'gate: {{title: "{V}", why: "so {V}", risk: "{V}", confidence: {{of: "{V}", at_least: 0.9}}}}',
    "a list": f'map: {{over: "{V}", steps: [{{name: a, agent: x, input: ["${{item}}"]}}], result: "${{steps.a}}"}}',
    "turns": f"repeat: {{limit: 3, until: \"index >= steps.make.v\", steps: [{{name: a, transform: '{V}'}}]}}",
    "a condition": 'when: "steps.make.v", transform: 1',
    "cases": 'branch: {cases: {one: "steps.make.v > 1", two: "steps.make.v == null"}, otherwise: three}',
    "a moment": f'wait: {{until: "{V}"}}',
    "an event": 'wait: {event: paid, match: "event.data.id == steps.make.v", timeout: 1h}',
    "a deadline": f'agent: x, deadline: "{V}"',
    "a cache": f'agent: x, cache: {{key: "{V}", ttl: 1d}}',
    "words": 'transform: {text: "so ${steps.make.v}", size: "${size(steps.make.v)}"}',
    "an input": f'agent: x, input: "{V}"',
    "a body": f'workflow: child, input: "{V}"',
}
CHANGES = f"""
- {{name: make, agent: x}}
- {{name: ok, gate: {{title: Write, approves: [it]}}}}
- name: it
  connector: files.write
  effect: write
  input: "{V}"
  compensate: {{connector: files.remove, input: "{V}"}}
"""

QUEUED = Queueing("queue", compile_mapping("${inputs.k}", "spec.concurrency.key"))
PYTHON = re.compile(r"Decimal\(|datetime|Pointer\(|\bNone\b|\bTrue\b|\bFalse\b|b'|\bdict\b|AssertionError")

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers(-(2**63), 2**63 - 1)
    | st.text("acdexyz ([{é1²\n\x1b", max_size=12)  # of which no word of Python can be made
    | st.sampled_from(
        ["0.95", "2026-12-24T09:00:00Z", "0001-01-01T00:00:00+14:00", "(", "[a-z]+", "2030-01-01", ""]
    )
    | st.binary(max_size=6)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3)
    | st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)])
    | st.just(Pointer("ab" * 32, 7))
)
FIELDS = st.sampled_from(["id", "text", "why", "options", "pattern", "n", "$artifact", "$bytes"])
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
QUESTIONS = st.lists(
    st.fixed_dictionaries(
        {"id": SCALARS, "text": PLAIN},
        optional={"options": st.lists(PLAIN, max_size=3) | PLAIN, "pattern": SCALARS},
    ),
    max_size=3,
)


def goes_on(run: Driver) -> None:
    """A worker and a person, who do all that can be done."""
    for _ in range(30):
        if run.run.closed:
            return
        for approval in run.run.open_approvals():
            if approval.kind == ApprovalKind.APPROVAL_KIND_QUESTION:
                answers = {item.id: (list(item.options) or ["abc"])[0] for item in approval.questions}
                said = run.decide(A.APPROVAL_STATE_ANSWERED, answers, approval=approval)
                if said.refusal is not None:
                    assert said.refusal.code == "BAD_ANSWER"
                    run.decide(A.APPROVAL_STATE_REJECTED, approval=approval)
            else:
                run.decide(A.APPROVAL_STATE_APPROVED, approval=approval)
        for step in list(run.run.steps.values()):
            if step.state == S.STEP_STATE_RUNNING and run.workflow.at(step.name).kind == "work":
                run.settle(step.name)


@pytest.mark.hypothesis
@pytest.mark.feature("D1")
@pytest.mark.parametrize("what", COMPUTED)
@settings(max_examples=tries(30), deadline=None)
@given(value=PLAIN | QUESTIONS, strange=st.booleans())
def test_whatever_is_computed_the_run_goes_on_or_says_what_is_wrong(
    what: str, value: Plain, strange: bool
) -> None:
    run = Driver(
        workflow(f"- {{name: make, agent: x}}\n- {{name: it, {COMPUTED[what]}}}", uses={"child": CHILD})
    )
    label = outside("step:make") if strange else OWNER
    run.settle("make", output=encode(labeled({"v": value}, label)))
    goes_on(run)
    if run.run.state == R.RUN_STATE_FAILED:
        assert run.run.error.code not in ("", "INTERNAL")
        assert not PYTHON.search(run.run.error.message)


def asking(questions: Plain) -> Driver:
    run = Driver(workflow(f'- {{name: make, agent: x}}\n- {{name: it, ask: {{questions: "{V}"}}}}'))
    run.settle("make", output=encode(labeled({"v": questions}, OWNER)))
    return run


WRONG = {
    "questions must be a list of 1 to 50, not 'Which?'": "Which?",
    "questions must be a list of 1 to 50, not 0": [],
    "questions must be a list of 1 to 50, not 51": [
        {"id": f"q{at}", "text": "?"} for at in range(MAX_QUESTIONS + 1)
    ],
    "questions[0] must be a map, not the number 7": [7],
    "questions[1].text is missing": [{"id": "q", "text": "?"}, {"id": "r", "text": ""}],
    "questions[0].id must be a text, not a list": [{"id": ["q"], "text": "?"}],
    "questions[1].id 'q' stands twice": [{"id": "q", "text": "?"}, {"id": "q", "text": "!"}],
    "questions[0].options must be a list, not 'yes'": [{"id": "q", "text": "?", "options": "yes"}],
    "questions[0].options must be a list, not a map": [{"id": "q", "text": "?", "options": {"a": 1}}],
    "questions[0].options has 201 entries; a person chooses from 200 at most": [
        {"id": "q", "text": "?", "options": [f"o{at}" for at in range(MAX_OPTIONS + 1)]}
    ],
    "questions[0].pattern must be a text, not the number 7": [{"id": "q", "text": "?", "pattern": 7}],
}


@pytest.mark.feature("D1")
@pytest.mark.parametrize("says", WRONG)
def test_an_agents_questions_that_can_not_be_asked_fail_their_step_and_say_where(says: str) -> None:
    """Options that were no list wedged the run by a defect, and those past the 200th were left out silently."""
    run = asking(WRONG[says])
    assert run.run.state == R.RUN_STATE_FAILED
    assert run.run.error.code == "BAD_OUTPUT"
    assert f"Step 'it' can't ask: {says}" in run.run.error.message


@pytest.mark.feature("D1")
def test_yes_and_no_are_offered_and_answered_as_they_stand_in_the_document() -> None:
    """As in all of YAML they are truth values there; a person was offered True and False, and `yes` was no answer."""
    question = "{id: 7, text: Shall we?, options: [yes, no, 1.50, null, [a, 1]]}"
    run = Driver(workflow(f"- {{name: it, ask: {{questions: [{question}]}}}}"))
    (asked,) = run.approval.questions
    assert (asked.id, list(asked.options)) == ("7", ["yes", "no", "1.50", "", '["a",1]'])
    assert run.decide(A.APPROVAL_STATE_ANSWERED, {"7": "Yes"}).refusal is None
    assert plain(decode(run.run.at("it").output))["answered"] == [
        {
            "id": 7,
            "text": "Shall we?",
            "options": [True, False, Decimal("1.50"), None, ["a", 1]],
            "answer": "yes",
        }
    ]


@pytest.mark.feature("D1")
def test_words_of_a_gate_that_are_cut_say_so() -> None:
    run = Driver(workflow(f'- {{name: make, agent: x}}\n- {{name: it, gate: {{title: "{V}"}}}}'))
    run.settle("make", output=encode(labeled({"v": "x" * 20_001}, OWNER)))
    assert run.approval.title == "x" * 20_000 + " … (1 character more)"
    run = Driver(workflow(f'- {{name: make, agent: x}}\n- {{name: it, gate: {{title: "{V}"}}}}'))
    run.settle("make", output=encode(labeled({"v": "x" * 20_000}, OWNER)))
    assert run.approval.title == "x" * 20_000


@pytest.mark.feature("B3")
@pytest.mark.parametrize(
    ("value", "key"),
    [("a", "a"), ("", '""'), (None, "null"), (True, "true"), (7, "7"), ({"a": [1]}, '{"a":[1]}')],
)
def test_runs_count_as_one_by_any_value(value: Plain, key: str) -> None:
    """An empty text was a key under which no run took the place of another."""
    assert key_of(QUEUED, labeled({"k": value}, OWNER)) == key


@pytest.mark.feature("B3")
def test_a_key_that_is_too_long_is_refused_by_its_name() -> None:
    assert len(key_of(QUEUED, labeled({"k": "x" * MAX_KEY_CHARS}, OWNER))) == MAX_KEY_CHARS
    with pytest.raises(TerminalError, match=r"concurrency\.key: 301 characters; a key has at most 300\."):
        key_of(QUEUED, labeled({"k": "x" * (MAX_KEY_CHARS + 1)}, OWNER))


@pytest.mark.feature("D6")
@settings(max_examples=tries(30), deadline=None)
@given(value=PLAIN)
def test_an_undo_by_any_computed_input_is_handed_out_or_says_what_is_wrong(value: Plain) -> None:
    run = Driver(workflow(CHANGES))
    run.settle("make", output=encode(labeled({"v": value}, OWNER)))
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("it")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    undone = run.give(Undo("wrong"))
    assert undone.refusal is not None or undone.undoing == ("it",)
