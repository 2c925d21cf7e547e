"""The versions of a run's plans, as its events tell of them. Pure."""

import json
from collections.abc import Iterable
from typing import Final

from aios.api.v1.api_pb2 import PlanVersion
from aios.run.v1.events_pb2 import ApprovalDecided, PlanAdopted, RunEvent
from aios.run.v1.state_pb2 import Approval, ApprovalState

_ENDED: Final = {
    ApprovalState.APPROVAL_STATE_REJECTED: "rejected",
    ApprovalState.APPROVAL_STATE_EXPIRED: "expired",
}


def versions(events: Iterable[RunEvent]) -> list[PlanVersion]:
    """Every version that was offered or followed, as they came, and the answers that were no plan."""
    book = _Book()
    for event in events:
        book.hear(event)
    return book.found


class _Book:
    def __init__(self) -> None:
        self.found: list[PlanVersion] = []
        self._agents: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def hear(self, event: RunEvent) -> None:
        match event.WhichOneof("body"):
            case "step_scheduled":
                self._agents[event.step_scheduled.step] = event.step_scheduled.target
            case "plan_revision_requested":
                self._notes[event.plan_revision_requested.step] = event.plan_revision_requested.note
            case "plan_refused":
                body = event.plan_refused
                self._add(event, _owner(body.step), state="refused", note=body.error.message)
            case "approval_requested" if event.approval_requested.approval.HasField("plan"):
                self._proposed(event, event.approval_requested.approval, "")
            case "approval_edited" if event.approval_edited.approval.HasField("plan"):
                self._close(event.approval_edited.approval_id, "edited", event.approval_edited.edited_by)
                self._proposed(event, event.approval_edited.approval, event.approval_edited.edited_by)
            case "approval_decided":
                self._decided(event.approval_decided)
            case "plan_adopted":
                self._adopted(event, event.plan_adopted)
            case "run_succeeded" | "run_failed" | "run_cancelled":
                for version in self.found:
                    if version.state == "proposed":
                        version.state = "withdrawn"
            case _:
                pass

    def _add(self, event: RunEvent, step: str, *, state: str, note: str = "") -> PlanVersion:
        agent = self._agents.get(f"{step}.draft", "")
        version = PlanVersion(
            step=step, state=state, time_ms=event.time_ms, by=f"agent:{agent}" if agent else "", note=note
        )
        self.found.append(version)
        return version

    def _proposed(self, event: RunEvent, approval: Approval, edited_by: str) -> None:
        step = _owner(approval.step)
        version = self._add(event, step, state="proposed", note=self._notes.pop(step, ""))
        plan = approval.plan
        version.version, version.parent, version.text, version.diff = (
            plan.version,
            plan.parent,
            plan.text,
            plan.diff,
        )
        version.approval_id, version.by = approval.approval_id, edited_by or version.by

    def _close(self, approval_id: str, state: str, by: str) -> None:
        for version in self.found:
            if version.approval_id == approval_id:
                version.state, version.decided_by = state, by

    def _decided(self, body: ApprovalDecided) -> None:
        for version in self.found:
            if version.approval_id == body.approval_id:
                version.state = _ENDED.get(body.state, version.state)
                version.decided_by = body.decided_by

    def _adopted(self, event: RunEvent, body: PlanAdopted) -> None:
        step = _owner(body.step)
        for version in self.found:
            if version.step == step and version.state == "followed":
                version.state = "replaced"
        known = [
            version for version in self.found if version.step == step and version.version == body.version
        ]
        version = known[-1] if known else self._add(event, step, state="followed")
        version.state, version.version = "followed", body.version
        version.parent = version.parent or body.parent
        version.text = version.text or json.dumps(json.loads(body.plan), indent=2, ensure_ascii=False)


def _owner(step: str) -> str:
    """The step of kind plan that one of its own is of."""
    return step.rpartition(".")[0]
