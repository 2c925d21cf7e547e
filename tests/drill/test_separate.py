"""Each service in its own process, each killed once in the middle of one report, and the bus as well."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from aios_runtime.bus.embedded import EmbeddedNats
from tests.drill.separate import Separate
from tests.drill.served import CLIENT, MONTH, check_undone, check_written, make_report

POINTS = {
    "orchestrator": "orchestrator.committed:4",
    "agent-runner": "agent-runner.lane.worked:2",
    "memory": "memory.lane.worked:2",
    "connector-files": "connector.performed:2",
}

pytestmark = pytest.mark.drill


@pytest.mark.timeout(
    360
)  # a worker that dies alone is replaced after its lease: two or three of them, one after the other
@pytest.mark.feature("B1", "B3", "D3", "L2")
async def test_services_apart_each_killed_once_make_the_report_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    bus = EmbeddedNats(tmp_path / "bus")
    endpoint = await bus.start()
    try:
        apart = Separate(tmp_path, endpoint.url, tmp_path / "bus" / "nats-users", POINTS)
        await asyncio.to_thread(_report, apart, bus)
    finally:
        await bus.stop()


def _report(apart: Separate, bus: EmbeddedNats) -> None:
    with apart:
        apart.aios(
            "run", "start", "monthly-client-report", "--input", f"client={CLIENT}", "--input",
            f"month={MONTH}", "--request-id", "drill-start",
        )  # fmt: skip
        apart.parts["gateway"].kill()
        killed = bus.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        run = make_report(apart)
        check_written(apart, run)
        check_undone(apart, run)
        for name, part in apart.parts.items():
            assert part.starts == 2, name
        for name, point in POINTS.items():
            assert apart.parts[name].deaths == [point.partition(":")[0]]
        assert bus.pid not in (None, killed)
