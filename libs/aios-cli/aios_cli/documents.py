"""What an approval would write, fetched whole and checked: the bytes that are shown are the bytes that are bound."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Approval, ProposedStep
from aios_cli.client import Client
from aios_core import json_values
from aios_core.encoding import decode_trusted
from aios_core.errors import AiosError, TerminalError
from aios_core.values import Plain, Pointer, plain, pointers

MAX_BYTES: Final = 64 * 1024 * 1024  # of one document
_SHA256_HEX: Final = 64


@dataclass(frozen=True, slots=True)
class Document:
    """Something that would be written. `before` is what stands there now: None when it is unknown, b"" when nothing."""

    place: str
    verb: str
    content: bytes
    media_type: str
    before: bytes | None = b""

    @property
    def text(self) -> str | None:
        """The content as text; None when it is not text."""
        try:
            text = self.content.decode()
        except UnicodeDecodeError:
            return None
        return None if "\0" in text else text


def of(client: Client, approval: Approval) -> Iterator[Document]:
    """Everything that the approval's steps would write, in their order; of a plan, which is shown itself, what its
    steps are given. Raises what fetching raises."""
    for step in approval.proposed:
        if approval.HasField("plan"):
            given = plain(decode_trusted(step.arguments))
            assert isinstance(given, dict), "a plan comes with what its steps see"
            yield Document("its steps, as inputs", "give", _readable(given["inputs"]), "application/json")
        else:
            yield from _of_step(client, step)


def fetch(client: Client, sha256: bytes) -> tuple[bytes, str, str]:
    """An artifact's bytes, media type and name, checked. Raises NOT_FOUND, TOO_LARGE or CORRUPT_STORE."""
    content, media_type, name = bytearray(), "", ""
    for part in client.stream(client.memory.GetArtifact, api_pb2.GetArtifactRequest(sha256=sha256)):
        if part.size > MAX_BYTES:
            raise TerminalError(
                "TOO_LARGE", f"The artifact has {part.size} bytes; at most {MAX_BYTES} are shown."
            )
        content += part.chunk
        media_type, name = media_type or part.media_type, name or part.name
    if hashlib.sha256(content).digest() != sha256:
        raise TerminalError("CORRUPT_STORE", f"The artifact {sha256.hex()} arrived with other bytes.")
    return bytes(content), media_type, name


def _of_step(client: Client, step: ProposedStep) -> Iterator[Document]:
    value = decode_trusted(step.arguments)
    arguments = plain(value)
    if isinstance(arguments, dict) and isinstance(arguments.get("path"), str):
        content = arguments.get("content")
        if isinstance(content, Pointer):
            before = _before(client, arguments.get("expect"))
            verb = "create" if before == b"" else "update" if before is not None else "write"
            data, media_type, _ = fetch(client, bytes.fromhex(content.sha256))
            yield Document(str(arguments["path"]), verb, data, content.media_type or media_type, before)
            return
    yield Document(step.target, "do", _readable(arguments), "application/json")
    for pointer in pointers(value):
        data, media_type, name = fetch(client, bytes.fromhex(pointer.sha256))
        yield Document(pointer.name or name or pointer.sha256, "use", data, pointer.media_type or media_type)


def _before(client: Client, expect: Plain) -> bytes | None:
    """The file that would be replaced, from the version that the step expects there; memory has it if AIOS wrote it."""
    if expect == "absent":
        return b""
    if not isinstance(expect, str) or len(expect) != _SHA256_HEX:
        return None
    try:
        return fetch(client, bytes.fromhex(expect))[0]
    except (AiosError, ValueError):
        return None


def _readable(arguments: Plain) -> bytes:
    return json.dumps(json_values.to_json(arguments), indent=2, ensure_ascii=False).encode()
