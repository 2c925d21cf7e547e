"""How a call can end, and what its caller is told."""

import os
from pathlib import Path

import pytest

from aios_agent_runner.sandbox.collect import collect
from aios_core.errors import AiosError, RetryableError, TerminalError
from tests.sandbox.conftest import ECHO, Harness

pytestmark = pytest.mark.feature("E3")


async def failure(
    sandbox: Harness, agent: str, request: dict[str, object] | None = None, **limits: object
) -> AiosError:
    with pytest.raises(AiosError) as caught:
        await sandbox.run(agent, request, **limits)
    assert await sandbox.ask(ECHO, {"still": "alive"}) == {"still": "alive"}
    return caught.value


async def test_an_error_of_the_agent_names_its_own_line_and_no_traceback(sandbox: Harness) -> None:
    error = await failure(sandbox, "raise_error", {"divisor": 0})
    assert (type(error), error.code, error.details["type"]) == (
        TerminalError,
        "AGENT_FAILED",
        "ZeroDivisionError",
    )
    assert error.details["where"].startswith("hostile, line ")
    assert error.details["where"].endswith(" in _deeper")
    assert "Traceback" not in error.message
    assert "\n" not in error.message


async def test_an_error_in_a_library_names_the_line_that_called_it(sandbox: Harness) -> None:
    error = await failure(sandbox, "raise_from_library")
    assert error.details["type"] == "JSONDecodeError"
    assert error.details["where"].endswith(" in raise_from_library")


async def test_an_error_that_can_not_describe_itself_is_told_all_the_same(sandbox: Harness) -> None:
    error = await failure(sandbox, "raise_unspeakable")
    assert (error.code, error.details["type"]) == ("AGENT_FAILED", "Unspeakable")


async def test_sys_exit_is_a_failure_of_the_agent(sandbox: Harness) -> None:
    error = await failure(sandbox, "leave_by_exit")
    assert (error.code, error.details["type"]) == ("AGENT_FAILED", "SystemExit")


async def test_a_process_that_ends_by_itself_is_a_crash_with_its_last_prints(sandbox: Harness) -> None:
    error = await failure(sandbox, "leave_at_once")
    assert (type(error), error.code) == (RetryableError, "SANDBOX_CRASHED")
    assert "exit status 7" in error.message
    assert error.details["logs"] == "last words\n"


async def test_a_segmentation_fault_takes_nothing_with_it(sandbox: Harness) -> None:
    error = await failure(sandbox, "crash")
    assert (type(error), error.code) == (RetryableError, "SANDBOX_CRASHED")
    assert "SIGSEGV" in error.message


async def test_endless_recursion_is_a_failure_of_the_agent(sandbox: Harness) -> None:
    error = await failure(sandbox, "recurse")
    assert error.details["type"] == "RecursionError"


@pytest.mark.parametrize("kind", ["list", "none", "set", "nan", "bytes", "key", "deep", "surrogate"])
async def test_an_answer_that_is_not_a_json_object_is_refused(sandbox: Harness, kind: str) -> None:
    error = await failure(sandbox, "answer_badly", {"kind": kind})
    assert (type(error), error.code) == (TerminalError, "AGENT_BAD_OUTPUT")


@pytest.mark.parametrize("kind", ["not json", "array", "nan", "unknown", "half", "error", "deep"])
async def test_a_forged_frame_convinces_nobody(sandbox: Harness, kind: str) -> None:
    error = await failure(sandbox, "forge", {"kind": kind})
    assert error.code in ("AGENT_BAD_OUTPUT", "SANDBOX_CRASHED", "AGENT_FAILED")


async def test_files_in_out_become_artifacts_until_the_result_is_closed(sandbox: Harness) -> None:
    with await sandbox.run("make", {"kind": "files"}) as result:
        assert list(result.artifacts) == ["charts/a.svg", "empty", "report.md"]
        assert result.artifacts["charts/a.svg"].read_text() == "<svg/>"
        assert result.artifacts["report.md"].stat().st_mode & 0o777 == 0o600
        paths = list(result.artifacts.values())
    assert not any(p.exists() for p in paths)


@pytest.mark.parametrize(
    "kind", ["link", "pipe", "socket", "hard link", "bad name", "not utf-8", "deep", "many", "sparse"]
)
async def test_an_artifact_that_is_no_plain_file_in_bounds_is_refused(sandbox: Harness, kind: str) -> None:
    request: dict[str, object] = {"kind": kind, "to": "/etc/passwd", "size": 2**30}
    error = await failure(sandbox, "make", request)
    # Where Landlock is in force the agent could not even make it.
    assert error.code in ("AGENT_BAD_OUTPUT", "SANDBOX_OUTPUT_TOO_LARGE", "AGENT_FAILED")


async def test_a_directory_that_the_agent_closed_does_no_harm(sandbox: Harness) -> None:
    try:
        (await sandbox.run("make", {"kind": "closed"})).close()
    except TerminalError as error:  # root opens it, an ordinary user can't
        refusal = error.code
    else:
        refusal = ""
    assert refusal == ("AGENT_BAD_OUTPUT" if os.geteuid() else "")
    assert (await sandbox.ask("find"))["files"] == []


@pytest.mark.parametrize("kind", ["link", "link to directory", "link inside", "pipe", "socket", "hard link"])
def test_collecting_follows_no_link_and_opens_no_device(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    (out / "inside").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("hush")
    match kind:
        case "link":
            (out / "a").symlink_to(secret)
        case "link to directory":
            (out / "a").symlink_to(tmp_path)
        case "link inside":
            (out / "inside" / "a").symlink_to("../../secret")
        case "pipe":
            os.mkfifo(out / "a")
        case "socket":
            os.mknod(out / "a", 0o140600)
        case "hard link":
            os.link(secret, out / "a")
    descriptor = os.open(out, os.O_RDONLY)
    try:
        with pytest.raises(TerminalError, match="AGENT_BAD_OUTPUT"):
            collect(descriptor, tmp_path / "target", 10_000)
    finally:
        os.close(descriptor)
    assert not any(p.is_file() for p in (tmp_path / "target").rglob("*"))


def test_collecting_stops_at_the_bytes_allowed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"x" * 600)
    (tmp_path / "out" / "b").write_bytes(b"x" * 600)
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        with pytest.raises(TerminalError, match="SANDBOX_OUTPUT_TOO_LARGE"):
            collect(descriptor, tmp_path / "target", 1000)
        assert {k: v.stat().st_size for k, v in collect(descriptor, tmp_path / "second", 1200).items()} == {
            "a": 600,
            "b": 600,
        }
    finally:
        os.close(descriptor)
