"""A run as a test of its workflow: what its steps gave becomes what is declared of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from aios.api.v1 import api_pb2
from aios.error.v1.error_pb2 import Error
from aios.run.v1.events_pb2 import ApprovalDecided, RunEvent, StepSucceeded
from aios.run.v1.state_pb2 import ApprovalState, RunState
from aios_cli.session import Session
from aios_cli.words import RUN_WORDS
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.json_values import to_json
from aios_core.values import plain
from aios_orchestrator.cases import cases_of
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.plans import grown
from aios_orchestrator.rehearsing import EXPIRE, rehearse
from aios_orchestrator.uses import unbound, used
from aios_orchestrator.workflow import DRAFT, WORK, Workflow

_ENDED: Final = {
    RunState.RUN_STATE_SUCCEEDED: "succeeded",
    RunState.RUN_STATE_FAILED: "failed",
    RunState.RUN_STATE_CANCELLED: "cancelled",
    RunState.RUN_STATE_UNDONE: "failed",
    RunState.RUN_STATE_UNDO_INCOMPLETE: "failed",
}
_SAID: Final = {
    ApprovalState.APPROVAL_STATE_APPROVED: "approve",
    ApprovalState.APPROVAL_STATE_REJECTED: "reject",
    ApprovalState.APPROVAL_STATE_EXPIRED: EXPIRE,
}
# What somebody did to a run, by the event that tells of it: a test has no word for it.
_TAKEN_UP: Final = "The run was taken up again"
_UNDONE: Final = "The run was undone by somebody"
_CANCELLED: Final = "The run was cancelled by somebody"
_NO_TEST: Final = {
    "run_reopened": _TAKEN_UP,
    "run_migrated": _TAKEN_UP,
    "plan_revision_requested": _TAKEN_UP,
    "redo_requested": _UNDONE,
}


def recorded(events: Iterable[RunEvent], workflow: Workflow, run: api_pb2.Run) -> dict[str, Any]:
    """The test that a run of a workflow is, which was tried. Raises NOT_RECORDABLE, saying why, for a run that is none:
    it has not ended (then its events are not looked at); somebody cancelled it, undid it, took it up again; or it went
    as it did since time passed, or money was short."""
    if run.state not in _ENDED:
        words = "Only a run that succeeded, failed or was cancelled can be a test"
        raise TerminalError("NOT_RECORDABLE", f"{words}; this one: {RUN_WORDS[run.state]}.")
    known = list(events)
    _check(known)
    test = _Recorder(workflow, {"state": _ENDED[run.state]})
    for event in known:
        test.take(event)
    shape = test.shape(f"as run {run.run_id[-6:]} went")
    problems = _tried(workflow, shape)
    if problems:
        raise TerminalError(
            "NOT_RECORDABLE",
            f"A test that has what the steps gave and what was decided does not go as the run went:"
            f" {problems[0].rstrip('.')}."
            " Time that passes and money are in no test.",
        )
    return shape


def _tried(workflow: Workflow, shape: dict[str, Any]) -> list[str]:
    """What is wrong with a test; nothing when it passes."""
    try:
        (case,) = cases_of([shape])
        return rehearse(workflow, case).problems
    except TerminalError as error:  # what a step gave looks like a declared error, for one
        return [error.message]


def _check(events: Sequence[RunEvent]) -> None:
    before = ""
    for event in events:
        kind = event.WhichOneof("body") or ""
        refused = _NO_TEST.get(kind, "")
        if kind == "cancel_requested" and before != "approval_decided":
            refused = _CANCELLED
        elif kind == "undo_requested" and not event.undo_requested.HasField("cause"):
            refused = _UNDONE
        if refused:
            raise TerminalError("NOT_RECORDABLE", f"{refused}, which a test can't be.")
        before = kind


class _Recorder:
    """A test, event after event. Its results are in the order in which they came."""

    def __init__(self, workflow: Workflow, expect: dict[str, Any]) -> None:
        self.workflow, self.expect = workflow, expect
        self.given: Any = {}
        self.results: dict[str, Any] = {}
        self.attempts: dict[str, list[Any]] = {}
        self.no_inverse: list[str] = []

    def take(self, event: RunEvent) -> None:
        """One more event, in its order."""
        kind = event.WhichOneof("body") or ""
        body = getattr(event, kind, None)
        if kind == "run_started":
            self.given = _value(event.run_started.input)
        elif kind == "plan_adopted":
            plan = event.plan_adopted
            draft = f"{plan.step.rpartition('.')[0]}.{DRAFT}"
            self.attempts[draft][-1:] = [json.loads(plan.plan)]
            self.workflow = grown(self.workflow, {plan.step: plan.plan})
        elif kind == "step_succeeded":
            self.succeeded(event.step_succeeded)
        elif kind in ("step_failed", "step_retry_scheduled") and body is not None:
            self.gave(body.step, _error(body.error))
        elif kind == "approval_decided":
            self.decided(event.approval_decided)
        elif kind == "run_succeeded":
            self.expect["outputs"] = _value(event.run_succeeded.outputs)
        elif kind == "run_failed":
            self.expect["error"] = event.run_failed.error.code
        elif kind == "undo_requested":
            self.expect["undone"] = list(event.undo_requested.steps)
            self.expect["left"] = list(event.undo_requested.impossible)
        elif kind == "undo_scheduled" and event.undo_scheduled.HasField("compensation"):
            given = _value(event.undo_scheduled.compensation.input)
            self.expect.setdefault("compensated", {})[event.undo_scheduled.step] = given

    def gave(self, step: str, what: Any) -> None:
        """What an attempt of a step came to."""
        if self.workflow.at(step).kind in WORK:
            self.results.setdefault(step)
            self.attempts.setdefault(step, []).append(what)

    def succeeded(self, told: StepSucceeded) -> None:
        """What a step gave; of a wait the event that came."""
        known = self.workflow.at(told.step)
        self.gave(told.step, _value(told.output))
        if known.kind in WORK and known.effect and not told.undo_token:
            self.no_inverse.append(told.step)
        if known.hears is not None:
            event = (_value(told.output) or {}).get("event")
            if event is not None:
                self.results[told.step] = {"$event": event}

    def decided(self, told: ApprovalDecided) -> None:
        """What a person said, if he did."""
        if self.workflow.at(told.step).kind in WORK:  # its money or its outcome was asked about, not the step
            return
        if told.state == ApprovalState.APPROVAL_STATE_ANSWERED:
            self.results[told.step] = _value(told.answers)
        elif told.state in _SAID:
            self.results[told.step] = _SAID[told.state]

    def shape(self, name: str) -> dict[str, Any]:
        """As it is written."""
        for step, some in self.attempts.items():
            self.results[step] = some[0] if len(some) == 1 else {"$attempts": some}
        test = {"name": name, "workflow": self.workflow.name, "input": self.given, "results": self.results}
        test |= {"no_inverse": self.no_inverse} if self.no_inverse else {}
        return {**test, "expect": self.expect}


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
