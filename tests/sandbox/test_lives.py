"""How the sandbox starts, ends, is cancelled and comes back: whatever happens, no process outlives its call."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aios_agent_runner.sandbox.doctor import probe
from aios_agent_runner.sandbox.model import PROMISES, SandboxSettings
from aios_agent_runner.sandbox.pool import SandboxPool
from aios_core.errors import RetryableError, TerminalError
from tests.processes import descendants
from tests.sandbox.conftest import AGENTS, ECHO, Harness, Make

pytestmark = pytest.mark.feature("E3")

RUNNER = """
import asyncio, json, sys
from pathlib import Path
from aios_agent_runner.sandbox.model import Limits, SandboxCall, SandboxSettings
from aios_agent_runner.sandbox.pool import SandboxPool

async def main():
    agents = frozenset({"hostile:sleep", "hostile:two_processes"})
    async with SandboxPool(SandboxSettings(agents=agents, code_roots=(Path(sys.argv[1]),))) as pool:
        pids = any(c.name == "pid-namespace" and c.in_force for c in pool.capabilities())
        call = SandboxCall("hostile:two_processes", b'{"wait": true}', {}, Limits(processes=4))
        other = SandboxCall("hostile:sleep", b"{}")
        print("ready", pool.process_id, flush=True)
        await asyncio.gather(pool.run(call if pids else other), pool.run(other))

