"""Plans: drafted by an agent, checked as a workflow is, approved by a person, carried out, and revised under way."""

from typing import Any

import pytest

from aios.run.v1.commands_pb2 import EditApprovalRequest
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import ApprovalState as A
from aios.run.v1.state_pb2 import Recovery as V
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, Trust, outside
from aios_core.values import Plain, Value, label_of, labeled, plain
from aios_orchestrator.core.decide import Cancel, Edit, Undo
from aios_orchestrator.core.migrate import Migrate
from tests.orchestrator.runs import Driver, workflow

WORK = """
- name: work
  plan:
    agent: planner
    goal: "Do ${inputs.n} things"
    input: {n: "${inputs.n}"}
    may:
      agents: [writer]
      actions: {mail.send: irreversible, files.write_file: write}
    steps: 6
- {name: end, transform: "${steps.work}"}
"""
OUT = '  outputs: {r: "${steps.end}"}\n'
FIRST: dict[str, Plain] = {
    "why": "it is short",
    "steps": [
        {"name": "one", "agent": "writer", "input": {"n": "${inputs.n}"}},
        {"name": "two", "connector": "files.write_file", "input": {"text": "${steps.one.n}"}},
    ],
    "outputs": {"n": "${steps.one.n}"},
}
SECOND: dict[str, Plain] = {
    **FIRST,
    "steps": [
        *FIRST["steps"][:1],  # type: ignore[index]
        {"name": "other", "agent": "writer", "input": {"again": "${steps.one.n}"}},
    ],
}
WIDE_STEPS: list[Any] = [
    {
        "name": "each",
        "map": {
            "over": [5, 6, 7, 8],
            "at_once": 2,
            "steps": [{"name": "draw", "agent": "writer", "input": {"n": "${item}"}}],
            "result": "${steps.draw.n}",
        },
    },
    {"name": "aside", "agent": "writer", "input": {"n": "${inputs.n}"}, "needs": []},
    {
        "name": "sum",
        "agent": "writer",
        "needs": ["each", "aside"],
        "input": {"all": "${steps.each.results}", "n": "${steps.aside.n}"},
    },
]
WIDE: dict[str, Plain] = {
    "steps": WIDE_STEPS,
    "outputs": {"all": "${steps.sum.all}", "aside": "${steps.sum.n}"},
}


def given(plan: Plain, trust: Any = OWNER) -> bytes:
    return encode(labeled(plan, trust))


def planned(plan: Plain = FIRST, *, approve: bool = True, trust: Any = OWNER) -> Driver:
    run = Driver(workflow(WORK, OUT))
    run.settle("work.draft", output=given(plan, trust))
    if approve:
        run.decide(A.APPROVAL_STATE_APPROVED)
    return run


def kinds(run: Driver) -> list[str]:
    return [str(RunEvent.FromString(data).WhichOneof("body")) for data in run.history]


def state(run: Driver, step: str) -> int:
    return run.run.at(step).state


def seen(run: Driver, step: str) -> Any:
    return plain(decode(run.run.at(step).input))


def edit(run: Driver, plan: Plain) -> None:
    value = plain(decode(run.approval.proposed[0].arguments))
    assert isinstance(value, dict)
    request = EditApprovalRequest(
        approval_id=run.approval.approval_id,
        actor="person:owner",
        arguments_sha256=run.approval.arguments_sha256,
    )
    run.give(Edit(request, labeled({**value, "plan": plan}, OWNER)))


@pytest.mark.feature("C3")
def test_a_plan_is_drafted_shown_approved_and_carried_out() -> None:
    run = Driver(workflow(WORK, OUT))
    assert seen(run, "work.draft") == {
        "goal": "Do 1 things",
        "inputs": {"n": 1},
        "may": {
            "agents": ["writer"],
            "actions": {"mail.send": "irreversible", "files.write_file": "write"},
            "memory": [],
            "workflows": [],
            "steps": 6,
        },
    }
    run.settle("work.draft", output=given(FIRST))
    assert run.approval.step == "work.approve" and run.approval.title == "Approve the plan: Do 1 things"
    assert run.approval.why == "it is short"
    assert "name: one" in run.approval.plan.text and not run.approval.plan.parent
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.one",)
    assert (
        run.run.plans["work.plan"].version
        == run.last.run.approvals[run.run.at("work.approve").approval_id].plan.version
    )
    assert seen(run, "work.plan.one") == {"n": 1}
    assert run.settle("work.plan.one").dispatched == ("work.plan.two",)
    run.settle("work.plan.two")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": {"n": 1}}


