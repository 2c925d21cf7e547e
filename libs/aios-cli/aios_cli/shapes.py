"""Answers as JSON, in the field's own terms: what `--json` prints. Pure."""

from datetime import UTC, datetime
from typing import Any

from aios.api.v1 import api_pb2
from aios.event.v1.event_pb2 import Resolution
from aios.resource.v1.resource_pb2 import Resource, ScheduleView
from aios.run.v1.state_pb2 import (
    Approval,
    ApprovalKind,
    ApprovalState,
    Failure,
    FailureClass,
    RunState,
    StepState,
    UndoItem,
    UndoVerdict,
)
from aios.task.v1.task_pb2 import Change, Mode, WorkMode
from aios.value.v1.value_pb2 import Pointer, Value
from aios_cli import approval_shape
from aios_cli.words import dollars
from aios_core import json_values
from aios_core.encoding import decode_trusted
from aios_core.values import Plain, plain


def plain_of(value: Value) -> Plain:
    """The data of a value, without its labels."""
    return plain(decode_trusted(value.SerializeToString(deterministic=True)))


def value_json(value: Value) -> Any:
    """A value as JSON: decimals are strings, pointers objects; None when it is absent."""
    return json_values.to_json(plain_of(value)) if value.HasField("root") else None


def bytes_json(data: bytes) -> Any:
    """Canonical bytes of a value as JSON."""
    return json_values.to_json(plain(decode_trusted(data))) if data else None


def time_json(ms: int) -> str | None:
    """RFC 3339 in UTC; None for no time."""
    return json_values.rfc3339(datetime.fromtimestamp(ms / 1000, UTC)) if ms else None


def work_mode(mode: WorkMode.ValueType) -> str | None:
    return WorkMode.Name(mode).removeprefix("WORK_MODE_").lower() if mode else None


def run_state(state: RunState.ValueType) -> str:
    return RunState.Name(state).removeprefix("RUN_STATE_").lower()


def approval_state(state: ApprovalState.ValueType) -> str:
    return ApprovalState.Name(state).removeprefix("APPROVAL_STATE_").lower()


def run(message: api_pb2.Run, *, full: bool = True) -> dict[str, Any]:
    """A run. Listings leave out input, outputs and steps."""
    shape: dict[str, Any] = {
        "run_id": message.run_id,
        "state": run_state(message.state),
        "needs_person": bool(message.pending_approvals),
        "about": message.concurrency_key or None,
        "customer": message.customer or None,
        "workflow": message.workflow,
        "workflow_version": message.workflow_version,
        "mode": Mode.Name(message.mode).removeprefix("MODE_").lower(),
        "pending_approvals": list(message.pending_approvals),
        "cost": dollars(message.cost_micros),
        "cap": dollars(message.cap_micros),
        "trace_id": message.trace_id,
        "create_time": time_json(message.create_time_ms),
        "update_time": time_json(message.update_time_ms),
        "trigger": message.trigger,
        "actor": message.actor,
        "superseded_by": message.superseded_by or None,
        "sequence": message.sequence,
        "forked_from": message.forked_from or None,
        "fork_step": message.fork_step or None,
        "work_mode": work_mode(message.work_mode),
        "deadline": time_json(message.limits.deadline_ms),
        "overdue": message.overdue,
        "service_level": time_json(message.limits.service_level_ms),
        "late_time": time_json(message.late_time_ms),
        "queue_place": message.queue_place or None,
        "priority": message.priority if message.HasField("priority") else None,
        "error": None,
    }
    if message.error_code:
        shape["error"] = {"code": message.error_code, "message": message.error_message}
    if full:
        shape["input"] = value_json(message.input)
        shape["outputs"] = value_json(message.outputs)
        shape["steps"] = [_step(step) for step in message.steps]
        shape["predicted"] = [change(item) for item in message.predicted]
    return shape


def diff(message: api_pb2.DiffRunsResponse) -> dict[str, Any]:
    """Two runs side by side."""
    return {
        "run": run(message.run, full=False),
        "other": run(message.other, full=False),
        "steps": [
            {
                "step": step.step,
                "same_output": step.same_output,
                "same_changes": step.same_changes,
                "one": _facts(step.one) if step.HasField("one") else None,
                "other": _facts(step.other) if step.HasField("other") else None,
            }
            for step in message.steps
        ],
        "cut": message.cut,
    }


