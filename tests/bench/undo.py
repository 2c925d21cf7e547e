"""`make bench ARGS=--undo`: how long it takes to see what the undo of a run with 1,000 effects would do, and what a
simulation costs beside the run itself."""

import os
import time
from unittest.mock import patch

from aios.api.v1 import api_pb2
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios.run.v1.state_pb2 import RunState, UndoVerdict
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Message
from tests.bench.served import Served, cpu_seconds
from tests.gateway.serving import Api, value

EFFECTS = 1_000
ROUNDS = 5
NOTES = """apiVersion: aios/v1
kind: Workflow
metadata: {name: notes}
spec:
  inputs: {type: object, properties: {to: {type: string}, items: {type: array}}}
  steps:
    - name: each
      map:
        over: "${inputs.items}"
        at_once: 50
        steps:
          - name: put
            connector: files.append_line
            effect: write
            input: {path: "${inputs.to}/${item}.jsonl", entry: {n: "${item}"}}
"""


async def figures(effects: int = EFFECTS) -> dict[str, float]:
    """Seconds and CPU; of a preview the best and the worst of a few."""
    result: dict[str, float] = {}
    optional = {"AIOS_CONNECTOR_FILES_APPROVAL": "optional", "AIOS_CONNECTOR_FILES_WATCH": "false"}
    with patch.dict(os.environ, optional):
        async with Served() as served:
            request = ApplyResourcesRequest(workspace="main", yaml=NOTES.encode(), file="notes")
            subject = subjects.resource_command("apply_resources", "main")
            await served.command(Message(subject, request.SerializeToString(), "notes"))
            token = (served.data / "token").read_text().strip()
            async with Api(served.ready["grpc"], token) as api:
                simulated = await _simulated(served, api, effects)
                run, took, cpu = await _done(served, api, effects)
                result["seconds of the simulation"], result["CPU seconds of the simulation"] = simulated
                result["seconds of the run"], result["CPU seconds of the run"] = took, cpu
                times = [await _previewed(api, run, effects) for _ in range(ROUNDS)]
                result["seconds of the preview, best"] = min(times)
                result["seconds of the preview, worst"] = max(times)
    return result


async def _simulated(served: Served, api: Api, effects: int) -> tuple[float, float]:
    cpu, began = cpu_seconds(served.tree()), time.perf_counter()
    request = api_pb2.SimulateRunRequest(request_id="s", workflow="notes", input=_input("simulated", effects))
    started = await api.call(api.runs.SimulateRun, request)
    return await _ended(served, api, started.run.run_id, cpu, began)


async def _done(served: Served, api: Api, effects: int) -> tuple[str, float, float]:
    cpu, began = cpu_seconds(served.tree()), time.perf_counter()
    request = api_pb2.StartRunRequest(request_id="r", workflow="notes", input=_input("done", effects))
    started = await api.call(api.runs.StartRun, request)
    return started.run.run_id, *await _ended(served, api, started.run.run_id, cpu, began)


async def _ended(served: Served, api: Api, run: str, cpu: float, began: float) -> tuple[float, float]:
    request = api_pb2.WatchRunRequest(run_id=run)
    async for _ in api.runs.WatchRun(request, timeout=120.0, metadata=api.metadata):
        pass
    took = time.perf_counter() - began
    found = await api.call(api.runs.GetRun, api_pb2.GetRunRequest(run_id=run), 30.0)
    assert found.run.state == RunState.RUN_STATE_SUCCEEDED, found.run
    return took, cpu_seconds(served.tree()) - cpu


async def _previewed(api: Api, run: str, effects: int) -> float:
    began = time.perf_counter()
    answer = await api.call(api.runs.PreviewUndo, api_pb2.PreviewUndoRequest(run_id=run), 30.0)
    took = time.perf_counter() - began
    assert [item.verdict for item in answer.items] == [UndoVerdict.UNDO_VERDICT_WILL] * effects
    return took


def _input(to: str, effects: int) -> object:
    return value({"to": to, "items": list(range(effects))})