@pytest.mark.feature("C3")
def test_nothing_of_a_plan_runs_without_its_approval() -> None:
    run = planned(approve=False)
    assert "work.plan.one" not in run.run.steps and not run.run.plans
    run.decide(A.APPROVAL_STATE_REJECTED)
    assert run.run.state == R.RUN_STATE_CANCELLED and "plan_adopted" not in kinds(run)


@pytest.mark.feature("C3")
@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"steps": []}, "steps: must be a list of at least one step."),
        ([1], "A plan is a map with `steps`"),
        ("steps: [", "It can't be read"),
        ({"steps": [{"name": "a", "agent": "writr"}]}, "did you mean 'writer'?"),
        ({"steps": [{"name": "a", "agent": "root"}]}, "the plan may not use the agent 'root'"),
        ({"steps": [{"name": "a", "memory": "write"}]}, "it may use: none."),
        ({"steps": [{"name": "a", "workflow": "w"}]}, "may not use the workflow 'w'"),
        ({"steps": [{"name": "a", "connector": "shell.run"}]}, "may not use the action 'shell.run'"),
        (
            {"steps": [{"name": "a", "connector": "files.write_file", "effect": "read"}]},
            "steps[0].effect: files.write_file is write, whatever a plan says",
        ),
        ({"steps": [{"name": "a", "connector": "mail.send"}]}, "can't be taken back; put a gate"),
        (
            {
                "steps": [
                    {"name": "g", "gate": {"approves": ["a"], "confidence": {"of": 1, "at_least": 0}}},
                    {"name": "a", "connector": "mail.send"},
                ]
            },
            "a planned gate always asks a person",
        ),
        (
            {"steps": [{"name": "g", "gate": {"approves": [], "fails": "open"}}]},
            "steps[0].gate.fails: a planned gate always asks a person",
        ),
        ({"steps": [{"name": "a", "agent": "writer", "input": "${inputs.m}"}]}, "'m'"),
        ({"steps": [{"name": "a", "agent": "writer", "input": "${steps.end}"}]}, "there is no step 'end'"),
        ({"steps": [{"name": "a", "plan": {"agent": "writer", "goal": "x"}}]}, "has no plan"),
        ({"steps": [{"name": "a", "agent": "writer", "needs": ["a"]}]}, "circle"),
        ({"steps": [{"name": "a", "agent": "writer", "priority": 9}]}, "has no priority"),
        ({"steps": [{"name": "a", "agent": "writer", "budget": "900"}]}, "more than the cap"),
        ({"steps": [{"name": f"s{at}", "agent": "writer"} for at in range(7)]}, "has 7 steps; at most 6"),
        ({"steps": [{"name": "a", "wait": {"event": "x"}}]}, "not for an event"),
        ({"steps": [{"name": "a", "agent": "writer"}], "parent": "x"}, "parent: there is no such field"),
        ({"steps": [{"name": "a", "agent": "writer", "input": {"x": "y" * 30_000}}]}, "at most 24576"),
        (
            {
                "steps": [
                    {
                        "name": "a",
                        "map": {"over": [1], "steps": [{"name": "b", "connector": "shell.run"}]},
                    }
                ]
            },
            "steps[0].map.steps[0].connector: the plan may not use the action 'shell.run'",
        ),
        (
            {
                "steps": [
                    {
                        "name": "a",
                        "connector": "files.write_file",
                        "compensate": {"connector": "shell.run"},
                    }
                ]
            },
            "steps[0].compensate.connector: the plan may not use the action 'shell.run'",
        ),
    ],
)
def test_what_is_no_plan_goes_back_to_the_planner_with_all_that_is_wrong(plan: Plain, says: str) -> None:
    run = Driver(workflow(WORK, OUT))
    first = run.run.at("work.draft").attempt_group
    assert run.settle("work.draft", output=given(plan), cost_micros=5).dispatched == ("work.draft",)
    assert says in seen(run, "work.draft")["problems"]
    assert run.run.at("work.draft").attempt_group == first + 1 and run.run.settled == 5
    run.settle("work.draft", output=given(plan))
    run.settle("work.draft", output=given(plan))
    assert run.run.state == R.RUN_STATE_FAILED and run.run.error is not None
    assert run.run.error.code == "BAD_PLAN" and says in run.run.error.message
    assert "plan_adopted" not in kinds(run)


