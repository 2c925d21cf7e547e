"""A proxy that breaks a write to MongoDB off in the middle: the connection is cut, or the primary steps down.

By then the server has carried out none of it, some of it, or all.
"""

import asyncio
import struct
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import bson

Applied = Literal["none", "some", "all"]

OP_MSG: Final = 2013
# What a primary that steps down answers: before it begins, while it is at it, and when it can't say.
STEPPED_DOWN: Final = {"none": 10107, "some": 11602, "all": 189}


class CutProxy:
    """Forwards to a server; `cut` says which write is to be cut off next."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 27017
        self._command = b""
        self._applied: Applied = "none"
        self._answers = False
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"mongodb://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def cut(self, collection: str, *, applied: Applied, answers: bool) -> None:
        """Break off the next write of that collection when so much of it is applied; `answers` that it is no primary
        any more, or is silent."""
        self._command = collection.encode() + b"\0"
        self._applied, self._answers = applied, answers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(self._host, self._port)
        try:
            while True:
                message = await _message(reader)
                if self._is_to_be_cut(message):
                    self._command = b""
                    self.cuts += 1
                    if self._applied != "none":
                        questions.write(message if self._applied == "all" else _half(message))
                        await _message(answers)
                    if self._answers:
                        writer.write(_refusal(message, STEPPED_DOWN[self._applied]))
                        await writer.drain()
                    return
                questions.write(message)
                writer.write(await _message(answers))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            questions.close()
            writer.close()

    def _is_to_be_cut(self, message: bytes) -> bool:
        if not self._command:
            return False
        return any(
            b"\x02" + verb + b"\0" in message and self._command in message for verb in (b"update", b"insert")
        )


def _half(message: bytes) -> bytes:
    """The same write with the first half of its documents; a message of a body and one sequence of documents."""
    flags, at, sections = message[16:20], 20, b""
    while at < len(message):
        kind, (size,) = message[at], struct.unpack_from("<i", message, at + 1)
        section = message[at + 1 : at + 1 + size]
        if kind == 1:
            name = section[4 : section.index(b"\0", 4) + 1]
            documents = bson.decode_all(section[4 + len(name) :])
            some = b"".join(map(bson.encode, documents[: (len(documents) + 1) // 2]))
            section = struct.pack("<i", 4 + len(name) + len(some)) + name + some
        sections += bytes([kind]) + section
        at += 1 + size
    return struct.pack("<i", 20 + len(sections)) + message[4:16] + flags + sections


def _refusal(message: bytes, code: int) -> bytes:
    body = bson.encode({"ok": 0.0, "errmsg": "not primary", "code": code})
    (asked,) = struct.unpack_from("<i", message, 4)
    return struct.pack("<iiiiIB", 21 + len(body), 1, asked, OP_MSG, 0, 0) + body


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("<i", head)[0] - 4)
