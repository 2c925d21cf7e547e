"""Each service says on the bus whether it can work: the question `get_health` under its own name.

Ask with `bus.ask(health_subject(service, workspace), b"", timeout)`; the answer is `aios.api.v1.ServiceHealth`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict

from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus
from aios_runtime.service.port import Health


def health_subject(service: str, workspace: str) -> str:
    """Where to ask `service` for its health."""
    return subjects.query(service, "get_health", workspace)


async def answer_health(bus: Bus, service: str, workspace: str, health: Callable[[], Health]) -> None:
    """Serve the question for `service` from now on."""

    async def answer(_data: bytes, _headers: Mapping[str, str]) -> bytes:
        from aios.api.v1 import api_pb2  # only where somebody asks: the API's messages take a while to load

        now = health()
        told = api_pb2.ServiceHealth(
            service=service, ready=now.ready, detail=now.detail, facts=dict(now.facts or {})
        )
        if now.restore is not None:
            told.restore.CopyFrom(api_pb2.OpenRestore(service=service, **asdict(now.restore)))
        return told.SerializeToString()

    await bus.answer(health_subject(service, workspace), answer, queue=service)