@pytest.mark.feature("C3")
def test_a_planner_that_mends_its_plan_goes_on() -> None:
    run = Driver(workflow(WORK, OUT))
    run.settle("work.draft", output=given({"text": "```yaml\nsteps: []\n```"}))
    run.settle("work.draft", output=given({"text": "```yaml\nsteps: [{name: a, agent: writer}]\n```"}))
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert "work.plan.a" in run.run.steps


@pytest.mark.feature("C3")
def test_what_a_plan_says_is_vouched_for_by_who_approved_it_and_what_it_reads_is_not() -> None:
    plan: Plain = {
        "steps": [
            {"name": "one", "agent": "writer"},
            {
                "name": "two",
                "connector": "files.write_file",
                "input": {"path": "a.txt", "text": "${steps.one.text}"},
            },
        ]
    }
    run = planned(plan, trust=outside("agent:planner"))
    run.settle("work.plan.one", output=given({"text": "x"}, outside("agent:writer")))
    value: Value = decode(run.run.at("work.plan.two").input)
    assert isinstance(value, dict)
    assert label_of(value["path"]).trust == Trust.APPROVED
    assert {"agent:planner", "person:owner"} <= set(label_of(value["path"]).origins)
    assert label_of(value["text"]).trust == Trust.UNTRUSTED


@pytest.mark.feature("C3")
def test_a_person_edits_a_plan_and_exactly_that_is_carried_out() -> None:
    run = planned(approve=False)
    before = run.approval.plan.version
    edit(run, SECOND)
    assert run.approval.plan.parent == before and "+- name: other" in run.approval.plan.diff
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("work.plan.one")
    assert state(run, "work.plan.other") == S.STEP_STATE_DISPATCHED
    adopted = next(
        RunEvent.FromString(data).plan_adopted
        for data in run.history
        if RunEvent.FromString(data).HasField("plan_adopted")
    )
    assert adopted.parent == before and adopted.approver == "person:owner"


@pytest.mark.feature("C3")
def test_an_edit_that_is_no_plan_is_refused_at_once() -> None:
    run = planned(approve=False)
    edit(run, {"steps": [{"name": "a", "agent": "root"}]})
    assert run.last.refusal is not None and run.last.refusal.code == "BAD_PLAN"
    assert run.approval.plan.text.startswith("why: it is short")


@pytest.mark.feature("C3")
def test_a_revision_keeps_what_is_finished_and_holds_the_rest() -> None:
    run = planned()
    run.recover(V.RECOVERY_REPLAN, why="No file, please.")
    run.settle("work.plan.one")
    assert "work.plan.two" not in run.run.steps  # held until another plan is decided
    asked = seen(run, "work.draft")
    assert asked["note"] == "No file, please." and asked["parent"] == FIRST
    assert asked["done"] == [{"step": "one", "state": "dispatched"}]
    run.settle("work.draft", output=given(SECOND))
    assert run.approval.plan.parent == run.run.plans["work.plan"].version
    assert "-- name: two" in run.approval.plan.diff
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.other",)
    run.settle("work.plan.other")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": {"n": 1}}
    assert kinds(run).count("plan_adopted") == 2
    assert sum(RunEvent.FromString(d).step_scheduled.step == "work.plan.one" for d in run.history) == 1


@pytest.mark.feature("C6")
def test_a_plan_fans_out_and_every_part_of_it_works_on_the_one_version_that_was_approved() -> None:
    """Whatever order its parts end in, what they give comes in the order of the list, and the sum needs all of them."""
    run = planned(WIDE)
    version = run.run.plans["work.plan"].version
    at_once = {"work.plan.each[0].draw", "work.plan.each[1].draw", "work.plan.aside"}
    assert set(run.last.dispatched) == at_once
    run.settle("work.plan.each[1].draw")
    run.settle("work.plan.aside")
    assert state(run, "work.plan.sum") == S.STEP_STATE_PENDING
    assert run.settle("work.plan.each[2].draw").dispatched == ("work.plan.each[3].draw",)
    for item in (3, 0):
        run.settle(f"work.plan.each[{item}].draw")
    run.settle("work.plan.sum")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert run.outputs == {"r": {"all": [5, 6, 7, 8], "aside": 1}}
    assert run.run.plans["work.plan"].version == version and kinds(run).count("plan_adopted") == 1


