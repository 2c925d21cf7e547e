"""What a client is told of a run's plans, from its events."""

import pytest

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import events_pb2 as ev
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval, ApprovalState, PlanProposal
from aios_gateway import story
from aios_gateway.plan_versions import versions


def event(**body: object) -> RunEvent:
    return RunEvent(actor="person:owner", **body)  # type: ignore[arg-type]


def drafted(by: str = "planner") -> RunEvent:
    return event(step_scheduled=ev.StepScheduled(step="work.draft", target=by, attempt=1))


def proposed(name: str, version: str, parent: str = "") -> RunEvent:
    plan = PlanProposal(version=version, parent=parent, text=f"steps: {version}", diff="")
    approval = Approval(approval_id=name, step="work.approve", plan=plan)
    return event(approval_requested=ev.ApprovalRequested(step="work.approve", approval=approval))


def decided(name: str, state: int) -> RunEvent:
    return event(
        approval_decided=ev.ApprovalDecided(
            step="work.approve",
            approval_id=name,
            state=state,  # type: ignore[arg-type]
            decided_by="person:owner",
        )
    )


def adopted(version: str, parent: str = "") -> RunEvent:
    return event(
        plan_adopted=ev.PlanAdopted(
            step="work.plan", version=version, parent=parent, plan=b'{"steps":[]}', approver="person:owner"
        )
    )


@pytest.mark.feature("C3")
def test_each_version_is_told_with_what_became_of_it() -> None:
    refused = ev.PlanRefused(step="work.draft", error=Error(code="BAD_PLAN", message="no steps"))
    found = versions(
        [
            drafted(),
            event(plan_refused=refused),
            drafted(),
            proposed("a1", "v1"),
            decided("a1", ApprovalState.APPROVAL_STATE_APPROVED),
            adopted("v1"),
            event(plan_revision_requested=ev.PlanRevisionRequested(step="work", note="shorter")),
            proposed("a2", "v2", "v1"),
            decided("a2", ApprovalState.APPROVAL_STATE_REJECTED),
            proposed("a3", "v3", "v1"),
            decided("a3", ApprovalState.APPROVAL_STATE_APPROVED),
            adopted("v3", "v1"),
            proposed("a4", "v4", "v3"),
            decided("a4", ApprovalState.APPROVAL_STATE_EXPIRED),
            proposed("a5", "v5", "v3"),
            event(run_cancelled=ev.RunCancelled()),
        ]
    )
    told = [(item.version, item.state, item.parent) for item in found]
    assert told == [
        ("", "refused", ""),
        ("v1", "replaced", ""),
        ("v2", "rejected", "v1"),
        ("v3", "followed", "v1"),
        ("v4", "expired", "v3"),
        ("v5", "withdrawn", "v3"),
    ]
    assert found[0].note == "no steps" and found[2].note == "shorter"
    assert {item.by for item in found} == {"agent:planner"} and found[1].decided_by == "person:owner"


@pytest.mark.feature("C3")
def test_a_simulation_follows_a_plan_that_nobody_was_asked_about() -> None:
    (found,) = versions([drafted(), adopted("v1")])
    assert (found.state, found.version, found.step) == ("followed", "v1", "work") and '"steps"' in found.text


@pytest.mark.feature("C3", "K2")
def test_the_story_tells_of_plans() -> None:
    lines = story.tell(
        [
            event(plan_refused=ev.PlanRefused(step="work.draft", error=Error(message="no steps"))),
            adopted("0123456789abcdef"),
            event(plan_revision_requested=ev.PlanRevisionRequested(step="work", note="shorter")),
            event(plan_revision_dropped=ev.PlanRevisionDropped(step="work", error=Error(message="rejected"))),
        ]
    )
    assert [(line.what, line.why) for line in lines] == [
        ("asks work.draft again: what it gave is no plan", "no steps"),
        ("follows plan 01234567 for work", ""),
        ("asked for another plan of work; nothing more of this one begins until it is decided", "shorter"),
        ("goes on by the plan that work has", "rejected"),
    ]
