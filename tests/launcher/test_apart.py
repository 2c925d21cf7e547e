"""The second process: it comes back when it dies, and is gone when its parent is."""

import os
import select
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from aios.api.v1 import api_pb2, api_pb2_grpc
from aios_cli.launcher import apart
from aios_cli.launcher.modules import MODULES
from aios_cli.launcher.settings import ServeSettings
from aios_core.errors import RetryableError
from tests.launcher.test_serve import refused, serving
from tests.processes import below

PATIENCE_SECONDS = 30
STORING = tuple(name for name, module in MODULES.items() if module.stores)

pytestmark = [
    pytest.mark.feature("L1"),
    pytest.mark.skipif(os.cpu_count() == 1, reason="on one core all services share one process"),
]


def _doors(pid: int) -> list[int]:
    """The second processes, which the door is in, below a process."""
    return below(pid, "aios_cli.launcher.beside")


def test_who_decides_and_who_has_credentials_share_no_process_with_what_can_be_reached(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with serving(data) as (process, ready):
        (second,) = _doors(process.pid)
        holders = {name: int((data / f"{name}.db.lock").read_text()) for name in STORING}
        assert holders == {
            "orchestrator": process.pid,
            "connector-files": process.pid,
            "memory": second,
            "gateway": second,
        }
        assert below(second, "sandbox.zygote"), "agents are below the second process"
        assert not set(below(process.pid, "sandbox.zygote")) - set(below(second, "sandbox.zygote"))
        assert set(ready["services"]) == set(MODULES)


def _ended(pid: int) -> int:
    """What can be waited on until a process has ended."""
    return os.pidfd_open(pid)


def _wait(descriptor: int) -> None:
    readable, _, _ = select.select([descriptor], [], [], PATIENCE_SECONDS)
    os.close(descriptor)
    assert readable, "it goes on"


def _start(ready: dict[str, Any], name: str) -> str:
    """Start a run through the door, as soon as that is there."""
    token = Path(ready["token_file"]).read_text().strip()
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(ready["grpc"]) as channel:
        request = api_pb2.StartRunRequest(request_id=name, workflow="monthly-client-report")
        stub = api_pb2_grpc.RunServiceStub(channel)
        try:
            stub.StartRun(request, metadata=metadata, timeout=PATIENCE_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


def test_a_door_that_is_killed_comes_back_where_it_was(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (process, ready):
        (door,) = _doors(process.pid)
        said = _start(ready, "before")
        for _ in range(2):
            gone = _ended(door)
            os.kill(door, signal.SIGKILL)
            _wait(gone)
            assert _start(ready, "after") == said  # the same address, the same token
            (other,) = _doors(process.pid)
            assert other != door
            door = other


def test_a_door_does_not_outlive_its_parent(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (process, ready):
        (door,) = _doors(process.pid)
        gone = _ended(door)
        process.kill()
        _wait(gone)
    port = ready["grpc"].rpartition(":")[2]
    with serving(tmp_path / "data", "--grpc-port", port) as (_process, again):
        assert again["grpc"] == ready["grpc"]


def test_a_ctrl_c_at_the_terminal_lets_the_parent_end_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (process, _ready):
        (door,) = _doors(process.pid)
        assert os.getpgid(door) != os.getpgid(process.pid)
        gone = _ended(door)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=PATIENCE_SECONDS)
        _wait(gone)
        assert process.returncode == 0
        assert '"late": []' in said
        assert complained == ""


def test_one_process_is_enough_where_it_is_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path / "data", AIOS_ONE_PROCESS="1") as (process, ready):
        assert _doors(process.pid) == []
        assert "gateway" in ready["services"]
        assert not (tmp_path / "data" / "logs" / "beside.jsonl").exists()


def test_what_it_is_asked_for_is_said_clearly(tmp_path: Path) -> None:
    code, reason, message = refused("--data-dir", str(tmp_path / "data"), AIOS_ONE_PROCESS="maybe")
    assert (code, reason) == (2, "INVALID_ARGUMENT")
    assert message == "AIOS_ONE_PROCESS is 'maybe'; give 1, or 0."


def test_why_the_door_does_not_start_is_told_as_if_it_were_inside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (process, _ready):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
    (data / "gateway.db").write_bytes(b"this is no database" * 100)
    apart_said = refused("--data-dir", str(data), "--grpc-port", "0", "--http-port", "0")
    inside_said = refused(
        "--data-dir", str(data), "--grpc-port", "0", "--http-port", "0", AIOS_ONE_PROCESS="1"
    )
    assert apart_said == inside_said
    assert apart_said[1] == "CORRUPT_STORE"


def test_settings_arrive_as_they_were_sent() -> None:
    sent = ServeSettings(
        target="gateway",
        data_dir=Path("/somewhere/döcs"),
        token_file=Path("token"),
        mongodb_url="mongodb://user:word@host",
        options={"gateway": {"http_body_bytes": "10"}},
        trace_ratio=0.5,
        environ={"AIOS_HOST": "::1"},
    )
    line = apart.packed(sent)
    assert b"\n" not in line
    got = apart.unpacked(line)
    assert {**_fields(got), "environ": None} == {**_fields(sent), "environ": None}


def test_the_bus_s_trouble_arrives_and_goes() -> None:
    trouble = apart.trouble_of(apart.told_of(RetryableError("DISK_FULL", "The disk is full.")))
    assert trouble is not None
    assert (trouble.code, trouble.message, trouble.retryable) == ("DISK_FULL", "The disk is full.", True)
    assert apart.trouble_of(apart.told_of(None)) is None


def _fields(settings: ServeSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in ServeSettings.__slots__}