def _facts(facts: api_pb2.StepFacts) -> dict[str, Any]:
    return {
        "state": StepState.Name(facts.state).removeprefix("STEP_STATE_").lower(),
        "target": facts.target or None,
        "reused": facts.reused,
        "output": value_json(facts.output),
        "output_left_out": facts.output_left_out,
        "changes": [change(item) for item in facts.changes],
        "cost": dollars(facts.cost_micros),
        "duration_ms": facts.duration_ms,
        "error": {"code": facts.error_code, "message": facts.error_message} if facts.error_code else None,
    }


def _step(head: Any) -> dict[str, Any]:
    return {
        "step": head.step,
        "state": StepState.Name(head.state).removeprefix("STEP_STATE_").lower(),
        "attempt": head.attempt,
        "cost": dollars(head.cost_micros),
        "start_time": time_json(head.start_time_ms),
        "end_time": time_json(head.end_time_ms),
        "undoable": head.undoable,
        "deadline": time_json(head.limits.deadline_ms),
        "overdue": head.overdue,
        "late": head.late,
        "work_mode": work_mode(head.work_mode),
        "cached_from": head.cached.run_id or None,
        "error": {"code": head.error.code, "message": head.error.message} if head.error.code else None,
    }


def undo_item(message: UndoItem) -> dict[str, Any]:
    return {
        "step": message.step,
        "target": message.target,
        "summary": message.summary,
        "verdict": UndoVerdict.Name(message.verdict).removeprefix("UNDO_VERDICT_").lower(),
        "why": message.why,
        "along": message.along,
        "instead": message.instead or None,
        "instead_input": bytes_json(message.instead_input) if message.instead else None,
        "changes": [change(item) for item in message.changes],
    }


def change(message: Change) -> dict[str, Any]:
    return {
        "resource": message.resource,
        "verb": message.verb,
        "before": message.before or None,
        "after": message.after or None,
        "content_sha256": message.content_sha256.hex() or None,
        "size": message.size,
        "note": message.note,
    }


def pointer(message: Pointer) -> dict[str, Any]:
    return {
        json_values.POINTER_KEY: message.sha256.hex(),
        "size": message.size,
        "media_type": message.media_type,
        "name": message.name,
    }


def entry(message: api_pb2.TimelineEntry) -> dict[str, Any]:
    """One line of a run's story."""
    return {
        "time": time_json(message.time_ms),
        "sequence": message.sequence,
        "who": message.who,
        "what": message.what,
        "why": message.why,
        "step": message.step or None,
        "tone": message.tone,
        "cost": dollars(message.cost_micros),
        "duration_ms": message.duration_ms,
        "changes": [change(item) for item in message.changes],
        "evidence": [pointer(item) for item in message.evidence],
    }


def approval(message: Approval) -> dict[str, Any]:
    """An approval or question."""
    return {
        "approval_id": message.approval_id,
        "run_id": message.run_id,
        "workflow": message.workflow,
        "step": message.step,
        "kind": ApprovalKind.Name(message.kind).removeprefix("APPROVAL_KIND_").lower(),
        "state": approval_state(message.state),
        "title": message.title,
        "why": message.why,
        "risk": message.risk,
        "modes": {each.step: work_mode(each.work_mode) for each in message.modes},
        "proposed": [
            {
                "step": item.step,
                "target": item.target,
                "arguments": bytes_json(item.arguments),
                "arguments_sha256": item.arguments_sha256.hex(),
                "changes": [change(inner) for inner in item.changes],
                "summary": item.summary,
                "no_preview": item.no_preview or None,
                "original": bytes_json(item.original),
                "edited_by": item.edited_by or None,
            }
            for item in message.proposed
        ],
        "questions": [
            {
                "id": item.id,
                "text": item.text,
                "why": item.why,
                "options": list(item.options),
                "pattern": item.pattern or None,
            }
            for item in message.questions
        ],
        "arguments_sha256": message.arguments_sha256.hex(),
        "policy_version": message.policy_version,
        "create_time": time_json(message.create_time_ms),
        "expire_time": time_json(message.expire_time_ms),
        "decided_by": message.decided_by or None,
        "decide_time": time_json(message.decide_time_ms),
        "note": message.note,
        "answers": bytes_json(message.answers),
        **approval_shape.of(message, time_json),
    }