@pytest.mark.feature("C3", "C6")
def test_another_plan_in_the_middle_of_a_fan_out_keeps_every_part_that_is_done_and_doubles_none() -> None:
    run = planned(WIDE)
    run.settle("work.plan.each[1].draw")
    assert run.recover(V.RECOVERY_REPLAN, why="And tell them.").dispatched == ("work.draft",)
    for item in (0, 2):  # which were under way
        run.settle(f"work.plan.each[{item}].draw")
    assert "work.plan.each[3].draw" not in run.run.steps, "no other part begins until another plan is decided"
    narrow = [{**WIDE_STEPS[0], "map": {**WIDE_STEPS[0]["map"], "over": [5]}}, *WIDE_STEPS[1:]]
    run.settle("work.draft", output=given({**WIDE, "steps": narrow}))
    assert "each" in seen(run, "work.draft")["problems"], "what has begun for four can't be for one"
    told = [*WIDE_STEPS, {"name": "tell", "agent": "writer", "input": {"n": "${steps.sum.n}"}}]
    run.settle("work.draft", output=given({**WIDE, "steps": told}))
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.each[3].draw",)
    run.settle("work.plan.each[3].draw")
    for step in ("aside", "sum", "tell"):
        run.settle(f"work.plan.{step}")
    assert run.run.state == R.RUN_STATE_SUCCEEDED and run.outputs == {"r": {"all": [5, 6, 7, 8], "aside": 1}}
    scheduled = [RunEvent.FromString(data).step_scheduled.step for data in run.history]
    for item in range(4):
        assert scheduled.count(f"work.plan.each[{item}].draw") == 1


@pytest.mark.feature("C6")
def test_a_part_that_fails_ends_the_fan_out_and_what_it_changed_can_be_taken_back_whole() -> None:
    steps = [
        {
            "name": "each",
            "map": {
                "over": ["a", "b", "c"],
                "at_once": 3,
                "steps": [
                    {"name": "put", "connector": "files.write_file", "input": {"text": "${item}"}},
                    {"name": "draw", "agent": "writer", "input": {"n": "${item}"}},
                ],
            },
        }
    ]
    run = planned({"steps": steps})
    for item in range(3):
        run.settle(f"work.plan.each[{item}].put")
    run.settle("work.plan.each[2].draw")
    run.fail("work.plan.each[0].draw")
    run.settle("work.plan.each[1].draw")
    assert run.run.state == R.RUN_STATE_FAILED and run.run.failed == "work.plan.each[0].draw"
    run.give(Undo(""))
    taken: list[str] = []
    while run.run.state == R.RUN_STATE_UNDOING:
        (name,) = [step.name for step in run.run.steps.values() if step.state == S.STEP_STATE_UNDOING]
        taken.append(name)
        run.settle(name)
    assert run.run.state == R.RUN_STATE_UNDONE
    assert taken == [f"work.plan.each[{item}].put" for item in (2, 1, 0)]


@pytest.mark.feature("C3")
def test_a_revision_that_leaves_out_what_has_begun_goes_back_to_the_planner() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.recover(V.RECOVERY_REPLAN)
    run.settle("work.draft", output=given({"steps": [{"name": "else", "agent": "writer"}]}))
    assert "one is not there any more, and it has begun" in seen(run, "work.draft")["problems"]
    run.settle(
        "work.draft",
        output=given(
            {
                "steps": [
                    {"name": "one", "agent": "writer", "input": {"n": 7}},
                    {"name": "two", "connector": "files.write_file", "input": {"text": "${steps.one.n}"}},
                ]
            }
        ),
    )
    assert "one has another input now" in seen(run, "work.draft")["problems"]


@pytest.mark.feature("C3")
@pytest.mark.parametrize("how", ["rejected", "no plan", "failed"])
def test_without_another_plan_the_run_goes_on_by_the_one_it_has(how: str) -> None:
    run = planned()
    before = run.run.plans["work.plan"].version
    run.recover(V.RECOVERY_REPLAN)
    run.settle("work.plan.one")
    if how == "rejected":
        run.settle("work.draft", output=given(SECOND))
        run.decide(A.APPROVAL_STATE_REJECTED)
    elif how == "failed":
        run.fail("work.draft")
    else:
        for _ in range(3):
            run.settle("work.draft", output=given({"steps": []}))
    assert state(run, "work.plan.two") == S.STEP_STATE_DISPATCHED
    assert run.run.plans["work.plan"].version == before and not run.run.plans["work.plan"].revising
    run.settle("work.plan.two")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("C3")
