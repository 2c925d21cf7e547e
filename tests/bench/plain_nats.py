"""A nats-server for the floor: JetStream on files, no users; its own directory, gone at the end."""

import asyncio
import socket
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Self

BINARY = str(Path(sysconfig.get_path("scripts")) / "nats-server")


class PlainNats:
    """`async with PlainNats() as server: server.url`."""

    async def __aenter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="aios-bench-nats-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"nats://127.0.0.1:{port}"
        command = [BINARY, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", self._directory.name]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return self

    async def __aexit__(self, *_: object) -> None:
        self.process.terminate()
        await asyncio.to_thread(self.process.wait)
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        return self.process.pid