def failure(message: Failure, *, full: bool = False) -> dict[str, Any]:
    """A failed run; `full` adds the blast radius and the remedies."""
    kind = FailureClass.Name(message.failure_class).removeprefix("FAILURE_CLASS_").lower()
    shape: dict[str, Any] = {
        "run_id": message.run_id,
        "workflow": message.workflow,
        "workflow_version": message.workflow_version,
        "step": message.step or None,
        "target": message.target,
        "code": message.error.code,
        "message": message.error.message,
        "class": kind,
        "cause": message.cause,
        "about": message.concurrency_key or None,
        "attempts": message.attempts,
        "time": time_json(message.time_ms),
    }
    if full:
        shape["input"] = bytes_json(message.input)
        shape["blast_radius"] = {
            "runs": list(message.blast.runs),
            "more": message.blast.more,
            "effects": [
                {
                    "run_id": item.run_id,
                    "step": item.step,
                    "target": item.target,
                    "summary": item.summary,
                    "undoable": item.undoable,
                }
                for item in message.blast.effects
            ],
        }
        shape["remedies"] = [
            {
                "action": item.action,
                "what": item.what,
                "refused": item.refused or None,
                "again": list(item.again),
                "suggested": item.suggested,
            }
            for item in message.remedies
        ]
    return shape


def resource(message: Resource, *, full: bool = False) -> dict[str, Any]:
    """A resource; `full` adds the document."""
    shape = {
        "kind": message.kind,
        "name": message.name,
        "version": message.version,
        "generation": message.generation,
        "create_time": time_json(message.create_time_ms),
        "applied_by": message.applied_by,
    }
    if full:
        shape["document"] = json_values.to_json(json_values.loads(message.document))
    return shape


def resolution(message: Resolution) -> dict[str, Any]:
    """How an event was understood."""
    return {
        "id": message.id,
        "event_id": message.event_id,
        "event_source": message.event_source,
        "event_type": message.event_type,
        "outcome": message.outcome,
        "intent": message.intent or None,
        "parameters": bytes_json(message.parameters),
        "question": message.question or None,
        "run_id": message.run_id or None,
        "rules": message.rules,
        "rules_version": message.rules_version,
        "candidates": [
            {"rule": item.rule, "intent": item.intent, "score": item.score, "why": item.why}
            for item in message.candidates
        ],
        "time": time_json(message.time_ms),
    }


def schedule(message: ScheduleView) -> dict[str, Any]:
    """A schedule and how far it is."""
    state = message.state
    return {
        "name": state.name,
        "title": message.title,
        "workflow": message.workflow,
        "when": message.when,
        "timezone": message.timezone,
        "missed": message.missed,
        "concurrency": message.concurrency,
        "paused": message.paused,
        "next_times": [time_json(time) for time in message.next_times_ms],
        "last_run_id": state.last_run_id or None,
        "last_run_time": time_json(state.last_run_time_ms),
        "queued": [time_json(time) for time in state.queued],
        "runs": state.runs,
        "skipped": state.skipped,
        "last_skipped_time": time_json(state.last_skipped_ms),
        "last_skipped_why": state.last_skipped_why or None,
        "problem": state.problem or None,
    }


def health(message: api_pb2.ServiceHealth) -> dict[str, Any]:
    return {
        "service": message.service,
        "ready": message.ready,
        "detail": message.detail,
        "facts": dict(sorted(message.facts.items())),
        "restore": restore(message.restore) if message.HasField("restore") else None,
    }


def restore(message: api_pb2.OpenRestore) -> dict[str, Any]:
    return {
        "restore_id": message.restore_id,
        "service": message.service,
        "backup_time_ms": message.backup_time_ms,
        "restore_time_ms": message.restore_time_ms,
        "found": message.found,
        "asked": message.asked,
    }


def token(message: api_pb2.Token) -> dict[str, Any]:
    return {
        "token_id": message.token_id,
        "name": message.name,
        "scopes": list(message.scopes),
        "actor": message.actor,
        "create_time": time_json(message.create_time_ms),
        "expire_time": time_json(message.expire_time_ms),
        "revoked": message.revoked,
    }