def test_a_plan_that_ends_while_another_one_is_asked_for_waits_for_that() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.recover(V.RECOVERY_REPLAN)
    run.settle("work.plan.two")
    assert state(run, "work.plan") == S.STEP_STATE_RUNNING
    more: Plain = {**FIRST, "steps": [*FIRST["steps"], {"name": "last", "agent": "writer"}]}  # type: ignore[misc]
    run.settle("work.draft", output=given(more))
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.last",)
    run.recover(V.RECOVERY_REPLAN)
    run.settle("work.plan.last")
    run.settle("work.draft", output=given(more))
    run.decide(A.APPROVAL_STATE_REJECTED)
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("C3")
def test_a_step_that_failed_is_planned_around() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.fail("work.plan.two")
    assert run.run.state == R.RUN_STATE_FAILED
    run.recover(V.RECOVERY_REPLAN, why="Without the file.")
    assert run.run.state == R.RUN_STATE_RUNNING and "work.plan.two" in run.run.steps
    run.settle("work.draft", output=given(SECOND))
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.other",)
    assert "work.plan.two" not in run.run.steps
    run.recover(V.RECOVERY_REPLAN)
    both = [*SECOND["steps"], *FIRST["steps"][1:]]  # type: ignore[index, misc]
    run.settle("work.draft", output=given({**FIRST, "steps": both}))
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("work.plan.other")
    assert run.run.at("work.plan.two").attempt_group > 2  # it is other work than before, under another key


@pytest.mark.feature("C3")
def test_only_a_plan_that_is_carried_out_can_be_revised() -> None:
    def code(run: Driver, **fields: Any) -> str:
        run.recover(V.RECOVERY_REPLAN, **fields)
        assert run.last.refusal is not None and not run.last.events
        return f"{run.last.refusal.code} {run.last.refusal.message}"

    assert "the run follows no plan yet" in code(planned(approve=False))
    run = planned()
    assert "name the step whose plan it is: work" in code(run, step="end")
    assert "value" in code(run, value={"a": 1})
    run.recover(V.RECOVERY_REPLAN, step="work.plan.one")
    assert "is asked for" in code(run)
    done = planned()
    done.settle("work.plan.one")
    done.settle("work.plan.two")
    assert code(done).startswith("RUN_CLOSED")


@pytest.mark.feature("C3")
def test_a_person_gives_the_plan_where_the_planner_has_none() -> None:
    run = Driver(workflow(WORK, OUT))
    run.fail("work.draft")
    run.recover(V.RECOVERY_SKIP, "work.draft", {"steps": FIRST["steps"]})
    assert run.approval.why == "" and "name: one" in run.approval.plan.text
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.one",)


@pytest.mark.feature("C3")
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "INVALID_ARGUMENT value: give the plan"),
        ({"n": 4}, "BAD_PLAN n: there is no such field"),
        ({"steps": [{"name": "one", "agent": "root"}]}, "BAD_PLAN steps[0].agent: the plan may not use"),
    ],
    ids=["none", "another-thing", "forbidden"],
)
def test_what_a_person_gives_is_a_plan_or_refused_at_once(value: Plain, says: str) -> None:
    """It was shown for approval, and nothing could come of that."""
    run = Driver(workflow(WORK, OUT))
    run.fail("work.draft")
    refusal = run.recover(V.RECOVERY_SKIP, "work.draft", value).refusal
    assert refusal is not None and f"{refusal.code} {refusal.message}".startswith(says)
    assert run.run.state == R.RUN_STATE_FAILED


@pytest.mark.feature("C3", "D6")
def test_what_a_plan_has_changed_is_undone_like_anything_else() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.settle("work.plan.two")
    run.give(Undo("not so"))
    assert run.last.undoing == ("work.plan.two",)
    run.settle("work.plan.two")
    assert run.run.state == R.RUN_STATE_UNDONE


@pytest.mark.feature("C3", "D8")
def test_a_rewind_to_the_plan_drafts_another_one() -> None:
    run = planned()
    first = run.run.plans["work.plan"].version
    run.settle("work.plan.one")
    run.fail("work.plan.two")
    run.recover(V.RECOVERY_REWIND, "work.draft")
    run.settle("work.draft", output=given(SECOND))
    assert run.approval.plan.parent == first
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.one",)
    run.settle("work.plan.one")
    run.settle("work.plan.other")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("C3", "D8")
