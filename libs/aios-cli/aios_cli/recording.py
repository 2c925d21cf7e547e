"""A run as a test of its workflow: what its steps gave becomes what is declared of them."""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from aios.api.v1 import api_pb2
from aios.error.v1.error_pb2 import Error
from aios.run.v1.events_pb2 import RunEvent, StepSucceeded
from aios.run.v1.state_pb2 import ApprovalState, RunState
from aios_cli.session import Session
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.json_values import to_json
from aios_core.values import plain
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.plans import grown
from aios_orchestrator.uses import unbound, used
from aios_orchestrator.workflow import DRAFT, Workflow

WORK: Final = ("agent", "connector", "memory")
_ENDED: Final = {
    RunState.RUN_STATE_SUCCEEDED: "succeeded",
    RunState.RUN_STATE_FAILED: "failed",
    RunState.RUN_STATE_CANCELLED: "cancelled",
    RunState.RUN_STATE_UNDONE: "failed",
    RunState.RUN_STATE_UNDO_INCOMPLETE: "failed",
}


def recorded(events: Iterable[RunEvent], workflow: Workflow, run: api_pb2.Run) -> dict[str, Any]:
    """The test that a run of a workflow is. Raises RUN_CLOSED for one that has not ended, or was not as it began: a
    test has no rewinds, undos and other versions."""
    if run.state not in _ENDED:
        raise TerminalError(
            "RUN_CLOSED",
            "Only a run that succeeded, failed or was cancelled, and was not undone by anybody, is recorded.",
        )
    results: dict[str, Any] = {}
    attempts: dict[str, list[Any]] = {}
    given: Any = {}
    expect: dict[str, Any] = {"state": _ENDED[run.state]}
    no_inverse: list[str] = []
    for event in events:
        kind = event.WhichOneof("body") or ""
        body = getattr(event, kind, None)
        if kind == "run_started":
            given = _value(event.run_started.input)
        elif kind in ("run_reopened", "run_migrated", "plan_revision_requested"):
            raise TerminalError(
                "RUN_CLOSED", "The run was taken up again, which a test can't be. Record another one."
            )
        elif kind == "plan_adopted":
            plan = event.plan_adopted
            attempts[f"{plan.step.rpartition('.')[0]}.{DRAFT}"] = [json.loads(plan.plan)]
            workflow = grown(workflow, {plan.step: plan.plan})
        elif kind == "step_succeeded":
            _succeeded(workflow, event.step_succeeded.step, event.step_succeeded.output, results, attempts)
            no_inverse += _final(workflow, event.step_succeeded)
        elif kind in ("step_failed", "step_retry_scheduled") and body is not None:
            attempts.setdefault(body.step, []).append(_error(body.error))
        elif kind == "approval_decided":
            _decided(event, results)
        elif kind == "run_succeeded":
            expect["outputs"] = _value(event.run_succeeded.outputs)
        elif kind == "run_failed":
            expect["error"] = event.run_failed.error.code
        elif kind in ("undo_requested", "redo_requested"):
            _undone(event, expect)
        elif kind == "undo_scheduled" and event.undo_scheduled.HasField("compensation"):
            given_ = _value(event.undo_scheduled.compensation.input)
            expect.setdefault("compensated", {})[event.undo_scheduled.step] = given_
    for step, some in attempts.items():
        if workflow.at(step).kind in WORK and some:
            results[step] = some[0] if len(some) == 1 else {"$attempts": some}
    name = f"as run {run.run_id[-6:]} went"
    test = {"name": name, "workflow": workflow.name, "input": given, "results": results, "expect": expect}
    return {**test, "no_inverse": no_inverse} if no_inverse else test


def _final(workflow: Workflow, told: StepSucceeded) -> list[str]:
    known = workflow.at(told.step)
    return [told.step] if known.kind in WORK and known.effect and not told.undo_token else []


def _undone(event: RunEvent, expect: dict[str, Any]) -> None:
    """What the undo that began by itself, since the run failed, was to take back, and what it could not."""
    if not event.undo_requested.HasField("cause") or "undone" in expect:
        raise TerminalError("RUN_CLOSED", "The run was undone by somebody, which a test can't be.")
    expect["undone"] = list(event.undo_requested.steps)
    expect["left"] = list(event.undo_requested.impossible)


def _succeeded(
    workflow: Workflow, step: str, output: bytes, results: dict[str, Any], attempts: dict[str, list[Any]]
) -> None:
    known = workflow.at(step)
    if known.kind in WORK:
        attempts.setdefault(step, []).append(_value(output))
    elif known.hears is not None:
        event = (_value(output) or {}).get("event")
        if event is not None:
            results[step] = {"$event": event}


def _decided(event: RunEvent, results: dict[str, Any]) -> None:
    body = event.approval_decided
    if body.state == ApprovalState.APPROVAL_STATE_ANSWERED:
        results[body.step] = _value(body.answers)
    elif body.state in (ApprovalState.APPROVAL_STATE_APPROVED, ApprovalState.APPROVAL_STATE_REJECTED):
        approved = body.state == ApprovalState.APPROVAL_STATE_APPROVED
        results[body.step] = "approve" if approved else "reject"


def _error(error: Error) -> dict[str, Any]:
    return {"$error": {"code": error.code, "message": error.message, "retryable": error.retryable}}


def _value(data: bytes) -> Any:
    return to_json(plain(decode(data))) if data else None


def documents(session: Session, name: str, version: str) -> list[Mapping[str, Any]]:
    """A workflow's document, after those that it uses; they name each other without a version."""
    found: dict[str, Document] = {}
    _collect(session, name, version, found)
    return [_written(document.data) for document in found.values()]


def _written(data: Any) -> Any:
    """The data of a document as YAML has it: a fraction is a number."""
    if isinstance(data, Decimal):
        return float(data)
    if isinstance(data, dict):
        return {key: _written(item) for key, item in data.items()}
    return [_written(item) for item in data] if isinstance(data, list) else data


def _collect(session: Session, name: str, version: str, found: dict[str, Document]) -> None:
    request = api_pb2.GetResourceRequest(kind="Workflow", name=name, version=version)
    resource = session.client.call(session.client.resources.GetResource, request).resource
    document = parse_documents(resource.document, f"{name}.yaml")[0]
    for _, ref in used(document):
        child, _, pinned = ref.partition("@")
        if child not in found:
            _collect(session, child, pinned, found)
    unbound(document)
    found[name] = document
