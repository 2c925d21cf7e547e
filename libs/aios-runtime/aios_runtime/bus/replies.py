"""Errors and answers as they cross services (aios.error.v1.Error, aios.bus.v1.Reply), in parts where they are large."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.message import DecodeError

from aios.bus.v1.bus_pb2 import Reply
from aios.error.v1.error_pb2 import Error
from aios_core.errors import REASONS, AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.port import MAX_MESSAGE_BYTES

MAX_PARTS: Final = 16  # of an answer: 4 MiB
PART_BYTES: Final = MAX_MESSAGE_BYTES - 4096  # leaves room for headers
IN_PARTS: Final = {subjects.HEADER_PARTS: str(MAX_PARTS)}  # of a question whose answer may come so


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


def fitting(subject: str, result: bytes | AiosError, most: int = MAX_MESSAGE_BYTES) -> bytes:
    """The encoded Reply, or one that says that the answer is too large."""
    data = pack(result)
    if len(data) <= most:
        return data
    return pack(
        TerminalError(
            "TOO_LARGE",
            f"The answer to {subjects.template(subject)} has {len(data)} bytes; at most {most} are allowed. Ask for"
            " less at once.",
        )
    )


def in_parts(
    subject: str, result: bytes | AiosError, question: Mapping[str, str]
) -> Iterator[tuple[bytes, dict[str, str] | None]]:
    """The messages of an answer, with their headers. It has several only where the question said that it may."""
    splits = subjects.HEADER_PARTS in question
    data = fitting(subject, result, PART_BYTES * MAX_PARTS if splits else MAX_MESSAGE_BYTES)
    if len(data) <= MAX_MESSAGE_BYTES:
        yield data, None
        return
    # The same answer to a question that came twice has the same parts, and another one has others.
    name = hashlib.blake2b(data, digest_size=8).hexdigest()
    count = -(-len(data) // PART_BYTES)
    for at in range(count):
        part = data[at * PART_BYTES : (at + 1) * PART_BYTES]
        yield part, {subjects.HEADER_PART: f"{name}/{at}/{count}"}


class Parts:
    """Puts an answer together."""

    def __init__(self) -> None:
        self._name = ""
        self._found: dict[int, bytes] = {}

    def add(self, header: str, data: bytes) -> bytes | None:
        """The answer once it is whole; parts that are none are not counted. Of two answers the later one counts."""
        name, _, place = header.partition("/")
        at, _, count = place.partition("/")
        if not (at.isdecimal() and count.isdecimal() and int(at) < int(count) <= MAX_PARTS):
            return None
        if name != self._name:
            self._name, self._found = name, {}
        self._found[int(at)] = data
        if len(self._found) < int(count):
            return None
        return b"".join(part for _, part in sorted(self._found.items()))


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