def test_a_revision_that_a_rewind_overtakes_is_a_first_plan_again() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.recover(V.RECOVERY_REPLAN)
    run.fail("work.plan.two")
    run.settle("work.draft", output=given(SECOND))
    assert run.run.state == R.RUN_STATE_FAILED
    run.recover(V.RECOVERY_REWIND, "work")
    assert "parent" not in seen(run, "work.draft")
    run.settle("work.draft", output=given(SECOND))
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.one",)
    assert not run.run.plans["work.plan"].revising
    run.settle("work.plan.one")
    run.settle("work.plan.other")
    assert run.run.state == R.RUN_STATE_SUCCEEDED


@pytest.mark.feature("C3", "D8")
def test_a_run_that_failed_while_another_plan_was_asked_for_goes_on_with_that() -> None:
    run = planned()
    run.settle("work.plan.one")
    run.recover(V.RECOVERY_REPLAN)
    more: Plain = {**FIRST, "steps": [*FIRST["steps"], {"name": "last", "agent": "writer"}]}  # type: ignore[misc]
    run.settle("work.draft", output=given(more))
    run.fail("work.plan.two")
    assert run.run.state == R.RUN_STATE_FAILED
    run.recover(V.RECOVERY_RETRY)
    assert state(run, "work.plan.two") == S.STEP_STATE_PENDING
    assert run.decide(A.APPROVAL_STATE_APPROVED).dispatched == ("work.plan.two",)


@pytest.mark.feature("C3", "D10")
def test_a_simulation_shows_what_the_plan_would_do() -> None:
    run = Driver(workflow(WORK, OUT), Mode.MODE_SIMULATE)
    run.settle("work.draft", output=given(FIRST))
    assert state(run, "work.approve") == S.STEP_STATE_SKIPPED
    run.settle("work.plan.one")
    run.settle("work.plan.two")
    assert run.run.state == R.RUN_STATE_SUCCEEDED
    assert run.recover(V.RECOVERY_REPLAN).refusal is not None


@pytest.mark.feature("C3")
def test_what_a_plan_gives_is_checked() -> None:
    text = WORK.replace("- {name: end", "  gives: {type: object, required: [total]}\n- {name: end", 1)
    run = Driver(workflow(text, OUT))
    run.settle("work.draft", output=given(FIRST))
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.settle("work.plan.one")
    run.settle("work.plan.two")
    assert run.run.error is not None and run.run.error.code == "BAD_OUTPUT"


@pytest.mark.feature("C3")
def test_a_plan_stands_outside_of_maps() -> None:
    text = """
- name: each
  map: {over: [1], steps: [{name: w, plan: {agent: a, goal: g}}]}
"""
    with pytest.raises(TerminalError) as error:
        workflow(text)
    assert "planned in a map or a repeat" in error.value.message


@pytest.mark.feature("C3", "D6")
def test_what_is_tried_again_with_a_plan_that_begins_then_begins_as_well() -> None:
    """It was looked for by its place in the document, where the plan's steps stood by then."""
    run = Driver(workflow(WORK + "- {name: aside, needs: [], agent: writer, input: {n: 1}}\n", OUT))
    run.settle("work.draft", output=given(FIRST))
    run.give(Cancel("not now"))
    run.decide(A.APPROVAL_STATE_APPROVED)
    run.fail("aside")
    assert run.run.closed
    run.recover(V.RECOVERY_RETRY)
    assert set(run.last.dispatched) == {"aside", "work.plan.one"}


@pytest.mark.feature("C3", "D4")
def test_a_plan_that_failed_in_the_middle_goes_on_under_another_version_by_the_approval_that_it_has() -> None:
    more: Any = {"name": "more", "agent": "writer", "input": {"n": 1}}
    run = planned({**FIRST, "steps": [*FIRST["steps"], more]})  # type: ignore[misc]
    run.settle("work.plan.one")
    run.fail("work.plan.two")
    run.give(Migrate(workflow(WORK + '- {name: last, transform: "${steps.end}"}\n', OUT)))
    assert run.last.refusal is None
    run.recover(V.RECOVERY_SKIP, "work.plan.two")
    assert run.last.dispatched == ("work.plan.more",) and not run.run.open_approvals()
    run.recover(V.RECOVERY_REPLAN)
    run.settle("work.draft", output=given({**FIRST, "steps": [*FIRST["steps"], more]}))  # type: ignore[misc]
    assert [approval.step for approval in run.run.open_approvals()] == ["work.approve"]
    run.settle("work.plan.more")
    run.decide(A.APPROVAL_STATE_APPROVED)
    assert run.run.state == R.RUN_STATE_SUCCEEDED
