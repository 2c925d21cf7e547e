"""The launcher's parts: places, locks, ports, options, the order in which services start and stop."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aios_cli.launcher import address, modules, ports, settings
from aios_core.errors import AiosError, TerminalError
from aios_runtime.service import datadir, options
from aios_runtime.service.group import Group
from aios_runtime.service.port import Health
from aios_runtime.telemetry import identity


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(AiosError) as raised:
        call()
    return raised.value.code


def test_the_data_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    datadir.prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_in_the_place_of_the_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    assert _code(lambda: datadir.prepare(tmp_path / "data")) == "DATA_DIR"


def test_a_data_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            assert _code(lambda: datadir.prepare(Path("/proc/aios"))) in ("DATA_DIR", "READ_ONLY")
        else:
            assert _code(lambda: datadir.prepare(tmp_path / "data")) == "READ_ONLY"
    finally:
        tmp_path.chmod(0o700)


def test_all_serves_a_data_directory_alone(tmp_path: Path) -> None:
    with datadir.Lock(tmp_path, (), alone=True):
        assert _code(lambda: datadir.Lock(tmp_path, (), alone=True).__enter__()) == "ALREADY_SERVING"
        assert (
            _code(lambda: datadir.Lock(tmp_path, ("memory",), alone=False).__enter__()) == "ALREADY_SERVING"
        )
    with datadir.Lock(tmp_path, (), alone=True):
        pass


def test_single_services_share_a_data_directory_but_not_with_themselves(tmp_path: Path) -> None:
    with datadir.Lock(tmp_path, ("memory",), alone=False), datadir.Lock(tmp_path, ("gateway",), alone=False):
        assert (
            _code(lambda: datadir.Lock(tmp_path, ("memory",), alone=False).__enter__()) == "ALREADY_SERVING"
        )
        assert _code(lambda: datadir.Lock(tmp_path, (), alone=True).__enter__()) == "ALREADY_SERVING"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom aios_runtime.service import datadir\n"
        "datadir.Lock(Path(sys.argv[1]), (), alone=True).__enter__()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    with datadir.Lock(tmp_path, (), alone=True):
        pass


def test_a_given_port_in_use_is_refused_and_a_default_one_moves_on() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert _code(lambda: ports.choose("127.0.0.1", port, 1, "grpc")) == "PORT_TAKEN"
        chosen = ports.choose("127.0.0.1", None, port, "grpc")
    assert chosen.moved
    assert port < chosen.port < port + ports.TRIES


def test_two_doors_never_move_to_one_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        first = ports.choose("127.0.0.1", None, port, "grpc")
        second = ports.choose("127.0.0.1", None, port, "http", besides=first.port)
    assert len({port, first.port, second.port}) == 3


def test_the_table_names_each_service_once_and_every_target(tmp_path: Path) -> None:
    assert [module.name for module in modules.select("all")] == list(modules.MODULES)
    assert [module.name for module in modules.select("memory, gateway")] == ["memory", "gateway"]
    assert _code(lambda: modules.select("memori")) == "INVALID_ARGUMENT"
    assert _code(lambda: modules.select("")) == "INVALID_ARGUMENT"
    for module in modules.MODULES.values():
        assert set(module.after) <= set(modules.MODULES)


def test_options_come_from_file_environment_and_command_line_in_this_order() -> None:
    merged = options.merge(
        "connector-files",
        {"root": "/file", "settle-seconds": 5, "watch": True},
        {
            "AIOS_CONNECTOR_FILES_ROOT": "/environment",
            "AIOS_CONNECTOR_FILES_SETTLE_SECONDS": "7",
            "HOME": "/x",
        },
        {"root": "/given"},
    )
    assert merged == {"root": "/given", "settle_seconds": "7", "watch": "true"}


def test_an_option_that_is_no_plain_value_is_refused() -> None:
    assert _code(lambda: options.merge("memory", {"cache": ["a"]}, {}, {})) == "INVALID_ARGUMENT"
    assert _code(lambda: options.merge("memory", {"cache": "x" * 5000}, {}, {})) == "INVALID_ARGUMENT"


def test_the_environment_gives_settings_and_the_command_line_overrides_them(tmp_path: Path) -> None:
    environ = {"AIOS_DATA_DIR": str(tmp_path), "AIOS_GRPC_PORT": "7", "AIOS_TARGET": "memory"}
    got = settings.from_environment(environ, target="gateway", http_port=None)
    assert (got.data_dir, got.grpc_port, got.http_port, got.target) == (tmp_path, 7, None, "gateway")
    assert _code(lambda: settings.from_environment({"AIOS_GRPC_PORT": "many"})) == "INVALID_ARGUMENT"
    assert _code(lambda: settings.from_environment({"AIOS_TRACE_RATIO": "2"})) == "INVALID_ARGUMENT"
    assert _code(lambda: settings.from_environment({"AIOS_LOG": "loud"})) == "INVALID_ARGUMENT"


def _address(data_dir: Path, pid: int) -> address.Address:
    return address.Address(
        pid, "127.0.0.1:1", "127.0.0.1:2", "nats://127.0.0.1:3", str(data_dir), "", "all", "0.1.0", 1
    )


def test_a_client_finds_the_server_that_was_served_last(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_DATA_HOME": str(tmp_path / "share")}
    here = _address(tmp_path, os.getpid())
    assert address.find(environ=environ) is None
    address.write(tmp_path, here, environ)
    assert (tmp_path / address.FILE).stat().st_mode & 0o777 == 0o600
    assert address.find(environ=environ) == address.find(tmp_path) == here
    address.remove(tmp_path)
    assert address.find(environ=environ) is None


def test_the_file_of_a_killed_server_counts_as_none(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    address.write(tmp_path, _address(tmp_path, gone.pid), {"XDG_STATE_HOME": str(tmp_path)})
    assert address.read(tmp_path) is None
    (tmp_path / address.FILE).write_text("{")
    assert address.read(tmp_path) is None


class _Service:
    def __init__(self, name: str, story: list[str], failure: Exception | None = None) -> None:
        self.name, self.story, self.failure = name, story, failure

    async def start(self) -> None:
        assert identity.service.get() == self.name
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        self.story.append(f"{self.name} started")

    async def stop(self) -> None:
        assert identity.service.get() == self.name
        self.story.append(f"{self.name} stopped")

    def health(self) -> Health:
        return Health(True)


def _group(story: list[str], failing: str = "") -> Group:
    async def make(name: str) -> _Service:
        identity.service.set(name)
        story.append(f"{name} made")
        return _Service(name, story, TerminalError("DATA_DIR", "No.") if name == failing else None)

    return Group({"gateway": ["orchestrator"], "orchestrator": ["memory", "absent"], "memory": []}, make)


async def test_services_start_when_what_they_stand_on_is_ready_and_stop_in_the_reverse_order() -> None:
    story: list[str] = []
    group = _group(story)
    assert not any(health.ready for health in group.health().values())
    await group.start()
    assert all(health.ready for health in group.health().values())
    assert await group.stop() == []
    assert sorted(story[:3]) == ["gateway made", "memory made", "orchestrator made"]
    assert story[3:6] == ["memory started", "orchestrator started", "gateway started"]
    assert story[6:] == ["gateway stopped", "orchestrator stopped", "memory stopped"]


async def test_when_one_fails_to_start_the_others_are_stopped_and_its_reason_is_told() -> None:
    story: list[str] = []
    with pytest.raises(TerminalError) as raised:
        await _group(story, failing="orchestrator").start()
    assert (raised.value.code, raised.value.details["service"]) == ("DATA_DIR", "orchestrator")
    assert "gateway started" not in story
    assert "memory stopped" in story


async def test_a_service_that_does_not_stop_is_left_behind_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aios_runtime.service.group.STOP_SECONDS", 0.05)

    class _Stuck(_Service):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    async def make(name: str) -> _Service:
        identity.service.set(name)
        return _Stuck(name, []) if name == "b" else _Service(name, [])

    group = Group({"a": [], "b": ["a"]}, make)
    await group.start()
    assert await group.stop() == ["b"]
