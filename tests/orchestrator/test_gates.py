"""Gates: what an approval is bound to, who may decide, when one passes by itself, and what a person makes of it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from aios.run.v1.commands_pb2 import EditApprovalRequest
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, ApprovalState, RunState, StepState
from aios_core.encoding import decode, encode
from aios_core.hashing import sha256
from aios_core.labels import OWNER, RESOURCE, Label, Trust, outside
from aios_core.values import Plain, labeled, plain
from aios_orchestrator.codec import task_of
from aios_orchestrator.core import gates
from aios_orchestrator.core.decide import Edit, Tick
from aios_orchestrator.due import next_due
from tests.orchestrator.runs import Driver, workflow

A, R, S = ApprovalState, RunState, StepState
MODEL = Label(("agent:sorter",), Trust.UNTRUSTED)
HOUR = 3_600_000


def gated(gate: str, effect: str = "write", scope: str = "") -> Driver:
    """A run that waits at a gate with these fields, after the agent `sort` gave a confidence."""
    return Driver(
        workflow(
            f"""
- {{name: sort, agent: x, input: {{n: "${{inputs.n}}"}}}}
- name: ok
  gate: {{title: "Write it", approves: [put], expires: 10h{gate}}}
- {{name: put, connector: files.write, effect: {effect}, input: {{path: a, entry: {{text: "${{steps.sort.text}}"}}}}}}
"""
        )
    )


def sorted_(run: Driver, confidence: Plain, label: Label = MODEL) -> Driver:
    run.settle("sort", output=encode(labeled({"text": "hello", "confidence": confidence}, label)))
    return run


def bodies(run: Driver) -> list[str]:
    return [str(RunEvent.FromString(data).WhichOneof("body")) for data in run.last.events]


def edited(run: Driver, text: str, approval: Approval | None = None, **fields: Any) -> Any:
    approval = approval or run.approval
    request = EditApprovalRequest(
        approval_id=approval.approval_id,
        actor="person:owner",
        arguments_sha256=approval.arguments_sha256,
        note="kinder",
    )
    for name, value in fields.items():
        setattr(request, name, value)
    return run.give(Edit(request, labeled({"path": "a", "entry": {"text": text}}, OWNER)))


@pytest.mark.feature("I4")
def test_the_task_carries_what_its_approval_is_bound_to() -> None:
    run = sorted_(gated(""), 1)
    approval = run.approval
    assert approval.policy_version not in ("", run.workflow.version)
    run.decide(A.APPROVAL_STATE_APPROVED)
    binding = task_of(run.run, run.workflow, "put", run.run.approvals[approval.approval_id], "").approval
    assert (binding.run_id, binding.step, binding.approver) == ("run_test", "put", "person:owner")
    assert binding.policy_version == approval.policy_version and binding.nonce == approval.nonce
    assert binding.arguments_sha256 == sha256(run.run.at("put").input)


@pytest.mark.feature("I4")
def test_an_approval_under_another_policy_is_refused_and_the_refusal_is_kept_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = sorted_(gated(""), 1)
    monkeypatch.setattr(gates, "RULES", "others")
    last = run.decide(A.APPROVAL_STATE_APPROVED)
    assert last.refusal is not None and last.refusal.code == "APPROVAL_STALE"
    (refusal,) = run.approval.refusals
    assert (refusal.decided_by, refusal.error.code) == ("person:owner", "APPROVAL_STALE")
    assert run.run.at("put").state == S.STEP_STATE_PENDING


@pytest.mark.feature("I4")
@pytest.mark.parametrize("case", ["one byte", "expired", "replayed", "another run"])
def test_what_is_refused_is_recorded(case: str) -> None:
    run = sorted_(gated(""), 1)
    approval, fields = run.approval, dict[str, Any]()
    code = {"one byte": "APPROVAL_STALE", "expired": "APPROVAL_EXPIRED", "replayed": "APPROVAL_USED"}
    if case == "one byte":
        fields["arguments_sha256"] = bytes([approval.arguments_sha256[0] ^ 1]) + approval.arguments_sha256[1:]
    elif case == "expired":
        run.now += 10 * HOUR + 1
    elif case == "replayed":
        run.decide(A.APPROVAL_STATE_APPROVED)
        fields["actor"] = "person:ada"
    else:
        fields["approval_id"] = "apr_of_another_run"
    last = run.decide(A.APPROVAL_STATE_APPROVED, approval=approval, **fields)
    assert last.refusal is not None and last.refusal.code == code.get(case, "NOT_FOUND")
    assert bodies(run) == ["decision_refused"]
    kept = run.run.approvals[approval.approval_id].refusals
    assert [item.error.code for item in kept] == ([code[case]] if case in code else [])


@pytest.mark.feature("I4")
def test_words_that_a_model_said_are_marked_and_those_of_the_document_are_not() -> None:
    run = sorted_(gated(', why: "It says ${steps.sort.text}", risk: none'), 1)
    (wording,) = run.approval.wordings
    assert (wording.field, list(wording.origins)) == ("why", ["agent:sorter"])
    mixed = sorted_(gated(', why: "${steps.sort.text} of ${inputs.n}"'), 1)
    (wording,) = mixed.approval.wordings
    assert list(wording.origins) == ["agent:sorter"], "who is vouched for is not named"


@pytest.mark.feature("I4")
def test_a_gate_that_would_show_more_than_anybody_can_be_shown_fails_and_says_what_to_do() -> None:
    steps = [f"s{number}" for number in range(8)]
    text = (
        f"- {{name: a, agent: x}}\n- {{name: g, gate: {{title: Go on, approves: [{', '.join(steps)}]}}}}\n"
        + "".join(
            f'- {{name: {name}, needs: [g], connector: files.put, effect: write, input: {{t: "${{steps.a.text}}"}}}}\n'
            for name in steps
        )
    )
    for size, fails in ((100_000, False), (150_000, True)):
        run = Driver(workflow(text))
        run.settle("a", output=encode(labeled({"text": "x" * size}, OWNER)))
        assert (run.run.state == R.RUN_STATE_FAILED) == fails
    assert run.run.error is not None and run.run.error.code == "TOO_LARGE"
    assert "'g' approves takes" in run.run.error.message


@pytest.mark.feature("I4")
@pytest.mark.parametrize("part", ["", "About "])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""),
        (True, "true"),
        (Decimal("1.50"), "1.5"),
        (datetime(2026, 11, 28, tzinfo=UTC), "2026-11-28T00:00:00Z"),
        (["a", None, 2], '["a",null,2]'),
        (
            {"when": datetime(2026, 11, 28, tzinfo=UTC), "who": "Ö"},
            '{"when":"2026-11-28T00:00:00Z","who":"Ö"}',
        ),
    ],
)
def test_what_is_put_into_words_is_read_without_knowing_how_it_is_kept(
    part: str, value: Plain, words: str
) -> None:
    run = Driver(
        workflow(f'- {{name: a, agent: x}}\n- {{name: g, gate: {{title: "{part}${{steps.a.text}}"}}}}')
    )
    run.settle("a", output=encode(labeled({"text": value}, OWNER)))
    assert run.approval.title == f"{part}{words}"


@pytest.mark.feature("I2")
@pytest.mark.parametrize(
    ("confidence", "label", "passes", "why"),
    [
        (0.8, MODEL, True, ""),
        (1, RESOURCE, True, ""),
        (0.79, MODEL, False, ""),
        (None, MODEL, False, "there is none"),
        ("NaN", MODEL, False, "is no number"),
        (True, MODEL, False, "is no number"),
        (1.01, MODEL, False, "is not from 0 to 1"),
        (-1, MODEL, False, "is not from 0 to 1"),
        (0.99, outside("connector:mail"), False, "came from outside (connector:mail)"),
    ],
)
def test_a_gate_passes_by_a_confidence_that_is_high_enough_and_asks_in_every_doubt(
    confidence: Any, label: Label, passes: bool, why: str
) -> None:
    from aios_core.json_values import from_json

    run = gated(', confidence: {of: "${steps.sort.confidence}", at_least: 0.8}')
    sorted_(run, from_json(confidence), label)
    approval = next(iter(run.run.approvals.values()))
    assert approval.confidence.passed is passes and why in approval.confidence.why
    if passes:
        assert run.last.dispatched == ("put",)
        assert approval.decided_by == "policy:confidence" and "at least 0.8" in approval.note
    else:
        assert approval.state == A.APPROVAL_STATE_OPEN and run.last.dispatched == ()


@pytest.mark.feature("I2")
def test_a_confidence_that_is_missing_asks_a_person() -> None:
    run = gated(', confidence: {of: "${steps.sort.sure}", at_least: 0.8}')
    sorted_(run, 1)
    assert "has no field 'sure'" in run.approval.confidence.why


@pytest.mark.feature("I3")
@pytest.mark.parametrize("effect", ["payment", "legal"])
def test_payments_and_legal_acts_pass_by_no_confidence_and_by_nobodys_silence(effect: str) -> None:
    run = gated(', fails: open, confidence: {of: "${steps.sort.confidence}", at_least: 0.8}', effect)
    sorted_(run, 1)
    assert run.approval.state == A.APPROVAL_STATE_OPEN and not run.approval.fails_open
    run.now += 10 * HOUR
    run.give(Tick())
    assert run.run.state == R.RUN_STATE_CANCELLED


@pytest.mark.feature("I3")
def test_a_payment_without_a_gate_does_not_run_whatever_was_applied() -> None:
    run = Driver(workflow("- {name: pay, connector: bank.pay, effect: payment}"))
    assert run.run.error is not None and run.run.error.code == "APPROVAL_REQUIRED"


@pytest.mark.feature("I2")
@pytest.mark.parametrize(("effect", "opens"), [("write", True), ("irreversible", False)])
def test_a_gate_fails_open_where_it_says_so_and_the_effect_can_be_taken_back(
    effect: str, opens: bool
) -> None:
    run = sorted_(gated(", fails: open", effect), 1)
    run.now += 10 * HOUR
    run.give(Tick())
    assert run.last.dispatched == (("put",) if opens else ())
    if opens:
        (approval,) = run.run.approvals.values()
        assert approval.decided_by == "policy:expiry" and approval.expire_time_ms > run.now
        assert "step_succeeded" in bodies(run)


@pytest.mark.feature("I2")
def test_reminders_and_an_escalation_come_in_their_time_each_once_and_then_it_expires() -> None:
    run = sorted_(gated(", remind: [1h, 4h], escalate: {after: 2h, to: ada}, approvers: {of: [owner]}"), 1)
    begin, told = run.now, []
    while not run.run.closed:
        due = next_due(run.run)
        assert due is not None
        run.now = due
        run.give(Tick())
        told.append(((run.now - begin) // HOUR, bodies(run)[0]))
    assert told == [
        (1, "approval_reminded"),
        (2, "approval_escalated"),
        (4, "approval_reminded"),
        (10, "approval_decided"),
    ]


@pytest.mark.feature("I2")
def test_who_it_was_passed_on_to_may_decide_from_then_on() -> None:
    run = sorted_(gated(", escalate: {after: 2h, to: ada}, approvers: {of: [owner]}"), 1)
    refused = run.decide(A.APPROVAL_STATE_APPROVED, actor="person:ada")
    assert refused.refusal is not None and refused.refusal.code == "NOT_AN_APPROVER"
    run.now += 2 * HOUR
    run.give(Tick())
    assert run.approval.escalated_to == "person:ada"
    assert run.decide(A.APPROVAL_STATE_APPROVED, actor="person:ada").dispatched == ("put",)


@pytest.mark.feature("I2")
def test_two_approvers_are_two_people() -> None:
    run = sorted_(gated(", approvers: {of: [owner, ada, bo], need: 2}"), 1)
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ()
    again = run.decide(A.APPROVAL_STATE_APPROVED)
    assert again.refusal is not None and again.refusal.code == "APPROVED_ALREADY"
    stranger = run.decide(A.APPROVAL_STATE_APPROVED, actor="person:eve")
    assert stranger.refusal is not None and stranger.refusal.code == "NOT_AN_APPROVER"
    assert "owner, ada, bo" in stranger.refusal.message
    assert run.run.at("put").state == S.STEP_STATE_PENDING
    approval = run.approval
    assert run.decide(A.APPROVAL_STATE_APPROVED, actor="person:bo").dispatched == ("put",)
    binding = task_of(run.run, run.workflow, "put", run.run.approvals[approval.approval_id], "").approval
    assert binding.approver == "person:owner, person:bo"


@pytest.mark.feature("I2")
def test_one_of_several_approvers_can_reject() -> None:
    run = sorted_(gated(", approvers: {of: [owner, ada], need: 2}"), 1)
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.decide(A.APPROVAL_STATE_REJECTED, actor="person:ada")
    assert run.run.state == R.RUN_STATE_CANCELLED


@pytest.mark.feature("I6")
def test_an_edit_is_a_new_version_that_needs_an_approval_of_its_own_and_keeps_what_was_proposed() -> None:
    run = sorted_(gated(""), 1)
    before = run.approval
    assert edited(run, "good day").refusal is None
    now = run.approval
    assert now.edited_from == before.approval_id and now.arguments_sha256 != before.arguments_sha256
    assert run.run.approvals[before.approval_id].state == A.APPROVAL_STATE_REPLACED
    (proposed,) = now.proposed
    assert proposed.original == before.proposed[0].arguments and proposed.edited_by == "person:owner"
    late = run.decide(A.APPROVAL_STATE_APPROVED, approval=before)
    assert late.refusal is not None and late.refusal.code == "APPROVAL_STALE"
    edited(run, "good evening")
    assert run.approval.proposed[0].original == before.proposed[0].arguments
    run.decide(A.APPROVAL_STATE_APPROVED)
    data: Any = plain(decode(run.run.at("put").input))
    assert data["entry"]["text"] == "good evening"
    run.settle("put")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("I6")
def test_what_a_person_left_as_it_was_keeps_its_origin() -> None:
    run = sorted_(gated(""), 1)
    data: Any = decode(run.approval.proposed[0].arguments)
    assert data["entry"]["text"].label == MODEL
    edited(run, "good day")
    data = decode(run.approval.proposed[0].arguments)
    assert (data["entry"]["text"].label, data["path"].label) == (OWNER, RESOURCE)


@pytest.mark.feature("I6")
@pytest.mark.parametrize(
    "case", ["unseen", "stale", "same", "another field", "another step", "decided", "stranger"]
)
def test_an_edit_that_can_not_be_is_refused_and_recorded(case: str) -> None:
    run = sorted_(gated(", approvers: {of: [owner]}"), 1)
    approval, fields, text = run.approval, dict[str, Any](), "good day"
    if case == "unseen":
        fields["arguments_sha256"] = b""
    elif case == "stale":
        fields["arguments_sha256"] = b"\1" * 32
    elif case == "same":
        text = "hello"
    elif case == "another step":
        fields["step"] = "sort"
    elif case == "decided":
        run.decide(A.APPROVAL_STATE_APPROVED)
    elif case == "stranger":
        fields["actor"] = "person:eve"
    if case == "another field":
        request = EditApprovalRequest(
            approval_id=approval.approval_id, actor="person:owner", arguments_sha256=approval.arguments_sha256
        )
        last = run.give(Edit(request, labeled({"path": "a", "entrie": 1}, OWNER)))
    else:
        last = edited(run, text, approval, **fields)
    codes = {"stale": "APPROVAL_STALE", "decided": "APPROVAL_USED", "stranger": "NOT_AN_APPROVER"}
    assert last.refusal is not None and last.refusal.code == codes.get(case, "INVALID_ARGUMENT")
    assert bodies(run) == ["decision_refused"]


@pytest.mark.feature("I4")
@pytest.mark.parametrize("scope", ["map", "branch"])
def test_no_approval_is_passed_by_inside_a_branch_or_a_map(scope: str) -> None:
    inner = """
{name: ok, gate: {title: Go, approves: [put]}}
{name: put, connector: files.write, effect: write, input: {n: 1}}
""".strip().splitlines()
    if scope == "map":
        steps = f"- {{name: each, map: {{over: [1, 2], steps: [{', '.join(inner)}]}}}}"
        names = ["each[0].put", "each[1].put"]
    else:
        cond = "steps.fork.case == 'yes'"
        steps = '- {name: fork, branch: {cases: {yes: "inputs.n == 1"}}}\n' + "\n".join(
            "- " + line[:-1] + f', when: "{cond}"}}' for line in inner
        )
        names = ["put"]
    run = Driver(workflow(steps))
    assert run.last.dispatched == ()
    for name in names:
        first = run.run.open_approvals()[0]
        assert [item.step for item in first.proposed] == [name]
        assert run.decide(A.APPROVAL_STATE_APPROVED, approval=first).dispatched == (name,)
