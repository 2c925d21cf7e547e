"""What an agent can reach: no network, no credentials, nothing of other calls, nowhere to write but `out`."""

import json
import os
import socket
from pathlib import Path

import pytest

from aios_agent_runner.sandbox.model import SandboxCall
from aios_agent_runner.sandbox.pool import SandboxPool
from aios_core.errors import TerminalError
from tests.sandbox.conftest import AGENTS, Harness, Make

pytestmark = pytest.mark.feature("E3")


def refused(answers: dict[str, dict[str, str]]) -> bool:
    got = {name: answer for name, answer in answers.items() if "refused" not in answer}
    assert not got, got
    return True


async def test_no_socket_leads_out_of_the_sandbox(sandbox: Harness, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        os.chdir(tmp_path)  # the path of a unix socket is short
        unix.bind("outside.sock")
        os.chmod("outside.sock", 0o777)
        unix.listen()
        abstract.bind(f"\0aios-test-{os.getpid()}")
        abstract.listen()
        request = {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": "outside.sock",
            "abstract": f"aios-test-{os.getpid()}",
        }
        socket.create_connection(tcp.getsockname(), timeout=2).close()  # it does listen
        answers = await sandbox.ask("connect", request)
        assert answers.pop("pair") == {"got": "b'x'"}
        assert refused(answers)
        with pytest.raises(BlockingIOError):
            udp.recv(10)


async def test_files_of_the_company_and_the_user_are_unreadable(make_settings: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "secret").write_text("for the owner")
    (data / "secret").chmod(0o600)
    (data / "open").write_text("for all the world")
    (data / "open").chmod(0o644)
    ssh = Path.home() / ".ssh"
    async with SandboxPool(make_settings(private=(data,))) as pool:
        paths = [
            *(str(p) for p in (data, data / "secret", data / "open", tmp_path, ssh, Path.home())),
            *(
                "/proc/1/environ",
                f"/proc/{os.getpid()}/environ",
                f"/proc/{os.getppid()}/cmdline",
                "/proc/self/environ",
            ),
            *("/etc/passwd", "/etc/shadow", "/etc/hostname", "/tmp", "/", "/sys", "/run", "/var", "/dev/shm"),
        ]
        assert refused(await Harness(pool).ask("read", {"paths": paths}))


async def test_the_surroundings_hold_nothing_of_the_runner(
    sandbox: Harness, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "hush")
    with open("/dev/null") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        async with SandboxPool(make_settings()) as pool:
            seen = await Harness(pool).ask("surroundings")
    assert set(seen["environment"]) <= {
        *("LANG", "TZ", "HOME", "TMPDIR", "MPLBACKEND"),
        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    }
    assert seen["descriptors"] == [0, 1, 2, 3]
    assert seen["umask"] == 0o077
    assert "asyncio" not in seen["modules"]
    if sandbox.in_force("pid-namespace"):
        assert (seen["process"], seen["parent"]) == (1, 0)
    if os.geteuid() == 0 and sandbox.in_force("other-user"):
        assert seen["user"] == 65534


async def test_two_calls_order_a_set_alike(make_settings: Make) -> None:
    orders = []
    for _ in range(2):
        async with SandboxPool(make_settings()) as pool:
            orders.append((await Harness(pool).ask("surroundings"))["order"])
    assert orders[0] == orders[1]


async def test_an_agent_writes_to_out_and_its_scratch_directory_alone(
    sandbox: Harness, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    with await sandbox.run("write", {"directories": [str(tmp_path), "/tmp", str(Path.home())]}) as result:
        answer = json.loads(result.response)
        if not sandbox.in_force("landlock"):  # then the call's own directory is writable as a whole
            answer["elsewhere"] = {k: v for k, v in answer["elsewhere"].items() if not k.startswith("/call")}
        assert refused(answer["elsewhere"])
        assert refused({"own code": answer["own code"]})
        assert "got" in answer["out"]
        assert "got" in answer["scratch"]
        assert "got" in answer["temporary"]
        assert {name: path.read_text() for name, path in result.artifacts.items()} == {"kept.txt": "x"}
    assert not list(tmp_path.iterdir())


@pytest.mark.feature("E2")
async def test_nothing_of_a_call_is_left_for_the_next(sandbox: Harness) -> None:
    left = await sandbox.ask("leave", {"secret": "s3cret"})
    found = await sandbox.ask("find")
    assert found["files"] == []
    assert found["kept"] == []
    assert found["environment"] is False
    assert refused({"made": left["shared memory"], "found": found["shared memory"], "calls": found["calls"]})


async def test_input_files_arrive_under_their_names(sandbox: Harness, tmp_path: Path) -> None:
    source = tmp_path / "table.csv"
    source.write_text("a,b\n" * 100_000)
    source.chmod(0o600)
    files: dict[str, Path | bytes] = {"2026-10/table.csv": source, "notes.md": b"# Notes", "empty": b""}
    got = await sandbox.ask("read_files", files=files, output_bytes=10_000_000)
    assert got == {"2026-10/table.csv": "a,b\n" * 100_000, "notes.md": "# Notes", "empty": ""}


async def test_a_folder_of_many_files_with_long_names_arrives_whole(sandbox: Harness) -> None:
    files: dict[str, Path | bytes] = {f"{n:03}-{'ü' * 120}.csv": b"x" * (n % 3) for n in range(620)}
    got = await sandbox.ask("read_files", files=files, output_bytes=10_000_000)
    assert got == {name: "x" * len(bytes(content)) for name, content in files.items()}  # type: ignore[arg-type]


async def test_too_many_files_are_refused(sandbox: Harness) -> None:
    with pytest.raises(TerminalError, match="1001 files; 1000 are allowed"):
        await sandbox.run("read_files", files={f"{n}.csv": b"" for n in range(1001)})


async def test_a_request_of_many_bytes_arrives_whole(sandbox: Harness) -> None:
    request = {"text": "ä" * 1_000_000}
    assert await sandbox.ask("aios_agent_runner.agents.echo:run", request, output_bytes=10_000_000) == request


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../../b", "", ".", "a//b", "a\nb", "a/" * 9 + "b", "\ud800"]
)
async def test_an_input_name_that_leaves_the_directory_is_refused(sandbox: Harness, name: str) -> None:
    with pytest.raises(TerminalError) as caught:
        await sandbox.run("read_files", files={name: b"x"})
    assert caught.value.code == "INVALID_ARGUMENT"


async def test_an_input_that_is_a_link_or_no_file_is_refused(sandbox: Harness, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(TerminalError) as caught:
            await sandbox.run("read_files", files={"a": path})
        assert caught.value.code == "UNREADABLE"
    assert await sandbox.ask("read_files") == {}


async def test_an_agent_that_is_not_listed_is_not_run(sandbox: Harness) -> None:
    for reference in ("os:system", "hostile", "hostile:absent", "hostile:os.system"):
        with pytest.raises(TerminalError) as caught:
            await sandbox.pool.run(SandboxCall(reference, b"{}"))
        assert caught.value.code == "NOT_FOUND"


async def test_a_code_root_that_holds_private_data_stops_the_start(
    make_settings: Make, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(TerminalError, match="private") as caught:
        await SandboxPool(make_settings(code_roots=(tmp_path,), private=(tmp_path / "data",))).start()
    assert caught.value.code == "SANDBOX_UNAVAILABLE"


async def test_the_kernel_refuses_what_leads_out(sandbox: Harness) -> None:
    assert refused(await sandbox.ask("escape", {"runner": os.getpid()}))


async def test_no_other_process_can_be_signalled(sandbox: Harness) -> None:
    assert refused(await sandbox.ask("signal_others", {"runner": os.getpid()}))
    assert refused(await sandbox.ask("signal_by_descriptor", {"runner": os.getpid()}))


async def test_files_outside_can_not_be_changed_in_any_way(make_settings: Make, tmp_path: Path) -> None:
    code, other = tmp_path / "code" / "module.py", tmp_path / "other"
    code.parent.mkdir()
    for path in (code, other):
        path.write_text("as it was")
        path.chmod(0o666)
        path.parent.chmod(0o777)
    async with SandboxPool(make_settings(code_roots=(AGENTS, code.parent))) as pool:
        for path in (code, other):
            before = path.stat()
            assert refused(await Harness(pool).ask("change_files", {"path": str(path)}))
            after = path.stat()
            assert path.read_text() == "as it was"
            assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (
                before.st_mode,
                before.st_mtime_ns,
                1,
            )


async def test_an_agent_works_with_its_own_files_as_usual(sandbox: Harness) -> None:
    assert await sandbox.ask("own_files") == {"left": ["c"]}
