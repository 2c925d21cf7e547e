"""Between a task's bytes and an action's models, and back into an outcome."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from aios.error.v1.error_pb2 import Error
from aios.task.v1.task_pb2 import (
    STATUS_CONFLICT,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    Outcome,
    Status,
    Task,
)
from aios.task.v1.task_pb2 import Change as ChangeProto
from aios_core.encoding import decode, encode
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_core.labels import meet, outside
from aios_core.values import Leaf, Plain, Value, label_of, labeled, plain
from aios_sdk.connector.actions import Arguments, Result, Spec
from aios_sdk.connector.answers import Change

MAX_NAMED_FAULTS = 3  # faults of an input that one message names


def arguments_sha256(data: bytes) -> bytes:
    """What an approval binds: the hash of a task's canonical input bytes."""
    return sha256(data)


def arguments(target: str, spec: Spec, data: bytes) -> tuple[Value, Arguments]:
    """The labelled input of a task, and the same as the action's model. Raises UNDECODABLE, INVALID_ARGUMENT."""
    value = decode(data) if data else {}
    fields = plain(value)
    if not isinstance(fields, Mapping):
        raise TerminalError(
            "INVALID_ARGUMENT", f"The input of {target} must be a map of its fields.", field="input"
        )
    try:
        return value, spec.input.model_validate(dict(fields))
    except ValidationError as error:
        raise _fault(target, spec, error) from None


def _fault(target: str, spec: Spec, error: ValidationError) -> TerminalError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    named = []
    for fault in faults[:MAX_NAMED_FAULTS]:
        field = ".".join(str(part) for part in fault["loc"]) or "input"
        if fault["type"] == "extra_forbidden":
            named.append(f"{field}: no such field; there are {', '.join(spec.input.model_fields)}")
        else:
            named.append(f"{field}: {fault['msg'].removeprefix('Value error, ')}")
    more = f" (and {len(faults) - MAX_NAMED_FAULTS} more)" if len(faults) > MAX_NAMED_FAULTS else ""
    return TerminalError(
        "INVALID_ARGUMENT",
        f"The input of {target} is wrong: {'; '.join(named)}{more}.",
        field=str(faults[0]["loc"][0]) if faults[0]["loc"] else "input",
    )


def plain_of(data: Any) -> Plain:
    """A model, or what is in one, as plain data. (`model_dump` would take pointers apart.)"""
    if isinstance(data, BaseModel):
        return {name: plain_of(getattr(data, name)) for name in type(data).model_fields}
    if isinstance(data, Mapping):
        return {str(key): plain_of(item) for key, item in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain_of(item) for item in data]
    checked: Plain = data
    return checked


def output_bytes(result: Result, value: Value, connector: str) -> bytes:
    """The canonical output: it comes from the connector, and is no more trusted or wider read than the input."""
    label = (
        meet((label_of(value), outside(f"connector:{connector}")))
        if value
        else outside(f"connector:{connector}")
    )
    return encode(labeled(plain_of(result), label))


def result_of(spec: Spec, outcome: Outcome) -> Result | None:
    """The result that a recorded outcome holds; None when it has none."""
    if not outcome.output:
        return None
    value = decode(outcome.output)
    fields = value.data if isinstance(value, Leaf) else plain(value)
    return spec.output.model_validate(fields)


def undo_token(effect_key: str) -> bytes:
    """What the orchestrator keeps for an undo. It only names the ledger's entry: what is undone, the ledger says."""
    return json.dumps({"v": 1, "effect": effect_key}, separators=(",", ":")).encode()


def effect_of_token(token: bytes) -> str:
    """The effect key of an undo token. Raises INVALID_ARGUMENT."""
    try:
        content = json.loads(token)
        key = content["effect"]
    except (ValueError, TypeError, KeyError, RecursionError):
        key = None
    if not isinstance(key, str) or not key:
        raise TerminalError(
            "INVALID_ARGUMENT", "The undo token is not one of this connector's.", field="undo_token"
        )
    return key


def succeeded(
    task: Task, output: bytes, changes: tuple[Change, ...], summary: str, token: bytes = b""
) -> Outcome:
    outcome = _outcome(task, STATUS_SUCCEEDED, changes)
    outcome.output, outcome.summary, outcome.undo_token = output, summary, token
    return outcome


def failed(task: Task, error: AiosError) -> Outcome:
    outcome = _outcome(task, STATUS_FAILED, ())
    outcome.error.CopyFrom(error_proto(error))
    outcome.summary = error.message
    return outcome


def unknown(task: Task, why: str, token: bytes = b"") -> Outcome:
    outcome = _outcome(task, STATUS_UNKNOWN, ())
    outcome.error.CopyFrom(Error(code="OUTCOME_UNKNOWN", message=why))
    outcome.summary, outcome.undo_token = why, token
    return outcome


def conflicted(task: Task, why: str, changes: tuple[Change, ...]) -> Outcome:
    outcome = _outcome(task, STATUS_CONFLICT, changes)
    outcome.error.CopyFrom(Error(code="CONFLICT", message=why))
    outcome.summary = why
    return outcome


def answering(outcome: Outcome, task: Task) -> Outcome:
    """A recorded outcome as the answer to this dispatch of the task."""
    answer = Outcome()
    answer.CopyFrom(outcome)
    answer.run_id, answer.task_id, answer.step = task.run_id, task.task_id, task.step
    answer.dispatch, answer.traceparent = task.dispatch, task.traceparent
    return answer


def error_proto(error: AiosError) -> Error:
    """An expected failure as it stands in outcomes."""
    wait = error.retry_after if isinstance(error, RetryableError) else None
    return Error(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        retry_after=wait or 0.0,
        details=error.details,
    )


def _outcome(task: Task, status: Status.ValueType, changes: tuple[Change, ...]) -> Outcome:
    return Outcome(
        run_id=task.run_id,
        task_id=task.task_id,
        dispatch=task.dispatch,
        step=task.step,
        status=status,
        mode=task.mode,
        traceparent=task.traceparent,
        changes=[change_proto(change) for change in changes],
    )


def change_proto(change: Change) -> ChangeProto:
    """A change as it stands in outcomes."""
    return ChangeProto(
        resource=change.resource,
        verb=change.verb,
        before=change.before,
        after=change.after,
        content_sha256=bytes.fromhex(change.content_sha256),
        size=change.size,
        note=change.note,
    )
