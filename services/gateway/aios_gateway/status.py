"""Errors as clients meet them: google.rpc.Status with its details over gRPC, a status code and an object over HTTP."""

from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from aios_core.errors import REASONS, AiosError, Reason, RetryableError

DOMAIN: Final = "aios"

_HTTP: Final = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def reason_of(error: AiosError) -> Reason:
    """The registry's row of an error; one with a code that no release of ours knows counts as INTERNAL."""
    return REASONS.get(error.code, REASONS["INTERNAL"])


def to_status(error: AiosError) -> Status:
    """The status with ErrorInfo (reason, domain `aios`, metadata), BadRequest when a field is named, and RetryInfo
    when the same call may succeed later."""
    reason = reason_of(error)
    status = Status(code=code_pb2.Code.Value(reason.grpc), message=error.message)
    metadata = {**{str(key): str(text) for key, text in error.details.items()}, "remedy": reason.remedy}
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=metadata)
    )
    if "field" in error.details:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.details["field"], description=error.message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, RetryableError):
        delay = Duration()
        delay.FromMilliseconds(round((error.retry_after or 1.0) * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def grpc_code(error: AiosError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return grpc.StatusCode[reason_of(error).grpc]


def http_status(error: AiosError) -> int:
    """The HTTP status code of an error."""
    if error.code == "TOO_LARGE":
        return 413
    return _HTTP.get(reason_of(error).grpc, 500)


def http_body(error: AiosError) -> dict[str, object]:
    """The object of an HTTP answer that says what was wrong and what to do."""
    reason = reason_of(error)
    inner = {
        "code": error.code,
        "message": error.message,
        "remedy": reason.remedy,
        "details": dict(error.details),
    }
    return {"error": inner}
