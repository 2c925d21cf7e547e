"""The gateway with the services that it asks, on a real bus and real stores, and clients of it."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from aios.api.v1 import api_pb2, api_pb2_grpc
from aios.value.v1.value_pb2 import Value
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.minting import mint, now_ms
from aios_core.values import Plain, labeled
from aios_gateway.module import Gateway
from aios_gateway.module import create as create_gateway
from aios_memory.module import create as create_memory
from aios_orchestrator.module import create as create_orchestrator
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.embedded import EmbeddedNats
from aios_runtime.bus.endpoint import Endpoint
from aios_runtime.service.health import answer_health
from aios_runtime.service.port import Context, Service
from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store

WORKSPACE = "main"
WORKFLOWS = """
apiVersion: aios/v1
kind: Workflow
metadata: {name: greet, title: A greeting}
spec:
  inputs:
    type: object
    properties: {name: {type: string}, times: {type: integer, default: 1}}
    required: [name]
    additionalProperties: false
  steps:
    - name: words
      transform: {text: "hello ${inputs.name}", times: "${inputs.times}"}
  outputs: {text: "${steps.words.text}", times: "${steps.words.times}"}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: ask-first, title: Asks first}
spec:
  inputs: {type: object, properties: {name: {type: string}}, required: [name]}
  steps:
    - name: approve
      gate:
        title: "Remember ${inputs.name}"
        why: "it was asked for"
        risk: "it may be the wrong name"
        approves: [keep]
    - name: keep
      memory: write
      input:
        writes:
          - kind: fact
            key: "person/${inputs.name}"
            expect: any
            authority: authoritative
            value: {name: "${inputs.name}"}
  outputs: {name: "${inputs.name}"}
---
apiVersion: aios/v1
kind: Workflow
metadata: {name: question, title: Asks a question}
spec:
  inputs: {type: object, properties: {}}
  steps:
    - name: which
      ask:
        title: "A question"
        questions: [{id: color, text: "Which color?", options: [red, blue]}]
  outputs: {answered: "${steps.which.answers.color}"}
---
apiVersion: aios/v1
kind: Intent
metadata: {name: greet, title: A greeting}
spec:
  workflow: greet
  parameters: {type: object, properties: {name: {type: string}}, required: [name]}
  rules:
    - {name: visitor, event: visitor.came, parameters: {name: "${event.data.name}"}}
"""


class World:
    """A bus, the services on it, and the gateway; each can be started again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.stack = AsyncExitStack()
        self.bus_server = EmbeddedNats(place)
        self.endpoint = Endpoint("", {})
        self.gateway: Gateway
        self.buses: dict[str, NatsBus] = {}

    async def start(self) -> None:
        self.endpoint = await self.bus_server.start()
        self.stack.push_async_callback(self.bus_server.stop)
        resources = self.place / "resources"
        resources.mkdir()
        (resources / "workflows.yaml").write_text(WORKFLOWS)
        await self.serve("orchestrator", create_orchestrator, {"resources": str(resources)})
        await self.serve("memory", create_memory, {})
        self.gateway = await self.serve("gateway", create_gateway, {})

    async def serve(self, name: str, create: Callable[[Context], Any], options: dict[str, str]) -> Any:
        bus = self.buses[name] = await NatsBus.connect(self.endpoint.credentials(name), service=name)
        self.stack.push_async_callback(bus.close, 0.5)
        service: Service = create(self.context(name, bus, options))
        await answer_health(bus, name, WORKSPACE, service.health)
        await service.start()
        self.stack.push_async_callback(service.stop)
        return service

    def context(self, name: str, bus: NatsBus, options: dict[str, str]) -> Context:
        async def open_own(store: str) -> Store:
            return await open_store(self.place / f"{store}.db", service=name, now_ms=now_ms)

        return Context(name, f"{name}-1", WORKSPACE, self.place, options, bus, open_own, now_ms, mint)

    async def stop(self) -> None:
        await self.stack.aclose()

    @property
    def token(self) -> str:
        return (self.place / "token").read_text().strip()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.gateway.http_port}"

    def client(self, token: str | None = None) -> "Api":
        return Api(f"127.0.0.1:{self.gateway.grpc_port}", self.token if token is None else token)


class Api:
    """A client as any program would be one."""

    def __init__(self, address: str, token: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.runs: Any = api_pb2_grpc.RunServiceStub(self.channel)
        self.approvals: Any = api_pb2_grpc.ApprovalServiceStub(self.channel)
        self.queues: Any = api_pb2_grpc.QueueServiceStub(self.channel)
        self.schedules: Any = api_pb2_grpc.ScheduleServiceStub(self.channel)
        self.resources: Any = api_pb2_grpc.ResourceServiceStub(self.channel)
        self.events: Any = api_pb2_grpc.EventServiceStub(self.channel)
        self.memory: Any = api_pb2_grpc.MemoryServiceStub(self.channel)
        self.system: Any = api_pb2_grpc.SystemServiceStub(self.channel)
        self.budgets: Any = api_pb2_grpc.BudgetServiceStub(self.channel)
        self.tokens: Any = api_pb2_grpc.TokenServiceStub(self.channel)
        self.notify: Any = api_pb2_grpc.NotifyServiceStub(self.channel)
        self.failures: Any = api_pb2_grpc.FailureServiceStub(self.channel)

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def call(self, method: Any, request: Any, timeout: float = 10.0) -> Any:
        return await method(request, timeout=timeout, metadata=self.metadata)

    async def start(self, workflow: str, request_id: str = "r1", **inputs: Plain) -> api_pb2.StartRunResponse:
        request = api_pb2.StartRunRequest(request_id=request_id, workflow=workflow, input=value(inputs))
        answer: api_pb2.StartRunResponse = await self.call(self.runs.StartRun, request)
        return answer

    async def watch(self, run_id: str, after: int = 0) -> list[api_pb2.WatchRunResponse]:
        request = api_pb2.WatchRunRequest(run_id=run_id, after_sequence=after)
        return [answer async for answer in self.runs.WatchRun(request, timeout=20.0, metadata=self.metadata)]

    async def ended(self, run_id: str) -> api_pb2.Run:
        await self.watch(run_id)
        answer = await self.call(self.runs.GetRun, api_pb2.GetRunRequest(run_id=run_id))
        run: api_pb2.Run = answer.run
        return run


def value(data: Plain) -> Value:
    return Value.FromString(encode(labeled(data, OWNER)))


def reason(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str], list[str]]:
    """(reason code, metadata, fields that are wrong) of a refused call, as google.rpc says them."""
    metadata = {
        key: data for key, data in error.trailing_metadata() or () if key == "grpc-status-details-bin"
    }
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        if detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    assert info.domain == "aios"
    return info.reason, dict(info.metadata), [violation.field for violation in bad.field_violations]
