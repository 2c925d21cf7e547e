"""What the broker keeps in memory while many messages pass: its duplicate window's ids and its subjects are bounded.

Messages of 200 bytes, each with an id of its own, go through AIOS's own stream of commands to a worker's lane that
acknowledges them, at a steady rate for several times the duplicate window.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import EmbeddedNats
from aios_runtime.bus.port import Delivery, Message
from aios_runtime.bus.topology import DUPLICATE_WINDOW_SECONDS
from tests.bench.served import memory_bytes

RATE = 8_700  # messages a second
TURN_S = 0.02
WINDOWS = 5
DATA = b"x" * 200


async def figures(rate: int = RATE, windows: int = WINDOWS) -> dict[str, float]:
    """MiB of the broker (PSS) at the end of each window's time, the rate that was reached, and what was left."""
    with tempfile.TemporaryDirectory(prefix="aios-bench-") as place:
        server = EmbeddedNats(Path(place))
        endpoint = await server.start()
        sender = await NatsBus.connect(endpoint.credentials("orchestrator"), service="orchestrator")
        worker = await NatsBus.connect(endpoint.credentials("agent-runner"), service="agent-runner")
        try:
            assert server.pid is not None
            return await _measure(sender, worker, server.pid, rate, windows)
        finally:
            await worker.close(0)
            await sender.close(0)
            await server.stop()


async def _measure(
    sender: NatsBus, worker: NatsBus, broker: int, rate: int, windows: int
) -> dict[str, float]:
    async def acknowledge(deliveries: Sequence[Delivery]) -> None:
        await asyncio.gather(*(delivery.ack() for delivery in deliveries))

    consumer = subjects.consumer("agent-runner", "perform")
    await worker.consume(consumer, acknowledge, batch=256, slots=4096)
    subject = subjects.perform("main", subjects.LANE_AGENT)
    found = {"broker_mib_at_first": memory_bytes([broker]) / 2**20}
    began, sent = time.perf_counter(), 0
    for window in range(1, windows + 1):
        until = began + window * DUPLICATE_WINDOW_SECONDS
        while time.perf_counter() < until:
            due = int((time.perf_counter() - began) * rate) - sent
            if due > 0:
                await sender.publish([Message(subject, DATA, f"m{sent + number}") for number in range(due)])
                sent += due
            await asyncio.sleep(TURN_S)
        found[f"broker_mib_after_{window * DUPLICATE_WINDOW_SECONDS:.0f}_s"] = memory_bytes([broker]) / 2**20
        print(f"  broker: {sent} messages, {memory_bytes([broker]) / 2**20:.0f} MiB", file=sys.stderr)
    found["messages_per_second"] = sent / (time.perf_counter() - began)
    info = await sender.keeper.alive().jetstream().stream_info(subjects.STREAM_CMD)
    found["messages_left"] = info.state.messages
    return found
