"""What an agent can use up: its own limits, and never more."""

import asyncio
import json
import os

import pytest

from aios_agent_runner.sandbox.model import LOG_BYTES, MIB, Limits, SandboxCall
from aios_agent_runner.sandbox.pool import SandboxPool
from aios_core.errors import AiosError, RetryableError, TerminalError
from tests.sandbox.conftest import ECHO, Harness, Make

pytestmark = pytest.mark.feature("E3")


async def failure(
    sandbox: Harness, agent: str, request: dict[str, object] | None = None, **limits: object
) -> AiosError:
    with pytest.raises(AiosError) as caught:
        await sandbox.run(agent, request, **limits)
    assert await sandbox.ask(ECHO, {"still": "alive"}) == {"still": "alive"}
    return caught.value


async def test_an_endless_loop_ends_at_its_cpu_seconds(sandbox: Harness) -> None:
    error = await failure(sandbox, "spin", cpu_seconds=1, wall_seconds=30)
    assert (type(error), error.code, error.details["limit"]) == (
        TerminalError,
        "SANDBOX_TIMEOUT",
        "cpu_seconds",
    )


@pytest.mark.parametrize("agent", ["spin", "sleep"])
async def test_an_endless_call_ends_at_its_wall_seconds(sandbox: Harness, agent: str) -> None:
    error = await failure(sandbox, agent, wall_seconds=0.3)
    assert (type(error), error.code, error.details["limit"]) == (
        RetryableError,
        "SANDBOX_TIMEOUT",
        "wall_seconds",
    )


@pytest.mark.parametrize("piece", [1000, 10 * MIB, 2**40])
async def test_memory_ends_at_its_bytes(sandbox: Harness, piece: int) -> None:
    error = await failure(sandbox, "fill_memory", {"piece": piece}, memory_bytes=200 * MIB)
    assert (type(error), error.code) == (TerminalError, "SANDBOX_MEMORY")


async def test_one_process_means_one(sandbox: Harness) -> None:
    assert await sandbox.ask("fork_bomb") == {"started": 0, "refused": "PermissionError"}
    assert "refused" in await sandbox.ask("thread")


async def test_processes_are_counted_for_each_call_apart(sandbox: Harness) -> None:
    sandbox.needs("pid-namespace")
    answers = await asyncio.gather(*(sandbox.ask("fork_bomb", processes=8) for _ in range(2)))
    assert answers == [{"started": 7, "refused": "BlockingIOError"}] * 2


async def test_endless_forks_end_with_the_call(sandbox: Harness) -> None:
    sandbox.needs("pid-namespace")
    error = await failure(sandbox, "endless_forks", processes=20, wall_seconds=0.5)
    assert error.code == "SANDBOX_TIMEOUT"


async def test_more_processes_are_refused_where_they_can_not_be_kept(sandbox: Harness) -> None:
    if sandbox.in_force("pid-namespace"):
        assert await sandbox.ask("thread", processes=2) == {"got": "None"}
        return
    error = await failure(sandbox, "thread", processes=2)
    assert error.code == "SANDBOX_UNAVAILABLE"


async def test_an_answer_over_its_bytes_is_refused(sandbox: Harness) -> None:
    error = await failure(sandbox, "answer_of", {"size": 1000}, output_bytes=1000)
    assert (type(error), error.code) == (TerminalError, "SANDBOX_OUTPUT_TOO_LARGE")
    assert await sandbox.ask("answer_of", {"size": 5 * MIB}, output_bytes=6 * MIB) == {"text": "x" * 5 * MIB}


async def test_a_frame_that_claims_to_be_huge_is_not_read(sandbox: Harness) -> None:
    error = await failure(sandbox, "forge", {"kind": "huge"})
    assert (type(error), error.code) == (TerminalError, "SANDBOX_OUTPUT_TOO_LARGE")


async def test_what_a_hostile_agent_sends_after_its_frame_is_not_read(sandbox: Harness) -> None:
    before = len(os.listdir("/proc/self/fd"))
    error = await failure(sandbox, "forge_and_flood", wall_seconds=0.5)
    assert error.code == "SANDBOX_TIMEOUT"
    assert len(os.listdir("/proc/self/fd")) == before


async def test_prints_are_kept_up_to_a_bound(sandbox: Harness) -> None:
    with await sandbox.run("chatter", {"lines": 20_000}) as result:
        assert json.loads(result.response) == {"done": True}
        kept, _, note = result.logs.rpartition("\n")
        assert len(kept) == LOG_BYTES
        assert note == f"… {20_000 * 1024 - LOG_BYTES} bytes more were dropped"
    with await sandbox.run("print_little") as result:
        assert sorted(result.logs.splitlines()) == ["to err", "to out"]


async def test_files_end_at_their_bytes_together(sandbox: Harness) -> None:
    assert (await sandbox.ask("fill_disk", {"piece": 10}))["written"] == 10_000
    # With a file system for each call a write fails; without one the files are refused when they are collected.
    expected = "AGENT_FAILED" if sandbox.in_force("file-quota") else "SANDBOX_OUTPUT_TOO_LARGE"
    for piece in (2 * MIB, 100_000):
        assert (await failure(sandbox, "fill_disk", {"piece": piece}, file_bytes=MIB)).code == expected


@pytest.mark.feature("E4")
async def test_calls_beyond_the_concurrency_wait_their_turn(make_settings: Make) -> None:
    async with SandboxPool(make_settings(concurrency=3)) as pool:
        spans = await asyncio.gather(*(Harness(pool).ask("interval") for _ in range(20)))
    edges = sorted([(s["began"], 1) for s in spans] + [(s["ended"], -1) for s in spans])
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    assert 1 < most <= 3


async def test_calls_beyond_the_queue_are_told_to_come_back(make_settings: Make) -> None:
    async with SandboxPool(make_settings(concurrency=1, queue=2)) as pool:
        calls = [asyncio.create_task(Harness(pool).run("interval")) for _ in range(6)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        turned_away = [e for e in ends if isinstance(e, RetryableError) and e.code == "UNAVAILABLE"]
        assert len(turned_away) == 3
        assert sum(not isinstance(e, BaseException) for e in ends) == 3


async def test_the_request_and_the_input_are_bounded(make_settings: Make, sandbox: Harness) -> None:
    with pytest.raises(TerminalError, match="TOO_LARGE"):
        await sandbox.pool.run(SandboxCall(ECHO, b" " * (17 * MIB)))
    with pytest.raises(TerminalError, match="TOO_LARGE"):
        await sandbox.run(ECHO, files={str(n): b"" for n in range(1001)})
    async with SandboxPool(make_settings(input_bytes=10)) as pool:
        with pytest.raises(TerminalError, match="TOO_LARGE"):
            await Harness(pool).run(ECHO, files={"a": b"x" * 6, "b": b"x" * 6})


@pytest.mark.parametrize(
    "limit", ["cpu_seconds", "wall_seconds", "memory_bytes", "output_bytes", "file_bytes", "processes"]
)
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    for value in (0, -1, 2**63):
        with pytest.raises(TerminalError, match=limit):
            Limits(**{limit: value})


@pytest.mark.feature("E4")
async def test_usage_says_what_a_call_took(sandbox: Harness) -> None:
    with await sandbox.run("sleep", {"seconds": 0.2}) as result:
        assert 0.2 <= result.usage.wall_seconds < 5
        assert 0 < result.usage.cpu_seconds < 0.2
        assert MIB < result.usage.max_rss_bytes < 100 * MIB
