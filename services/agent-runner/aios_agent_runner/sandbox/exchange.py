"""The runner's end of one call: sends the request, reads the answer and the prints, keeps the time.

What it reads comes from a hostile process. It is bounded as it arrives, and nothing in it is used but one frame.
"""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.sandbox import wire
from aios_agent_runner.sandbox.link import Exit, Link
from aios_agent_runner.sandbox.model import (
    LOG_BYTES,
    MAX_FILES,
    MAX_OPEN_FILES,
    SandboxCall,
    SandboxSettings,
    check_file_name,
)
from aios_core.errors import TerminalError

_CHUNK: Final = 64 * 1024
_KILL_SECONDS: Final = 5.0  # within which a killed child is gone, or the zygote is taken for stuck


class Exchange:
    """One call in flight. `ended` gets its `Exit`, or the error of a lost zygote."""

    def __init__(self, number: int, call: SandboxCall, link: Link) -> None:
        self._number = number
        self._call = call
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._socket, self._theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._log, self._log_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self._log_end, True)
        self._log_kept = bytearray()
        self._log_dropped = 0
        self._frame = bytearray()
        self._reading: set[int] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self.out: int | None = None
        self.timed_out = False
        self.too_large = False
        self.began = 0.0

    def start(self, directory: str, settings: SandboxSettings) -> None:
        """Fork the child and send it the request. `directory`: where it works if it has no root of its own."""
        descriptors = [self._log_end]
        try:
            header, inline = self._header(directory, settings, descriptors)
            self.began = self._loop.time()
            self._link.spawn(self._number, self._theirs.fileno())
            # Small enough for the buffer of a fresh socket, so it is sent whole or not at all.
            socket.send_fds(
                self._socket, [wire.REQUEST.pack(len(header), len(inline)), header, inline], descriptors
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._theirs.close()
        self._read(self._socket.fileno(), self._hear)
        self._read(self._log, self._hear_log)
        self._timers.append(self._loop.call_later(self._call.limits.wall_seconds, self._time_out))

    def _header(
        self, directory: str, settings: SandboxSettings, descriptors: list[int]
    ) -> tuple[bytes, bytes]:
        inline = self._call.request
        in_file = len(inline) > wire.INLINE_REQUEST
        if in_file:
            descriptors.append(_memory_file(inline))
            inline = b""
        files = self._call.files
        opened = {name: content for name, content in files.items() if isinstance(content, Path)}
        shared = {name: content for name, content in files.items() if isinstance(content, bytes)}
        _check_files(files, opened, shared, settings.input_bytes)
        if shared:
            descriptors.append(_shared_file(shared))
        total = sum(map(len, shared.values()))
        total += _open_files(opened, settings.input_bytes - total, settings.input_bytes, descriptors)
        limits = self._call.limits
        header = {
            "agent": self._call.agent,
            "directory": directory,
            "request_in_file": in_file,
            "shared": bool(shared),
            "files": list(opened),
            "input_bytes": total,
            "limits": {
                "cpu_seconds": int(-(-limits.cpu_seconds // 1)),
                "memory_bytes": limits.memory_bytes,
                "output_bytes": limits.output_bytes,
                "file_bytes": limits.file_bytes,
                "processes": limits.processes,
            },
        }
        encoded = json.dumps(header).encode()
        if len(encoded) > wire.MAX_HEADER:
            raise TerminalError(
                "TOO_LARGE", "The names of the input files are too long together.", field="files"
            )
        return encoded, inline

    def finish(self, exit_: Exit) -> None:
        """The child is gone: read what is left of its answer and its prints."""
        self._hear()
        self._hear_log(to_the_end=True)
        self.close()
        if not self.ended.done():
            self.ended.set_result(exit_)

    def fail(self, error: Exception) -> None:
        """There will be no exit to hear of."""
        self.close()
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # whoever waited may be gone

    def kill(self) -> None:
        """End the child; `ended` follows."""
        self._link.kill(self._number)
        self._timers.append(self._loop.call_later(_KILL_SECONDS, self._link.abort))

    def close(self) -> None:
        """Let go of everything but `out`. May be called again."""
        for timer in self._timers:
            timer.cancel()
        for descriptor in list(self._reading):
            self._stop_reading(descriptor)
        self._socket.close()
        self._theirs.close()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def close_out(self) -> None:
        """Let go of the child's `out`; what it holds is gone with it."""
        if self.out is not None:
            os.close(self.out)
            self.out = None

    @property
    def answer(self) -> tuple[bytes, bytes] | None:
        """Kind and payload of the child's frame, if a whole one came."""
        if len(self._frame) < wire.FRAME.size:
            return None
        kind, length = wire.FRAME.unpack_from(self._frame)
        payload = bytes(self._frame[wire.FRAME.size :])
        return (kind, payload) if len(payload) == length else None

    @property
    def logs(self) -> str:
        """What the agent printed, as much as was kept."""
        text = self._log_kept.decode(errors="replace")
        return f"{text}\n… {self._log_dropped} bytes more were dropped" if self._log_dropped else text

    def _time_out(self) -> None:
        self.timed_out = True
        self.kill()

    def _hear(self) -> None:
        while self._socket.fileno() >= 0 and (wanted := self._wanted()):
            try:
                if self.out is None and not self._frame:
                    self._hear_first()
                    continue
                data = self._socket.recv(wanted)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._stop_reading(self._socket.fileno())
                return
            self._frame += data
            if not self._within_bounds():
                self.too_large = True
                self._stop_reading(self._socket.fileno())
                self.kill()
                return
        # The frame is whole. What a hostile child sends after it stays in its socket, until that is full.
        self._stop_reading(self._socket.fileno())

    def _hear_first(self) -> None:
        """The frame that carries `out`: sent before any agent code was loaded, the only one whose descriptor counts."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, wire.FRAME.size, 1)
        if len(data) == wire.FRAME.size and data[:1] == wire.OUT and len(descriptors) == 1:
            self.out = descriptors[0]
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if not data:
            raise OSError("the child ended before it began")
        self._frame += data

    def _wanted(self) -> int:
        """How many bytes to read, never past the end of the frame; 0 if there are no more."""
        if len(self._frame) < wire.FRAME.size:
            return wire.FRAME.size - len(self._frame)
        _, length = wire.FRAME.unpack_from(self._frame)
        return min(_CHUNK, wire.FRAME.size + int(length) - len(self._frame))

    def _within_bounds(self) -> bool:
        if len(self._frame) < wire.FRAME.size:
            return True
        _, length = wire.FRAME.unpack_from(self._frame)
        return int(length) <= max(self._call.limits.output_bytes, wire.MAX_ERROR)

    def _hear_log(self, *, to_the_end: bool = False) -> None:
        while self._log >= 0:
            try:
                data = os.read(self._log, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._stop_reading(self._log)
                return
            room = LOG_BYTES - len(self._log_kept)
            self._log_kept += data[: max(0, room)]
            self._log_dropped += len(data) - min(len(data), max(0, room))
            if not to_the_end:
                return  # a flood of prints takes turns with everything else on the loop

    def _read(self, descriptor: int, callback: Any) -> None:
        self._loop.add_reader(descriptor, callback)
        self._reading.add(descriptor)

    def _stop_reading(self, descriptor: int) -> None:
        if descriptor in self._reading:
            self._reading.remove(descriptor)
            self._loop.remove_reader(descriptor)


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("input", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def _shared_file(files: Mapping[str, bytes]) -> int:
    """One memory file of them all, as `wire.TABLE` says: a folder of many small files takes one descriptor."""
    table = json.dumps([[name, len(content)] for name, content in files.items()]).encode()
    return _memory_file(b"".join((wire.TABLE.pack(len(table)), table, *files.values())))


def _check_files(
    files: Mapping[str, Path | bytes], opened: Mapping[str, Path], shared: Mapping[str, bytes], limit: int
) -> None:
    """Refuse what can't be handed over before anything is. Raises TerminalError."""
    if len(files) > MAX_FILES:
        raise TerminalError(
            "TOO_LARGE", f"The call has {len(files)} files; {MAX_FILES} are allowed.", field="files"
        )
    if len(opened) > MAX_OPEN_FILES:
        raise TerminalError(
            "TOO_LARGE",
            f"The call has {len(opened)} open files; {MAX_OPEN_FILES} are allowed.",
            field="files",
        )
    if sum(map(len, shared.values())) > limit:
        raise _too_many_bytes(limit)
    for name in files:
        try:
            check_file_name(name)
        except ValueError as error:
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"The input file's name {name[:120]!r} can't be used: {error}.",
                field="files",
            ) from None


def _open_files(files: Mapping[str, Path], room: int, limit: int, descriptors: list[int]) -> int:
    """Append a descriptor for each file; return their bytes in all. Raises TerminalError past `room` bytes."""
    total = 0
    for path in files.values():
        descriptors.append(_open_plain(path))
        total += os.fstat(descriptors[-1]).st_size
        if total > room:
            raise _too_many_bytes(limit)
    return total


def _too_many_bytes(limit: int) -> TerminalError:
    return TerminalError(
        "TOO_LARGE", f"The input files have more than {limit} bytes together.", field="files"
    )


def _open_plain(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TerminalError(
            "UNREADABLE", f"The input file {path} can't be read ({error.strerror})."
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TerminalError("UNREADABLE", f"The input {path} is not a plain file.")
    return descriptor
