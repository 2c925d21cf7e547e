"""Errors and answers as they cross services (aios.error.v1.Error, aios.bus.v1.Reply)."""

from google.protobuf.message import DecodeError

from aios.bus.v1.bus_pb2 import Reply
from aios.error.v1.error_pb2 import Error
from aios_core.errors import REASONS, AiosError, RetryableError, TerminalError


def error_to_proto(error: AiosError) -> Error:
    """An error for another service."""
    after = error.retry_after if isinstance(error, RetryableError) else None
    return Error(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        retry_after=after or 0.0,
        details=error.details,
    )


def error_from_proto(error: Error) -> AiosError:
    """The error that another service sent. A code that isn't in the registry becomes INTERNAL."""
    code = error.code if error.code in REASONS else "INTERNAL"
    details = {
        name: text for name, text in error.details.items() if name not in ("code", "message", "retry_after")
    }
    if error.retryable:
        return RetryableError(code, error.message, retry_after=error.retry_after or None, **details)
    return TerminalError(code, error.message, **details)


def pack(result: bytes | AiosError) -> bytes:
    """An encoded Reply."""
    if isinstance(result, AiosError):
        return Reply(error=error_to_proto(result)).SerializeToString()
    return Reply(payload=result).SerializeToString()


def unpack(data: bytes) -> bytes:
    """The payload of an encoded Reply. Raises the error that it holds, or UNDECODABLE."""
    try:
        reply = Reply.FromString(data)
    except DecodeError:
        raise TerminalError(
            "UNDECODABLE", "The answer is not a Reply; the answering side is another version."
        ) from None
    if reply.WhichOneof("result") == "error":
        raise error_from_proto(reply.error)
    return reply.payload
