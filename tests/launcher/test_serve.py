"""`aios serve` as a process: ready, found, refused in one sentence, stopped, as one process and as one a service."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from aios.api.v1 import api_pb2, api_pb2_grpc
from aios_cli.launcher import address, modules
from aios_runtime.bus.embedded import EmbeddedNats

READY_SECONDS = 60


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aios_cli", "serve", "--json", *arguments]


@contextmanager
def serving(
    data: Path, *arguments: str, **environ: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server on free ports and what it said when it was ready; killed at the end if it still runs."""
    process = subprocess.Popen(
        _command("--data-dir", str(data), "--grpc-port", "0", "--http-port", "0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or "{}")
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """A start that must fail: its exit code, its reason code and what it said; it may not show a trace."""
    done = subprocess.run(
        _command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_SECONDS,
        env={**os.environ, **environ},
    )
    assert "Traceback" not in done.stdout + done.stderr
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    return done.returncode, error["code"], error["message"]


@pytest.mark.feature("L1")
def test_one_command_serves_everything_and_stops_cleanly(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (process, ready):
        assert ready["services"] == list(modules.MODULES)
        assert data.stat().st_mode & 0o777 == 0o700
        here = address.read(data)
        assert here is not None
        assert (here.pid, here.grpc) == (process.pid, ready["grpc"])
        for door in (ready["grpc"], ready["http"]):
            host, _, port = door.rpartition(":")
            socket.create_connection((host, int(port)), 5).close()
        status = _status(here.grpc, Path(here.token_file).read_text().strip())
        assert {service.service: service.ready for service in status.services} == dict.fromkeys(
            modules.MODULES, True
        )

        process.send_signal(signal.SIGTERM)
        said, complained = process.communicate(timeout=15)
        assert process.returncode == 0
        assert json.loads(said.splitlines()[-1]) == {"event": "stopped", "late": []}
        assert complained == ""
        assert address.read(data) is None
        assert not (data / address.FILE).exists()


def test_a_second_server_on_the_same_data_is_refused_and_told_which_process_has_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (process, _ready):
        code, reason, message = refused("--data-dir", str(tmp_path / "data"))
        assert (code, reason) == (11, "ALREADY_SERVING")
        assert str(process.pid) in message


def test_a_killed_server_leaves_nothing_that_stops_the_next_one(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path / "data") as (process, ready):
            assert ready["pid"] == process.pid
            process.kill()


def test_a_taken_port_is_refused_by_its_name(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, reason, message = refused("--data-dir", str(tmp_path / "data"), "--grpc-port", port)
    assert (code, reason) == (10, "PORT_TAKEN")
    assert port in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--target", "memori"), "INVALID_ARGUMENT"),
        (("--files-root", "/dev/null"), "INVALID_ARGUMENT"),
        (("--target", "memory"), "BUS_FAILED"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    code, told, message = refused("--data-dir", str(tmp_path / "data"), *arguments)
    assert (told, code != 0) == (reason, True)
    assert message.endswith(".")


def test_a_files_root_that_is_missing_is_made_and_a_start_writes_no_warning(tmp_path: Path) -> None:
    files = tmp_path / "new" / "clients"
    with serving(tmp_path / "data", "--files-root", str(files)) as (_, ready):
        assert ready["files_root"] == str(files)
        assert files.is_dir()
        lines = (tmp_path / "data" / "logs" / "aios.jsonl").read_text().splitlines()
    assert [line for line in map(json.loads, lines) if line["level"] != "info"] == []


def test_of_two_servers_the_one_that_runs_is_found_when_the_other_has_stopped(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with serving(tmp_path / "one", **environ) as (_, first):
        with serving(tmp_path / "two", **environ) as (process, second):
            found = address.find(None, environ)
            assert found is not None
            assert found.grpc == second["grpc"]
            process.terminate()
            process.wait(READY_SECONDS)
        found = address.find(None, environ)
        assert found is not None
        assert found.grpc == first["grpc"]


def test_a_wrong_options_file_is_refused_by_what_is_wrong_in_it(tmp_path: Path) -> None:
    config = tmp_path / "aios.toml"
    config.write_text("[gatewy]\nmax_watches = 3\n")
    assert refused("--data-dir", str(tmp_path / "data"), AIOS_CONFIG=str(config))[1] == "UNKNOWN_FIELD"
    config.write_text("[gateway\n")
    assert refused("--data-dir", str(tmp_path / "data"), AIOS_CONFIG=str(config))[1] == "INVALID_ARGUMENT"
    config.write_text("[gateway]\nmax_watches = 'many'\n")
    code, reason, message = refused("--data-dir", str(tmp_path / "data"), AIOS_CONFIG=str(config))
    assert (code, reason) == (2, "INVALID_ARGUMENT")
    assert "max_watches" in message


def test_a_data_directory_that_is_a_file_or_read_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused("--data-dir", str(tmp_path / "file"))[:2] == (12, "DATA_DIR")
    assert refused("--data-dir", "/proc/aios")[1] in ("DATA_DIR", "READ_ONLY")


@pytest.mark.parametrize("served_before", [False, True], ids=["new", "in use"])
def test_a_data_directory_that_this_user_may_not_write_is_refused_and_left_as_it_is(
    tmp_path: Path, served_before: bool
) -> None:
    """Root is refused nothing, so it gives that up first."""
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if unprivileged and shutil.which("setpriv") is None:
        pytest.skip("without setpriv root can't give up its privileges, and is refused nothing")
    data = tmp_path / "data"
    data.mkdir()
    if served_before:
        with serving(data) as (process, _ready):
            process.send_signal(signal.SIGTERM)
            process.wait(READY_SECONDS)
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    done = subprocess.run(
        [*unprivileged, *_command("--data-dir", str(data), "--grpc-port", "0", "--http-port", "0")],
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_SECONDS,
    )
    assert "Traceback" not in done.stdout + done.stderr
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, error["code"]) in ((12, "DATA_DIR"), (13, "READ_ONLY")), error
    assert str(data) in error["message"]
    assert error["remedy"]
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_a_root_that_may_do_nothing_is_told_to_be_somebody_else(tmp_path: Path) -> None:
    """As in a container whose capabilities are all dropped."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root, by setpriv, can be root without privileges")
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    arguments = ("--data-dir", str(tmp_path / "data"), "--grpc-port", "0", "--http-port", "0")
    process = subprocess.Popen(
        [*unprivileged, *_command(*arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
    finally:
        process.terminate()
        _, complained = process.communicate(timeout=READY_SECONDS)
    assert "Traceback" not in complained
    if "error" in said:  # where the kernel lets it have a sandbox all the same, it serves
        assert said["error"]["code"] == "SANDBOX_UNAVAILABLE"
        assert "another user" in said["error"]["message"]
    else:
        assert said["event"] == "ready"


def test_a_full_disk_is_said_as_such(tmp_path: Path) -> None:
    """A file system of 64 KiB, in a mount namespace of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0
    ):
        pytest.skip("this machine gives no mount namespaces, so no small disk can be made")
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(small), *_command("--data-dir", str(small))],
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_SECONDS,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "DISK_FULL", done.stdout
    assert done.returncode == 14


def test_a_person_reads_where_it_listens_and_nothing_else(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "aios_cli", "serve", "--data-dir", str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AIOS_GRPC_PORT": "0", "AIOS_HTTP_PORT": "0"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, complained = process.communicate(timeout=20)
    assert first.startswith("AIOS is ready (took ")
    assert "AIOS has stopped." in rest
    assert complained == ""


@pytest.mark.feature("L2")
async def test_each_service_in_a_process_of_its_own_makes_the_same_whole(tmp_path: Path) -> None:
    bus = EmbeddedNats(tmp_path / "bus")
    endpoint = await bus.start()
    (tmp_path / "files").mkdir()
    with ExitStack() as stack:
        ready = {}
        for name in modules.MODULES:
            arguments = [
                "--target",
                name,
                *(["--files-root", str(tmp_path / "files")] if name == "connector-files" else []),
            ]
            _, ready[name] = stack.enter_context(
                serving(
                    tmp_path / name,
                    *arguments,
                    AIOS_NATS_URL=endpoint.url,
                    AIOS_NATS_USERS=str(tmp_path / "bus" / "nats-users"),
                )
            )
        assert {name: place.get("services") for name, place in ready.items()} == {
            name: [name] for name in ready
        }
        token = (tmp_path / "gateway" / "token").read_text().strip()
        status = _status(ready["gateway"]["grpc"], token)
        assert {service.service for service in status.services if service.ready} == set(modules.MODULES)
    await bus.stop()


def test_probes_tell_alive_and_ready(tmp_path: Path) -> None:
    port = _free_port()
    with serving(tmp_path / "data", AIOS_PROBE_PORT=str(port)):
        for path in ("livez", "readyz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                assert answer.status == 200
                told = json.load(answer)
        assert set(told["services"]) == set(modules.MODULES)  # of both processes
        with pytest.raises(urllib.error.HTTPError) as nothing:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=5)
        assert nothing.value.code == 404


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status(door: str, token: str) -> api_pb2.GetStatusResponse:
    """The status when every service is ready, or the last one seen."""
    deadline = time.monotonic() + READY_SECONDS
    with grpc.insecure_channel(door) as channel:
        stub = api_pb2_grpc.SystemServiceStub(channel)
        while True:
            status = stub.GetStatus(
                api_pb2.GetStatusRequest(),
                timeout=10,
                metadata=[("authorization", f"Bearer {token}")],
                wait_for_ready=True,
            )
            if all(service.ready for service in status.services) or time.monotonic() > deadline:
                return status
