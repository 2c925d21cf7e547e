"""Troubles of an installation in one process: too much, poison, a frozen or wiped bus, a clock that is set."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from aios.api.v1 import api_pb2_grpc
from aios.api.v1.api_pb2 import ShowQueuesRequest
from aios.run.v1.state_pb2 import RUN_STATE_SUCCEEDED
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.endpoint import load_endpoint
from aios_runtime.bus.port import Message
from tests.bench.served import memory_bytes
from tests.drill.cluster import SLOW, WORKFLOWS, Person, check_histories
from tests.drill.kept import Kept
from tests.processes import tree

ALL = os.environ.get("AIOS_DRILL") == "all"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
SAMPLE = 200  # runs that show how many can be done in a second
OVERSIZE = 250_000  # bytes: what the bus just takes, and an event may not have

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]


class Alone:
    """One process with everything in it, and a person at its door."""

    def __init__(self, place: Path, kept: Kept, person: Person) -> None:
        self.place, self.kept, self.person = place, kept, person

    def memory(self) -> int:
        """Bytes that the server and all that it has started take."""
        assert self.kept.process is not None
        return memory_bytes(tree(self.kept.process.pid))

    async def check(self) -> int:
        """Every run that was started succeeds, its history is whole; returns how many events there are."""
        await self.person.all_succeed(400)
        return await check_histories(load_endpoint(self.kept.data), self.person.started, RUN_STATE_SUCCEEDED)

    def notes(self, count: int) -> None:
        """Each effect is there once."""
        for number in range(count):
            lines = (self.place / "files" / "notes" / f"{number}.jsonl").read_text().splitlines()
            assert len(lines) == 1, number


@asynccontextmanager
async def alone(place: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Alone]:
    (place / "files" / "notes").mkdir(parents=True)
    arguments = ["--files-root", str(place / "files")]
    kept = Kept(place / "data", arguments, environment=dict(environment or {}), marker=place / "crashed")
    await asyncio.to_thread(kept.__enter__)
    person = Person([kept])
    try:
        await person.apply(WORKFLOWS)
        yield Alone(place, kept, person)
    finally:
        await person.close()
        await asyncio.to_thread(kept.__exit__)


async def mixed(person: Person, count: int) -> None:
    """Runs of all kinds."""
    await asyncio.gather(
        person.start("echoes", range(count)),
        person.start("waits", range(count // 4)),
        person.start("keeps", range(count // 4)),
    )


@pytest.mark.feature("B1", "J1")
@pytest.mark.parametrize("trouble", ["frozen", "wiped"])
async def test_a_bus_that_is_frozen_or_wiped_in_the_middle_loses_nothing(
    tmp_path: Path, trouble: str
) -> None:
    count = 2000 if ALL else 80
    async with alone(tmp_path) as here, here.person.approving() as (meanwhile, done):

        async def troubles() -> None:
            while not done.is_set():
                await asyncio.sleep(0.7)
                bus = here.kept.bus_pid()
                if trouble == "frozen":
                    os.kill(bus, signal.SIGSTOP)
                    await asyncio.sleep(12.0 if ALL else 3.0)
                    os.kill(bus, signal.SIGCONT)
                    await asyncio.sleep(3.0)
                else:
                    os.kill(bus, signal.SIGKILL)
                    await asyncio.to_thread(shutil.rmtree, here.kept.data / "nats" / "jetstream", True)
                    await asyncio.sleep(8.0)

        troubling = meanwhile.create_task(troubles())
        await mixed(here.person, count)
        events = await here.check()
        troubling.cancel()
        here.notes(count // 4)
        print(
            f"{trouble}: {len(here.person.started)} runs, {events} events, slowest call {here.person.slowest:.1f} s"
        )


@pytest.mark.feature("B1", "D4")
@pytest.mark.skipif(FAKETIME is None, reason="Debian's faketime is not installed; `.ci/run` installs it")
async def test_a_clock_that_is_set_by_hours_in_the_middle_harms_no_run(tmp_path: Path) -> None:
    count = 1000 if ALL else 80
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",  # as earlier releases of it call the same
        "FAKETIME_CACHE_DURATION": "1",
    }
    async with alone(tmp_path, faked) as here, here.person.approving() as (meanwhile, _):

        async def set_clock() -> None:
            for at, hours in enumerate((3, -5, 26, 0), start=1):
                await asyncio.sleep(1.5)
                clock.write_text(f"{hours * 3600:+d}\n")
                while abs(await here.person.created_now() / 1000 - time.time() - hours * 3600) > 1800:
                    await asyncio.sleep(0.2)  # it is read once in a second
                waits = [here.person.one_run("waits", 1000 * at + n) for n in range(10)]
                assert all(ended < 15 for _, ended in await asyncio.gather(*waits)), f"by {hours} h"

        setting = meanwhile.create_task(set_clock())
        await mixed(here.person, count)
        await setting
        events = await here.check()
        here.notes(count // 4)
        created = here.person.created.values()
        assert max(created) - min(created) > 3_600_000, "the clock was never set"
        print(f"clock set four times: {len(here.person.started)} runs, {events} events")


@pytest.mark.feature("B1", "B3")
async def test_poison_beside_good_messages_is_put_aside_and_holds_nothing_up(tmp_path: Path) -> None:
    count = 1000 if ALL else 100
    async with alone(tmp_path) as here:
        endpoint = load_endpoint(here.kept.data)
        _, quiet = await here.person.one_run("echoes", 100_000)
        gateway = await NatsBus.connect(endpoint.credentials("gateway"), service="gateway")
        worker = await NatsBus.connect(endpoint.credentials("agent-runner"), service="agent-runner")
        credentials = endpoint.credentials("external")
        client = await nats.connect(credentials.url, user="external", password=credentials.password)
        outside = client.jetstream()
        try:
            begun = asyncio.create_task(here.person.start("echoes", range(count)))
            for number in range(count):
                await gateway.publish([Message(subjects.run_command("start_run", "main", 0), b"\xff\xfe")])
                await worker.publish([Message(subjects.report_outcomes("main", number % 16), b"\xff\xfe")])
                await outside.publish(subjects.external("main", "post", "x"), b"\xff")
            await outside.publish(subjects.external("main", "post", "x"), b"x" * OVERSIZE)
            await begun
            await here.check()
            _, loud = await here.person.one_run("echoes", 100_001)
            letters = await _dead_letters(gateway, 3 * count + 1)
        finally:
            await client.close()
            await gateway.close(0)
            await worker.close(0)
        print(f"{letters} put aside; a run took {quiet * 1000:.0f} ms before, {loud * 1000:.0f} ms after")


async def _dead_letters(bus: NatsBus, expected: int) -> int:
    """How many there are, once there are as many as expected."""
    while True:
        info = await bus.keeper.alive().jetstream().stream_info(subjects.STREAM_DLQ)
        if info.state.messages >= expected:
            assert info.state.messages == expected
            return expected
        await asyncio.sleep(0.2)


@pytest.mark.feature("B1")
@pytest.mark.timeout(2400 if ALL else 600)
async def test_ten_times_too_much_is_slow_and_bounded_loses_nothing_and_passes(tmp_path: Path) -> None:
    """What comes in a minute takes ten to be done."""
    seconds = 60 if ALL else 4
    async with alone(tmp_path) as here:
        await here.person.apply(SLOW)
        before = [await here.person.one_run("slow", number) for number in range(10)]
        began = time.monotonic()
        await here.person.start("slow", range(100, 100 + SAMPLE), 100)
        await here.person.all_succeed(60)
        rate = 10 * SAMPLE / (time.monotonic() - began)  # runs a second: ten times what can be done
        at_first = most = here.memory()
        began, number = time.monotonic(), 1000
        while (since := time.monotonic() - began) < seconds:
            due = range(number, 1000 + int(rate * since))[: 4 * 100]
            await here.person.start("slow", due, 100)
            number += len(due)
            if len(due) < 100:
                await asyncio.sleep(100 / rate)
            most = max(most, here.memory())
        offered = (number - 1000) / (time.monotonic() - began)
        passed = asyncio.create_task(here.person.all_succeed(30 * seconds + 60))
        while not passed.done():
            await asyncio.sleep(0.25)
            most = max(most, here.memory())
        await passed
        done = (number - 1000) / (time.monotonic() - began)
        after = [await here.person.one_run("slow", 900 + number) for number in range(10)]
        print(
            f"{number - 1000} runs: {offered:.0f} a second came, {done:.0f} were done ({offered / done:.1f} x);"
            f" memory {at_first >> 20} MiB, at most {most >> 20} MiB;"
            f" a run alone {sorted(before)[5][1] * 1000:.0f} ms before, {sorted(after)[5][1] * 1000:.0f} ms after"
        )
        assert most < at_first + (400 << 20)


GENTLY = """\
apiVersion: aios/v1
kind: Limit
metadata: {name: gently}
spec: {connector: files, in_flight: 2, rate: 4/s}
"""


@pytest.mark.feature("B1", "B6")
async def test_a_slow_connector_makes_its_own_callers_wait_and_nobody_else(tmp_path: Path) -> None:
    slow, fast = (600, 5000) if ALL else (40, 100)
    async with alone(tmp_path) as here, here.person.approving() as (meanwhile, done):
        person = here.person
        await person.apply(GENTLY)
        most = waited = 0

        async def lane() -> Any:
            shown = await person.call(api_pb2_grpc.QueueServiceStub, "ShowQueues", ShowQueuesRequest())
            return next((each for each in shown.lanes if each.lane == "connector-files"), None)

        async def look() -> None:
            nonlocal most, waited
            while not done.is_set():
                files = await lane()
                if files is not None:
                    most, waited = max(most, files.in_flight), max(waited, files.waiting)
                await asyncio.sleep(0.1)

        meanwhile.create_task(look())
        await person.start("keeps", range(slow))
        while (files := await lane()) is None or not files.waiting:
            await asyncio.sleep(0.05)
        await person.start("echoes", range(fast))
        while not all([(await person._run(f"echoes-{number}")).state == 2 for number in range(fast)]):
            await asyncio.sleep(0.05)
        files = await lane()
        assert files.waiting and files.oldest_ms, "the fast ones have ended, and slow ones still wait"
        assert {part.workflow for part in files.backlog} == {"keeps"}
        here.kept.kill()
        await here.check()
        here.notes(slow)
        assert most <= 2 < waited
