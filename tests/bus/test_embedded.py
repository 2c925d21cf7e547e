"""The embedded server: where it lives, who may use it, and that it neither outlives its parent nor stays dead."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import embedded, subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import Crash, EmbeddedNats, EmbeddedSettings
from aios_runtime.bus.endpoint import Credentials, load_endpoint
from aios_runtime.bus.port import Message
from aios_runtime.bus.server_process import _packaged
from tests.bus.serving import Server, until


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_its_files_are_for_their_owner_alone(server: Server) -> None:
    private = [server.data_dir / "nats" / "server.conf", *(server.data_dir / "nats-users").iterdir()]
    assert len(private) == 8
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}
    for folder in ("nats", "nats-users"):
        assert stat.S_IMODE((server.data_dir / folder).stat().st_mode) == 0o700


async def test_passwords_and_port_stay_when_it_is_started_again(server: Server) -> None:
    await server.stop()
    shutil.rmtree(server.data_dir / "nats")
    again = EmbeddedNats(server.data_dir)
    endpoint = await again.start()
    try:
        assert endpoint == server.endpoint == load_endpoint(server.data_dir)
    finally:
        await again.stop()


async def test_a_wrong_password_is_refused(server: Server) -> None:
    wrong = Credentials(server.endpoint.url, "gateway", "guess")
    with pytest.raises(TerminalError) as caught:
        await NatsBus.connect(wrong, service="gateway", timeout=5)
    assert caught.value.code == "UNAUTHENTICATED"


async def test_nobody_there_is_said_in_time() -> None:
    with pytest.raises(RetryableError) as caught:
        await NatsBus.connect(
            Credentials("nats://127.0.0.1:1", "gateway", "x"), service="gateway", timeout=0.3
        )
    assert caught.value.code == "BUS_FAILED"


async def test_a_given_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TerminalError, match=str(port)) as caught:
            await EmbeddedNats(tmp_path, EmbeddedSettings(port=port)).start()
    assert caught.value.code == "PORT_TAKEN"


async def test_without_a_given_port_another_one_is_taken_when_the_last_is_in_use(server: Server) -> None:
    await server.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(server.endpoint.url.rpartition(":")[2])))
        other.listen()
        again = EmbeddedNats(server.data_dir)
        endpoint = await again.start()
    try:
        assert endpoint.url != server.endpoint.url
    finally:
        await again.stop()


async def test_a_place_that_can_not_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "nats").write_text("a file")
    with pytest.raises(AiosError, match="nats") as caught:
        await EmbeddedNats(tmp_path).start()
    assert caught.value.code == "DATA_DIR"


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    binary = tmp_path / "broken"
    binary.write_text("#!/bin/sh\necho '[1] 2026/01/01 00:00:00.000000 [FTL] no luck today' >&2\nexit 1\n")
    binary.chmod(0o755)
    with pytest.raises(RetryableError, match="no luck today"):
        await EmbeddedNats(tmp_path, EmbeddedSettings(binary=str(binary))).start()


async def test_it_comes_back_when_it_is_killed_and_says_so(server: Server) -> None:
    first = server.pid
    assert first
    os.kill(first, signal.SIGKILL)
    await until(lambda: server.pid not in (None, first))
    assert [(crash.exit_code, crash.restarts, crash.final) for crash in server.crashes] == [(-9, 1, False)]
    bus = await NatsBus.connect(server.endpoint.credentials("orchestrator"), service="orchestrator")
    await bus.close()


async def test_it_is_given_up_after_too_many_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MAX_RESTARTS", 3)
    monkeypatch.setattr(embedded, "BACKOFF_SECONDS", (0.0,))
    crashes: list[Crash] = []
    server = EmbeddedNats(tmp_path, on_crash=crashes.append)
    await server.start()
    binary = tmp_path / "broken"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(0o755)
    server._settings = EmbeddedSettings(binary=str(binary))
    os.kill(server.pid or 0, signal.SIGKILL)
    await until(lambda: bool(crashes) and crashes[-1].final)
    assert [crash.restarts for crash in crashes] == [1, 2, 3, 4]
    trouble = server.trouble()
    assert trouble is not None
    assert trouble.code == "BUS_FAILED"
    await server.stop()


async def test_a_stopped_server_is_gone_and_stays_gone(server: Server) -> None:
    pid = server.pid
    assert pid
    await server.stop()
    assert not alive(pid)
    assert server.pid is None
    assert server.crashes == []


PARENT = """
    import asyncio, sys
    from pathlib import Path
    from aios_runtime.bus.embedded import EmbeddedNats

    async def main():
        server = EmbeddedNats(Path(sys.argv[1]))
        await server.start()
        print(server.pid, flush=True)
        await asyncio.Event().wait()

    run = asyncio.run
    if sys.argv[2] == "uvloop":
        import uvloop
        run = uvloop.run
    run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path, loop: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path), loop],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await until(lambda: not alive(pid), 5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def fill(bus: NatsBus, message: Message) -> int:
    """Publish until the bus takes no more; returns how many it took."""
    for number in range(40):
        if not await taken(bus, message):
            return number
    return 40


async def taken(bus: NatsBus, message: Message) -> bool:
    try:
        await bus.publish([message])
    except RetryableError:
        return False
    return True


async def test_work_goes_on_when_a_full_disk_has_space_again(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(1024 * 1024))
    server = Server(small_disk)
    bus = await NatsBus.connect((await server.start()).credentials("orchestrator"), service="orchestrator")
    message = Message(subjects.perform("main", "agent"), bytes(100_000))
    stored = await fill(bus, message)
    assert stored < 40
    await until(lambda: bool(server.crashes))
    assert "is full" in server.crashes[0].reason
    (small_disk / "other").unlink()
    async with asyncio.timeout(20):
        while not await taken(bus, message):
            await asyncio.sleep(0.05)
    info = await bus.keeper.alive().jetstream().stream_info(subjects.STREAM_CMD)
    assert info.state.messages >= stored + 1
    await bus.close(1)
    await server.stop()


async def test_a_server_that_outlived_its_parent_is_ended_before_another_uses_its_store(
    server: Server,
) -> None:
    await server.stop()
    layout = server._layout
    with subprocess.Popen(
        [_packaged(), "--config", str(layout.config)], stderr=subprocess.PIPE, text=True
    ) as orphan:
        assert orphan.stderr
        while "Server is ready" not in orphan.stderr.readline():
            pass
        again = EmbeddedNats(server.data_dir)
        try:
            await again.start()
            assert orphan.wait(5) == -signal.SIGKILL
        finally:
            orphan.kill()
            await again.stop()