asyncio.run(main())
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory that agents of another user may be led through."""
    for directory in (tmp_path, tmp_path.parent):
        directory.chmod(0o711)
    return tmp_path


async def gone(watches: dict[int, int], seconds: float = 10) -> set[int]:
    """The processes that have not ended within `seconds`; `watches` are their pidfds."""
    poll = select.poll()
    for watch in watches.values():
        poll.register(watch, select.POLLIN)
    left = set(watches.values())
    deadline = asyncio.get_running_loop().time() + seconds
    while left and (rest := deadline - asyncio.get_running_loop().time()) > 0:
        for watch, _ in await asyncio.to_thread(poll.poll, rest * 1000):
            poll.unregister(watch)
            left.discard(watch)
    for watch in watches.values():
        os.close(watch)
    return {process for process, watch in watches.items() if watch in left}


async def running(process: int, at_least: int) -> dict[int, int]:
    """pidfds of what `process` started, once there are so many."""
    for _ in range(1000):
        found = descendants(process)
        if len(found) >= at_least:
            return {number: os.pidfd_open(number) for number in found}
        await asyncio.sleep(0.01)
    raise AssertionError(f"{process} has only {found}")


async def test_nothing_survives_a_runner_that_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUNNER, str(AGENTS)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert runner.stdout is not None
    with runner.stdout as lines:
        assert (await asyncio.to_thread(lines.readline)).startswith("ready")
        watches = await running(runner.pid, 4)
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert await gone(watches) == set()


async def test_a_process_that_an_agent_left_behind_ends_with_the_call(sandbox: Harness) -> None:
    sandbox.needs("pid-namespace")
    call = asyncio.create_task(sandbox.run("two_processes", {"wait": True}, processes=4, wall_seconds=1))
    zygote = sandbox.pool.process_id
    assert zygote is not None
    before = set(descendants(zygote))
    watches = await running(zygote, len(before) + 1)
    with pytest.raises(RetryableError):
        await call
    assert await sandbox.ask("two_processes", processes=4)
    await sandbox.pool.close()
    assert await gone(watches) == set()


async def test_a_killed_zygote_fails_its_calls_and_is_started_again(sandbox: Harness) -> None:
    call = asyncio.create_task(sandbox.run("sleep"))
    first = sandbox.pool.process_id
    assert first is not None
    watches = await running(first, 2)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(RetryableError, match="SANDBOX_CRASHED"):
        await call
    assert await gone(watches) == set()
    assert await sandbox.ask(ECHO, {"a": 1}) == {"a": 1}
    assert sandbox.pool.process_id != first


async def test_a_zygote_that_ends_again_and_again_is_not_started_for_ever(sandbox: Harness) -> None:
    codes = []
    for _ in range(8):
        process = sandbox.pool.process_id
        if process is not None:
            os.kill(process, signal.SIGKILL)
        try:
            await sandbox.ask(ECHO)
        except RetryableError as error:
            codes.append((error.code, error.retry_after is not None))
    assert codes
    assert set(codes) == {("SANDBOX_CRASHED", True)}


async def test_a_warm_child_that_is_killed_is_replaced(sandbox: Harness) -> None:
    zygote = sandbox.pool.process_id
    assert zygote is not None
    for _ in range(20):
        all_there = await running(zygote, 3 if sandbox.in_force("pid-namespace") else 2)
        idle = {p: watch for p, watch in all_there.items() if not descendants(p)}
        assert len(idle) == 2
        for watch in idle.values():
            signal.pidfd_send_signal(watch, signal.SIGKILL)
        assert await gone(idle) == set()
        for _ in range(3):
            assert await sandbox.ask(ECHO, {"a": 1}) == {"a": 1}
    assert sandbox.pool.process_id == zygote


async def test_a_cancelled_call_is_killed_and_frees_its_place(make_settings: Make) -> None:
    async with SandboxPool(make_settings(concurrency=1, warm=0)) as pool:
        sandbox = Harness(pool)
        assert pool.process_id is not None
        before = len(descendants(pool.process_id))
        call = asyncio.create_task(sandbox.run("sleep"))
        watches = await running(pool.process_id, before + 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await sandbox.ask(ECHO, {"a": 1}) == {"a": 1}
        assert len(descendants(pool.process_id)) == before
        for watch in watches.values():
            os.close(watch)


async def test_closing_ends_the_calls_and_leaves_no_file_and_no_descriptor(
    make_settings: Make, scratch: Path
) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    pool = SandboxPool(make_settings(scratch=scratch))
    await pool.start()
    process = pool.process_id
    assert process is not None
    await Harness(pool).run("make", {"kind": "files"})
    call = asyncio.create_task(Harness(pool).run("sleep"))
    watches = await running(process, 2)
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises((RetryableError, TerminalError)):
        await call
    assert await gone(watches) == set()
    assert list(scratch.iterdir()) == []
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(TerminalError, match="SANDBOX_UNAVAILABLE"):
        await Harness(pool).run(ECHO)


async def test_what_a_killed_runner_left_is_removed_by_the_next_and_no_other(
    make_settings: Make, scratch: Path
) -> None:
    """Where no directory is given, all runners of the machine share that for temporary files."""
    found = os.pathsep.join(sys.path)  # also where they are not this Python's own, as elsewhere
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": found}
    command = [sys.executable, "-c", RUNNER, str(AGENTS)]
    (scratch / "other").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline().startswith("ready")
        (left,) = (path for path in scratch.iterdir() if path.name != "other")
        async with SandboxPool(make_settings(scratch=scratch)):
            assert left.exists() and len(list(scratch.iterdir())) == 3, "its runner lives"
        killed.kill()
    assert left.exists()
    async with SandboxPool(make_settings(scratch=scratch)):
        assert not left.exists()
    assert [p.name for p in scratch.iterdir()] == ["other"]


async def test_a_thousand_calls_leak_no_descriptor_and_no_process(sandbox: Harness) -> None:
    await sandbox.ask(ECHO)
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(sandbox.ask(ECHO, {"n": n}) for n in range(300)))
    assert len(os.listdir("/proc/self/fd")) == before
    assert sandbox.pool.process_id is not None
    assert len(descendants(sandbox.pool.process_id)) <= 1 + 2 * 2


async def test_answers_are_never_mixed_up(sandbox: Harness) -> None:
    got = await asyncio.gather(*(sandbox.ask(ECHO, {"n": n}) for n in range(100)))
    assert got == [{"n": n} for n in range(100)]


async def test_a_small_step_costs_milliseconds(sandbox: Harness) -> None:
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(50):
        began = loop.time()
        await sandbox.ask(ECHO)
        times.append(loop.time() - began)
    assert sorted(times)[10] < 0.02  # 2 ms on an idle machine; this one may be busy


async def test_the_doctor_says_what_is_in_force() -> None:
    found = {c.name: c for c in await probe()}
    assert set(found) >= PROMISES | {
        "seccomp",
        "landlock",
        "user-namespace",
        "mount-namespace",
        "resource-limits",
    }
    assert all(c.why for c in found.values())
    assert all(found[name].in_force for name in PROMISES)


async def test_a_required_layer_that_is_missing_stops_the_start(make_settings: Make) -> None:
    with pytest.raises(TerminalError, match="no-such-layer") as caught:
        await SandboxPool(make_settings(require=frozenset({"no-such-layer", "no-network"}))).start()
    assert caught.value.code == "SANDBOX_UNAVAILABLE"
    assert caught.value.details["missing"] == "no-such-layer"


async def test_a_preloaded_module_is_there_in_each_call(make_settings: Make) -> None:
    async with SandboxPool(make_settings(preload=("writes_at_home",))) as pool:
        for _ in range(2):
            seen = await Harness(pool).ask("surroundings")
            assert "writes_at_home" in seen["modules"]
            assert (await Harness(pool).ask("find"))["files"] == []


async def test_a_preload_that_can_not_be_imported_is_named(make_settings: Make) -> None:
    with pytest.raises(TerminalError, match="no_such_module"):
        await SandboxPool(make_settings(preload=("no_such_module",))).start()


@pytest.mark.parametrize("reference", ["os.system", "a:b:c", "a b:c", ":run", "../x:run", "a;import os:x"])
def test_a_reference_that_is_none_is_refused_in_the_settings(reference: str) -> None:
    with pytest.raises(TerminalError, match=r"package\.module:function"):
        SandboxSettings(agents=frozenset({reference}))
