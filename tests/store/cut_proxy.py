"""A proxy that cuts a connection to MongoDB in the middle of a write, before the server has it or after it answered."""

import asyncio
import struct
from typing import Self
from urllib.parse import urlsplit


class CutProxy:
    """Forwards to a server; `cut` says which write is to be cut off next."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 27017
        self._command = b""
        self._applied = False
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"mongodb://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def cut(self, collection: str, *, applied: bool) -> None:
        """Cut the next write of that collection, after the server has `applied` it or before it gets it."""
        self._command = collection.encode() + b"\0"
        self._applied = applied

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(self._host, self._port)
        try:
            while True:
                message = await _message(reader)
                if self._is_to_be_cut(message):
                    self._command = b""
                    self.cuts += 1
                    if self._applied:
                        questions.write(message)
                        await _message(answers)
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


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("<i", head)[0] - 4)
